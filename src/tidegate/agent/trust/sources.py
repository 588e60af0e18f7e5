"""Where a release comes from when it comes by hand: a bundle file, or a directory laid out like a server (`repo/`, `blobs/`).

Everything in it is untrusted; this only finds and bounds it. Imported by the worker only.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from tidegate.agent.ports import Response
from tidegate.core.bundle import Member, read_document, read_manifest
from tidegate.core.caps import ROLE_MAX, ROOT_MAX, SNAPSHOT_MAX, TIMESTAMP_MAX
from tidegate.core.errors import DeviceError, PublisherError, TransferError
from tidegate.core.metadata import file_name, product_role
from tidegate.core.ustar import BLOCK, Reader

_REPO: Final = "/d/v1/repo/"
_BLOBS: Final = "/d/v1/blobs/"
_NUMBERED: Final = re.compile(r"([1-9][0-9]{0,15})\.(.+)\.json")
_RANGE: Final = re.compile(r"bytes=([0-9]{1,15})-[0-9]{1,15}")
_NAMES_MAX: Final = 10_000


class Source(Protocol):
    """What a person brought."""

    def root(self, name: str) -> bytes | None:
        """Return a root by its served name (`2.root.json`), or None."""
        ...

    def documents(self, product: str) -> dict[str, bytes]:
        """Return what it holds of targets, products, timestamp and snapshot, by role. Raises PublisherError: `sig.oversized`, `release.malformed`."""
        ...

    def has(self, sha256: str) -> bool:
        """Say whether a payload is there."""
        ...

    def blob(self, sha256: str) -> tuple[BinaryIO, int] | None:
        """Open a payload: a file that stands at its first byte, and its length; the caller closes it."""
        ...


def find(name: str) -> Source:
    """Open what a person named.

    Raises:
        DeviceError: `config.unreadable`. PublisherError: `release.malformed`, `sig.oversized`.
    """
    try:
        path = Path(name)
        return Folder(path) if path.is_dir() else BundleFile(path)
    except OSError as error:
        raise DeviceError("config.unreadable", f"{name}: {error.strerror}") from error


class BundleFile:
    """An offline bundle. Only its headers and documents are read here.

    Args:
        path: of the file.

    Raises:
        OSError: it cannot be read.
        PublisherError: `release.malformed`, `sig.oversized`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._roots: dict[str, bytes] = {}
        self._documents: dict[str, bytes] = {}
        self._payloads: dict[str, tuple[int, int]] = {}
        with path.open("rb") as file:
            reader = Reader(file.read)
            manifest = read_manifest(reader)
            if not manifest.offline:
                raise PublisherError(
                    "release.malformed",
                    "a bundle for a server; `tidegate release bundle` makes one for devices",
                )
            at = _rounded(file.tell())
            for member in manifest.members:
                at = self._take(file, at, member)
            if file.seek(0, os.SEEK_END) < at:
                raise PublisherError("release.malformed", "the bundle ends early")

    def _take(self, file: BinaryIO, at: int, member: Member) -> int:
        """Read one member that must begin at `at`, payloads by their header only; return where the next one begins."""
        file.seek(at)
        reader = Reader(file.read)
        if reader.next() != (member.name, member.length):
            raise PublisherError("release.malformed", f"{member.name} is not in its place")
        begin = file.tell()
        if member.payload is not None:
            self._payloads[member.payload] = (begin, member.length)
        elif member.role is not None:
            body, role = read_document(reader, member), member.role
            if role == "root":
                self._roots[member.name.rpartition("/")[2]] = body
            elif role in self._documents:
                raise PublisherError("release.malformed", f"{role} is in it twice")
            else:
                self._documents[role] = body
        return _rounded(begin + member.length)

    def root(self, name: str) -> bytes | None:
        """Return a root."""
        return self._roots.get(name)

    def documents(self, product: str) -> dict[str, bytes]:
        """Return the other documents."""
        return self._documents

    def has(self, sha256: str) -> bool:
        """Say whether a payload is in it."""
        return sha256 in self._payloads

    def blob(self, sha256: str) -> tuple[BinaryIO, int] | None:
        """Open a payload."""
        place = self._payloads.get(sha256)
        if place is None:
            return None
        file = self._path.open("rb")
        file.seek(place[0])
        return file, place[1]


