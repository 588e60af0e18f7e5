"""Makes a file tree out of an archive, below one folder and nowhere else, and says what tree stands in a folder.

What may be made is decided by `core.archive`. Here it is made so that even a mistake there could not be used: every folder on the way is opened relative to
the one above it and never through a link, files are only ever created, never opened, and nobody else can put something in between, since the tree grows in
a folder that only this user may write. Nothing in it is live yet.
"""

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tidegate.core.archive import FOLDER_MODE, Digest, Entry, Members, Tree
from tidegate.core.errors import DeviceError

_PIECE: Final = 1 << 20
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def unpack(archive: str, folder: str, keep: frozenset[str]) -> None:
    """Empty a folder and make the tree of an archive in it; durable on return.

    Args:
        archive: path of the tar file; its digest was held against the signed one.
        folder: made when it is not there; what is in it is removed.
        keep: of `core.archive.KEEP`; `owners` needs root.

    Raises:
        PublisherError: `sig.malformed`: an archive that no device takes.
        DeviceError: `install.space`, `install.write`; `install.installer`: owners are to be kept, and this process may not set any.
    """
    if "owners" in keep and os.geteuid() != 0:
        raise DeviceError(
            "install.installer", "the archive keeps owners, and this agent does not run as root"
        )
    try:
        empty(folder)
        with open(archive, "rb") as file:  # noqa: PTH123 - a text, as everything here
            _Maker(folder, keep).make(Members(file.read))
        # One flush for all of it: one for each of many small files takes minutes on flash.
        os.sync()
    except OSError as error:
        full = error.errno in (28, 122)  # ENOSPC, EDQUOT
        where = error.filename if isinstance(error.filename, str) else folder
        raise DeviceError(
            "install.space" if full else "install.write", f"{where}: {error.strerror}"
        ) from error


def empty(folder: str) -> None:
    """Remove everything in a folder, but not the folder, which may be where something is mounted.

    Raises:
        OSError: as it comes.
    """
    Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    for one in os.scandir(folder):
        if one.is_dir(follow_symlinks=False):
            shutil.rmtree(one.path)
        else:
            os.unlink(one.path)  # noqa: PTH108 - as above


class _Maker:
    def __init__(self, folder: str, keep: frozenset[str]) -> None:
        self._root = folder
        self._tree = Tree(keep)
        self._owners = "owners" in keep
        # Folders get their mode and time last: a read-only one could not be filled.
        self._folders: dict[str, Entry] = {}

    def make(self, members: Members) -> None:
        root = os.open(self._root, _FOLDER)
        try:
            for entry in members:
                for above in self._tree.admit(entry):
                    self._make_folder(root, _unnamed(above))
                self._make(root, entry, members)
            self._folders.setdefault("", _unnamed(""))
            for path in sorted(self._folders, reverse=True):
                self._finish_folder(root, self._folders[path])
        finally:
            os.close(root)

    def _make(self, root: int, entry: Entry, members: Members) -> None:
        if entry.kind == "folder":
            if entry.path:
                self._make_folder(root, entry)
            else:
                self._folders[""] = entry
            return
        with _above(root, entry.path) as (at, name):
            if entry.kind == "file":
                self._write(at, name, entry, members)
            elif entry.kind == "link":
                os.symlink(entry.target, name, dir_fd=at)
                if self._owners:
                    os.chown(name, entry.uid, entry.gid, dir_fd=at, follow_symlinks=False)
            else:
                with _above(root, entry.target) as (there, first):
                    os.link(first, name, src_dir_fd=there, dst_dir_fd=at, follow_symlinks=False)

    def _make_folder(self, root: int, entry: Entry) -> None:
        with _above(root, entry.path) as (at, name):
            os.mkdir(name, 0o700, dir_fd=at)
        self._folders[entry.path] = entry

    def _write(self, at: int, name: str, entry: Entry, members: Members) -> None:
        handle = os.open(name, _CREATE, 0o600, dir_fd=at)
        try:
            for piece in members.pieces():
                view = memoryview(piece)
                while view:
                    view = view[os.write(handle, view) :]
            self._adorn(handle, entry)
        finally:
            os.close(handle)

    def _finish_folder(self, root: int, entry: Entry) -> None:
        if not entry.path:
            self._adorn(root, entry)
            return
        with _above(root, entry.path) as (at, name):
            handle = os.open(name, _FOLDER, dir_fd=at)
            try:
                self._adorn(handle, entry)
            finally:
                os.close(handle)

    def _adorn(self, handle: int, entry: Entry) -> None:
        # The owner first: to change it takes special bits away.
        if self._owners:
            os.fchown(handle, entry.uid, entry.gid)
        os.fchmod(handle, entry.mode)
        os.utime(handle, (entry.mtime, entry.mtime))


def _unnamed(path: str) -> Entry:
    return Entry(path, "folder", FOLDER_MODE, 0, 0, 0, 0, "")


@contextlib.contextmanager
def _above(root: int, path: str) -> Iterator[tuple[int, str]]:
    """Open the folder that a member is in, step by step, never through a link; yield it and the member's own name."""
    *folders, name = path.split("/")
    at = os.dup(root)
    try:
        for one in folders:
            below = os.open(one, _FOLDER, dir_fd=at)
            os.close(at)
            at = below
        yield at, name
    finally:
        os.close(at)


# --- reading back -------------------------------------------------------------------------------------------------------


def tree_digest(folder: str, keep: frozenset[str]) -> tuple[int, str]:
    """Read a tree from the medium; return the bytes of all its files and its digest, as `core.archive.measure` gives them for the archive.

    Raises:
        DeviceError: `install.readback`: it cannot be read, or holds what no archive can make.
    """
    digest = Digest(owners="owners" in keep)
    try:
        root = os.open(folder, _FOLDER)
        try:
            _add(digest, "", "folder", os.fstat(root), "")
            _walk(root, "", digest)
        finally:
            os.close(root)
    except OSError as error:
        raise DeviceError("install.readback", f"{folder}: {error.strerror}") from error
    return digest.size, digest.hexdigest()


def _walk(at: int, prefix: str, digest: Digest) -> None:
    with os.scandir(at) as found:
        names = [one.name for one in found]
    for name in names:
        path = prefix + name
        seen = os.stat(name, dir_fd=at, follow_symlinks=False)
        if stat.S_ISDIR(seen.st_mode):
            _add(digest, path, "folder", seen, "")
            below = os.open(name, _FOLDER, dir_fd=at)
            try:
                _walk(below, f"{path}/", digest)
            finally:
                os.close(below)
        elif stat.S_ISLNK(seen.st_mode):
            _add(digest, path, "link", seen, os.readlink(name, dir_fd=at))
        elif stat.S_ISREG(seen.st_mode):
            _add(digest, path, "file", seen, _content(at, name))
        else:
            raise DeviceError("install.readback", f"{path[:200]}: no archive makes such a thing")


def _add(digest: Digest, path: str, kind: str, seen: os.stat_result, content: str) -> None:
    size = seen.st_size if kind == "file" else 0
    owner = (seen.st_uid, seen.st_gid)
    digest.add(path, kind, stat.S_IMODE(seen.st_mode), owner, size, content)


def _content(at: int, name: str) -> str:
    """Hash a file from the medium: what is cached and clean is dropped first."""
    handle = os.open(name, _READ, dir_fd=at)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        digest = hashlib.sha256()
        while piece := os.read(handle, _PIECE):
            digest.update(piece)
        return digest.hexdigest()
    finally:
        os.close(handle)
