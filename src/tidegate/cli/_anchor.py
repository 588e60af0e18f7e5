"""Which root a publisher's machine believes: the one named, else the one that it kept from its first contact with this server.

A lab root is believed as it comes and never kept: it guards nothing.
"""

import os
import re
from pathlib import Path

from tidegate.cli.client import settings_dir
from tidegate.cli.output import Output
from tidegate.client import Client
from tidegate.core.errors import ConfigError, PublisherError
from tidegate.core.metadata import parse_root, root_extra
from tidegate.publisher.ceremony import words_of
from tidegate.publisher.publish import first_root


def find_anchor(named: Path | None, client: Client, out: Output) -> bytes | None:
    """Return the root to start from; None when neither this machine nor the server has one.

    Args:
        named: `--root`; else `TIDEGATE_ROOT`; else what was kept for this server.
        client: the server.
        out: where the first contact is told.

    Raises:
        ConfigError: `config.unreadable`. PublisherError: `sig.malformed`.
    """
    path = named or (Path(text) if (text := os.environ.get("TIDEGATE_ROOT")) else None)
    if path is not None:
        return _read(path)
    kept = _kept(client)
    if kept.exists():
        return _read(kept)
    body = first_root(client)
    if body is None:
        return None
    document = parse_root(body)
    if root_extra(document).lab:
        return body
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(body)
    out.note(
        f"First contact with {client.server}: its root {document.version} is kept in {kept}.\n"
        f"Compare its words with those of the ceremony: {words_of(body)}"
    )
    return body


def explain_anchor(error: PublisherError, client: Client) -> PublisherError:
    """Say, where the server's metadata do not hold, what they were held against."""
    kept = _kept(client)
    if not kept.exists():
        return error
    return PublisherError(error.code, f"{error.detail}; held against the root kept in {kept}")


def _kept(client: Client) -> Path:
    name = re.sub(r"[^A-Za-z0-9.]+", "-", client.server)
    return settings_dir() / "roots" / f"{name}.json"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError("config.unreadable", f"{path}: {error.strerror}") from error
