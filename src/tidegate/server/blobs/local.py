"""Blobs in a folder: `blobs/ab/abcd…`, and half-arrived ones beside them in `partial/`.

A blob gets its name only after its digest was checked and its bytes are on disk, so a name that is there stands for whole, right bytes, whatever happened.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from tidegate.core.errors import BusyError, ConfigError, PublisherError, RequestError
from tidegate.server.blobs import Gathering, Where, require_part

#: Of a part of a file that arrives, in bytes: what a cut costs at most.
PART_BYTES: Final = 4 << 20
#: What files leave free of a disk: so many bytes, or this part of a small one.
RESERVE_BYTES: Final = 256 << 20
RESERVE_SHARE: Final = 20
#: What a system says when nothing more fits.
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
#: A blob that is being written: its digest, and who writes.
_LEFT: Final = re.compile(r"[0-9a-f]{64}\.[0-9]+\.[0-9a-f]+")
_UPLOAD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


class LocalBlob:
    """An open blob file."""

    def __init__(self, descriptor: int) -> None:
        """Take over an open descriptor."""
        self._descriptor = descriptor
        self._open = True
        self.size = os.fstat(descriptor).st_size

    def read_at(self, offset: int, count: int) -> bytes:
        """Return at most `count` bytes from `offset`; b"" at the end."""
        return os.pread(self._descriptor, count, offset)

    def close(self) -> None:
        """Close the file. Safe to repeat."""
        if self._open:
            self._open = False
            os.close(self._descriptor)


class LocalBlobs:
    """Blobs in a folder of the data directory."""

    remote = False

    def __init__(self, folder: Path) -> None:
        """Use `folder`, made where it is missing.

        Raises:
            ConfigError: `data.read_only`.
        """
        self._folder = folder
        self._partial = folder / "partial"
        try:
            self._partial.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError("data.read_only", f"{folder}: {error.strerror}") from error

    def sweep(self) -> None:
        """Remove what processes left that died while they wrote a blob. Whoever still writes holds its file locked. May be repeated."""
        for path in self._partial.iterdir():
            if _LEFT.fullmatch(path.name) is None:
                continue
            # held, gone already, or on a disk that cannot be written: it is no harm but to the room
            with contextlib.suppress(OSError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()

    def put(self, sha256: str, pieces: Iterable[bytes]) -> int:
        """Store bytes that must have this digest; see `Blobs.put`.

        Raises:
            PublisherError: `download.hash`: the bytes are others. Nothing is kept of them.
            BusyError: `data.full`: or it would take the disk's last. ConfigError: `data.read_only`.
        """
        path = self._path(sha256)
        temporary = self._partial / f"{sha256}.{os.getpid()}.{id(pieces):x}"
        try:
            digest, count = self._write(temporary, pieces)
            if digest != sha256:
                raise PublisherError("download.hash", f"the bytes are {digest}, not {sha256}")
            self._keep(temporary, path)
        except OSError as error:
            raise translated(error) from error
        finally:
            temporary.unlink(missing_ok=True)
        return count

    def open(self, sha256: str) -> LocalBlob | None:
        """Open a blob (untrusted text), or None."""
        if not _DIGEST.fullmatch(sha256):
            return None
        try:
            return LocalBlob(os.open(self._path(sha256), os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError:
            return None

    def size(self, sha256: str) -> int | None:
        """Return how many bytes a blob has, or None."""
        if not _DIGEST.fullmatch(sha256):
            return None
        try:
            return self._path(sha256).stat().st_size
        except FileNotFoundError:
            return None

    def delete(self, sha256: str) -> None:
        """Remove a blob. Safe to repeat."""
        self._path(sha256).unlink(missing_ok=True)

    def empty(self) -> None:
        """Remove everything; see `Blobs.empty`."""
        for path in [*self._folder.glob("??/*"), *self._partial.iterdir()]:
            path.unlink(missing_ok=True)

    def link(self, sha256: str, life_s: int) -> None:
        """Return None: a folder has no address of its own."""

    # --- files that arrive in parts ---

    def begin_upload(self, name: str, length: int) -> Gathering:
        """Make room for a file; see `Blobs.begin_upload`."""
        try:
            self._upload(name).touch(mode=0o600)
        except OSError as error:
            raise translated(error) from error
        return Gathering(name, "", length, PART_BYTES)

    def upload_offset(self, upload: Gathering) -> int:
        """Return how many bytes of an upload are here already; 0 for none."""
        try:
            size = self._upload(upload.name).stat().st_size
        except FileNotFoundError:
            return 0
        return _whole_parts(upload, size)

    def append_upload(self, upload: Gathering, offset: int, part: bytes) -> int:
        """Add a part; see `Blobs.append_upload`. Of two that add the same, one is told where the file ends now."""
        require_part(upload, offset, part)
        try:
            with self._upload(upload.name).open("r+b", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                here = _whole_parts(upload, file.seek(0, os.SEEK_END))
                if here != offset:
                    raise RequestError("request.conflict", f"the upload ends at {here}")
                require_space(self._folder, len(part))
                # what a cut left of a part is written over
                file.seek(offset)
                left = memoryview(part)
                try:
                    while left:
                        left = left[file.write(left) :]
                except OSError:
                    file.truncate(offset)  # others want the room
                    raise
                file.truncate()
        except FileNotFoundError as error:
            raise RequestError("request.not_found", "no such upload") from error
        except OSError as error:
            raise translated(error) from error
        return offset + len(part)

    def part_links(self, upload: Gathering, offsets: Sequence[int], life_s: int) -> list[str]:
        """Return nothing: parts come through this server."""
        return []

    def open_upload(self, upload: Gathering) -> LocalBlob | None:
        """Open the whole; None while some of it is missing."""
        try:
            descriptor = os.open(self._upload(upload.name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        blob = LocalBlob(descriptor)
        if blob.size != upload.length:
            blob.close()
            return None
        return blob

    def drop_upload(self, upload: Gathering) -> None:
        """Forget an upload. Safe to repeat."""
        self._upload(upload.name).unlink(missing_ok=True)

    def _upload(self, name: str) -> Path:
        if not _UPLOAD.fullmatch(name):
            raise RequestError("request.invalid", "an upload is named by letters, digits, - and _")
        return self._partial / f"upload-{name}"

    def _path(self, sha256: str) -> Path:
        if not _DIGEST.fullmatch(sha256):
            raise RequestError("request.invalid", "not a SHA-256 digest")
        return self._folder / sha256[:2] / sha256

    def _write(self, path: Path, pieces: Iterable[bytes]) -> tuple[str, int]:
        digest, count = hashlib.sha256(), 0
        with _held(path) as file:
            for piece in pieces:
                require_space(self._folder, len(piece))
                digest.update(piece)
                count += file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        return digest.hexdigest(), count

    def _keep(self, temporary: Path, path: Path) -> None:
        if not path.parent.is_dir():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            _sync(self._folder)
        temporary.replace(path)
        _sync(path.parent)


def create(where: Where, folder: Path) -> LocalBlobs:  # noqa: ARG001 - as every back end is made
    """Use `blobs/` in the data directory.

    Raises:
        ConfigError: `data.read_only`.
    """
    made = LocalBlobs(folder / "blobs")
    made.sweep()
    return made


def _held(path: Path) -> BinaryIO:
    """Open a new file and lock it, so that nobody takes it for one that a dead process left."""
    while True:
        file = path.open("wb")
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # swept away between the two


def _whole_parts(upload: Gathering, size: int) -> int:
    return size if size >= upload.length else size - size % upload.part_bytes


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_space(folder: Path, count: int) -> None:
    """Refuse `count` bytes that would take the last of a disk: it is the database's, so that events and halts are written when files are not any more.

    Raises:
        BusyError: `data.full`.
    """
    found = shutil.disk_usage(folder)
    if found.free - count < min(RESERVE_BYTES, found.total // RESERVE_SHARE):
        raise BusyError(
            "data.full", "the disk of the data directory is full; what is left is the database's"
        )


def translated(error: OSError) -> Exception:
    """Return our error for what the disk said; what came from elsewhere (a client that left, say) stays what it is."""
    if error.errno in FULL:
        return BusyError("data.full", "the disk of the data directory is full")
    if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
        return ConfigError("data.read_only", f"the blobs cannot be written: {error.strerror}")
    return error
