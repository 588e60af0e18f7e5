"""Small files that a boot loader reads by their place on the disk: rewritten in place, never by way of a new file.

On FAT a rename over an existing name is several writes, and a cut between them leaves the name on nothing; GRUB's own writer also needs the file to keep its
blocks. So the bytes are written over the old ones, and only within one sector: disks write a sector whole or not at all.
"""

# pathlib would cost the resident process a quarter of a MiB.
# ruff: noqa: PTH123

import fcntl
import os
from collections.abc import Callable
from typing import Final

from tidegate.core.errors import DeviceError

#: What a disk writes whole or not at all, in bytes. Larger physical sectors only help.
SECTOR: Final = 512

Change = Callable[[bytes], bytes]


def read(path: str, limit: int) -> bytes:
    """Return the bytes of a small file.

    Raises:
        DeviceError: `activate.bootloader`: not there, not readable, or larger than `limit` bytes.
    """
    try:
        with open(path, "rb") as file:
            body = file.read(limit + 1)
    except OSError as error:
        raise DeviceError("activate.bootloader", f"{path}: {error.strerror}") from error
    if len(body) > limit:
        raise DeviceError("activate.bootloader", f"{path}: more than {limit} bytes")
    return body


def edit(path: str, limit: int, change: Change) -> None:
    """Change a small file in place, durably: after a cut it is old or new. What is right already is not written.

    Args:
        path: a file that exists; it keeps its size and its blocks.
        limit: its greatest size in bytes.
        change: gets the bytes and returns as many. It may be called again when this is repeated.

    Raises:
        DeviceError: `activate.bootloader`: it could not be read or written, or the change would touch two sectors, which a cut could tear apart.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise DeviceError("activate.bootloader", f"{path}: {error.strerror}") from error
    try:
        # Two of ours (the agent, and a person's command) must not both start from the same old bytes.
        fcntl.flock(handle, fcntl.LOCK_EX)
        before = os.pread(handle, limit + 1, 0)
        after = change(before)
        if after != before:
            _write(handle, path, before, after)
        # Also where nothing had to be written: who was killed here may have left it in the cache.
        os.fsync(handle)
    except OSError as error:
        raise DeviceError("activate.bootloader", f"{path}: {error.strerror}") from error
    finally:
        os.close(handle)


def _write(handle: int, path: str, before: bytes, after: bytes) -> None:
    if len(after) != len(before):
        raise DeviceError("activate.bootloader", f"{path}: its size must stay {len(before)} bytes")
    starts = range(0, len(before), SECTOR)
    changed = [at for at in starts if before[at : at + SECTOR] != after[at : at + SECTOR]]
    if len(changed) > 1:
        raise DeviceError(
            "activate.bootloader",
            f"{path}: holds so much that a change would span sectors: keep other things in another file",
        )
    piece = after[changed[0] : changed[0] + SECTOR]
    if os.pwrite(handle, piece, changed[0]) != len(piece):
        raise DeviceError("activate.bootloader", f"{path}: written only in part")
