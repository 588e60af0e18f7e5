"""A slot's bytes: a block device or a file, written and read past the page cache where the system allows (`O_DIRECT`, open(2)).

Past the cache what is written is on its way to the medium at once, so that a flush has little left to do, and what is read comes from the medium and from
nowhere else. What does not suit it goes through the cache: short runs, which a cache puts together; ends that are no whole blocks; everything on file
systems that refuse it. Imported by the worker only.
"""

# The rest of this layer speaks of paths as texts.
# ruff: noqa: PTH116, PTH123

import errno
import mmap
import os
import stat
import threading
import time
from collections import deque
from typing import Final

from tidegate.core.errors import DeviceError

#: What offsets, lengths and memory are multiples of past the cache: the logical block of usual media. Where it is not enough, the system says so.
_ALIGN: Final = 4096
#: Shorter runs are left to the cache, in bytes: one by one a medium takes them slowly.
_DIRECT_MIN: Final = 64 << 10
_PIECE: Final = 1 << 20
#: How long a slot that somebody else holds is waited for, in seconds.
HELD_S: Final = 30.0


class SlotFile:
    """`agent.ports.SlotDevice` over a block device or a file. Any of several threads may call; what they write is written one after the other.

    Args:
        path: what holds the slot's bytes.
        size: bytes of a file, which is made and stretched as needed; None = as large as it is.

    Raises:
        DeviceError: `install.slot`.
    """

    concurrent: Final = True

    def __init__(self, path: str, size: int | None) -> None:
        self._path = path
        self._writing = threading.Lock()
        self._buffers: deque[mmap.mmap] = deque()
        self._direct = -1
        try:
            device = _device_number(path)
            if device:
                self._handle = _open_exclusively(path, device)
            else:
                flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if size else 0)
                self._handle = os.open(path, flags, 0o600)
        except OSError as error:
            raise DeviceError("install.slot", f"{path}: {error.strerror}") from error
        try:
            self.size = os.lseek(self._handle, 0, os.SEEK_END)
            if size is not None and self.size < size:
                os.ftruncate(self._handle, size)
                self.size = size
            # What would be read ahead through the cache is dropped before it is asked for.
            os.posix_fadvise(self._handle, 0, 0, os.POSIX_FADV_RANDOM)
        except OSError as error:
            os.close(self._handle)
            raise DeviceError("install.slot", f"{path}: {error.strerror}") from error
        self._direct = self._past_the_cache()

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Write; durable only after `flush`."""
        if offset < 0 or offset + len(data) > self.size:
            raise DeviceError("install.write", f"{self._path}: outside the slot")
        try:
            with self._writing:
                done = self._write_direct(offset, memoryview(data))
                self._write_cached(offset + done, memoryview(data)[done:])
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            code = "install.space" if full else "install.write"
            raise DeviceError(code, f"{self._path}: {error.strerror}") from error

    def zero_at(self, offset: int, length: int) -> None:
        """Make a range read as zeros, by writing them: what a discard leaves is not promised."""
        zeros = bytes(min(length, _PIECE))
        while length > 0:
            part = min(length, _PIECE)
            self.write_at(offset, memoryview(zeros)[:part])
            offset, length = offset + part, length - part

    def read_at(self, offset: int, length: int) -> bytes:
        """Read from the medium: what is cached is written out and dropped first. Ends early where the slot does."""
        pieces = []
        try:
            while length > 0:
                piece = self._read_once(offset, min(length, _PIECE))
                if not piece:
                    break
                pieces.append(piece)
                offset, length = offset + len(piece), length - len(piece)
        except OSError as error:
            raise DeviceError("install.readback", f"{self._path}: {error.strerror}") from error
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def flush(self) -> None:
        """Return when everything written is durable."""
        try:
            os.fdatasync(self._handle)
        except OSError as error:
            raise DeviceError("install.write", f"{self._path}: {error.strerror}") from error

    def close(self) -> None:
        """Let go. Safe to repeat."""
        for handle in (self._handle, self._direct):
            if handle >= 0:
                os.close(handle)
        self._handle = self._direct = -1
        self._buffers.clear()

    # --- past the cache -----------------------------------------------------------------------------------------------

    def _past_the_cache(self) -> int:
        """Return a second handle that passes the cache by, or -1."""
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_CLOEXEC | os.O_DIRECT)
        except OSError:
            return -1
        if os.path.samestat(os.fstat(handle), os.fstat(self._handle)):
            return handle
        os.close(handle)
        return -1

    def _write_direct(self, offset: int, view: memoryview) -> int:
        """Write whole blocks of a long run; return how many bytes are written."""
        done, whole = 0, len(view) - len(view) % _ALIGN
        if self._direct < 0 or offset % _ALIGN or whole < _DIRECT_MIN:
            return 0
        buffer = self._buffer()
        try:
            while done < whole and done % _ALIGN == 0:
                part = min(whole - done, _PIECE)
                buffer[:part] = view[done : done + part]
                with memoryview(buffer) as all_of_it, all_of_it[:part] as piece:
                    done += os.pwrite(self._direct, piece, offset + done)
        except OSError as error:
            # EINVAL: larger blocks than those, or a file system that opens so and cannot write so. The cache takes the rest.
            if error.errno != errno.EINVAL:
                raise
            self._forget_direct()
        finally:
            self._buffers.append(buffer)
        return done

    def _write_cached(self, offset: int, view: memoryview) -> None:
        begin, end = offset, offset + len(view)
        while offset < end:
            offset += os.pwrite(self._handle, view[offset - begin :], offset)
        if end - begin >= _DIRECT_MIN:
            # Begins to write it out now, so that the flush has less left.
            self._drop_cache()

    def _read_once(self, offset: int, length: int) -> bytes:
        self._drop_cache()
        if self._direct < 0 or offset % _ALIGN:
            return os.pread(self._handle, length, offset)
        buffer = self._buffer()
        try:
            with memoryview(buffer) as all_of_it, all_of_it[: length + -length % _ALIGN] as piece:
                count = os.preadv(self._direct, [piece], offset)
                return bytes(piece[: min(count, length)])
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._forget_direct()
            return os.pread(self._handle, length, offset)
        finally:
            self._buffers.append(buffer)

    def _drop_cache(self) -> None:
        """Drop what is cached and clean, and begin to write out the rest.

        All of it: the kernel keeps what it caches in pages, and pages in pieces of up to some MiB (folios), and drops none that is meant in part.
        """
        os.posix_fadvise(self._handle, 0, 0, os.POSIX_FADV_DONTNEED)

    def _buffer(self) -> mmap.mmap:
        """Take a buffer that lies at the start of a page."""
        try:
            return self._buffers.pop()
        except IndexError:
            return mmap.mmap(-1, _PIECE)

    def _forget_direct(self) -> None:
        handle, self._direct = self._direct, -1
        if handle >= 0:
            os.close(handle)


def _device_number(path: str) -> str:
    """Return `major:minor` of a block device; "" for what is none, or not there."""
    try:
        found = os.stat(path)
    except OSError:
        return ""
    if not stat.S_ISBLK(found.st_mode):
        return ""
    return f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"


def _open_exclusively(path: str, device: str) -> int:
    """Open a block device that nobody uses: the kernel refuses what is mounted, or part of an array or a mapping that is in use (open(2), O_EXCL).

    A worker that was ended may be in the middle of a flush, and holds the slot until that is over; it is waited for.

    Raises:
        DeviceError: `install.slot`: it is in use.
        OSError: anything else.
    """
    until = time.monotonic() + HELD_S
    while True:
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_EXCL)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            if _is_mounted(device) or time.monotonic() > until:
                raise DeviceError(
                    "install.slot", f"{path} is in use: unmount it, or name another slot"
                ) from error
        time.sleep(0.1)


def _is_mounted(device: str) -> bool:
    with open("/proc/self/mountinfo", "rb") as file:
        return any(line.split()[2].decode() == device for line in file)
