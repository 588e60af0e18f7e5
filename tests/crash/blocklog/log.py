"""Block logs as QEMU's `blklogwrites` writes them, cut into phases at the marks that the recorder left.

The format is that of Linux's dm-log-writes, little-endian: a super block of one sector (magic, version, number of entries, sector size), then one sector per
entry (sector, sectors, flags, length), each followed by its data. A mark is a block at the end of the disk, where no file system is; it is written past the
caches and flushes nothing, so that what is left in flight by a phase stays in flight.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

SECTOR: Final = 512
MARK: Final = b"TIDEGATE MARK "
MARK_BYTES: Final = 4096
_MAGIC: Final = 0x6A736677736872
_FLUSH, _FUA, _DISCARD, _MARK = 1, 2, 4, 8


class DamagedLogError(Exception):
    """The bytes are no block log, or one that was cut off."""


@dataclass(frozen=True)
class Write:
    """Bytes on their way to the disk; `forced` (FUA): on it when the write has ended, whatever else is still on its way."""

    offset: int
    data: bytes
    forced: bool = False


class Flush:
    """Everything that was written before is on the disk."""


Entry = Write | Flush


@dataclass
class Phase:
    """What reached the disk between two marks. `name` is the first one's."""

    name: str
    entries: list[Entry] = field(default_factory=list)


def parse(log: bytes) -> Iterator[Entry]:
    """Read a log. A discarded range becomes a write of zeros: the disk may forget it, or not.

    Raises:
        DamagedLogError: it says where.
    """
    if len(log) < 28:
        raise DamagedLogError("no super block: the guest was not shut down")
    magic, version, count, sector = struct.unpack_from("<QQQI", log)
    if magic != _MAGIC or version != 1 or sector != SECTOR:
        raise DamagedLogError(f"magic {magic:#x}, version {version}, sectors of {sector}")
    at = sector
    for number in range(count):
        if at + 32 > len(log):
            raise DamagedLogError(f"ends before entry {number} of {count}")
        first, sectors, flags, _ = struct.unpack_from("<QQQQ", log, at)
        at += sector
        length = sectors * sector
        if flags & _FLUSH:
            yield Flush()
        if flags & _MARK or not length:
            continue
        if flags & _DISCARD:
            data = bytes(length)
        else:
            data = log[at : at + length]
            at += length
            if len(data) < length:
                raise DamagedLogError(f"entry {number} of {count} is cut off")
        yield Write(first * sector, data, bool(flags & _FUA))


def phases(log: bytes) -> list[Phase]:
    """Return the phases of a log, in order. What comes before the first mark is the phase `setup`.

    Raises:
        DamagedLogError: see `parse`.
    """
    found = [Phase("setup")]
    for entry in parse(log):
        if isinstance(entry, Write) and entry.data.startswith(MARK):
            found.append(Phase(json.loads(entry.data[len(MARK) :].rstrip(b"\0"))))
        else:
            found[-1].entries.append(entry)
    return found
