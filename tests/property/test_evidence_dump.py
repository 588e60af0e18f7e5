"""A gate that was stored and taken up again, by another process or after a restart, goes on as if nothing had been: whatever happened, and at any point."""

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.rollout.evidence import layout as at
from tidegate.rollout.evidence.baseline import Baseline
from tidegate.rollout.evidence.book import Book
from tidegate.rollout.evidence.decide import Decision
from tidegate.rollout.evidence.facts import Fact
from tidegate.rollout.evidence.roster import Roster
from tidegate.rollout.evidence.settings import DAY_S, HOUR_S, PRESETS, Harm
from tidegate.rollout.evidence.strata import Profile, divide
from tidegate.rollout.evidence.watch import Watch

TICK = 900
PROFILES: list[Profile] = [
    (variant, region, klass)
    for variant in ("v1", "v2")
    for region in ("eu", "us")
    for klass in ("always", "weekly")
]
SCHEME = divide(dict.fromkeys(PROFILES, 40))
BASE = Baseline(failure_ppm={"other": 10_000}, silence_ppm={"other": 3_000})
HARM = msgspec.structs.replace(PRESETS["normal"], least_control=1)
DEVICES = [f"d{one}" for one in range(24)]
KINDS = ("permit", "refund", "failed", "confirmed", "crashed", "seen", "leave", "exclude", "meet")

#: What happens to which devices (a stride through them), and how long it is until the next tick.
Turn = tuple[str, int, int, int]
turn = st.tuples(
    st.sampled_from((*KINDS, "permit", "confirmed", "seen", "isolate", "early", "measured")),
    st.integers(0, 23),
    st.integers(1, 8),
    st.sampled_from([0, 0, TICK, TICK, 4 * TICK, 5 * HOUR_S, DAY_S, 4 * DAY_S]),
)


def fresh(harm: Harm = HARM) -> Roster:
    roster = Roster(Watch(SCHEME, harm, BASE, 0, {"crash": (3, 9_000)}))
    for number, device in enumerate(DEVICES):
        meet(roster, device, number)
    return roster


def meet(roster: Roster, device: str, number: int) -> None:
    variant, region, klass = PROFILES[number % len(PROFILES)]
    values = {"variant": variant, "region": region, "class": klass}
    site = "mill" if number % 5 == 0 else ""
    roster.meet(device, values, roster.watch.desk.now, site)


def tell(roster: Roster, happened: Turn, keep: list[Fact]) -> Decision | None:
    """Tell one thing of some devices. A decision comes of those that ask for one."""
    what, first, step, _ = happened
    now = roster.watch.desk.now + 40 * step
    if what == "early":
        return roster.early(now, keep.append)
    if what == "isolate":
        roster.isolate(1 + first % (len(SCHEME.strata) - 1), keep.append)
        return None
    for number in range(first, len(DEVICES), step):
        device = DEVICES[number]
        if what == "meet":
            meet(roster, device, number)
        elif what in {"leave", "exclude"}:
            # Few leave, or nobody would be left to tell of.
            getattr(roster, what)(device)
            break
        elif what == "measured":
            value = math.nan if number == 3 else float(number * step % 7)
            roster.measured(device, now, "errors", value, DAY_S)
        else:
            getattr(roster, what)(device, now)
    return None


def again(roster: Roster) -> Roster:
    return Roster.load(roster.dump(), SCHEME, HARM, BASE)


def sound(roster: Roster) -> None:
    roster.watch.book.settle()
    for row in roster.watch.book.rows:
        exposed, failed, silent, healthy, void = row[: at.ALIVE]
        assert min(exposed, failed, silent, healthy, void, *row[at.WATCHED : at.TRACKED]) >= 0
        assert failed + silent + healthy + void <= exposed
        for gate in range(len(HARM.soaks)):
            alive, dead = row[at.ALIVE + gate], row[at.DEAD + gate]
            assert min(alive, dead) >= 0
            assert alive + dead <= exposed - failed - void


