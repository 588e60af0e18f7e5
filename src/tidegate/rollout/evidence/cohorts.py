"""The cohorts of a desk, and what is to be done with them when."""

from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heappop, heappush
from typing import TypeAlias

import msgspec

from tidegate.rollout.evidence import cohort as likes
from tidegate.rollout.evidence.cohort import Cohort, Key
from tidegate.rollout.evidence.settings import Harm
from tidegate.rollout.evidence.strata import Profile

#: What to do, with which cohort, and for how many of its devices.
Ring: TypeAlias = tuple[str, Key, int]


class Packed(msgspec.Struct, frozen=True, array_like=True):
    """What is stored. `ages` of the soak gates; deadlines and timers name their cohort by its place in `keys`."""

    tick_s: int
    ages: list[int]
    keys: list[Key]
    cohorts: likes.Packed
    due: list[tuple[int, int, int]]
    timers: list[tuple[int, int, str, int, int]]
    numbered: int


class Cohorts:
    """Cohorts by key, each with one deadline, and timers. What comes at the same time comes in the order in which it was set."""

    def __init__(self, harm: Harm) -> None:
        self._harm = harm
        self._known: dict[Key, Cohort] = {}
        self._timers: list[tuple[int, int, str, Key, int]] = []
        self._due: list[tuple[int, int, Key]] = []
        self._numbered = 0

    def of(self, key: Key) -> Cohort:
        """Return a cohort that was not forgotten."""
        return self._known[key]

    def open(
        self, profile: Profile, site: str, now: int, down_s: int, answer_s: int, *, counted: bool
    ) -> Cohort:
        """Return the cohort of permits that are granted now.

        Args:
            profile: of its devices.
            site: where they stand.
            now: unix seconds.
            down_s: for how long the server was down until now.
            answer_s: how long their answer is waited for.
            counted: whether their outcomes are evidence.
        """
        tick_s = self._harm.tick_s
        key = (now // tick_s, profile, site, counted)
        found = self._known.get(key)
        if found is None:
            granted_at = key[0] * tick_s
            due = granted_at + tick_s + answer_s + self._harm.again_s - down_s
            found = self._known[key] = Cohort(granted_at, due, len(self._harm.soaks))
            self._numbered += 1
            heappush(self._due, (due, self._numbered, key))
        return found

    def found(self, profile: Profile, granted_at: int, site: str) -> Iterator[tuple[Key, Cohort]]:
        """Return the cohorts that devices with such a permit may be of."""
        tick = granted_at // self._harm.tick_s
        for counted in (True, False) if site else (True,):
            key = (tick, profile, site, counted)
            found = self._known.get(key)
            if found is not None:
                yield key, found

    def waiting(
        self, profile: Profile, granted_at: int, site: str, count: int
    ) -> Iterator[tuple[Key, Cohort, int]]:
        """Return the cohorts that such devices may be of, and how many of `count` still wait there."""
        for key, cohort in self.found(profile, granted_at, site):
            part = min(count, cohort.waiting)
            if part > 0:
                count -= part
                yield key, cohort, part

    def forget(self, key: Key) -> None:
        """Let a cohort go, and with it who was of it."""
        del self._known[key]

    # ------------------------------------------------------------------ time

    def set(self, when: int, what: str, key: Key, count: int = 0) -> None:
        """Set a timer."""
        self._numbered += 1
        heappush(self._timers, (when, self._numbered, what, key, count))

    def overdue(self, up: int) -> Iterator[tuple[Key, Cohort]]:
        """Return each cohort whose deadline has passed, once. `up`: time during which the server was up."""
        while self._due and self._due[0][0] <= up:
            key = heappop(self._due)[2]
            yield key, self._known[key]

    def owed(self) -> frozenset[int]:
        """Return the ticks of the cohorts that are not judged yet."""
        return frozenset(key[0] for _, _, key in self._due)

    def wait_longer(self, up: int, extra_s: Callable[[Profile], int]) -> None:
        """Put off every deadline that has not passed until so long from now. `up`: time during which the server was up."""
        self._due = [
            (max(due, up + extra_s(key[1])), number, key) for due, number, key in self._due
        ]
        heapify(self._due)
        for due, _, key in self._due:
            self._known[key].due = due

    def ring(self, now: int) -> Iterator[Ring]:
        """Return the timers that have run out, also those that are set meanwhile."""
        while self._timers and self._timers[0][0] <= now:
            yield heappop(self._timers)[2:]

    # ------------------------------------------------------------------ storing

    def pack(self) -> Packed:
        """Return what is to be stored."""
        keys = list(self._known)
        place = {key: number for number, key in enumerate(keys)}
        return Packed(
            tick_s=self._harm.tick_s,
            ages=[one.age_s for one in self._harm.soaks],
            keys=keys,
            cohorts=likes.pack(self._known.values()),
            due=[(due, number, place[key]) for due, number, key in self._due],
            timers=[
                (when, number, what, place[key], count)
                for when, number, what, key, count in self._timers
            ],
            numbered=self._numbered,
        )

    def restore(self, packed: Packed, now: int) -> None:
        """Take up what was stored. Later gates may have been added or taken away meanwhile.

        Raises:
            ValueError: ticks or gates of other lengths: what was booked by them would be misread.
        """
        ages = [one.age_s for one in self._harm.soaks]
        same = min(len(ages), len(packed.ages))
        if packed.tick_s != self._harm.tick_s or packed.ages[:same] != ages[:same]:
            raise ValueError("ticks and soak gates of other lengths")
        found = likes.unpack(packed.cohorts, len(packed.ages))
        self._known = dict(zip(packed.keys, found, strict=True))
        self._due = [(due, number, packed.keys[at]) for due, number, at in packed.due]
        self._timers = [
            (when, number, what, packed.keys[at], count)
            for when, number, what, at, count in packed.timers
        ]
        self._numbered = packed.numbered
        if len(ages) != len(packed.ages):
            self._regate(same, ages, now)

    def _regate(self, same: int, ages: list[int], now: int) -> None:
        """Fit what is known to other soak gates: of a new one, everybody is still to pass it, and those who are gone are dead at its age."""
        self._timers = list(_before(self._timers, same))
        heapify(self._timers)
        for key, one in self._known.items():
            one.open = one.open[:same]
            for gate in range(same, len(ages)):
                of_age = max(one.granted_at + ages[gate], now)
                dead = one.gone - one.left - sum(count for _, count, _ in one.later)
                one.open.append(max(0, one.staying - dead))
                if dead > 0:
                    self.set(of_age, f"dead{gate}", key, dead)
                if one.mature and one.silent:
                    self.set(of_age, f"quiet{gate}", key, one.silent)


def _before(
    timers: Iterable[tuple[int, int, str, Key, int]], gate: int
) -> Iterator[tuple[int, int, str, Key, int]]:
    """Return the timers that are of no gate, or of one before this."""
    for one in timers:
        if not one[2].startswith(("dead", "quiet")) or int(one[2][-1]) < gate:
            yield one
