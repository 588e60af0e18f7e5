"""Devices that got their permit in the same tick, are of one profile and stand at one site: they are judged together, at one deadline."""

from typing import TypeAlias

from tidegate.rollout.evidence.facts import Kind
from tidegate.rollout.evidence.strata import Profile

#: Tick of the permits, profile, site, and whether their outcomes are evidence.
Key: TypeAlias = tuple[int, Profile, str, bool]


class Cohort:
    """How its devices stand. Each device is in exactly one of: waiting, failed, refunded, well, silent; `open` = not yet of age, by soak gate."""

    __slots__ = (
        "due",
        "failed",
        "gone",
        "granted_at",
        "later",
        "mature",
        "open",
        "permits",
        "refunded",
        "returned",
        "silent",
        "watched",
        "well",
    )

    def __init__(self, granted_at: int, due: int, gates: int) -> None:
        self.granted_at = granted_at
        #: In time during which the server was up.
        self.due = due
        self.permits = self.failed = self.refunded = self.well = self.silent = 0
        #: Silent ones heard again; well ones that had a late event; under watch for going dark.
        self.returned = self.gone = self.watched = 0
        self.mature = False
        self.open = [0] * gates
        #: Late events before the deadline, told when it has passed: (kind, count, last heard).
        self.later: list[tuple[Kind, int, int]] = []

    @property
    def waiting(self) -> int:
        """Devices that have not answered."""
        return self.permits - self.failed - self.refunded - self.well - self.silent

    def leave(self, count: int) -> None:
        """Take devices out of every gate at once: they failed, or came back unused."""
        self.open = [max(0, one - count) for one in self.open]
