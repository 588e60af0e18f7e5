"""What the ceremonies of root and targets have in common: show, sign by words, merge, publish."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from tidegate.cli.client import Client
from tidegate.cli.keys import open_signer
from tidegate.cli.output import Output
from tidegate.core.errors import ConfigError, PublisherError, RequestError
from tidegate.core.keys import PublicKey
from tidegate.core.metadata import RoleKeys
from tidegate.publisher.ceremony import (
    Progress,
    SignatureFile,
    merge,
    read_signature,
    sign_draft,
    words_of,
    write_json,
)
from tidegate.publisher.keyfile import read_public
from tidegate.publisher.words import same_words


def read_document(path: Path) -> bytes:
    """Read a document or draft.

    Raises:
        ConfigError: `config.unreadable`.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError("config.unreadable", f"{path}: {error.strerror}") from error


def optional(path: Path | None) -> bytes | None:
    """Read a document that need not be there."""
    return None if path is None else read_document(path)


def now() -> int:
    """Return the present, in unix seconds."""
    return int(time.time())


def date(at: int) -> str:
    """Write a moment for people."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"


def holders_line(name: str, role: RoleKeys) -> str:
    """Write one line: who may sign what."""
    keys = ", ".join(key.keyid[:12] for key in role.keys)
    return f"  {name:<12} {role.threshold} of {len(role.keys)}   {keys}"


def sign_file(path: Path, key: Path, words: str | None, what: str, out: Output) -> None:
    """Sign a draft after its words were typed; write the signature beside it.

    The words are not shown here: typing them proves that whoever drafted it and whoever signs it hold the same file.

    Raises:
        RequestError: `request.confirmation_needed`: other words.
    """
    document = read_document(path)
    expected = words_of(document)
    name = read_public(key).name
    out.note(what)
    typed = words or _ask_words()
    if not same_words(typed, expected):
        raise RequestError(
            "request.confirmation_needed",
            "these are not this draft's words: you and whoever drafted it hold different files",
        )
    out.note("They are this draft's words.")
    made = sign_draft(document, open_signer(key), name, now=now())
    target = path.with_name(f"{path.name.removesuffix('.json')}.{name}.sig")
    write_json(target, made)
    out.note("Signed. Hand this file back; it holds no secret.")
    out.made(str(target))


def _ask_words() -> str:
    import sys

    if not sys.stdin.isatty():
        raise RequestError("request.confirmation_needed", 'the draft\'s words: --words "…"')
    return str(click.prompt("Type the words that are read to you; they are not shown", err=True))


def merge_files(
    path: Path, signatures: Sequence[Path], holders: list[RoleKeys]
) -> tuple[bytes, list[SignatureFile]]:
    """Put signature files into a draft and write it back."""
    found = [read_signature(one) for one in signatures]
    merged = merge(read_document(path), found, holders)
    path.write_bytes(merged)
    return merged, found


def progress_text(steps: Sequence[Progress]) -> str:
    """Write who signed and who did not."""
    lines = []
    for at, one in enumerate(steps):
        if len(steps) > 1:
            lines.append("by its own keys" if at == 0 else "by the keys of the one before")
        lines += [f"  {key.keyid[:12]}   good signature" for key in one.signed]
        lines += [f"  {key.keyid[:12]}   -" for key in one.unsigned]
    return "\n".join(lines)


def require_complete(steps: Sequence[Progress]) -> None:
    """Stop when signatures are missing.

    Raises:
        PublisherError: `meta.incomplete`.
    """
    for one in steps:
        if one.missing:
            names = ", ".join(key.keyid[:12] for key in one.unsigned)
            raise PublisherError(
                "meta.incomplete", f"{one.missing} more of {names} must sign {one.role}"
            )


def publish_document(role: str, path: Path, client: Client, out: Output) -> None:
    """Send root or targets to the server.

    Raises:
        TidegateError: as the server says, with the codes that a device would give.
    """
    read_document(path)
    client.upload(f"/api/v1/{role}", path, content_type="application/json")
    out.note(f"Published {role}. Devices learn it at their next contact.")
    out.made(path.name)


def key_list(keys: Sequence[PublicKey]) -> list[str]:
    """Return short key ids."""
    return [key.keyid[:12] for key in keys]
