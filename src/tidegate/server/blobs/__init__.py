"""Where artifact bytes are kept: by digest, written once, never changed."""

from collections.abc import Iterable
from typing import Protocol


class Blob(Protocol):
    """One stored blob, open for reading."""

    size: int

    def read_at(self, offset: int, count: int) -> bytes:
        """Return at most `count` bytes from `offset`; b"" at the end."""
        ...

    def close(self) -> None:
        """Let it go. Safe to repeat."""
        ...


class Blobs(Protocol):
    """A place for blobs. Every back end passes `tests/contract/test_blobs.py`."""

    def put(self, sha256: str, pieces: Iterable[bytes]) -> int:
        """Store bytes that must have this digest, durable on return, and return their number. What is there already stays as it is."""
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
