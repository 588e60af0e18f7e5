"""The desk: what happens becomes facts when it is mature, capped where devices fall together."""

from collections.abc import Callable

import pytest

from tidegate.rollout.evidence.baseline import Baseline
from tidegate.rollout.evidence.book import Book
from tidegate.rollout.evidence.desk import Desk, rank
from tidegate.rollout.evidence.facts import (
    Alive,
    Dead,
    Fact,
    Fail,
    Late,
    Ok,
    Permit,
    Rate,
    Refund,
    Silent,
    Watch,
)
from tidegate.rollout.evidence.settings import DAY_S, HOUR_S, Harm
from tidegate.rollout.evidence.strata import Profile, divide

EU: Profile = ("v1", "eu", "always")
US: Profile = ("v1", "us", "always")
TICK = 900


class Bench:
    """A desk and its book, ticked a quarter of an hour at a time."""

    def __init__(self, harm: Harm | None = None) -> None:
        scheme = divide({EU: 1_000, US: 1_000})
        base = Baseline(failure_ppm={"other": 10_000}, silence_ppm={"other": 3_000})
        self.book = Book(scheme, harm or Harm(), base)
        self.desk = Desk(self.book, 0)
        self.facts: list[Fact] = []

    def go(self, until: int) -> list[Fact]:
        """Tick until then; return the facts of these ticks."""
        found: list[Fact] = []
        now = self.desk.now
        while now < until:
            now = min(now + TICK, until)
            self.desk.advance(now)
            found += self.desk.tick(now)
        self.facts += found
        self.book.fold_all(found)
        self.book.settle()
        return found

    def of(self, kind: type, found: list[Fact] | None = None) -> list[Fact]:
        return [one for one in (self.facts if found is None else found) if isinstance(one, kind)]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def counts(facts: list[Fact]) -> list[int]:
    return [getattr(one, "count", 0) for one in facts]


def test_a_cohort_is_judged_as_a_whole_at_its_deadline(bench: Bench) -> None:
    bench.desk.permit(EU, 10)
    bench.go(HOUR_S)
    bench.desk.confirmed(EU, 0, 7)
    bench.desk.failed(EU, 0, 1)
    due = TICK + HOUR_S + Harm().again_s
    early = bench.go(due - 1)
    assert counts(bench.of(Fail, early)) == [1]
    assert not bench.of(Ok, early)
    late = bench.go(due)
    assert counts(bench.of(Ok, late)) == [7]
    assert counts(bench.of(Silent, late)) == [2]


def test_an_answer_twice_counts_once_and_nobody_answers_who_was_not_asked(bench: Bench) -> None:
    bench.desk.permit(EU, 3)
    bench.desk.failed(EU, 0, 2)
    bench.desk.failed(EU, 0, 2)
    bench.desk.confirmed(EU, 0, 9)
    bench.desk.failed(US, 0, 1)
    bench.desk.confirmed(EU, 5 * DAY_S, 1)
    bench.go(2 * HOUR_S)
    assert counts(bench.of(Fail)) == [2, 1]
    assert not bench.of(Ok)
    assert not bench.of(Silent)


def test_a_silent_device_that_tells_of_its_failure_later_pays_once_and_is_bad_once(
    bench: Bench,
) -> None:
    bench.desk.permit(EU, 1)
    bench.go(3 * DAY_S)
    before = list(bench.book.rows[0][:5])
    bench.desk.failed(EU, 0)
    bench.desk.failed(EU, 0)
    found = bench.of(Fail, bench.go(3 * DAY_S + TICK))
    assert [(one.count, one.again) for one in found if isinstance(one, Fail)] == [(1, True)]
    assert list(bench.book.rows[0][:5]) == before


