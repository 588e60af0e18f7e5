"""Sites: what has spoken once is no evidence, but it is seen; and while there is doubt, permits go where somebody learns from them."""

import pytest

from tidegate.rollout.evidence import layout as at
from tidegate.rollout.evidence import room
from tidegate.rollout.evidence.baseline import Baseline
from tidegate.rollout.evidence.decide import Decision
from tidegate.rollout.evidence.settings import DAY_S, HOUR_S, PRESETS
from tidegate.rollout.evidence.strata import Profile, divide
from tidegate.rollout.evidence.watch import Watch

EU: Profile = ("v1", "eu", "always")
BASE = Baseline(failure_ppm={"other": 10_000}, silence_ppm={"other": 3_000})


@pytest.fixture
def watch() -> Watch:
    found = Watch(divide({EU: 20_000}), PRESETS["normal"], BASE, 0)
    found.desk.control(EU, 20_000)
    return found


def go(watch: Watch, until: int) -> Decision:
    decision = watch.step(watch.desk.now)
    while watch.desk.now < until:
        watch.desk.advance(watch.desk.now + 900)
        decision = watch.step(watch.desk.now)
    return decision


def silent_at(watch: Watch, site: str, well: int, silent: int) -> None:
    watch.desk.permit(EU, well + silent, site)
    watch.desk.confirmed(EU, watch.desk.now, well, site)


def test_silence_that_is_no_evidence_still_takes_room(watch: Watch) -> None:
    silent_at(watch, "mill", 40, 0)
    decision = go(watch, 3 * HOUR_S)
    before = room.fast(watch.book.harm, room.counts(watch.book.rows[0]), 10_000, 8)
    silent_at(watch, "mill", 30, 10)
    decision = go(watch, 6 * HOUR_S)
    row = watch.book.rows[0]
    assert decision.verdict == "go"
    assert (row[at.SILENT], row[at.HEALTHY], row[at.VOID]) == (10, 70, 0)
    assert room.fast(watch.book.harm, room.counts(row), 10_000, 8) < before / 1.3


def test_silence_that_is_no_evidence_is_dead_at_the_age_of_a_gate(watch: Watch) -> None:
    silent_at(watch, "mill", 30, 10)
    decision = go(watch, 2 * DAY_S)
    assert decision.ages[0].dead == 10
    assert not decision.ages[0].open


def test_a_site_speaks_once_however_many_fall_silent(watch: Watch) -> None:
    silent_at(watch, "mill", 0, 40)
    assert go(watch, 3 * HOUR_S).odds < 10


def test_in_doubt_a_site_that_has_spoken_rests_and_others_go_on(watch: Watch) -> None:
    desk = watch.desk
    for site in range(4):
        silent_at(watch, f"mill-{site}", 8, 2)
    assert desk.site_room("mill-0") > 0
    decision = go(watch, 3 * HOUR_S)
    assert decision.doubted
    assert desk.site_room("mill-0") == 0
    assert desk.site_room("elsewhere") == 1
    silent_at(watch, "yard", 6, 0)
    go(watch, 5 * HOUR_S)
    assert desk.site_room("yard") == 5


def test_a_site_that_rested_gets_as_many_as_it_takes_to_be_believed_and_then_five_at_once(
    watch: Watch,
) -> None:
    desk = watch.desk
    for site in range(4):
        silent_at(watch, f"mill-{site}", 18, 2)
    assert go(watch, 2 * DAY_S).doubted
    assert desk.site_room("mill-0") == 5
    silent_at(watch, "mill-0", 3, 0)
    assert desk.site_room("mill-0") == 2
    silent_at(watch, "mill-0", 2, 0)
    assert go(watch, 2 * DAY_S + 3 * HOUR_S).doubted
    assert desk.site_room("mill-0") == 5


def test_without_doubt_a_site_goes_on_as_its_own_health_allows(watch: Watch) -> None:
    silent_at(watch, "mill", 38, 2)
    watch.desk.permit(EU, 600)
    watch.desk.confirmed(EU, 0, 600)
    decision = go(watch, 3 * HOUR_S)
    assert not decision.doubted
    assert watch.desk.site_room("mill") == 38


def test_doubt_is_stored(watch: Watch) -> None:
    for site in range(4):
        silent_at(watch, f"mill-{site}", 8, 2)
    assert go(watch, 3 * HOUR_S).doubted
    again = Watch.unpack(watch.pack(), watch.book.harm, BASE)
    assert again.desk.site_room("mill-0") == 0


@pytest.mark.parametrize(
    ("count", "bad", "least"),
    [(0, 0, 0.0), (100, 0, 0.0), (10, 10, 0.9048), (100, 10, 0.0629), (1_000, 20, 0.0144)],
)
def test_how_small_a_proportion_must_at_least_be(count: int, bad: int, least: float) -> None:
    assert room.lower(count, bad) == pytest.approx(least, abs=1e-4)
