"""One decision: `decide(book, now)`. Pure: the same book and time give the same decision on every machine.

1. The wealth of every stratum in play, weighted, is summed. **At `odds` : 1 somebody is to blame**: the stratum whose term is largest, or a wider one near it.
   It is isolated when it is neither the fleet nor most of it, the rest has lost money on betting against the release, enough of the rest are healthy, and
   the sum is below the limit again without it and with all that overlaps it back at even odds. Otherwise all is halted.
2. A decision that halts or isolates opens nothing.
3. Room: by outcomes of the first hour, of the fleet and of each variant; by each soak gate; each variant has its share. **Amber**: as the odds rise the room
   shrinks, and is gone well before a halt. A stratum that is neither the fleet nor a variant limits its own devices (`caps`) instead of everybody:
   by the outcomes of its own first hour, and by amber. While the odds are against the release or a variant, even by little, its devices grow by the day once
   the soak is over. A part is not slowed so: it would be the last to be updated, with nobody left to compare it with.
4. Less than one permit is saved up (`credits_ppm`, a rate per hour). Where amber has taken all and nothing is out, one permit an hour keeps the question open,
   for such a stratum, too: an amber state ends one way or the other. Not in a fleet of a handful in which nobody is healthy yet:
   there a person decides.

What is decided comes back as facts (`carried`), so that the log alone replays it.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Final, Literal, TypeAlias

import msgspec

from tidegate.rollout.evidence import baseline, held, room, wealth
from tidegate.rollout.evidence import layout as at
from tidegate.rollout.evidence.book import Book
from tidegate.rollout.evidence.facts import Credits, Fact, Isolated
from tidegate.rollout.evidence.held import Held
from tidegate.rollout.evidence.settings import HOUR_S, MILLION, Harm
from tidegate.rollout.evidence.strata import CLASS, FLEET, REGION, VARIANT
from tidegate.rollout.evidence.wealth import Wealth

Verdict: TypeAlias = Literal["go", "isolate", "halt"]

#: Odds are told up to here.
_MOST_ODDS: Final = 1_000_000_000
_NEEDLES: Final = 5
_HANDFUL: Final = (
    "a fleet too small to spend another device: nobody is healthy yet, a person decides"
)
#: Terms within a factor of ten of the largest blame as well as it does.
_NEAR: Final = math.log(10)


class Blame(msgspec.Struct, frozen=True, kw_only=True):
    """Who carries the evidence. `stratum` 0 = the release; `attributes` and `values` say which devices those are.

    `log_odds` of all together; `rest_log_e`, `rest_healthy` of all others.
    """

    stratum: int
    name: str
    stream: str
    log_odds: float
    rest_log_e: float
    rest_healthy: int
    attributes: tuple[str, ...] = ()
    values: tuple[str, ...] = ()


class Needle(msgspec.Struct, frozen=True, kw_only=True):
    """One needle of the evidence meter: weighted, so that every needle halts at the same mark. `odds` to 1; `stream` carries most of it."""

    stratum: int
    name: str
    stream: str
    odds: float


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided.

    `log_odds`: of the weighted sum; it halts at ln(odds). `permits`: how many more each variant, as the scheme tells them apart, may get until the next
    decision. `rooms`: the same before whole permits are made of it. `caps`: strata with odds against them: their devices get at most so many of those.
    `limits`: what limits the speed. `at_worst`: devices out of those already exposed that could
    still be lost. `ages`: proof of health. `streams`: unweighted ln E of the fleet. `pending`: permits whose outcome is open. `held`: nothing goes on by
    itself, and the odds stop nothing either. `doubted`: the odds are above even, or more devices fail than is tolerated: permits go where they are evidence
    (`Desk.site_room`).
    """

    at: int
    facts: int
    verdict: Verdict
    log_odds: float
    log_e: float
    streams: dict[str, float]
    needles: tuple[Needle, ...] = ()
    blame: Blame | None = None
    permits: dict[str, int] = {}
    rooms: dict[str, float] = {}
    caps: dict[int, int] = {}
    limits: str = ""
    room_fleet: float = 0.0
    room_soak: float | None = None
    ages: tuple[room.Age, ...] = ()
    fast_worst: float = 1.0
    at_worst: int = 0
    amber: float = 1.0
    doubted: bool = False
    credits_ppm: dict[int, int] = {}
    pending: int = 0
    held: Held | None = None

    @property
    def odds(self) -> float:
        """Return the odds against the release, to 1, never below 1."""
        return odds(self.log_odds)

    @property
    def carried(self) -> tuple[Fact, ...]:
        """Return what the book has to remember of this decision."""
        if self.verdict == "isolate" and self.blame is not None:
            return (Isolated(at=self.at, stratum=self.blame.stratum),)
        return (Credits(at=self.at, parts_ppm=self.credits_ppm),) if self.verdict == "go" else ()


