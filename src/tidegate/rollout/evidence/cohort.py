"""Devices that got their permit in the same tick, are of one profile and stand at one site: they are judged together, at one deadline."""

from collections.abc import Iterable
from typing import Final, TypeAlias

import msgspec

from tidegate.rollout.evidence.facts import Kind
from tidegate.rollout.evidence.strata import Profile

#: Tick of the permits, profile, site, and whether their outcomes are evidence.
Key: TypeAlias = tuple[int, Profile, str, bool]


class Cohort:
    """How its devices stand. Each device is in exactly one of: waiting, failed, refunded, waived, well, silent; `open` = not yet of age, by soak gate."""

    __slots__ = (
        "back",
        "due",
        "failed",
        "gone",
        "granted_at",
        "later",
        "left",
        "mature",
        "open",
        "permits",
        "refunded",
        "returned",
        "silent",
        "staying",
        "waived",
        "watched",
        "well",
    )

    def __init__(self, granted_at: int, due: int, gates: int) -> None:
        self.granted_at = granted_at
        #: In time during which the server was up.
        self.due = due
        self.permits = self.failed = self.refunded = self.well = self.silent = self.waived = 0
        #: Of the permits, those that never left all gates at once.
        self.staying = 0
        #: Silent ones that answered late, and those of them that are well; well ones that had a late event or left the fleet, and those of them that left.
        self.returned = self.back = self.gone = self.left = 0
        #: Under watch for going dark.
        self.watched = 0
        self.mature = False
        self.open = [0] * gates
        #: Late events before the deadline, told when it has passed: (kind, count, last heard).
        self.later: list[tuple[Kind, int, int]] = []

    @property
    def waiting(self) -> int:
        """Devices that have not answered."""
        return self.permits - self.failed - self.refunded - self.waived - self.well - self.silent

    def come(self, count: int) -> None:
        """Count permits."""
        self.permits += count
        self.staying += count
        self.open = [one + count for one in self.open]

    def leave(self, count: int, since: int = 0) -> None:
        """Take devices out of every gate, or of those from the gate `since` on, at once: they failed, came back unused, or left the fleet."""
        self.staying -= count
        self.open = [
            max(0, one - count) if gate >= since else one for gate, one in enumerate(self.open)
        ]


class Packed(msgspec.Struct, frozen=True, array_like=True):
    """Cohorts as they are stored: a column a property. `open` has one number a gate, cohort by cohort; `later` is told with its cohort's place."""

    granted_at: list[int]
    due: list[int]
    counts: list[list[int]]
    mature: list[bool]
    open: list[int]
    later: list[tuple[int, Kind, int, int]]


_COUNTS: Final = (
    *("permits", "failed", "refunded", "waived", "well", "silent"),
    *("returned", "back", "gone", "left", "watched", "staying"),
)


def pack(cohorts: Iterable[Cohort]) -> Packed:
    """Return the columns of cohorts."""
    found = list(cohorts)
    return Packed(
        granted_at=[one.granted_at for one in found],
        due=[one.due for one in found],
        counts=[[getattr(one, name) for one in found] for name in _COUNTS],
        mature=[one.mature for one in found],
        open=[part for one in found for part in one.open],
        later=[(at, *event) for at, one in enumerate(found) for event in one.later],
    )


def unpack(packed: Packed, gates: int) -> list[Cohort]:
    """Return the cohorts that were stored with so many gates.

    Raises:
        ValueError: columns of different lengths.
    """
    found = [
        Cohort(granted_at, due, 0)
        for granted_at, due in zip(packed.granted_at, packed.due, strict=True)
    ]
    for name, column in zip(_COUNTS, packed.counts, strict=True):
        for one, count in zip(found, column, strict=True):
            setattr(one, name, count)
    for at, (one, mature) in enumerate(zip(found, packed.mature, strict=True)):
        one.mature = mature
        one.open = packed.open[at * gates : (at + 1) * gates]
    for at, kind, count, heard_at in packed.later:
        found[at].later.append((kind, count, heard_at))
    return found
