"""Everything that a disk may hold after the power went away at any instant of a phase.

Between two flushes a disk may keep any part of what it was given, in any order; one sector of 512 bytes is old or new, never both. With up to six writes
under way every subset is a state; with more, every prefix and a seeded choice of subsets. On top of that each write is torn at every sector: what came before
it is there, and of the write itself only the front, or only the back.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random
from typing import Final

from tests.crash.blocklog.log import SECTOR, Entry, Flush, Write

#: Up to so many writes in one epoch, every subset of them is tried.
SUBSETS_MAX: Final = 6
#: Random subsets of a larger epoch.
SUBSETS_DRAWN: Final = 64
Overlay = tuple[Write, ...]


class Disk:
    """A disk that can be tried in a state and put back."""

    def __init__(self, image: bytes) -> None:
        self.image = bytearray(image)

    def apply(self, writes: Iterable[Write]) -> None:
        """Make writes part of the disk for good."""
        for one in writes:
            self.image[one.offset : one.offset + len(one.data)] = one.data

    def difference(self, overlay: Overlay) -> frozenset[tuple[int, bytes]]:
        """Return the sectors that an overlay changes, with their bytes: equal differences are one state."""
        changed: dict[int, bytes] = {}
        for one in overlay:
            for at in range(0, len(one.data), SECTOR):
                changed[one.offset + at] = one.data[at : at + SECTOR]
        image = self.image
        return frozenset(
            (at, data) for at, data in changed.items() if image[at : at + len(data)] != data
        )

    def tried(self, overlay: Overlay) -> "_Trial":
        """Return a context in which the disk is in that state."""
        return _Trial(self, overlay)


class _Trial:
    def __init__(self, disk: Disk, overlay: Overlay) -> None:
        self._disk, self._overlay = disk, overlay
        self._under: list[Write] = []

    def __enter__(self) -> bytearray:
        image = self._disk.image
        for one in self._overlay:
            end = one.offset + len(one.data)
            self._under.append(Write(one.offset, bytes(image[one.offset : end])))
        self._disk.apply(self._overlay)
        return image

    def __exit__(self, *error: object) -> None:
        self._disk.apply(reversed(self._under))


@dataclass(frozen=True)
class Epoch:
    """What may be under way at one instant, over what is durable by then.

    Attributes:
        settled: became durable as this epoch began.
        writes: may be on the disk, or not.
        ended: the flush that ended it was seen; False at the end of a phase, where the epoch goes on in the next one.
    """

    settled: tuple[Write, ...]
    writes: tuple[Write, ...]
    ended: bool


def epochs(entries: Iterable[Entry], pending: Sequence[Write] = ()) -> Iterator[Epoch]:
    """Cut a phase at its flushes. `pending` is what the phase before left in flight.

    A forced write (FUA) is durable when it has ended, while older ones may still be on their way: an epoch of its own begins after it.
    """
    settled: tuple[Write, ...] = ()
    under_way = list(pending)
    for entry in entries:
        if isinstance(entry, Flush):
            yield Epoch(settled, tuple(under_way), ended=True)
            settled, under_way = tuple(under_way), []
        elif entry.forced:
            yield Epoch(settled, (*under_way, entry), ended=True)
            settled = (entry,)
        else:
            under_way.append(entry)
    yield Epoch(settled, tuple(under_way), ended=False)


def states(writes: Sequence[Write], *, tears: bool = True) -> Iterator[Overlay]:
    """Return what may lie over the durable disk, each state once. The first is: nothing."""
    seen: set[tuple[tuple[int, int, int], ...]] = set()
    for overlay in _all(tuple(writes), tears=tears):
        key = tuple((one.offset, len(one.data), zlib.crc32(one.data)) for one in overlay)
        if key not in seen:
            seen.add(key)
            yield overlay


def _all(writes: Overlay, *, tears: bool) -> Iterator[Overlay]:
    if len(writes) <= SUBSETS_MAX:
        for count in range(len(writes) + 1):
            yield from combinations(writes, count)
    else:
        yield from (writes[:count] for count in range(len(writes) + 1))
        random = Random(len(writes))
        for _ in range(SUBSETS_DRAWN):
            yield tuple(one for one in writes if random.random() < 0.5)
    if tears:
        for number, one in enumerate(writes):
            for cut in range(SECTOR, len(one.data), SECTOR):
                yield (*writes[:number], Write(one.offset, one.data[:cut]))
                yield (*writes[:number], Write(one.offset + cut, one.data[cut:]))
