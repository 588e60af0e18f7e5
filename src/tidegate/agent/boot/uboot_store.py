"""Where U-Boot's environment lives: one or two places on block devices or in files, read and written in place.

The places come from `fw_env.config`, in the classic form of U-Boot's and libubootenv's tools: device, offset (decimal, 0x… or octal; negative = from the end),
size (hexadecimal with or without 0x), and what only flash needs. A change goes whole into the copy that does *not* count, with the next flag, and is flushed
and read back before this returns: whatever the power does meanwhile, one good copy is there, old or new. With one copy only there is nothing to fall back
on while it is rewritten; whoever asks for that says so (`agent.bootloaders.uboot`).

Flash character devices (`/dev/mtd0`, `/dev/ubi0_0`) and `/dev/mtdblock0` are refused: they are erased block by block, and this could not be tried.
"""

# pathlib would cost the resident process a quarter of a MiB.
# ruff: noqa: PTH116, PTH123

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NoReturn

import msgspec

from tidegate.agent.boot import uboot_env
from tidegate.agent.boot.uboot_env import Changes, Copy, Environment
from tidegate.core.errors import ConfigError, DeviceError

#: The lock of `fw_printenv` and `fw_setenv` (libubootenv and U-Boot's own).
LOCK_PATH: Final = "/var/lock/fw_printenv.lock"
#: A lock that is not free after this is reported, in seconds.
LOCK_WAIT_S: Final = 10.0
_LOCK_POLL_S: Final = 0.02
#: Smallest and largest copy that is believed, in bytes.
SIZE_MIN: Final = 64
SIZE_MAX: Final = 4 << 20
#: Major device number of `/dev/mtdblock…`.
_MTD_BLOCK: Final = 31


class Place(msgspec.Struct, frozen=True):
    """Where one copy is.

    Attributes:
        path: a block device or a file.
        offset: of its first byte; negative = from the end.
        size: in bytes, head included.
    """

    path: str
    offset: int
    size: int


def parse_places(text: str, where: str) -> tuple[Place, ...]:
    """Read the text of `fw_env.config`. As for the tools, the first two lines that name a place count.

    Args:
        text: untrusted.
        where: it came from, for messages.

    Raises:
        ConfigError: `config.invalid`: a line that is none, no place at all, or two that cannot be a pair.
    """
    places: list[Place] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(places) < 2:
            places.append(_place(words, f"{where}, line {number}"))
    if not places:
        raise ConfigError("config.invalid", f"{where}: names no place of the environment")
    if len({one.size for one in places}) > 1:
        raise ConfigError("config.invalid", f"{where}: the two copies differ in size")
    if len(places) > 1 and _overlap(*places):
        raise ConfigError("config.invalid", f"{where}: the two copies overlap")
    return tuple(places)


def _overlap(one: Place, other: Place) -> bool:
    same_end = (one.offset < 0) == (other.offset < 0)
    return one.path == other.path and same_end and abs(one.offset - other.offset) < one.size


def _place(words: Sequence[str], where: str) -> Place:
    if len(words) < 3:
        raise ConfigError("config.invalid", f"{where}: wants device, offset and size")
    path = words[0]
    if ":" in path:
        raise ConfigError("config.invalid", f"{where}: {_flash(path)}")
    try:
        offset, size = _integer(words[1]), int(words[2], 16)
    except ValueError:
        raise ConfigError(
            "config.invalid", f"{where}: offset or size is no number: {' '.join(words)[:80]}"
        ) from None
    if not SIZE_MIN <= size <= SIZE_MAX:
        raise ConfigError(
            "config.invalid",
            f"{where}: a size of {size} bytes; it is hexadecimal, from {SIZE_MIN:#x} to {SIZE_MAX:#x}",
        )
    return Place(path, offset, size)


def _integer(text: str) -> int:
    """Read a number as C does: 0x… hexadecimal, 0… octal."""
    digits = text.lstrip("+-")
    octal = len(digits) > 1 and digits.startswith("0") and digits.isdigit()
    return int(text, 8 if octal else 0)


