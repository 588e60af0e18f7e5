"""Writers that are wrong, each in the way in which it is usually done: the control group."""

# ruff: noqa: PTH104, PTH123 - a bare machine: what is written, and by which calls, is the point of it

import os
import struct
import zlib

from tests.crash.blocklog.rigs import ENV_AT, ENV_BYTES, MOUNT, grub_environment, u_boot_environment


def _sync(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


class rename_over:  # noqa: N801 - named in the rig
    """New file, fsync, rename over the old one, fsync of the folder: right on ext4, wrong on FAT."""

    def __init__(self, device: str) -> None:
        self._path = f"{MOUNT}/grubenv"

    def _write(self, data: bytes) -> None:
        fresh = f"{self._path}.new"
        with open(fresh, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(fresh, self._path)
        _sync(MOUNT)

    def arm(self) -> None:
        self._write(
            grub_environment({"ORDER": "B A", "A_OK": "1", "B_OK": "1", "A_TRY": "3", "B_TRY": "3"})
        )

    def back(self) -> None:
        self._write(
            grub_environment({"ORDER": "A B", "A_OK": "1", "B_OK": "0", "A_TRY": "3", "B_TRY": "0"})
        )


class rename_free:  # noqa: N801 - named in the rig
    """Rename to a free name and fsync of the folder, not of the file."""

    def __init__(self, device: str) -> None:
        self._folder = f"{MOUNT}/loader/entries"

    def _rename(self, old: str, new: str) -> None:
        os.rename(f"{self._folder}/{old}", f"{self._folder}/{new}")
        _sync(self._folder)

    def arm(self) -> None:
        self._rename("tidegate-3-b+0.conf", "tidegate-3-b+3.conf")

    def back(self) -> None:
        self._rename("tidegate-3-b+3.conf", "tidegate-3-b.conf")


class one_copy:  # noqa: N801 - named in the rig
    """The only copy of a U-Boot environment, written over in place."""

    def __init__(self, device: str) -> None:
        self._device = device

    def _write(self, data: bytes) -> None:
        handle = os.open(self._device, os.O_RDWR)
        os.pwrite(handle, data, ENV_AT[0])
        os.fsync(handle)
        os.close(handle)

    def arm(self) -> None:
        self._write(
            u_boot_environment({"BOOT_ORDER": "B A", "BOOT_A_LEFT": "3", "BOOT_B_LEFT": "3"})
        )

    def back(self) -> None:
        # Larger than one sector, as environments of real boards are.
        filler = {f"unused{number}": "x" * 40 for number in range(40)}
        order = {"BOOT_ORDER": "A B", "BOOT_A_LEFT": "3", "BOOT_B_LEFT": "0"}
        whole = u_boot_environment({**filler, **order})
        assert struct.unpack_from("<I", whole)[0] == zlib.crc32(whole[4:ENV_BYTES])
        self._write(whole)


class no_fsync:  # noqa: N801 - named in the rig
    """A file renamed over another on ext4, of which nothing says that its bytes went first."""

    def __init__(self, device: str) -> None:
        self._path = f"{MOUNT}/state/env"

    def _write(self, data: bytes) -> None:
        with open(f"{self._path}.new", "wb") as file:
            file.write(data)
        os.rename(f"{self._path}.new", self._path)

    def arm(self) -> None:
        self._write(b"order B A")

    def back(self) -> None:
        self._write(b"order A B")
