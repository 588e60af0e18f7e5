"""How long a device is usually not heard, learned from its own contacts: when silence means that it has gone dark.

The gaps between contacts of different hours are counted by length, in sixteen classes. With a thousand of them the deadline is the length that 999 in 1000
do not exceed, and a tenth more: for a device that is always heard, that is to be wrong once in six weeks. With fewer it is what its connectivity class says,
or longer when it has been away for longer already.

The same rule holds for updated devices and for those that they are compared with, and it never stops learning: a release that makes devices fall silent for
longer than before is seen at the first gap beyond the deadline, whatever is learned from it afterwards.
"""

from array import array
from bisect import bisect_left
from typing import Final

from tidegate.rollout.evidence.crowd import from_bytes, to_bytes
from tidegate.rollout.evidence.settings import HOUR_S
from tidegate.rollout.evidence.strata import OTHER

#: How long after the last contact a device counts as dark, where little is known of its own habit; by connectivity class.
PERSONAL_S: Final = {
    "always": 4 * HOUR_S,
    "daily": 26 * HOUR_S,
    "weekly": 172 * HOUR_S,
    "monthly": 724 * HOUR_S,
    OTHER: 26 * HOUR_S,
}
#: No deadline is shorter: an updated device is under watch for going dark from this age on.
LEAST_S: Final = PERSONAL_S["always"]
#: Longest gap of each class, in hours.
_EDGES_H: Final = (1, 2, 3, 4, 6, 9, 13, 18, 26, 38, 56, 80, 120, 172, 300, 724)
_EDGES_S: Final = tuple(one * HOUR_S for one in _EDGES_H)
_CLASSES: Final = len(_EDGES_S)
#: From so many gaps on a habit is believed, and one in so many may be longer.
_KNOWN: Final = 1_000
_FULL: Final = 65_535


class Habits:
    """The gaps of each device, by its number: 32 bytes a device."""

    def __init__(self) -> None:
        self._counts = array("H")

    def add(self) -> None:
        """Take in one more device."""
        self._counts.extend(_NOTHING)

    def contact(self, one: int, before: int, now: int) -> None:
        """Count the gap between two contacts, in seconds during which the server was up. Those of one hour are one contact."""
        if now // HOUR_S == before // HOUR_S or now <= before:
            return
        first = one * _CLASSES
        at = first + min(bisect_left(_EDGES_S, now - before), _CLASSES - 1)
        if self._counts[at] == _FULL:
            for other in range(first, first + _CLASSES):
                # Rounded up: what was seen once is not forgotten.
                self._counts[other] = (self._counts[other] + 1) // 2
        self._counts[at] += 1

    def wait_s(self, one: int, connectivity: str) -> int:
        """Return how long after its last contact a device counts as dark."""
        usual = PERSONAL_S.get(connectivity, PERSONAL_S[OTHER])
        counts = self.gaps(one)
        whole = sum(counts)
        if not whole:
            return usual
        longer, at = 0, _CLASSES - 1
        # From the longest class down: where more than one in a thousand lie, the deadline is.
        while (longer + counts[at]) * _KNOWN <= whole:
            longer += counts[at]
            at -= 1
        learned = max(LEAST_S, _EDGES_S[at] * 11 // 10)
        return learned if whole >= _KNOWN else max(usual, learned)

    def gaps(self, one: int) -> "array[int]":
        """Return how many gaps of each class a device has had."""
        return self._counts[one * _CLASSES : (one + 1) * _CLASSES]

    def inherit(self, one: int, gaps: "array[int]") -> None:
        """Begin with what was learned of the same device elsewhere (`gaps`)."""
        self._counts[one * _CLASSES : (one + 1) * _CLASSES] = gaps

    def pack(self) -> bytes:
        """Return what is to be stored."""
        return to_bytes(self._counts)

    def restore(self, packed: bytes, devices: int) -> None:
        """Take up what was stored.

        Raises:
            ValueError: of another number of devices.
        """
        self._counts = from_bytes("H", packed)
        if len(self._counts) != devices * _CLASSES:
            raise ValueError("habits of another number of devices")


_NOTHING: Final = (0,) * _CLASSES
