"""The evidence gate: facts folded a second with 200 strata, one decision at a million devices, and how long deciding takes when little changed.

Then a roster of a million devices, stored and taken up again.

Nothing here waits for anything, so it is the processor's time that is taken.
"""

import random
import sys
import time
from itertools import product

from bench.figure import Figure

from tidegate.rollout.evidence.baseline import Baseline
from tidegate.rollout.evidence.book import Book
from tidegate.rollout.evidence.decide import decide
from tidegate.rollout.evidence.facts import Alive, Fact, Fail, Late, Ok, Permit, Silent
from tidegate.rollout.evidence.roster import Roster
from tidegate.rollout.evidence.settings import PRESETS, Harm
from tidegate.rollout.evidence.strata import Profile, Scheme, divide
from tidegate.rollout.evidence.watch import Watch
from tidegate.rollout.evidence.wealth import Wealth

DEVICES = 1_000_000
EVENTS = 300_000
#: Of the state of one stratum.
MOST_INTEGERS = 100


def scheme() -> tuple[Scheme, list[Profile]]:
    """Six variants, five regions, four classes, five old versions, three kinds of site: 200 strata."""
    values = (
        [f"v{one}" for one in range(6)],
        [f"r{one}" for one in range(5)],
        ["always", "daily", "weekly", "monthly"],
        [f"1.{one}" for one in range(5)],
        ["home", "plant", "office"],
    )
    profiles: list[Profile] = list(product(*values))
    census = {one: DEVICES // len(profiles) for one in profiles}
    return divide(census, ("variant", "region", "class", "from", "site_kind")), profiles


def stream(profiles: list[Profile], book: Book) -> list[Fact]:
    """Make the events of a rollout, one device each: a permit, its outcome, its age; one in 200 a late event."""
    rnd = random.Random(5)
    found: list[Fact] = []
    while len(found) < EVENTS:
        profile = profiles[rnd.randrange(len(profiles))]
        at = len(found)
        found.append(Permit(at=at, profile=profile))
        draw = rnd.random()
        if draw < 0.01:
            found.append(Fail(at=at, profile=profile, granted_at=at))
            continue
        if draw < 0.013:
            found.append(Silent(at=at, profile=profile, granted_at=at, silence_ppm=4_000))
            continue
        found.append(Ok(at=at, profile=profile, granted_at=at, silence_ppm=4_000))
        found.append(Alive(at=at, profile=profile, gate=0))
        if draw > 0.99:
            near = 1 + len(found) // 1_000
            risks = tuple((one, near, 40_000 - near) for one in book.scheme.strata_of(profile))
            found.append(
                Late(at=at, profile=profile, kind="crash", updated=draw > 0.999, risks=risks)
            )
    return found[:EVENTS]


def counted(facts: list[Fact]) -> float:
    """Count the same facts in a plain dictionary, by profile and kind; return seconds."""
    start = time.process_time()
    counts: dict[tuple[Profile, str], int] = {}
    for fact in facts:
        key = (fact.profile, type(fact).__name__)  # type: ignore[union-attr]
        counts[key] = counts.get(key, 0) + 1
    return time.process_time() - start


def folded(facts: list[Fact], book: Book) -> float:
    start = time.process_time()
    for fact in facts:
        book.fold(fact)
    book.settle()
    return time.process_time() - start


def crowd(strata: Scheme, profiles: list[Profile], harm: Harm, base: Baseline) -> Roster:
    """Tell a roster a rollout of four days.

    All are met, half had their permit, most of those confirmed, the others tell what they measured, and a tenth stand at sites of eight.
    """
    roster = Roster(Watch(strata, harm, base, 0))
    values = [dict(zip(strata.attributes, profile, strict=True)) for profile in profiles]
    for one in range(DEVICES):
        site = f"site{one // 8}" if one % 80 < 8 else ""
        roster.meet(f"gw-{one:07d}", values[one % len(values)], 0, site)
    for tick in range(384):
        now = tick * harm.tick_s
        for one in range(tick, DEVICES // 2, 384):
            roster.permit(f"gw-{one:07d}", now)
        for one in range(tick, DEVICES // 2, 384):
            if one % 300:
                roster.confirmed(f"gw-{one:07d}", now + 60)
            roster.seen(f"gw-{DEVICES - 1 - one:07d}", now + one % 800)
            roster.measured(f"gw-{DEVICES - 1 - one:07d}", now, "errors", one % 7, 40_000)
        if tick % 4 == 3:
            roster.step(now + harm.tick_s)
    return roster


def stored(strata: Scheme, profiles: list[Profile], harm: Harm, base: Baseline) -> list[Figure]:
    """Measure what a roster of a million devices takes to store and to take up again."""
    roster = crowd(strata, profiles, harm, base)
    start = time.process_time()
    data = roster.dump()
    dumped = time.process_time() - start
    start = time.process_time()
    again = Roster.load(data, strata, harm, base)
    loaded = time.process_time() - start
    if again.watch.book.digest() != roster.watch.book.digest():
        raise AssertionError("a roster was not taken up as it was stored")
    name = "gate: a roster of a million devices"
    return [
        Figure(name=f"{name}, dumped", value=dumped, unit="s", bar=5, at_most=True),
        Figure(name=f"{name}, loaded", value=loaded, unit="s", bar=5, at_most=True),
        Figure(name=f"{name}, packed", value=len(data) / 1e6, unit="MB", bar=30, at_most=True),
    ]


def best(times: list[float]) -> float:
    """The median: one pause of a shared machine is not the program's."""
    return sorted(times)[len(times) // 2]


def measure() -> list[Figure]:
    """Measure folding, deciding, and the size of the state."""
    strata, profiles = scheme()
    harm, base = PRESETS["normal"], Baseline(failure_ppm={"other": 10_000})
    facts = stream(profiles, Book(strata, harm, base))
    plain, folding = [], []
    book = Book(strata, harm, base)
    for _ in range(3):
        plain.append(EVENTS / counted(facts))
        book = Book(strata, harm, base)
        folding.append(EVENTS / folded(facts, book))
    print(f"gate: {len(strata.strata)} strata, {len(profiles)} profiles", file=sys.stderr)
    full, few = [], []
    for turn in range(15):
        start = time.process_time()
        decide(book, turn)
        full.append(1_000 * (time.process_time() - start))
    known = Wealth(book)
    decide(book, 0, known=known)
    for turn in range(40):
        book.fold(Permit(at=EVENTS + turn, profile=profiles[turn]))
        start = time.process_time()
        decide(book, turn, known=known)
        few.append(1_000 * (time.process_time() - start))
    integers = max(len(row) for row in book.rows)
    return [
        Figure(
            name="gate: facts folded, 200 strata",
            value=best(folding),
            unit="/s",
            reference=best(plain),
            against="counted in a dict",
            bar=100_000,
        ),
        Figure(
            name="gate: a decision, all anew", value=best(full), unit="ms", bar=10, at_most=True
        ),
        Figure(
            name="gate: a decision, one profile changed",
            value=best(few),
            unit="ms",
            reference=best(full),
            against="all anew",
            bar=2,
            at_most=True,
        ),
        Figure(
            name="gate: integers a stratum",
            value=integers,
            unit="",
            bar=MOST_INTEGERS,
            at_most=True,
        ),
        *stored(strata, profiles, harm, base),
    ]
