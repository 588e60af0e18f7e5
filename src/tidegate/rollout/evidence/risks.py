"""Who is at risk: updated devices under watch, and devices not updated that can be watched, by profile.

A late event is compared inside its cell (region and connectivity class) and, in each stratum, among that stratum's devices.

**Not where devices come once a week or less** (`SELDOM`). Each of them is heard on a day of its own, and who is not updated then is who was not heard since
permits were there for all: whatever befell both can be heard of the updated ones alone, for days. That is no race.
"""

from typing import Final

import msgspec

from tidegate.rollout.evidence.book import Book
from tidegate.rollout.evidence.facts import Kind, Risk
from tidegate.rollout.evidence.strata import VARIANT, Profile

SELDOM: Final = frozenset({"weekly", "monthly"})


class Packed(msgspec.Struct, frozen=True, array_like=True):
    """What is stored: by profile, devices not updated, and updated ones under watch for a crash and for going dark; and who is about to leave."""

    counts: list[tuple[Profile, int, int, int]]
    leaving: list[tuple[Kind, Profile, int]]


class Risks:
    """The risk sets. Profiles that are isolated are in none but their own."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.leaving: list[tuple[Kind, Profile, int]] = []
        self.whole_control = 0
        self._told: dict[Profile, Profile] = {}
        self._numbers: dict[Profile, int] = {}
        self._control: list[int] = []
        self._updated: dict[Kind, list[int]] = {"crash": [], "dark": []}
        self._whole: dict[Kind, int] = {"crash": 0, "dark": 0}
        self._members: dict[tuple[int, tuple[str, str]], list[int]] = {}
        self._isolated = book.isolated
        self._fixed: dict[tuple[Kind, int, tuple[str, str]], tuple[int, int]] = {}

    def told(self, profile: Profile) -> Profile:
        """Return the profile as the scheme tells it apart."""
        found = self._told.get(profile)
        if found is None:
            found = self._told[profile] = self.book.scheme.told_apart(profile)
        return found

    def whole_updated(self, kind: Kind) -> int:
        """Return all updated devices under watch."""
        return self._whole[kind]

    def waiting(self) -> dict[str, int]:
        """Return how many devices not updated there are now, by variant as it is told apart."""
        place = self.book.scheme.attributes.index(VARIANT)
        found: dict[str, int] = {}
        for profile, number in self._numbers.items():
            name = profile[place]
            found[name] = found.get(name, 0) + self._control[number]
        return found

    def control(self, profile: Profile, count: int) -> None:
        """Add devices not updated (negative: take away), never below none."""
        number = self._number(profile)
        before = self._control[number]
        self._control[number] = max(0, before + count)
        self.whole_control += self._control[number] - before

    def leave_control(self, profile: Profile, count: int) -> None:
        """Take devices out that are no longer to be compared with."""
        self.control(profile, -count)

    def updated(self, kind: Kind, profile: Profile, count: int) -> None:
        """Add updated devices (negative: take away), never below none."""
        number = self._number(profile)
        at_risk = self._updated[kind]
        before = at_risk[number]
        at_risk[number] = max(0, before + count)
        self._whole[kind] += at_risk[number] - before

    def fix(self) -> None:
        """Take the risk sets as they stand: events of one tick are all weighed at these."""
        self._fixed.clear()
        if self._isolated != self.book.isolated:
            self._isolated = self.book.isolated
            self._members.clear()
            for profile, number in self._numbers.items():
                self._join(profile, number)

    def at(self, kind: Kind, profile: Profile) -> tuple[Risk, ...]:
        """Return the risk sets that an event of this profile is weighed at, one a stratum; none where devices are heard too seldom."""
        cell = self.book.scheme.cell_of(profile)
        if cell[1] in SELDOM:
            return ()
        found = []
        for stratum in self.book.home(profile).strata:
            key = (kind, stratum, cell)
            pair = self._fixed.get(key)
            if pair is None:
                members = self._members.get((stratum, cell), ())
                at_risk = self._updated[kind]
                pair = (
                    sum([at_risk[one] for one in members]),
                    sum([self._control[one] for one in members]),
                )
                self._fixed[key] = pair
            found.append((stratum, *pair))
        return tuple(found)

    def go(self) -> list[tuple[Kind, Profile, int]]:
        """Let those leave who had their event, and return them."""
        leaving, self.leaving = self.leaving, []
        for kind, profile, count in leaving:
            self.updated(kind, profile, -count)
        return leaving

    def _number(self, profile: Profile) -> int:
        found = self._numbers.get(profile)
        if found is None:
            found = self._numbers[profile] = len(self._control)
            self._control.append(0)
            for at_risk in self._updated.values():
                at_risk.append(0)
            self._join(profile, found)
        return found

    def _join(self, profile: Profile, number: int) -> None:
        cell = self.book.scheme.cell_of(profile)
        for stratum in self.book.home(profile).strata:
            self._members.setdefault((stratum, cell), []).append(number)

    # ------------------------------------------------------------------ storing

    def pack(self) -> Packed:
        """Return what is to be stored."""
        crash, dark = self._updated["crash"], self._updated["dark"]
        counts = [
            (profile, self._control[number], crash[number], dark[number])
            for profile, number in self._numbers.items()
        ]
        return Packed(counts=counts, leaving=self.leaving)

    def restore(self, packed: Packed) -> None:
        """Take up what was stored."""
        for profile, control, crash, dark in packed.counts:
            self.control(profile, control)
            self.updated("crash", profile, crash)
            self.updated("dark", profile, dark)
        self.leaving = list(packed.leaving)