class Folder:
    """A mirror: `repo/` as served, and `blobs/<sha256>`.

    Args:
        path: of the directory.
    """

    def __init__(self, path: Path) -> None:
        self._repo = path / "repo"
        self._blobs = path / "blobs"
        names = [one.name for one in self._repo.iterdir()]
        if len(names) > _NAMES_MAX:
            raise PublisherError("release.malformed", f"{self._repo}: more than {_NAMES_MAX} files")
        self._names = frozenset(names)

    def root(self, name: str) -> bytes | None:
        """Return a root."""
        return self._read(name, ROOT_MAX) if name in self._names else None

    def documents(self, product: str) -> dict[str, bytes]:
        """Return the newest of each document, by the number in its name."""
        wanted = {"snapshot": SNAPSHOT_MAX, "targets": ROLE_MAX, product_role(product): ROLE_MAX}
        found = {}
        for role, limit in wanted.items():
            version = self._newest(role)
            if version:
                found[role] = self._read(file_name(role, version), limit)
        name = file_name("timestamp", None)
        if name in self._names:
            found["timestamp"] = self._read(name, TIMESTAMP_MAX)
        return found

    def has(self, sha256: str) -> bool:
        """Say whether a payload is there."""
        return (self._blobs / sha256).is_file()

    def blob(self, sha256: str) -> tuple[BinaryIO, int] | None:
        """Open a payload."""
        try:
            file = (self._blobs / sha256).open("rb")
        except FileNotFoundError:
            return None
        return file, os.fstat(file.fileno()).st_size

    def _newest(self, role: str) -> int:
        tail = file_name(role, None)
        numbers = [_NUMBERED.fullmatch(name) for name in self._names if name.endswith(f".{tail}")]
        return max((int(one[1]) for one in numbers if one and f"{one[2]}.json" == tail), default=0)

    def _read(self, name: str, limit: int) -> bytes:
        with (self._repo / name).open("rb") as file:
            body = file.read(limit + 1)
        if len(body) > limit:
            raise PublisherError("sig.oversized", f"{name}: over {limit} bytes")
        return body


class SourceTransport:
    """`agent.ports.Transport` to what a person brought: the same questions, no server.

    Args:
        source: where the answers are.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 30.0,
    ) -> Response:
        """Answer for a root or a payload; 404 for everything else."""
        try:
            if path.startswith(_REPO):
                found = self._source.root(path.removeprefix(_REPO))
                return _absent() if found is None else _Bytes(found)
            if path.startswith(_BLOBS):
                return self._blob(path.removeprefix(_BLOBS), (headers or {}).get("range", ""))
        except OSError as error:
            raise _gone(error) from error
        return _absent()

    def _blob(self, sha256: str, wanted: str) -> Response:
        opened = self._source.blob(sha256)
        if opened is None:
            return _absent()
        file, length = opened
        asked = _RANGE.fullmatch(wanted)
        first = int(asked[1]) if asked else 0
        if not asked:
            return _File(file, length, 200, {})
        if first >= length:
            file.close()
            return _File(None, 0, 416, {})
        file.seek(first, os.SEEK_CUR)
        span = {"content-range": f"bytes {first}-{length - 1}/{length}"}
        return _File(file, length - first, 206, span)


class _File:
    """`agent.ports.Response` of a part of a file."""

    def __init__(
        self, file: BinaryIO | None, left: int, status: int, headers: Mapping[str, str]
    ) -> None:
        self.status = status
        self.headers: Mapping[str, str] = {"content-length": str(left), **headers}
        self._file = file
        self._left = left

    def read(self, count: int) -> bytes:
        """Read on. A stick that is pulled out is a link that breaks."""
        if self._file is None or not self._left:
            return b""
        try:
            piece = self._file.read(min(count, self._left))
        except OSError as error:
            raise _gone(error) from error
        if not piece:
            raise TransferError("download.truncated", f"{self._left} bytes are missing")
        self._left -= len(piece)
        return piece

    def close(self) -> None:
        """Let go."""
        if self._file is not None:
            self._file.close()


class _Bytes(_File):
    """`agent.ports.Response` of bytes."""

    def __init__(self, body: bytes, status: int = 200) -> None:
        super().__init__(None, len(body), status, {})
        self._body = body

    def read(self, count: int) -> bytes:
        """Read on."""
        piece, self._body = self._body[:count], self._body[count:]
        return piece


def _absent() -> Response:
    return _Bytes(b"", 404)


def _gone(error: OSError) -> TransferError:
    return TransferError("download.refused", f"what was brought cannot be read: {error.strerror}")


def _rounded(at: int) -> int:
    """Return where the next header begins."""
    return at + -at % BLOCK
