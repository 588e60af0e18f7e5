"""A component beside the slots, in a folder of its own: two copies, `a` and `b`, and the link `current` to the one that is live.

A copy is a file or a tree. `current` is replaced by a rename, made durable before anything relies on it: a cut leaves the old link or the new one, so the
folder must be on a journalling file system.
"""

import contextlib
import os
import shutil
from pathlib import Path
from typing import Final

from tidegate.agent.files import sync_directory
from tidegate.agent.install.slot_file import SlotFile
from tidegate.core.errors import DeviceError

COPIES: Final = ("a", "b")
#: The link that applications go by.
CURRENT: Final = "current"


class ComponentFolder:
    """`agent.ports.ComponentPlace` on a real file system.

    Args:
        path: of the folder; made when it is not there.

    Raises:
        DeviceError: `install.slot`: it cannot be made.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._folder = Path(path)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DeviceError("install.slot", f"{path}: {error.strerror}") from error

    def live(self) -> str:
        """Which copy is live; "" for none, and for a link that this agent did not make."""
        try:
            found = os.readlink(self._folder / CURRENT)  # noqa: PTH115 - the text of the link, not a path
        except OSError:
            return ""
        return found if found in COPIES else ""

    def open(self, copy: str, size: int) -> SlotFile:
        """Open a copy that is one file of exactly `size` bytes. What was a tree is removed first.

        Raises:
            DeviceError: `install.slot`, `install.space`.
        """
        self._require_idle(copy)
        path = self._folder / copy
        try:
            if path.is_symlink() or path.is_dir():
                self.drop(copy)
            if path.exists() and path.stat().st_size > size:
                os.truncate(path, size)
        except OSError as error:
            raise DeviceError("install.slot", f"{path}: {error.strerror}") from error
        return SlotFile(str(path), size or None)

    def make_live(self, copy: str) -> None:
        """Make a copy live, or none.

        Raises:
            DeviceError: `install.write`: nothing changed.
        """
        fresh = self._folder / f".{CURRENT}.new"
        link = self._folder / CURRENT
        try:
            if not copy:
                link.unlink(missing_ok=True)
            elif not (self._folder / copy).exists():
                raise DeviceError("install.write", f"{self.path}: copy {copy} is not there")
            else:
                fresh.unlink(missing_ok=True)
                fresh.symlink_to(copy)
                fresh.replace(link)
            sync_directory(self.path)
        except OSError as error:
            raise DeviceError("install.write", f"{link}: {error.strerror}") from error

    def drop(self, copy: str) -> None:
        """Remove a copy that is not live. Safe to repeat.

        Raises:
            DeviceError: `install.write`.
        """
        self._require_idle(copy)
        path = self._folder / copy
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                sync_directory(self.path)
        except OSError as error:
            raise DeviceError("install.write", f"{path}: {error.strerror}") from error

    def _require_idle(self, copy: str) -> None:
        if copy == self.live():
            raise DeviceError("install.slot", f"{self.path}/{copy} is live")
