"""Late events: weighed a tick at a time against devices not updated, and counted against the fleet's own rate.

What stands together falls together: at most one late event per site and tick is weighed (which, decides a hash), and at most one per region, kind and hour, and
one per site, kind and day (`Harm.site_s`), is counted against the rate.

**What befalls many sites at once** (a region loses its network) is no choice among sites, but among devices. One of each site then says something false where
sites were updated later than devices that stand alone: most of those who count are updated, though the same share of both fell silent. So both counts are
made, one of each site and all of them, and the lesser is believed: whichever of the two is fair, the lesser is as well (docs/decisions/0048).
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

import msgspec

from tidegate.core.bucket import bucket
from tidegate.rollout.evidence.baseline import PRIOR_HOURS, bounded_rate
from tidegate.rollout.evidence.book import Book
from tidegate.rollout.evidence.facts import Control, Fact, Kind, Late, Rate, Shock
from tidegate.rollout.evidence.risks import Risks
from tidegate.rollout.evidence.settings import HOUR_S
from tidegate.rollout.evidence.strata import Profile

KINDS: Final[tuple[Kind, Kind]] = ("crash", "dark")
#: A rate of the last hour is believed from so many devices on.
_RATE_CONTROL: Final = 50
#: So many sites of a cell with more than one event in a tick, and it was no site's own misfortune.
_SITES: Final = 3
_BILLION: Final = 1_000_000_000
_BUCKETS: Final = 10_000

#: Kind, whether updated, profile, site, count.
Event: TypeAlias = tuple[Kind, bool, Profile, str, int]
#: A kind of late event in a cell: region and class of connection.
Place: TypeAlias = tuple[Kind, tuple[str, str]]


class Packed(msgspec.Struct, frozen=True, array_like=True):
    """What is stored."""

    past: dict[Kind, tuple[int, int]]
    late: list[Event]
    paid: list[tuple[str, Kind, int]]
    recent: dict[Kind, list[tuple[int, int]]]
    events: dict[Kind, int]
    control_s: int
    untold_s: int
    spoke: list[tuple[str, Kind, int]] = []


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
        #: When a site last counted against the rate.
        self._spoke: dict[tuple[str, Kind], int] = {}
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
        self._risks.fix()
        seen: dict[Kind, int] = dict.fromkeys(KINDS, 0)
        drawn = list(self._one_a_site(now, events))
        shaken = self._shaken(events) if any(event[3] for event in events) else ()
        for kind, updated, profile, site, count in drawn:
            paid = 0
            if updated:
                paid = self._pays(now, kind, self._book.scheme.cell_of(profile)[0], site)
            else:
                seen[kind] += count
            yield Late(
                at=now,
                profile=profile,
                count=count,
                kind=kind,
                updated=updated,
                risks=()
                if shaken and self._place(kind, profile) in shaken
                else self._risks.at(kind, profile),
                paid=paid,
            )
        for place in shaken:
            yield from self._shock(now, place, drawn, events)
        for kind, updated, profile, _, count in events:
            if kind == "dark" and not updated:
                self._risks.leave_control(profile, count)
        for kind, count in seen.items():
            self._events[kind] += count
            self._recent[kind].append((now, count))

    def _pays(self, now: int, kind: Kind, region: str, site: str) -> int:
        """Return whether an event counts against the rate: 1 or 0."""
        hour, rest_s = now // HOUR_S, self._book.harm.site_s
        rests = now < self._spoke.get((site, kind), now - rest_s) + rest_s
        if rests or self._paid.get((region, kind)) == hour:
            return 0
        self._paid[region, kind] = hour
        if site:
            self._spoke[site, kind] = now
        return 1

    def _place(self, kind: Kind, profile: Profile) -> Place:
        return kind, self._book.scheme.cell_of(profile)

    def _shaken(self, events: Sequence[Event]) -> tuple[Place, ...]:
        """Return where several devices of several sites had their event in this tick."""
        counts: dict[Place, dict[str, int]] = {}
        for kind, _, profile, site, count in events:
            if site:
                sites = counts.setdefault(self._place(kind, profile), {})
                sites[site] = sites.get(site, 0) + count
        return tuple(
            sorted(
                place
                for place, sites in counts.items()
                if sum(count > 1 for count in sites.values()) >= _SITES
            )
        )

    def _shock(
        self, now: int, place: Place, drawn: Sequence[Event], events: Sequence[Event]
    ) -> Iterable[Shock]:
        """Sum up by stratum what befell a cell: with one of each site, and with all of them."""
        sums: dict[int, list[int]] = {}
        for first, told in ((2, drawn), (4, events)):
            for kind, updated, profile, _, count in told:
                if self._place(kind, profile) != place:
                    continue
                for stratum, at_risk, control in self._risks.at(kind, profile):
                    found = sums.setdefault(stratum, [at_risk, control, 0, 0, 0, 0])
                    found[first if updated else first + 1] += count
        if sums:
            rows = (
                (stratum, a, b, c, d, e, f) for stratum, (a, b, c, d, e, f) in sorted(sums.items())
            )
            yield Shock(at=now, kind=place[0], shaken=tuple(rows))

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
            spoke=[(*where, at) for where, at in self._spoke.items()],
        )

    def restore(self, packed: Packed) -> None:
        """Take up what was stored."""
        self._past = dict(packed.past)
        self._late = list(packed.late)
        self._paid = {(region, kind): hour for region, kind, hour in packed.paid}
        self._recent = {kind: list(packed.recent.get(kind, [])) for kind in KINDS}
        self._events = {kind: packed.events.get(kind, 0) for kind in KINDS}
        self._control_s, self._untold_s = packed.control_s, packed.untold_s
        self._spoke = {(site, kind): at for site, kind, at in packed.spoke}