def odds(log: float) -> float:
    """Return odds to 1 of a logarithm, between 1 and 10⁹."""
    return max(1.0, min(float(_MOST_ODDS), math.exp(min(log, 30.0))))


def decide(
    book: Book,
    now: int,
    *,
    since_s: int | None = None,
    known: Wealth | None = None,
    waiting: Mapping[str, int] | None = None,
) -> Decision:
    """Decide who is to blame, or how many may go.

    Args:
        book: all that is known. It is settled, nothing else of it changes.
        now: unix seconds.
        since_s: time since the last decision; None = a tick. Fractions of permits grow with it, by an hour at the most.
        waiting: devices not updated that are there now, by variant: newcomers are more than the census has. None = nobody but the census.
        known: the book's wealth from an earlier decision; makes this one cheaper, and changes nothing of what it says.
    """
    known = Wealth(book) if known is None else known
    if known.book is not book:
        raise ValueError("this wealth is another book's")
    known.refresh()
    play = book.in_play()
    weighted = known.all_weighted(play)
    log_odds = wealth.total(weighted.values())
    streams = dict(zip(book.layout.streams, known.streams(FLEET), strict=True))
    needles = _needles(book, known, weighted)
    base = Decision(
        at=now,
        facts=book.facts,
        verdict="go",
        log_odds=log_odds,
        log_e=known.of(FLEET),
        streams=streams,
        needles=needles,
    )
    if log_odds >= wealth.rounded(math.log(book.harm.odds)):
        return _blamed(book, known, weighted, base)
    elapsed = book.harm.tick_s if since_s is None else max(0, min(since_s, HOUR_S))
    return _room(book, known, weighted, base, elapsed, waiting or {})


def _needles(book: Book, known: Wealth, weighted: dict[int, float]) -> tuple[Needle, ...]:
    # Of equal ones the first: strata in play come in their order, and a sort keeps it.
    highest = sorted(weighted, key=weighted.__getitem__, reverse=True)[:_NEEDLES]
    return tuple(
        Needle(
            stratum=one,
            name=book.scheme.strata[one].name,
            stream=_stream(book, known, one),
            odds=round(odds(weighted[one]), 3),
        )
        for one in highest
        if weighted[one] > -math.inf
    )


def _stream(book: Book, known: Wealth, stratum: int) -> str:
    """Return the stream that carries most of a stratum's evidence."""
    layout = book.layout
    pairs = zip(known.streams(stratum), layout.log_weights, layout.streams, strict=True)
    terms = [(log + weight, name) for log, weight, name in pairs if weight > -math.inf]
    return max(terms, key=lambda one: one[0])[1] if terms else ""


# ---------------------------------------------------------------------- blame


def _blamed(book: Book, known: Wealth, weighted: dict[int, float], base: Decision) -> Decision:
    guilty = _guilty(book, weighted)
    rest = wealth.without(book, guilty)
    rest_log = wealth.mixed(wealth.of_row(rest), book.layout.weights) if guilty else base.log_e
    healthy = rest[at.HEALTHY] if guilty else 0
    blame = Blame(
        stratum=guilty,
        name=book.scheme.strata[guilty].name,
        stream=_stream(book, known, guilty),
        log_odds=base.log_odds,
        rest_log_e=rest_log,
        rest_healthy=healthy,
        attributes=book.scheme.strata[guilty].attributes,
        values=book.scheme.strata[guilty].values,
    )
    alone = (
        guilty != FLEET
        and not _most(book, guilty)
        and rest_log < 0
        and (healthy if _shown(book, blame) else rest[at.ALIVE]) >= book.harm.healthy_others
        and _calm_without(book, weighted, guilty)
    )
    if alone:
        return msgspec.structs.replace(base, verdict="isolate", blame=blame)
    return msgspec.structs.replace(base, verdict="halt", blame=blame)


def _guilty(book: Book, weighted: dict[int, float]) -> int:
    """Return who carries the evidence: the fleet when its term is the largest; else, of those near the largest, a variant before others before pairs.

    A region whose night comes first shows first what befalls all. So nothing but a variant is to blame while the release is condemned by its own term, and
    that is near.
    """
    largest = max(weighted.values())
    whole = weighted.get(FLEET, -math.inf)
    if whole >= largest:
        return FLEET
    strata = book.scheme.strata
    near = [one for one, log in weighted.items() if one != FLEET and log >= largest - _NEAR]
    found = min(
        near,
        key=lambda one: (
            len(strata[one].attributes),
            strata[one].attributes != (VARIANT,),
            -weighted[one],
            one,
        ),
    )
    condemned = whole >= max(largest - _NEAR, wealth.rounded(math.log(book.harm.odds)))
    return FLEET if condemned and strata[found].attributes != (VARIANT,) else found