class Store:
    """The environment of this device.

    Args:
        places: one or two.
        lock: the file that the tools lock as well.
        sysfs: where the kernel says what a device is, for tests.
    """

    def __init__(
        self, places: Sequence[Place], *, lock: str = LOCK_PATH, sysfs: str = "/sys/dev/block"
    ) -> None:
        self.places = tuple(places)
        self._lock = lock
        self._sysfs = sysfs

    @property
    def redundant(self) -> bool:
        """Say whether there are two copies."""
        return len(self.places) > 1

    def read(self) -> Environment:
        """Return the variables of the copy that counts. Changes nothing.

        Raises:
            DeviceError: `activate.bootloader`: no copy is good, or a place cannot be read.
        """
        with self._locked():
            return self._counting()[1].environment

    def change(self, make: Callable[[Environment], Changes]) -> None:
        """Make changes, all of them in one write; durable on return. What already is as wanted is not written again, but made durable all the same.

        Args:
            make: says what to change, from what is there. No other program writes in between.

        Raises:
            DeviceError: `activate.bootloader`: it could not be read, is full, or was not written; what counted before still does.
        """
        with self._locked():
            at, copy = self._counting()
            after = copy.environment.changed(make(copy.environment))
            if after == copy.environment:
                # A process that was killed between write and flush may have left it in memory only.
                _flush(self.places[at])
                return
            if not self.redundant:
                self._write(self.places[0], uboot_env.make_copy(after, self.places[0].size, None))
                return
            aside = self.places[1 - at]
            flag = uboot_env.following(copy.flag)
            self._write(aside, uboot_env.make_copy(after, aside.size, flag))

    def _counting(self) -> tuple[int, Copy]:
        bodies = [_read(place) for place in self.places]
        if not any(isinstance(one, bytes) for one in bodies):
            _refuse(str(bodies[0]))
        copies = [
            uboot_env.read_copy(one, redundant=self.redundant) if isinstance(one, bytes) else None
            for one in bodies
        ]
        at = uboot_env.newest(copies)
        found = None if at is None else copies[at]
        if at is None or found is None:
            where = " and ".join(f"{one.path} at {one.offset:#x}" for one in self.places)
            _refuse(
                f"no good U-Boot environment in {where}: let the boot script save it (restart the device), write it with fw_setenv, or correct fw_env.config"
            )
        return at, found

    def _write(self, place: Place, body: bytes) -> None:
        try:
            with _writable(place.path, self._sysfs), _opened(place, os.O_RDWR) as handle:
                start = _start(handle, place)
                at, view = start, memoryview(body)
                while view:
                    done = os.pwrite(handle, view, at)
                    at, view = at + done, view[done:]
                os.fsync(handle)
                os.posix_fadvise(handle, start, len(body), os.POSIX_FADV_DONTNEED)
                if os.pread(handle, len(body), start) != body:
                    _refuse(f"{place.path}: what was written does not read back; is it worn out?")
        except OSError as error:
            _refuse(f"{place.path}: cannot be written: {error.strerror}")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            handle = os.open(self._lock, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            _refuse(
                f"{self._lock}: {error.strerror}; its directory must be there and writable, or name another file with [bootloader.uboot] lock"
            )
        try:
            _take(handle, self._lock)
            yield
        finally:
            os.close(handle)


def _take(handle: int, path: str) -> None:
    until = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                _refuse(f"{path}: held by another program (fw_setenv?) for {LOCK_WAIT_S:.0f} s")
            time.sleep(_LOCK_POLL_S)
        else:
            return


def _read(place: Place) -> bytes | str:
    """Return the bytes, or why there are none: a copy that cannot be read is a damaged one, as for U-Boot itself. A short file is as well."""
    try:
        with _opened(place, os.O_RDONLY) as handle:
            start = _start(handle, place)
            # After a flush that failed the kernel may go on showing what it could not write.
            os.posix_fadvise(handle, start, place.size, os.POSIX_FADV_DONTNEED)
            return os.pread(handle, place.size, start)
    except OSError as error:
        return f"{place.path}: cannot be read: {error.strerror}"


def _flush(place: Place) -> None:
    try:
        with _opened(place, os.O_RDWR) as handle:
            os.fsync(handle)
    except OSError as error:
        _refuse(f"{place.path}: cannot be flushed: {error.strerror}")


@contextlib.contextmanager
def _opened(place: Place, flags: int) -> Iterator[int]:
    handle = os.open(place.path, flags | os.O_CLOEXEC)
    try:
        found = os.fstat(handle)
        mtd = stat.S_ISBLK(found.st_mode) and os.major(found.st_rdev) == _MTD_BLOCK
        if mtd or not (stat.S_ISBLK(found.st_mode) or stat.S_ISREG(found.st_mode)):
            _refuse(_flash(place.path))
        yield handle
    finally:
        os.close(handle)


def _start(handle: int, place: Place) -> int:
    end = os.lseek(handle, 0, os.SEEK_END)
    start = place.offset if place.offset >= 0 else end + place.offset
    if start < 0 or (stat.S_ISBLK(os.fstat(handle).st_mode) and start + place.size > end):
        _refuse(f"{place.path}: ends before the environment does; correct fw_env.config")
    return start


@contextlib.contextmanager
def _writable(path: str, sysfs: str) -> Iterator[None]:
    """Lift the write protection that the kernel puts on the boot partitions of an eMMC (`force_ro`), and put it back."""
    found = os.stat(path)
    guard = f"{sysfs}/{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}/force_ro"
    guarded = stat.S_ISBLK(found.st_mode) and _text(guard) == "1"
    if not guarded:
        yield
        return
    _put(guard, "0")
    try:
        yield
    finally:
        _put(guard, "1")


def _text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(16).decode("ascii", "replace").strip()
    except OSError:
        return ""


def _put(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def _flash(path: str) -> str:
    return f"{path}: flash that is erased block by block is not written to; let fw_setenv do it, behind [bootloader] name = 'custom'"


def _refuse(detail: str) -> NoReturn:
    raise DeviceError("activate.bootloader", detail)
