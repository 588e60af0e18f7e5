"""Evidence that can neither stop a rollout nor let it go on is said so, as a fact of the decision; and nothing opens or completes meanwhile."""

import msgspec
import pytest
from tests.unit.rollout.stage import begun, known, policy

from tidegate.rollout import engine
from tidegate.rollout.evidence.baseline import Baseline
from tidegate.rollout.evidence.book import Book
from tidegate.rollout.evidence.decide import Decision, decide
from tidegate.rollout.evidence.facts import Alive, Fact, Fail, Ok, Permit, Silent
from tidegate.rollout.evidence.held import Held
from tidegate.rollout.evidence.settings import DAY_S, PRESETS
from tidegate.rollout.evidence.strata import Profile, divide
from tidegate.rollout.evidence.watch import Watch
from tidegate.rollout.model import Evidence

EU: Profile = ("v1", "eu", "always")
BASE = Baseline()


def decided(
    devices: int, well: int, failed: int, silent: int, *more: Fact, open_: int = 0, at: int = 3_600
) -> Decision:
    book = Book(divide({EU: devices}), PRESETS["normal"], BASE)
    book.fold(Permit(at=0, profile=EU, count=well + failed + silent + open_))
    for fact, count in ((Ok, well), (Fail, failed), (Silent, silent)):
        if count:
            book.fold(fact(at=9, profile=EU, count=count, granted_at=0))
    book.fold_all(more)
    return decide(book, at)


@pytest.mark.parametrize(("devices", "out"), [(1, 1), (3, 1), (20, 2)])
def test_a_handful_of_which_all_that_were_let_go_are_lost_is_held(devices: int, out: int) -> None:
    found = decided(devices, 0, out, 0)
    assert found.verdict == "go"
    assert not any(found.permits.values())
    assert found.held is not None
    assert (found.held.bad, found.held.out) == (out, out)


def test_nothing_is_held_while_an_outcome_is_open() -> None:
    assert decided(20, 0, 0, 1, open_=1).held is None
    assert decided(20, 0, 0, 0, open_=2).held is None


def test_nothing_is_held_where_one_device_is_well() -> None:
    assert decided(20, 1, 0, 1).held is None


def test_a_device_that_came_back_late_and_is_of_age_takes_the_hold_away() -> None:
    late = Alive(at=DAY_S, profile=EU, count=1, gate=0)
    assert decided(20, 0, 0, 1, at=DAY_S).held is not None
    assert decided(20, 0, 0, 1, late, at=DAY_S).held is None


def test_a_fleet_in_which_everybody_was_tried_is_held_where_half_of_it_is_bad() -> None:
    found = decided(3, 1, 2, 0)
    assert found.verdict == "go"
    assert found.held == Held(bad=2, out=3, ground="spent")
    assert decided(30, 29, 1, 0).held is None


def test_a_fleet_in_which_everybody_was_tried_is_held_where_the_odds_stand_where_permits_end() -> (
    None
):
    found = decided(40, 32, 8, 0)
    assert (found.verdict, found.amber) == ("go", 0.0)
    assert found.held == Held(bad=8, out=40, ground="spent")


def test_a_fleet_that_is_large_enough_to_ask_on_is_not_held() -> None:
    assert decided(2_000, 0, 1, 0).held is None


@pytest.mark.parametrize("size", [1, 3, 20])
def test_no_further_device_of_a_handful_is_spent_however_long_nobody_decides(size: int) -> None:
    """Red before: a soak gate opens when four fifths of its cohort are of age, dead ones included, and let the rest of three devices go."""
    watch = Watch(divide({EU: size}), PRESETS["normal"], BASE, 0)
    watch.desk.control(EU, size)
    exposed, found = 0, watch.step(0)
    while watch.desk.now < 12 * DAY_S:
        granted = sum(found.permits.values())
        watch.desk.permit(EU, granted)
        exposed += granted
        watch.desk.advance(watch.desk.now + 900)
        found = watch.step(watch.desk.now)
    assert exposed == (2 if size == 20 else 1)
    assert found.held is not None


def _evidence(weighed: Decision, confirmed: int, lost: int, devices: int) -> Evidence:
    one = known(("matched", "fleet", "v1", devices))
    tally = msgspec.structs.replace(
        one.tallies["fleet", "v1"],
        offered=confirmed + lost,
        exposed=confirmed + lost,
        confirmed=confirmed,
        lost=lost,
    )
    return msgspec.structs.replace(one, tallies={("fleet", "v1"): tally}, weighed=weighed)


WEIGHED = policy(guards=[{"type": "evidence"}], ring=[{"name": "fleet"}])


def test_a_held_rollout_neither_opens_nor_completes_and_says_so_first() -> None:
    found = decided(3, 1, 2, 0)
    plan = engine.plan(begun(WEIGHED), _evidence(found, 1, 2, 3), 10**6)
    assert (plan.verdict, plan.state, plan.room) == ("hold", "active", 0)
    assert plan.held == found.held
    assert plan.because[0].gate == "held"
    assert "2 of 3 devices" in plan.because[0].text
    assert (plan.because[0].observed, plan.because[0].sample) == (2, 3)
    calm = engine.plan(begun(WEIGHED), _evidence(decided(3, 3, 0, 0), 3, 0, 3), 10**6)
    assert calm.held is None


def test_a_rollout_that_was_complete_says_that_it_is_held_too() -> None:
    plan = engine.plan(begun(WEIGHED, "completed"), _evidence(decided(1, 0, 0, 1), 0, 1, 1), 10**6)
    assert plan.state == "completed"
    assert plan.held is not None


def test_nothing_is_complete_while_the_evidence_still_waits_for_an_answer() -> None:
    """Red before: the counts call a device lost a quarter of an hour before its silence is judged, and the rollout was done by then."""
    weighed = decided(1, 0, 0, 0, open_=1)
    opened = engine.plan(begun(WEIGHED), _evidence(weighed, 0, 1, 1), 1_000)
    for _ in range(4):
        rollout = msgspec.structs.replace(begun(WEIGHED), rings=opened.rings)
        opened = engine.plan(rollout, _evidence(weighed, 0, 1, 1), 1_000)
    assert opened.state == "active"
    assert "the outcome of 1 permit is open" in opened.because[0].text