def test_a_site_pays_once_until_five_in_a_row_there_are_well_again(bench: Bench) -> None:
    desk = bench.desk
    assert desk.site_room("mill") == 1
    desk.permit(EU, 5, "mill")
    desk.failed(EU, 0, 3, "mill")
    assert desk.site_room("mill") == 0
    desk.permit(EU, 2, "mill")
    bench.go(2 * HOUR_S)
    paid = [(one.count, one.credited) for one in bench.of(Fail) if isinstance(one, Fail)]
    assert paid == [(3, 1)]
    charged = [(one.count, one.charged) for one in bench.of(Permit) if isinstance(one, Permit)]
    assert charged == [(5, None), (2, 0)]
    silent = [(one.count, one.credited) for one in bench.of(Silent) if isinstance(one, Silent)]
    assert silent == [(2, 0), (2, 0)]
    bench.go(2 * DAY_S)
    assert desk.site_room("mill") == 1
    desk.permit(EU, 1, "mill")
    desk.failed(EU, 2 * DAY_S, 1, "mill")
    found = bench.go(2 * DAY_S + TICK)
    assert [one.credited for one in bench.of(Fail, found) if isinstance(one, Fail)] == [0]
    desk.permit(EU, 5, "mill")
    desk.confirmed(EU, 2 * DAY_S + TICK, 4, "mill")
    desk.failed(EU, 2 * DAY_S + TICK, 1, "mill")
    desk.permit(EU, 4, "mill")
    desk.confirmed(EU, 2 * DAY_S + TICK, 4, "mill")
    bench.go(3 * DAY_S)
    for day, expected in ((3, 0), (4, 1)):
        desk.permit(EU, 2, "mill")
        desk.confirmed(EU, day * DAY_S, 1, "mill")
        desk.failed(EU, day * DAY_S, 1, "mill")
        found = bench.go(day * DAY_S + TICK)
        credited = [one.credited for one in bench.of(Fail, found) if isinstance(one, Fail)]
        assert credited == [expected]
        desk.permit(EU, 5, "mill")
        desk.confirmed(EU, day * DAY_S + TICK, 5, "mill")
        bench.go((day + 1) * DAY_S)


def test_a_site_without_power_is_one_event_whoever_is_updated(bench: Bench) -> None:
    bench.desk.control(EU, 500)
    bench.desk.permit(EU, 50, "mill")
    bench.desk.confirmed(EU, 0, 50, "mill")
    bench.go(5 * HOUR_S)
    bench.desk.late("dark", EU, 0, 50, "mill", heard_at=HOUR_S)
    bench.desk.control_late("dark", EU, 100, "mill")
    found = bench.of(Late, bench.go(5 * HOUR_S + TICK))
    assert counts(found) == [1]


def test_regions_burst_counts_once_an_hour_against_the_rate(bench: Bench) -> None:
    bench.desk.permit(EU, 50)
    bench.desk.confirmed(EU, 0, 50)
    bench.go(5 * HOUR_S)
    for _ in range(4):
        bench.desk.late("dark", EU, 0, 2)
    bench.go(5 * HOUR_S + TICK)
    paid = [one.paid for one in bench.of(Late) if isinstance(one, Late)]
    assert paid == [1, 0, 0, 0]
    assert bench.book.rows[0][17] == 1


def test_a_crash_counts_against_a_soak_gate_only_at_its_age(bench: Bench) -> None:
    bench.desk.permit(EU, 2)
    bench.desk.confirmed(EU, 0, 2)
    bench.go(2 * HOUR_S)
    bench.desk.late("crash", EU, 0)
    assert not bench.of(Dead, bench.go(DAY_S - TICK))
    bench.desk.advance(DAY_S)
    bench.desk.heard(EU, 0, 0)
    bench.desk.heard(EU, 0, 0)
    found = bench.go(DAY_S + TICK)
    assert counts(bench.of(Dead, found)) == [1]
    assert counts(bench.of(Alive, found)) == [1]


def test_every_exposed_device_leaves_every_soak_gate_exactly_once(bench: Bench) -> None:
    desk = bench.desk
    desk.permit(EU, 10)
    desk.failed(EU, 0, 1)
    desk.refund(EU, 0, 1)
    desk.confirmed(EU, 0, 6)
    bench.go(6 * HOUR_S)
    desk.late("dark", EU, 0, 1, heard_at=HOUR_S)
    desk.late("crash", EU, 0, 1)
    for gate, age_s in enumerate((DAY_S, 4 * DAY_S)):
        bench.go(age_s)
        desk.heard(EU, 0, gate, 99)
    bench.go(10 * DAY_S)
    for gate in (0, 1):
        left = [one for one in (*bench.of(Alive), *bench.of(Dead)) if one.gate == gate]  # type: ignore[union-attr]
        assert sum(counts(left)) == 8
    row = bench.book.rows[0]
    assert row[0] - row[1] == 8


def test_a_server_that_was_down_has_heard_nobody(bench: Bench) -> None:
    bench.desk.permit(EU, 10)
    bench.go(TICK)
    later = 10 * DAY_S
    assert not bench.of(Silent, bench.desk.tick(later))
    bench.desk.confirmed(EU, 0, 10)
    bench.go(later + 6 * HOUR_S)
    assert counts(bench.of(Ok)) == [10]
    assert not bench.of(Silent)


