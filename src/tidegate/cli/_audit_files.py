"""What an auditor has on a disk: keys that sign checkpoints, notes of checkpoints, and exports of the log. All of it untrusted but the keys."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from tidegate.core.audit.checkpoint import Verifier, notes_in, origin_of, read_verifier, verifier_of
from tidegate.core.audit.examine import Heads
from tidegate.core.errors import ConfigError, PublisherError
from tidegate.core.keys import PublicKey, public_key_from
from tidegate.core.metadata import parse_root, root_extra

#: Longest line that is read, in bytes: what is longer is no row.
_LINE_MAX: Final = 1 << 20


def verifiers(given: Iterable[str]) -> list[Verifier]:
    """Return the keys that are named: each a file (root.json, online.pub.json, or a verifier key on one line), or such a line itself.

    Raises:
        PublisherError: `audit.key`. ConfigError: `config.unreadable`.
    """
    return [one for text in given for one in _verifiers(text)]


def _verifiers(text: str) -> list[Verifier]:
    path = Path(text)
    if not path.is_file():
        if "+" not in text:
            raise ConfigError("config.unreadable", f"{text[:200]}: no such file")
        return [read_verifier(text)]
    body = _read(path)
    if not body.lstrip().startswith(b"{"):
        return [read_verifier(body.decode("utf-8", "replace").strip())]
    try:
        found = json.loads(body)
    except ValueError as error:
        raise PublisherError("audit.key", f"{path}: {error}") from error
    if isinstance(found, dict) and "signed" in found:
        return _of_root(path, body)
    plain = found.get("audit") if isinstance(found, dict) else None
    if not isinstance(plain, dict):
        raise PublisherError("audit.key", f"{path}: neither a root nor a server's public keys")
    return [_named(public_key_from(plain))]


def _of_root(path: Path, body: bytes) -> list[Verifier]:
    """Return the audit keys that a root names. That it is the right root is the reader's to know."""
    try:
        keys = root_extra(parse_root(body)).keys("audit")
    except PublisherError as error:
        raise PublisherError("audit.key", f"{path}: {error.detail}") from error
    return [_named(one) for one in keys.values()]


def _named(key: PublicKey) -> Verifier:
    return verifier_of(origin_of("default"), key)


def add_notes(heads: Heads, paths: Iterable[Path]) -> int:
    """Take every checkpoint in some files into `heads`; return how many there were. Files are read line by line."""
    count = 0
    for path in paths:
        with _opened(path) as file:
            for number, note in notes_in(one.decode("utf-8", "replace") for one in file):
                heads.add(note, f"{path.name}, line {number}")
                count += 1
    return count


def add_copies(heads: Heads, place: str, endpoint: str) -> int:
    """Take every checkpoint that was copied to a place (a folder, or s3://BUCKET/PREFIX) into `heads`; return how many there were.

    Raises:
        TidegateError: `blobs.*`, `config.*`: it cannot be read.
    """
    from tidegate.server.blobs import Where
    from tidegate.server.copies import open_copies

    count = 0
    for where, text in open_copies(place, Where(url=place, endpoint=endpoint)).notes():
        for _, note in notes_in(iter(text.splitlines(keepends=True))):
            heads.add(note, where)
            count += 1
    return count


def last_note(path: Path) -> str | None:
    """Return the last note in a file; None where there is no file or none in it."""
    if not path.exists():
        return None
    found = None
    with _opened(path) as file:
        for _, note in notes_in(one.decode("utf-8", "replace") for one in file):
            found = note
    return found


def append(path: Path, note: str) -> None:
    """Add a note to a file, durably.

    Raises:
        ConfigError: `config.unreadable`: it cannot be written.
    """
    try:
        with path.open("ab") as file:
            file.write(note.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigError("config.unreadable", f"{path}: {error.strerror}") from error


def write_lines(path: Path, lines: Iterable[str]) -> int:
    """Write lines to a file, whole or not at all; return how many.

    Raises:
        ConfigError: `config.unreadable`: it cannot be written.
    """
    beside = path.with_name(f".{path.name}.new")
    count = 0
    try:
        with beside.open("w", encoding="utf-8", newline="\n") as file:
            for line in lines:
                file.write(f"{line}\n")
                count += 1
        beside.replace(path)
    except OSError as error:
        raise ConfigError("config.unreadable", f"{path}: {error.strerror}") from error
    finally:
        beside.unlink(missing_ok=True)
    return count


def rows_of(path: Path) -> Iterator[bytes]:
    """Yield the lines of an export, each at most a megabyte."""
    with _opened(path) as file:
        while line := file.readline(_LINE_MAX):
            yield line


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise ConfigError("config.unreadable", f"{path}: {error.strerror}") from error


def _read(path: Path) -> bytes:
    with _opened(path) as file:
        return file.read(_LINE_MAX)