@given(story=st.lists(turn, min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_who_was_stored_and_taken_up_at_every_step_sees_and_decides_the_same(
    story: list[Turn],
) -> None:
    one, other = fresh(), fresh()
    facts: tuple[list[Fact], list[Fact]] = ([], [])
    for happened in (*story, *[("seen", 0, 1, TICK)] * 6, ("seen", 0, 1, 5 * DAY_S)):
        other = again(other)
        assert tell(one, happened, facts[0]) == tell(other, happened, facts[1])
        other = again(other)
        now = one.watch.desk.now + happened[3]
        if happened[3]:
            assert one.step(now, facts[0].append) == other.step(now, facts[1].append)
        sound(one)
        assert facts[0] == facts[1]
        assert one.dump() == other.dump()
    assert one.watch.book.digest() == other.watch.book.digest()
    replayed = Book(SCHEME, HARM, BASE)
    replayed.fold_all(facts[0])
    assert replayed.digest() == one.watch.book.digest()


@given(story=st.lists(turn, min_size=1, max_size=25), left=st.booleans())
@settings(max_examples=15, deadline=None)
def test_every_gate_is_passed_or_lost_once_by_everybody_whoever_leaves(
    story: list[Turn], left: bool
) -> None:
    """Nobody holds room for ever: weeks later all who had a permit have left every gate, one way or another."""
    roster = fresh(msgspec.structs.replace(HARM, tick_s=HOUR_S))
    for happened in story:
        tell(roster, happened, [])
        if happened[3]:
            roster.step(roster.watch.desk.now + happened[3])
    for number, device in enumerate(DEVICES):
        if left and number % 2:
            roster.leave(device)
    for half in range(50):
        for number, device in enumerate(DEVICES):
            if number % 3 or half < 6:
                roster.seen(device, roster.watch.desk.now)
        for _ in range(6):
            roster.step(roster.watch.desk.now + 2 * HOUR_S)
    sound(roster)
    row = roster.watch.book.rows[0]
    assert row[at.FAILED] + row[at.SILENT] + row[at.HEALTHY] + row[at.VOID] == row[at.EXPOSED]
    for gate in range(len(HARM.soaks)):
        passed = row[at.ALIVE + gate] + row[at.DEAD + gate]
        assert passed == row[at.EXPOSED] - row[at.FAILED] - row[at.VOID]


@pytest.mark.parametrize(("before", "after"), [("fast", "careful"), ("careful", "fast")])
def test_a_rollout_whose_preset_is_changed_goes_on_under_the_other_gates(
    before: str, after: str
) -> None:
    roster = Roster(Watch(SCHEME, PRESETS[before], BASE, 0))
    for number, device in enumerate(DEVICES):
        meet(roster, device, number)
        roster.permit(device, 0)
        if number:
            roster.confirmed(device, 60)
    for _ in range(8):
        roster.step(roster.watch.desk.now + TICK)
    roster.crashed("d2", roster.watch.desk.now)
    roster.step(roster.watch.desk.now + TICK)
    roster = Roster.load(roster.dump(), SCHEME, PRESETS[after], BASE)
    for _ in range(9 * 48):
        for device in DEVICES[2:]:
            roster.seen(device, roster.watch.desk.now)
        roster.step(roster.watch.desk.now + 2 * TICK)
    roster.watch.book.settle()
    row = roster.watch.book.rows[0]
    gates = len(PRESETS[after].soaks)
    # One was silent, one never heard of again after it confirmed, one crashed.
    assert row[at.ALIVE : at.ALIVE + gates] == [21] * gates
    assert row[at.DEAD : at.DEAD + gates] == [3] * gates
    assert roster.step(roster.watch.desk.now + TICK).verdict == "go"


@pytest.mark.parametrize(
    ("data", "harm"),
    [
        (b"", HARM),
        (b"\x02abc", HARM),
        (b"\x01abc", HARM),
        (fresh().dump()[:-20], HARM),
        (fresh().dump(), msgspec.structs.replace(HARM, metrics=("errors", "latency"))),
        (fresh().dump(), msgspec.structs.replace(HARM, tick_s=600)),
        (fresh().dump(), msgspec.structs.replace(HARM, soaks=PRESETS["normal"].soaks[1:])),
    ],
)
def test_what_cannot_be_read_as_it_was_meant_is_refused(data: bytes, harm: Harm) -> None:
    with pytest.raises(ValueError, match=r"dump|book|gates"):
        Roster.load(data, SCHEME, harm, BASE)


def test_a_roster_of_other_strata_is_refused() -> None:
    other = divide({("v9", "eu", "always"): 40})
    with pytest.raises(ValueError, match="other strata"):
        Roster.load(fresh().dump(), other, HARM, BASE)