def test_a_device_that_went_away_while_the_server_was_down_is_waited_for_until_it_would_be_missed() -> (
    None
):
    """Its hours are over when the server is back: it answers the next day."""
    daily: Profile = ("v1", "eu", "daily")
    book = Book(
        divide({EU: 1_000, daily: 1_000}),
        Harm(),
        Baseline(failure_ppm={"other": 10_000}, silence_ppm={"other": 3_000}),
    )
    desk = Desk(book, 0)
    desk.permit(daily, 10)
    silent: list[Fact] = list(desk.tick(TICK))
    back = 3 * HOUR_S
    ticks = range(back, back + 25 * HOUR_S, TICK)
    silent += [one for now in ticks for one in desk.tick(now)]
    assert not [one for one in silent if isinstance(one, Silent)]
    desk.confirmed(daily, 0, 9)
    later = [
        one for now in range(ticks.stop, ticks.stop + 4 * HOUR_S, TICK) for one in desk.tick(now)
    ]
    assert [one.count for one in later if isinstance(one, Silent)] == [1]


def test_time_never_goes_back(bench: Bench) -> None:
    bench.go(5 * HOUR_S)
    bench.desk.advance(0)
    assert bench.desk.now == 5 * HOUR_S
    assert all(fact.at >= 5 * HOUR_S for fact in bench.desk.tick(HOUR_S))


@pytest.mark.parametrize(
    ("tell", "expected"),
    [
        (lambda desk: desk.advance(0), 3_000),
        (lambda desk: desk.vanished(0, "eu", 100, 30), 3_000 + 345_000),
        (lambda desk: desk.vanished(0, "us", 100, 30), 3_000 + 345_000),
        (lambda desk: (desk.vanished(0, "us", 100, 30), desk.vanished(0, "eu", 100, 0)), 3_000),
        (lambda desk: desk.vanished(0, "eu", 10, 1), 3_000 + 230_000),
    ],
    ids=["none", "of its region", "elsewhere, for want of its own", "elsewhere only", "of few"],
)
def test_silence_is_measured_against_devices_not_updated_of_the_same_region(
    bench: Bench, tell: Callable[[Desk], object], expected: int
) -> None:
    tell(bench.desk)
    bench.desk.permit(EU, 1)
    bench.go(2 * HOUR_S)
    found = [one.silence_ppm for one in bench.of(Silent) if isinstance(one, Silent)]
    assert found == [expected]


def test_a_late_event_is_weighed_inside_its_region_and_class(bench: Bench) -> None:
    bench.desk.control(EU, 300)
    bench.desk.control(US, 700)
    bench.desk.permit(EU, 20)
    bench.desk.permit(US, 40)
    bench.desk.confirmed(EU, 0, 20)
    bench.desk.confirmed(US, 0, 40)
    bench.go(5 * HOUR_S)
    bench.desk.late("crash", EU, 0)
    bench.desk.control_late("crash", US)
    found = bench.of(Late, bench.go(5 * HOUR_S + TICK))
    risks = {one.profile: one.risks[0] for one in found if isinstance(one, Late)}
    assert risks == {EU: (0, 20, 280), US: (0, 40, 660)}
    bench.desk.late("crash", EU, 0)
    again = bench.of(Late, bench.go(6 * HOUR_S))
    assert [one.risks[0] for one in again if isinstance(one, Late)] == [(0, 19, 280)]


def test_time_under_watch_is_what_the_rate_is_counted_over(bench: Bench) -> None:
    bench.desk.permit(EU, 20)
    bench.desk.confirmed(EU, 0, 20)
    bench.go(HOUR_S)
    assert not bench.of(Rate)
    bench.go(DAY_S)
    assert sum(counts(bench.of(Watch))) == 40
    assert bench.book.rows[0][14] > 0
    assert bench.of(Refund) == []


@pytest.mark.parametrize(
    ("value", "others", "expected"),
    [
        (0.9, (0.1,) * 8, 16), (0.1, (0.9,) * 8, 0), (0.5, (0.5,) * 8, 8),
        (0.6, (0.5,) * 4 + (0.7,) * 4, 8),
        (float("nan"), (0.5,) * 8, None), (0.5, (float("inf"),) * 8, None), (0.5, (0.5,) * 7, None),
    ],
)  # fmt: skip
def test_a_metric_is_a_rank_so_one_device_weighs_little(
    value: float, others: tuple[float, ...], expected: int | None
) -> None:
    assert rank(value, others) == expected
