"""Blobs in a folder: `blobs/ab/abcd…`, and half-arrived ones beside them in `partial/`.

A blob gets its name only after its digest was checked and its bytes are on disk, so a name that is there stands for whole, right bytes, whatever happened.
"""

import errno
import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tidegate.core.errors import BusyError, ConfigError, PublisherError, RequestError

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
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

    def put(self, sha256: str, pieces: Iterable[bytes]) -> int:
        """Store bytes that must have this digest; see `Blobs.put`.

        Raises:
            PublisherError: `download.hash`: the bytes are others. Nothing is kept of them.
            BusyError: `data.full`. ConfigError: `data.read_only`.
        """
        path = self._path(sha256)
        temporary = self._partial / f"{sha256}.{os.getpid()}.{id(pieces):x}"
        try:
            digest, count = self._write(temporary, pieces)
            if digest != sha256:
                raise PublisherError("download.hash", f"the bytes are {digest}, not {sha256}")
            self._keep(temporary, path)
        except OSError as error:
            raise _translated(error) from error
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

    # --- uploads that may be cut off and go on later ---

    def upload_offset(self, name: str) -> int:
        """Return how many bytes of an upload are here already; 0 for none."""
        try:
            return self._upload(name).stat().st_size
        except FileNotFoundError:
            return 0

    def append_upload(self, name: str, offset: int, piece: bytes) -> int:
        """Append to an upload at `offset`, which must be where it ends, and return where it ends now.

        Raises:
            RequestError: `request.conflict`: it ends elsewhere.
        """
        path = self._upload(name)
        try:
            with path.open("ab") as file:
                if file.tell() != offset:
                    raise RequestError("request.conflict", f"the upload ends at {file.tell()}")
                file.write(piece)
                return file.tell()
        except OSError as error:
            raise _translated(error) from error

    def upload_path(self, name: str) -> Path:
        """Return the file that an upload is gathered in."""
        return self._upload(name)

    def drop_upload(self, name: str) -> None:
        """Forget an upload. Safe to repeat."""
        self._upload(name).unlink(missing_ok=True)

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
        with path.open("wb") as file:
            for piece in pieces:
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


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _translated(error: OSError) -> Exception:
    """Return our error for what the disk said; what came from elsewhere (a client that left, say) stays what it is."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return BusyError("data.full", "the disk of the data directory is full")
    if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
        return ConfigError("data.read_only", f"the blobs cannot be written: {error.strerror}")
    return error