def _shown(book: Book, blame: Blame) -> bool:
    """Say whether the health of the rest in its first hour says that a part alone is to blame.

    Not of a region or a class of connection that crashes or falls silent late: night comes to one region first, and to some classes at other hours. The rest
    must have been well for a day, the first soak gate, or else the release is halted.
    """
    if not book.harm.soaks or blame.stream in {"failure", "silence"}:
        return True
    return not {REGION, CLASS}.intersection(blame.attributes)


def _most(book: Book, stratum: int) -> bool:
    """Say whether a stratum is so large a part that it is the release."""
    strata = book.scheme.strata
    size = max(strata[stratum].size, book.rows[stratum][at.EXPOSED])
    return size * MILLION >= book.harm.blame_most_ppm * max(1, strata[FLEET].size)


def _calm_without(book: Book, weighted: dict[int, float], guilty: int) -> bool:
    """Say whether the odds are below the limit when the guilty stratum leaves and all that overlaps it starts again."""
    again = set(book.overlapping(guilty))
    left = [
        book.scheme.log_weights[one] if one in again else log
        for one, log in weighted.items()
        if one != guilty and log > -math.inf
    ]
    return wealth.total(left) < wealth.rounded(math.log(book.harm.odds))


# ---------------------------------------------------------------------- room


def _room(
    book: Book,
    known: Wealth,
    weighted: dict[int, float],
    base: Decision,
    elapsed_s: int,
    waiting: Mapping[str, int],
) -> Decision:
    harm, rows = book.harm, book.rows
    variants = {name: one for name, one in book.scheme.variants.items() if one in weighted}
    sizes = _eligible(book, variants)
    eligible = sum(sizes.values())
    fleet = room.counts(rows[FLEET])
    base_ppm = _mean_base(book, sizes)
    late = fleet.exposed * MILLION > harm.soak_most_ppm * eligible
    room_fleet = room.fast(harm, fleet, base_ppm, harm.first_fleet, late=late)
    hazard = baseline.hazard_ppb(book.control_events, book.control_hours * HOUR_S)
    ages = room.soak(harm, rows[FLEET], eligible, hazard)
    shut = [one.room for one in ages if one.room is not None]
    room_soak = min(shut) if shut else None
    left = {
        name: max(0, sizes[name] - rows[one][at.EXPOSED], waiting.get(name, 0))
        for name, one in variants.items()
    }
    whole = sum(left.values())
    leads = _leads(book, weighted)
    # Of a handful of devices none may be left for an answer: that is a person's decision.
    few = held.is_handful(harm, eligible)
    stuck = few and held.nobody_well(rows[FLEET])
    rooms: dict[str, float] = {}
    permits: dict[str, int] = {}
    left_over: dict[int, int] = {}
    slowed = False
    for name, one in variants.items():
        share = left[name] / whole if whole else 0.0
        lead = max(known.of(FLEET), leads[one])
        seen = room.counts(rows[one])
        own = room.fast(harm, seen, book.baseline.failure(name), harm.first_variant, late=late)
        least = min(own, room_fleet * share + 0.5)
        if room_soak is not None:
            least = min(least, room_soak * share)
        rooms[name] = 0.0 if stuck else least * room.amber(harm, lead)
        if not left[name]:
            continue
        granted, saved = _whole(rooms[name], book.credits.get(one, 0), elapsed_s)
        if not granted and lead > 0 and not seen.pending and not stuck:
            # Amber took it: one an hour, saved up like a fraction, even where the soak has no room.
            granted, saved = _whole(1.0 - 1e-9, book.credits.get(one, 0), elapsed_s)
        if granted and room_soak is None and lead > 0:
            # An hour must not take what a day's evidence is needed for.
            pace = max(1.0, harm.doubt_pct * seen.exposed / 2_400)
            paced, kept = _paced(pace, book.credits.get(one, 0), elapsed_s)
            if paced < granted:
                granted, saved, slowed = paced, kept, True
        permits[name] = min(granted, left[name])
        if saved:
            left_over[one] = saved
    caps: dict[int, int] = {}
    for one, lead in leads.items():
        if lead <= 0.0 or one not in book.scheme.narrow:
            continue
        seen, saved = room.counts(rows[one]), book.credits.get(one, 0)
        own = room.fast(harm, seen, base_ppm, harm.first_variant, late=late)
        own *= room.amber(harm, lead)
        caps[one], kept = _whole(own, saved, elapsed_s)
        if not caps[one] and not seen.pending:
            caps[one], kept = _whole(1.0 - 1e-9, saved, elapsed_s)
        if kept:
            left_over[one] = kept
    return msgspec.structs.replace(
        base,
        permits=permits,
        rooms=rooms,
        caps=caps,
        limits=_HANDFUL
        if stuck
        else _limits(harm, permits, room_fleet, room_soak, ages, base.log_e, whole, slowed=slowed),
        room_fleet=room_fleet,
        room_soak=room_soak,
        ages=ages,
        fast_worst=room.at_worst(harm, fleet, base_ppm),
        at_worst=_at_worst(fleet, ages),
        amber=room.amber(harm, known.of(FLEET)),
        doubted=base.log_odds > 0 or room.doubtful(harm, fleet, base_ppm),
        credits_ppm=left_over,
        pending=fleet.pending,
        held=held.of_fleet(
            rows[FLEET],
            handful=few,
            left=whole,
            amber=room.amber(harm, base.log_odds),
        ),
    )


