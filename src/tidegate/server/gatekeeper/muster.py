"""Who may still get a rollout's release, and those who have it from it: the devices whose evidence is weighed, and that they are compared with.

Asked of the fleet in memory, kind by kind, so that a million devices are looked at in a second. Nothing here is believed for more than evidence: whether a
device gets a permit is decided when it asks.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from tidegate.core.hardware import HardwareRange, compatible
from tidegate.rollout import cohort, keeping
from tidegate.rollout.cohort import Fixed
from tidegate.rollout.model import Rollout
from tidegate.server.gatekeeper import rooms
from tidegate.server.snapshot import ACCEPTED, OF_KIND, Facts, Fleet

_OWN: Final = "attr."
#: Names in which devices of one kind differ, whatever attributes of their own they have.
_ALONE: Final = frozenset({"id", "serial", "seen", "state", "reason", "rollout"})


class Wanted(NamedTuple):
    """What a device must be for a rollout: of its product, in one of its rings and not kept out, of hardware that the release is made for.

    `counter`: of the release, which it does not run yet; `parent_counter`: of the one that a way back leads from, which it does run.
    `fixed`: whom a snapshot rollout means.
    """

    rollout: Rollout
    product: str
    ranges: tuple[HardwareRange, ...]
    counter: int
    parent_counter: int | None
    attributes: tuple[str, ...]
    fixed: Fixed | None = None


class Standing(NamedTuple):
    """What the gate wants to know of a device: its attributes, and where it stands."""

    values: dict[str, str]
    site: str


class Muster:
    """One look at the fleet. Safe from any thread; a device that changes meanwhile is seen as it was or as it is."""

    def __init__(self, fleet: Fleet, wanted: Wanted) -> None:
        """Look at this fleet."""
        self._fleet = fleet
        self._wanted = wanted
        names = fleet.names_asked(wanted.rollout)
        for entry in keeping.queries(wanted.rollout.isolated):
            names |= keeping.names_of(entry)
        own = [one for one in wanted.attributes if one.startswith(_OWN)]
        #: Whether every device must be asked alone; and whether those must that have attributes of their own.
        self._alone = bool(names & _ALONE)
        self._own = bool(own) or bool(names - OF_KIND - _ALONE)
        self._known: dict[tuple[Any, ...], Standing | None] = {}

    def __iter__(self) -> Iterator[tuple[int, Standing]]:
        """Yield (row, standing) of everyone who may get the release."""
        for row in range(1, len(self._fleet.ids)):
            found = self.of(row)
            if found is not None:
                yield row, found

    def of(self, row: int) -> Standing | None:
        """Return the standing of a device; None = it is not one of those."""
        fleet = self._fleet
        if not 0 < row < len(fleet.ids) or fleet.state[row] != ACCEPTED:
            return None
        fixed = self._wanted.fixed
        if fixed is not None and not fixed.holds(row):
            return None
        likeness = None if self._alone else fleet.likeness(row, own=self._own)
        if likeness is None:
            return self._look(fleet.facts(row))
        if likeness not in self._known:
            self._known[likeness] = self._look(fleet.facts(row))
        return self._known[likeness]

    def _look(self, facts: Facts) -> Standing | None:
        wanted = self._wanted
        if facts.product != wanted.product or not compatible(wanted.ranges, facts.hardware):
            return None
        if wanted.parent_counter is not None:
            if facts.running_counter != wanted.parent_counter:
                return None
        elif facts.running_counter >= wanted.counter:
            return None
        if wanted.fixed is None and cohort.ring_of(wanted.rollout.policy, facts.attrs) is None:
            return None
        if keeping.kept_out(wanted.rollout.isolated, facts.variant, facts.attrs):
            return None
        return standing(facts, wanted.attributes)


def standing(facts: Facts, attributes: tuple[str, ...]) -> Standing:
    """Return what the gate wants to know of a device.

    Args:
        facts: of the device.
        attributes: of its own, those that are looked at.
    """
    attrs = facts.attrs
    values = rooms.values_of(
        variant=facts.variant,
        region=str(attrs["region"] or ""),
        connectivity=str(attrs["connectivity"]),
        release=str(attrs["release"] or ""),
        own=attrs,
        attributes=attributes,
    )
    return Standing(values, str(attrs["site"] or ""))
