"""Durable small files on a journalling file system: new file, fsync, rename, fsync of the directory. Not for FAT.

Paths are texts and `os` does the work: `pathlib` costs the resident process a quarter of a MiB.
"""

# pathlib would cost the resident process a quarter of a MiB.
# ruff: noqa: PTH103, PTH104, PTH108, PTH120, PTH123

import contextlib
import os

from tidegate.agent.enrolment import SECRET_NAMES
from tidegate.core.errors import DeviceError


class StateDirectory:
    """`agent.ports.Storage` over a directory of its own, mode 0700; every file is 0600.

    Args:
        path: made when it is not there.

    Raises:
        DeviceError: `install.write`: it cannot be made.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            os.makedirs(path, mode=0o700, exist_ok=True)
        except OSError as error:
            raise DeviceError("install.write", f"{path}: {error.strerror}") from error

    def read(self, name: str) -> bytes | None:
        """Return the content, or None when it does not exist.

        Raises:
            DeviceError: `agent.state_damaged`; `key.exposed`: a secret that others may read, or wrote.
        """
        try:
            with open(self._at(name), "rb") as file:
                if name in SECRET_NAMES:
                    _require_secret(file.name, os.fstat(file.fileno()))
                return file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DeviceError("agent.state_damaged", f"{name}: {error.strerror}") from error

    def write(self, name: str, data: bytes) -> None:
        """Replace the content; durable on return."""
        replace_file(self._at(name), data)

    def delete(self, name: str) -> None:
        """Remove durably. Safe to repeat."""
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._at(name))
            sync_directory(self.path)
        except OSError as error:
            raise DeviceError("install.write", f"{name}: {error.strerror}") from error

    def names(self) -> list[str]:
        """List what is there."""
        return sorted(one.name for one in os.scandir(self.path) if one.is_file())

    def free_bytes(self) -> int:
        """Room left for this user, in bytes."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def _at(self, name: str) -> str:
        if not name or "/" in name or name.startswith("."):
            raise DeviceError("install.write", f"not a plain file name: {name[:64]!r}")
        return f"{self.path}/{name}"


def _require_secret(path: str, found: os.stat_result) -> None:
    """Refuse a secret that others than this user (and root) may read or have put there."""
    mode = found.st_mode & 0o777
    if mode & 0o077:
        raise DeviceError("key.exposed", f"{path} has mode {mode:04o}: others may read it")
    if found.st_uid not in {os.geteuid(), 0}:
        raise DeviceError("key.exposed", f"{path} belongs to user {found.st_uid}")


def replace_file(path: str | os.PathLike[str], data: bytes, mode: int = 0o600) -> None:
    """Replace a file atomically and durably; a cut leaves old or new.

    Raises:
        DeviceError: `install.space` or `install.write`.
    """
    path = os.fspath(path)
    fresh = f"{path}.new"
    try:
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        os.rename(fresh, path)
        sync_directory(os.path.dirname(path) or ".")
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        full = error.errno in (28, 122)  # ENOSPC, EDQUOT
        code = "install.space" if full else "install.write"
        raise DeviceError(code, f"{path}: {error.strerror}") from error


def sync_directory(path: str) -> None:
    """Make renames in a directory durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
