"""EFI variables of the boot manager, by way of efivarfs: four bytes of attributes, then the value; written whole by one `write`.

The firmware replaces a variable whole or not at all (UEFI specification 2.10, 8.2). Some are guarded by an immutable flag of the kernel, which is taken away
for the write.
"""

# pathlib would cost the resident process a quarter of a MiB.
# ruff: noqa: PTH108, PTH118, PTH123, PTH208

import errno
import fcntl
import os
import struct
from typing import Final

from tidegate.core.errors import DeviceError

#: The vendor of `BootOrder`, `BootNext`, `BootCurrent` and `Boot####`.
GLOBAL: Final = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
#: Non-volatile, for boot and runtime.
_ATTRIBUTES: Final = 7
_VALUE_MAX: Final = 64 << 10
# ioctl numbers carry the size of a long, the flag itself is 32 bits wide.
_LONG: Final = struct.calcsize("l")
_GET_FLAGS: Final = 0x8000_6601 | _LONG << 16
_SET_FLAGS: Final = 0x4000_6602 | _LONG << 16
_IMMUTABLE: Final = 0x10


class EfiVariables:
    """The global variables below a folder.

    Args:
        folder: where efivarfs is mounted.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """Return the names of all global variables.

        Raises:
            DeviceError: `activate.bootloader`: efivarfs is not mounted.
        """
        try:
            found = sorted(os.listdir(self._folder))
        except OSError as error:
            raise self._failed(self._folder, error) from error
        if not found:
            raise DeviceError(
                "activate.bootloader",
                f"{self._folder} is empty: mount efivarfs, and boot by UEFI, not by its BIOS emulation",
            )
        return [one.removesuffix(f"-{GLOBAL}") for one in found if one.endswith(f"-{GLOBAL}")]

    def read(self, name: str) -> bytes | None:
        """Return a variable's value, or None when there is no such variable.

        Raises:
            DeviceError: `activate.bootloader`.
        """
        path = self._path(name)
        try:
            with open(path, "rb") as file:
                body = file.read(_VALUE_MAX)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failed(path, error) from error
        if not body:
            return None  # created and never written: the firmware has not heard of it
        if len(body) < 4:
            raise DeviceError("activate.bootloader", f"{path}: shorter than its attributes")
        return body[4:]

    def write(self, name: str, value: bytes) -> None:
        """Replace a variable, whole. Durable on return: the firmware has it. Raises DeviceError `activate.bootloader`."""
        path = self._path(name)
        try:
            self._unguarded(path)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                body = struct.pack("<I", _ATTRIBUTES) + value
                if os.write(handle, body) != len(body):
                    raise DeviceError("activate.bootloader", f"{path}: written only in part")
                # efivarfs has replaced the whole value by now; a plain folder has not.
                if os.fstat(handle).st_size > len(body):
                    os.ftruncate(handle, len(body))
            finally:
                os.close(handle)
        except OSError as error:
            raise self._failed(path, error) from error

    def delete(self, name: str) -> None:
        """Remove a variable. Safe to repeat. Raises DeviceError `activate.bootloader`."""
        path = self._path(name)
        try:
            self._unguarded(path)
            os.unlink(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._failed(path, error) from error

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, f"{name}-{GLOBAL}")

    def _unguarded(self, path: str) -> None:
        """Take the immutable flag away, where the file system has one and it is set."""
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            flags = bytearray(_LONG)
            fcntl.ioctl(handle, _GET_FLAGS, flags)
            (held,) = struct.unpack_from("=I", flags)
            if held & _IMMUTABLE:
                struct.pack_into("=I", flags, 0, held & ~_IMMUTABLE)
                fcntl.ioctl(handle, _SET_FLAGS, bytes(flags))
        except OSError as error:
            # Not every file system has flags.
            if error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL):
                raise
        finally:
            os.close(handle)

    def _failed(self, path: str, error: OSError) -> DeviceError:
        what = {errno.EROFS: "mount efivarfs for writing", errno.ENOSPC: "the firmware has no room"}
        told = what.get(error.errno or 0, error.strerror)
        return DeviceError("activate.bootloader", f"{path}: {told}")
