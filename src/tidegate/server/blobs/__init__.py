"""Where artifact bytes are kept: by digest, written once, never changed. And where a large file gathers until it is whole.

The file's name is the scheme of `[blobs] url`; without one, bytes lie in a folder of the data directory.
"""

import importlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, cast
from urllib.parse import urlsplit

from tidegate.core.errors import ConfigError, RequestError


class Where(NamedTuple):
    """Which place is meant: the table `[blobs]` of the settings, key by key; empty = the default."""

    url: str = ""
    endpoint: str = ""
    public_endpoint: str = ""
    region: str = ""
    addressing: str = "auto"
    ca_file: str = ""


class Blob(Protocol):
    """One stored blob, open for reading."""

    size: int

    def read_at(self, offset: int, count: int) -> bytes:
        """Return at most `count` bytes from `offset`; b"" at the end. Reading on from where the last one ended is what is quick.

        Raises:
            BusyError: `blobs.unreachable`. TransferError: `blobs.untrue`: the store gave something else than was asked for.
        """
        ...

    def close(self) -> None:
        """Let it go. Safe to repeat."""
        ...


class Gathering(NamedTuple):
    """A large file on its way into the store, in parts.

    Attributes:
        name: letters, digits, - and _; ours.
        handle: what the store calls it; "" where it has no word of its own.
        length: bytes of the whole.
        part_bytes: of every part but the last.
    """

    name: str
    handle: str
    length: int
    part_bytes: int


def require_part(upload: Gathering, offset: int, part: bytes) -> None:
    """Refuse what is neither a whole part at its place nor the last one.

    Raises:
        RequestError: `request.invalid`.
    """
    last = offset + len(part) == upload.length and 0 < len(part) < upload.part_bytes
    if offset % upload.part_bytes or not (len(part) == upload.part_bytes or last):
        raise RequestError("request.invalid", f"a part has {upload.part_bytes} bytes")


class Blobs(Protocol):
    """A place for blobs. Every back end passes `tests/contract/test_blobs.py`.

    Attributes:
        remote: a call waits for a network: never make one on an event loop.
    """

    remote: bool

    def put(self, sha256: str, pieces: Iterable[bytes]) -> int:
        """Store bytes that must have this digest, durable on return, and return their number. What is there already stays as it is.

        Raises:
            PublisherError: `download.hash`: the bytes are others. Nothing is kept of them.
            BusyError: `data.full`, `blobs.unreachable`. ConfigError: `data.read_only`, `blobs.refused`. TransferError: `blobs.untrue`.
        """
        ...

    def open(self, sha256: str) -> Blob | None:
        """Open a blob (untrusted digest text), or None: there is none."""
        ...

    def size(self, sha256: str) -> int | None:
        """Return how many bytes a blob has, or None."""
        ...

    def delete(self, sha256: str) -> None:
        """Remove a blob. Safe to repeat."""
        ...

    def empty(self) -> None:
        """Remove every blob and every unfinished upload here, and nothing else that lies beside them. Safe to repeat; nothing can be had back."""
        ...

    def link(self, sha256: str, life_s: int) -> str | None:
        """Return a URL that gives this blob to whoever has it, for `life_s` seconds; None where there is none to give. The URL is a secret."""
        ...

    # --- files that arrive in parts, from whoever may publish ---

    def begin_upload(self, name: str, length: int) -> Gathering:
        """Make room for a file of `length` bytes."""
        ...

    def upload_offset(self, upload: Gathering) -> int:
        """Return how many bytes are here, without a gap, from the first on."""
        ...

    def append_upload(self, upload: Gathering, offset: int, part: bytes) -> int:
        """Add the part that begins at `offset`, which must be where the file ends now, and return where it ends then.

        Raises:
            RequestError: `request.conflict`: it ends elsewhere; `request.invalid`: neither a whole part nor the last one.
        """
        ...

    def part_links(self, upload: Gathering, offsets: Sequence[int], life_s: int) -> list[str]:
        """Return for each offset a URL that takes the part beginning there by PUT, for `life_s` seconds; nothing where parts come through us only."""
        ...

    def open_upload(self, upload: Gathering) -> Blob | None:
        """Put the parts together and open the whole; None while some are missing. May be repeated; no part can be added any more."""
        ...

    def drop_upload(self, upload: Gathering) -> None:
        """Forget a file and all its parts. Safe to repeat."""
        ...


class _BackEnd(Protocol):
    def create(self, where: Where, folder: Path) -> Blobs: ...


def open_blobs(where: Where, folder: Path) -> Blobs:
    """Open the place for blobs that the settings name.

    Args:
        where: it is.
        folder: the data directory.

    Raises:
        ConfigError: `config.invalid`, `config.missing`, `config.unreadable`, `data.read_only`; `blobs.refused`: no such profile.
    """
    scheme = urlsplit(where.url).scheme or "local"
    if scheme not in {"local", "s3"}:
        raise ConfigError("config.invalid", f'[blobs] url: "{where.url}" is not s3://BUCKET/PREFIX')
    back_end = cast("_BackEnd", importlib.import_module(f"{__name__}.{scheme}"))
    return back_end.create(where, folder)