def _eligible(book: Book, variants: dict[str, int]) -> dict[str, int]:
    """Return how many devices of each variant in play there are, less those of strata that were isolated; newcomers count once they are exposed."""
    gone = [one for one in book.isolated if book.scheme.strata[one].attributes != (VARIANT,)]
    sizes = {
        name: max(book.scheme.strata[one].size, book.rows[one][at.EXPOSED])
        for name, one in variants.items()
    }
    for profile, devices in book.scheme.census if gone else ():
        name = profile[book.scheme.attributes.index(VARIANT)]
        if name in sizes and any(book.scheme.holds(one, profile) for one in gone):
            sizes[name] = max(0, sizes[name] - devices)
    return sizes


def _mean_base(book: Book, sizes: dict[str, int]) -> float:
    whole = sum(sizes.values())
    if not whole:
        return 0.0
    return sum(book.baseline.failure(name) * size for name, size in sizes.items()) / whole


def _leads(book: Book, weighted: Mapping[int, float]) -> dict[int, float]:
    """Return the ln E of each stratum in play at its weight relative to the fleet's; 0 where it has no weight."""
    whole = book.scheme.log_weights[FLEET]
    whole = whole if whole > -math.inf else 0.0
    return {one: log - whole if log > -math.inf else 0.0 for one, log in weighted.items()}


def _whole(rate: float, saved_ppm: int, elapsed_s: int) -> tuple[int, int]:
    """Return whole permits, and what is saved up. A room of one or more is granted; less than one is a rate per hour."""
    if rate >= 1.0:
        return math.floor(rate), 0
    if rate <= 0.0:
        return 0, saved_ppm
    saved = saved_ppm + math.ceil(rate * MILLION * elapsed_s / HOUR_S)
    return (1, 0) if saved >= MILLION else (0, saved)


def _paced(rate: float, saved_ppm: int, elapsed_s: int) -> tuple[int, int]:
    """Return whole permits at a rate per hour, and what is saved up: less than one."""
    saved = saved_ppm + math.ceil(rate * MILLION * elapsed_s / HOUR_S)
    return saved // MILLION, saved % MILLION


def _at_worst(fleet: room.Counts, ages: Iterable[room.Age]) -> int:
    """Return how many of the exposed could still be lost: each at the upper bound of the youngest age that it has not passed."""
    pending = fleet.pending
    lost = pending * room.upper(fleet.resolved, fleet.bad)
    older = pending
    for age in ages:
        lost += max(0, age.younger - older) * min(1.0, age.worst)
        older = max(older, age.younger)
    return min(fleet.exposed, math.ceil(lost))


def _limits(
    harm: Harm,
    permits: dict[str, int],
    room_fleet: float,
    room_soak: float | None,
    ages: tuple[room.Age, ...],
    log_e: float,
    left: int,
    *,
    slowed: bool,
) -> str:
    if not left:
        return "everybody has had a permit"
    if slowed:
        return f"the odds are against the release or a variant: {harm.doubt_pct} % more devices a day at most, so that there is time to see"
    if log_e > 0 and not any(permits.values()):
        return f"amber: the odds against the release are up; permits end at {harm.amber_pct} % of the way to a halt"
    if room_soak is not None and room_soak <= room_fleet:
        tight = min((one for one in ages if one.room is not None), key=lambda one: one.room or 0.0)
        return f"soak of {tight.age_s // HOUR_S} h"
    return "outcomes of the first hour"
