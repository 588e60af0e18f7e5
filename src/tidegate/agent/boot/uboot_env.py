"""U-Boot's environment as bytes: reads and makes its copies, and says which of two counts. Pure; `agent.boot.uboot_store` does the reading and writing.

A copy is CRC-32 (u32, little-endian) of the data area, then, where there are two, one flag byte, then the data area: `name=value` texts, each ended by a
zero byte, the last by two. Layout and choice are those of U-Boot (`include/env_internal.h`, `env/common.c`) and of libubootenv, whose `fw_printenv` and
`fw_setenv` read and write the same bytes; the tests hold them side by side.

Everything that is not changed keeps its bytes and its place: the environment also holds what the board's maker put there.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from tidegate.core.errors import DeviceError

_CRC_BYTES: Final = 4
#: New values by name; None takes the variable away. U-Boot takes an empty value for the same.
Changes = Mapping[str, str | None]


class Environment(msgspec.Struct, frozen=True):
    """The variables of one copy.

    Attributes:
        entries: as they stand, in their order; `name=value` without the zero byte.
    """

    entries: tuple[bytes, ...] = ()

    def get(self, name: str) -> str | None:
        """Return a variable's value, or None. Of two of one name the later one counts, as for U-Boot."""
        wanted = name.encode()
        for entry in reversed(self.entries):
            key, equals, value = entry.partition(b"=")
            if key == wanted and equals:
                return value.decode("utf-8", "replace")
        return None

    def changed(self, changes: Changes) -> "Environment":
        """Return the environment with other values; what is new goes to the end.

        Raises:
            DeviceError: `activate.bootloader`: what cannot be a name or a value.
        """
        left = {_name(name): _value(name, value) for name, value in changes.items()}
        kept: list[bytes] = []
        # From the end, because of two of one name the later one counts: that is the one that gets the value, and the other one goes.
        done: set[bytes] = set()
        for entry in reversed(self.entries):
            key = entry.partition(b"=")[0]
            if key not in left:
                kept.append(entry)
            elif key not in done:
                done.add(key)
                if left[key] is not None:
                    kept.append(key + b"=" + (left[key] or b""))
        kept.reverse()
        fresh = (
            name + b"=" + value
            for name, value in left.items()
            if value is not None and name not in done
        )
        return Environment((*kept, *fresh))


class Copy(msgspec.Struct, frozen=True):
    """One whole copy, its checksum right.

    Attributes:
        flag: 0 to 255, one more with every save; 0 where there is only one copy.
    """

    environment: Environment
    flag: int = 0


def head_bytes(*, redundant: bool) -> int:
    """Return how many bytes stand before the data area."""
    return _CRC_BYTES + (1 if redundant else 0)


def read_copy(body: bytes, *, redundant: bool) -> Copy | None:
    """Read one copy, untrusted bytes of exactly its size. None = damaged, or never written: U-Boot would not take it either."""
    head = head_bytes(redundant=redundant)
    data = memoryview(body)[head:]
    if not data or zlib.crc32(data) != int.from_bytes(body[:_CRC_BYTES], "little"):
        return None
    raw = bytes(data)
    if not raw.startswith(b"\0"):
        raw, ended, _ = raw.partition(b"\0\0")
        if not ended:
            return None
        entries = tuple(raw.split(b"\0"))
    else:
        entries = ()
    return Copy(Environment(entries), body[_CRC_BYTES] if redundant else 0)


def newest(copies: Sequence[Copy | None]) -> int | None:
    """Return which copy counts: the only good one, or the one saved later. None = both are damaged.

    The flag counts up and goes from 255 to 0. Equal flags, which no save makes, mean the first.
    """
    good = [at for at, copy in enumerate(copies) if copy is not None]
    if len(good) < 2:
        return good[0] if good else None
    first, second = (copy.flag for copy in copies if copy is not None)
    if {first, second} == {0, 255}:
        return 0 if first == 0 else 1
    return 1 if second > first else 0


def make_copy(environment: Environment, size: int, flag: int | None) -> bytes:
    """Return a copy of `size` bytes.

    Args:
        environment: its variables.
        size: of the whole copy, head included.
        flag: for one of two copies; None for a single one.

    Raises:
        DeviceError: `activate.bootloader`: it does not fit.
    """
    room = size - head_bytes(redundant=flag is not None)
    data = b"".join(entry + b"\0" for entry in environment.entries) + b"\0"
    if len(data) < 2:
        data = b"\0\0"
    if len(data) > room:
        raise DeviceError(
            "activate.bootloader",
            f"the U-Boot environment is full: {len(data)} bytes for {room}; remove variables that nobody needs with fw_setenv NAME",
        )
    data = data.ljust(room, b"\0")
    head = zlib.crc32(data).to_bytes(_CRC_BYTES, "little")
    return head + (b"" if flag is None else bytes([flag])) + data


def following(flag: int) -> int:
    """Return the flag of the next save."""
    return (flag + 1) & 0xFF


def is_name(text: str) -> bool:
    """Say whether that can name a variable."""
    return bool(text) and not any(one in text for one in "= \t\r\n\0#")


def _name(name: str) -> bytes:
    if not is_name(name):
        raise DeviceError("activate.bootloader", f"{name[:64]!r} cannot name a U-Boot variable")
    return name.encode()


def _value(name: str, value: str | None) -> bytes | None:
    if not value:
        return None
    if any(one in value for one in "\0\r\n\\"):
        raise DeviceError("activate.bootloader", f"{name[:64]}: no value for a U-Boot variable")
    return value.encode()
