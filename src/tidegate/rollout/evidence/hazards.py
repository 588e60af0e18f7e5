"""Late events: weighed a tick at a time against devices not updated, and counted against the fleet's own rate.

What stands together falls together: at most one late event per site and tick is weighed (which, decides a hash), and at most one per region, kind and hour is
counted against the rate.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

import msgspec

from tidegate.core.bucket import bucket
from tidegate.rollout.evidence.baseline import PRIOR_HOURS, bounded_rate
from tidegate.rollout.evidence.book import Book
from tidegate.rollout.evidence.facts import Control, Fact, Kind, Late, Rate
from tidegate.rollout.evidence.risks import Risks
from tidegate.rollout.evidence.settings import HOUR_S
from tidegate.rollout.evidence.strata import Profile

KINDS: Final[tuple[Kind, Kind]] = ("crash", "dark")
#: A rate of the last hour is believed from so many devices on.
_RATE_CONTROL: Final = 50
_BILLION: Final = 1_000_000_000
_BUCKETS: Final = 10_000

#: Kind, whether updated, profile, site, count.
Event: TypeAlias = tuple[Kind, bool, Profile, str, int]


class Packed(msgspec.Struct, frozen=True, array_like=True):
    """What is stored."""

    past: dict[Kind, tuple[int, int]]
    late: list[Event]
    paid: list[tuple[str, Kind, int]]
    recent: dict[Kind, list[tuple[int, int]]]
    events: dict[Kind, int]
    control_s: int
    untold_s: int


class Hazards:
    """Takes late events, gives facts once a tick."""

    def __init__(
        self, book: Book, risks: Risks, past: dict[Kind, tuple[int, int]] | None = None
    ) -> None:
        self._book = book
        self._risks = risks
        self._past = dict(past or {})
        self._late: list[Event] = []
        self._paid: dict[tuple[str, Kind], int] = {}
        self._recent: dict[Kind, list[tuple[int, int]]] = {kind: [] for kind in KINDS}
        self._events: dict[Kind, int] = dict.fromkeys(KINDS, 0)
        self._control_s = 0
        self._untold_s = 0

    def known(self) -> dict[Kind, tuple[int, int]]:
        """Return the late events of devices not updated, and their device-hours, of this rollout and what it began with."""
        hours = self._control_s // HOUR_S
        past = {kind: self._past.get(kind, (0, 0)) for kind in KINDS}
        return {kind: (past[kind][0] + self._events[kind], past[kind][1] + hours) for kind in KINDS}

    def tell(self, event: Event) -> None:
        """Take a late event; it is weighed at the end of the tick."""
        self._late.append(event)

    def tick(self, now: int, spent_s: int) -> Iterable[Fact]:
        """Weigh what was told, and let the time count."""
        yield from self._weigh(now)
        yield from self._pass(now, spent_s)

    def _weigh(self, now: int) -> Iterable[Fact]:
        """Weigh the late events of this tick, all at the tick's risk sets."""
        events, self._late = self._late, []
        hour = now // HOUR_S
        self._risks.fix()
        seen: dict[Kind, int] = dict.fromkeys(KINDS, 0)
        for kind, updated, profile, _, count in self._one_a_site(now, events):
            paid = 0
            if updated:
                region = (self._book.scheme.cell_of(profile)[0], kind)
                paid = int(self._paid.get(region) != hour)
                self._paid[region] = hour
            else:
                seen[kind] += count
            yield Late(
                at=now,
                profile=profile,
                count=count,
                kind=kind,
                updated=updated,
                risks=self._risks.at(kind, profile),
                paid=paid,
            )
        for kind, updated, profile, _, count in events:
            if kind == "dark" and not updated:
                self._risks.leave_control(profile, count)
        for kind, count in seen.items():
            self._events[kind] += count
            self._recent[kind].append((now, count))

    def _one_a_site(self, now: int, events: Sequence[Event]) -> Iterable[Event]:
        """Return the events with at most one of each site and kind; a hash draws which, so that neither side is favoured."""
        by_site: dict[tuple[str, Kind], list[Event]] = {}
        for event in events:
            if event[3]:
                by_site.setdefault((event[3], event[0]), []).append(event)
            else:
                yield event
        for (site, kind), found in by_site.items():
            whole = sum(event[4] for event in found)
            drawn = bucket(site, f"{kind} {now}") * whole // _BUCKETS
            for event in sorted(found):
                drawn -= event[4]
                if drawn < 0:
                    yield (*event[:4], 1)
                    break

    def _pass(self, now: int, spent_s: int) -> Iterable[Fact]:
        """Let the time under watch count: of devices not updated, and against the bound of the fleet's rate."""
        control = self._risks.whole_control
        self._control_s += control * spent_s
        self._untold_s += control * spent_s
        events = sum(self._recent[kind][-1][1] for kind in KINDS)
        hours, self._untold_s = divmod(self._untold_s, HOUR_S)
        if events or hours:
            yield Control(at=now, events=events, hours=hours)
        for kind in KINDS:
            recent = self._recent[kind]
            while recent and recent[0][0] <= now - HOUR_S:
                recent.pop(0)
            if spent_s and self._risks.whole_updated(kind):
                expected = math.ceil(self._rate(kind, control) * spent_s / HOUR_S * _BILLION)
                yield Rate(at=now, kind=kind, expected_ppb=expected)

    def _rate(self, kind: Kind, control: int) -> float:
        """Return how many late events per device-hour are within the limit."""
        events, hours = self._past.get(kind, (0, 0))
        events += self._events[kind]
        hours = max(PRIOR_HOURS, hours + self._control_s // HOUR_S)
        bound = bounded_rate(events, hours) * self._book.harm.hazard_pct / 100
        if control < _RATE_CONTROL:
            return bound
        now = sum(count for _, count in self._recent[kind])
        return max(bound, 1.5 * (now + 2 * math.sqrt(now)) / control)

    # ------------------------------------------------------------------ storing

    def pack(self) -> Packed:
        """Return what is to be stored."""
        return Packed(
            past=self._past,
            late=self._late,
            paid=[(*where, hour) for where, hour in self._paid.items()],
            recent=self._recent,
            events=self._events,
            control_s=self._control_s,
            untold_s=self._untold_s,
        )

    def restore(self, packed: Packed) -> None:
        """Take up what was stored."""
        self._past = dict(packed.past)
        self._late = list(packed.late)
        self._paid = {(region, kind): hour for region, kind, hour in packed.paid}
        self._recent = {kind: list(packed.recent.get(kind, [])) for kind in KINDS}
        self._events = {kind: packed.events.get(kind, 0) for kind in KINDS}
        self._control_s, self._untold_s = packed.control_s, packed.untold_s
