"""Metrics of updated devices, ranked among devices that are not updated, over the same hours."""

import math
import random

import msgspec
import pytest

from tidegate.rollout.evidence import stakes, wealth
from tidegate.rollout.evidence.baseline import Baseline
from tidegate.rollout.evidence.crowd import WELL, Crowd
from tidegate.rollout.evidence.facts import Fact, Score
from tidegate.rollout.evidence.pairs import BIN_S, Pairs, _rank
from tidegate.rollout.evidence.roster import Roster
from tidegate.rollout.evidence.settings import DAY_S, HOUR_S, PRESETS, Harm, StreamWeights
from tidegate.rollout.evidence.strata import Profile, divide
from tidegate.rollout.evidence.watch import Watch

TICK = HOUR_S
HARM = msgspec.structs.replace(PRESETS["normal"], tick_s=TICK, soaks=())
SHORT = msgspec.structs.replace(HARM, windows_s=(BIN_S,), streams=StreamWeights(metric=(50,)))
BASE = Baseline(failure_ppm={"other": 10_000}, silence_ppm={"other": 3_000})
VALUES = {"variant": "v1", "region": "eu", "class": "always"}


class Fleet:
    """Devices that report every hour. Each has a rate of its own, and all have more errors by day than by night, and fewer at weekends."""

    def __init__(self, size: int, seed: int, harm: Harm = HARM, noise: float = 1.0) -> None:
        self.rnd = random.Random(seed)
        census: dict[Profile, int] = {("v1", "eu", "always"): size}
        self.scheme = divide(census)
        self.roster = Roster(Watch(self.scheme, harm, BASE, 0))
        self.names = [f"d{one}" for one in range(size)]
        self.own = [self.rnd.expovariate(1.0) for _ in self.names]
        self.noise = noise
        self.worse: dict[str, float] = {}
        self.facts: list[Fact] = []
        self.now = 0
        for name in self.names:
            self.roster.meet(name, VALUES, 0)

    def rate(self, one: int) -> float:
        day, hour = self.now // DAY_S % 7, self.now % DAY_S // HOUR_S
        pattern = (2.0 if 8 <= hour < 18 else 0.5) * (0.5 if day >= 5 else 1.0)
        return self.own[one] * pattern * self.worse.get(self.names[one], 1.0)

    def hour(self) -> None:
        self.now += HOUR_S
        for one, name in enumerate(self.names):
            value = self.rate(one) * self.noise * self.rnd.expovariate(1.0)
            self.roster.measured(name, self.now, "errors", value, HOUR_S)
        self.roster.step(self.now, self.facts.append)

    def go(self, days: float) -> None:
        for _ in range(round(days * 24)):
            self.hour()

    def update(self, names: list[str], times: float) -> None:
        for name in names:
            self.roster.permit(name, self.now)
            self.roster.confirmed(name, self.now)
            self.worse[name] = times

    def scores(self, window: int | None = None) -> list[Score]:
        found = [one for one in self.facts if isinstance(one, Score)]
        return [one for one in found if window is None or one.window == window]


def mean(scores: list[Score]) -> float:
    return sum(one.sixteenths * one.count for one in scores) / 16 / sum(one.count for one in scores)


def test_a_release_that_changes_nothing_ranks_in_the_middle_whatever_day_and_hour_it_is() -> None:
    """Updated on a Friday evening: before is a working day and after a weekend, and for the others as well."""
    ranks = []
    for seed in range(6):
        fleet = Fleet(200, seed)
        fleet.go(4 + 18 / 24)
        fleet.update(fleet.names[:20], 1.0)
        fleet.go(1)
        ranks += fleet.scores(0)
    assert len(ranks) == 120
    # The standard deviation of one rank is 0.3: of the mean of 120, 0.028.
    assert mean(ranks) == pytest.approx(0.5, abs=0.09)


def ramp(seed: int, times: float) -> list[float]:
    """Return the most that betting on each window made in nine days, two reports a day, while three of four devices were updated."""
    rnd = random.Random(seed)
    scheme = divide({("v1", "eu", "always"): 160})
    crowd = Crowd(scheme)
    for one in range(160):
        crowd.add(f"d{one}", ("v1", "eu", "always"), "", 0)
    pairs = Pairs(scheme, HARM, crowd)
    own = [rnd.lognormvariate(0, 1.5) for _ in range(160)]
    order = rnd.sample(range(160), 120)
    logs = [[0] * 5 for _ in HARM.windows_s]
    most = [1.0] * len(logs)
    for half in range(18):
        now = (half + 1) * BIN_S
        for one, usual in enumerate(own):
            rate = usual * (1 + 19 * (half % 2)) * (times if crowd.state[one] == WELL else 1.0)
            pairs.measured(one, now, 0, rate * rnd.expovariate(1.0), BIN_S)
        # Every other half-day, so that all windows begin by day.
        for one in order[half * 8 : half * 8 + 16] if half % 2 == 0 else ():
            crowd.state[one], crowd.granted_at[one] = WELL, now
            pairs.begin(one)
        for found in pairs.due(now):
            worth = stakes.rank(found.sixteenths, HARM.metric_ppm)
            log = logs[found.window]
            log[:] = [before + more for before, more in zip(log, worth, strict=True)]
            most[found.window] = max(most[found.window], math.exp(wealth.mean(log)))
    return most


def test_betting_against_a_release_that_changes_nothing_seldom_wins_and_else_it_does() -> None:
    """Wealth of 8 is reached in an eighth of the runs at most; however noisy, however different devices are, and while the ramp goes on."""
    good = [max(ramp(seed, 1.0)) >= 8 for seed in range(40)]
    assert sum(good) <= 40 // 8
    bad = [max(ramp(seed, 20.0)) >= 8 for seed in range(6)]
    assert sum(bad) >= 4


def test_more_errors_rank_higher_in_every_window_with_a_record_of_before_and_without() -> None:
    fleet = Fleet(200, 1)
    fleet.update(fleet.names[:16], 3.0)
    fleet.go(7.2)
    assert mean(fleet.scores(0)) > 0.6
    fleet.update(fleet.names[16:24], 3.0)
    fleet.go(7.9)
    late = [one for one in fleet.scores() if one.at > 7.3 * DAY_S]
    assert {one.window for one in late} == {0, 1, 2}
    assert mean(late) > 0.8
    log = fleet.roster.watch.wealth.streams(0)
    names = fleet.roster.watch.book.layout.streams
    assert max(log[names.index(f"metric errors {hours} h")] for hours in (12, 72, 168)) > 1.5


def test_each_control_is_used_once_a_window() -> None:
    fleet = Fleet(60, 2)
    fleet.update(fleet.names[:20], 1.0)
    fleet.go(1)
    # Forty for twenty: two each, though eight are wanted.
    assert len(fleet.scores(0)) == 20
    fleet.update(fleet.names[20:24], 1.0)
    fleet.go(1)
    assert len(fleet.scores(0)) == 20  # all were used, and are not ranked themselves


def test_where_few_are_left_each_is_ranked_among_as_many_as_there_are_for_all() -> None:
    fleet = Fleet(20, 2)
    fleet.update(fleet.names[:6], 1.0)
    fleet.go(1)
    found = fleet.scores(0)
    assert len(found) == 6  # two each of fourteen
    assert all(one.sixteenths % 4 == 0 for one in found)


def test_one_error_after_none_is_less_than_six_after_one() -> None:
    assert _rank((6.0, 1.0), [(1.0, 0.0)] * 8) == 16
    assert _rank((1.0, 0.0), [(6.0, 1.0)] * 4) == 0
    assert _rank((2.0, 2.0), [(0.0, 0.0), (7.0, 7.0)]) is None  # nobody's rose
    assert _rank((-1.0, -2.0), [(-2.0, -1.0)]) == 16


def test_who_was_compared_with_is_not_ranked_itself_afterwards() -> None:
    fleet = Fleet(9, 2, SHORT)
    fleet.update(fleet.names[:1], 1.0)
    fleet.go(1)
    assert len(fleet.scores(0)) == 1  # all eight others are used
    fresh = [f"new{one}" for one in range(9)]
    for name in fresh:
        fleet.roster.meet(name, VALUES, fleet.now)
        fleet.names.append(name)
        fleet.own.append(1.0)
    fleet.go(1.5)
    fleet.update(fleet.names[1:9], 1.0)
    fleet.go(1)
    assert len(fleet.scores(0)) == 1
    fleet.update(fresh[:1], 1.0)
    fleet.go(1)
    assert len(fleet.scores(0)) == 2


def test_a_permit_that_came_back_is_ranked_by_the_next_one_alone() -> None:
    fleet = Fleet(40, 6)
    fleet.roster.permit("d0", 0)
    fleet.roster.refund("d0", 0)
    fleet.go(1.5)
    fleet.update(["d0"], 1.0)
    fleet.go(2.5)
    assert not fleet.scores(1)
    fleet.go(1)
    assert len(fleet.scores(1)) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300])
def test_what_is_no_number_books_nothing_and_spoils_nothing(value: float) -> None:
    fleet = Fleet(40, 3)
    fleet.update(fleet.names[:2], 1.0)
    fleet.go(0.5)
    for name in fleet.names:
        fleet.roster.measured(name, fleet.now, "errors", value, HOUR_S)
    fleet.roster.measured("nobody", fleet.now, "errors", 1.0, HOUR_S)
    fleet.roster.measured("d1", fleet.now, "latency", 1.0, HOUR_S)
    fleet.roster.measured("d1", fleet.now, "errors", 1.0, 0)
    fleet.go(0.5)
    assert [one.count for one in fleet.scores(0)] == [1, 1]
    assert fleet.roster.ignored == {"unknown": 1}


def test_a_metric_that_never_moves_and_one_that_is_missing_book_nothing() -> None:
    still = Fleet(40, 4, noise=0.0)
    still.update(still.names[:2], 1.0)
    still.go(8)
    assert not still.scores()
    missing = Fleet(40, 4, msgspec.structs.replace(HARM, metrics=("latency",)))
    missing.update(missing.names[:2], 1.0)
    missing.go(8)
    assert not missing.scores()


def test_less_is_worse_where_the_settings_say_so_and_values_may_be_below_nought() -> None:
    harm = msgspec.structs.replace(HARM, metrics=("-signal", "errors"))
    fleet = Fleet(60, 5, harm)
    fleet.update(fleet.names[:5], 1.0)
    for _ in range(24):
        fleet.now += HOUR_S
        for one, name in enumerate(fleet.names):
            signal = -70.0 - 5 * fleet.rnd.random() - (20 if one < 5 else 0)
            fleet.roster.measured(name, fleet.now, "signal", signal * HOUR_S, HOUR_S)
        fleet.roster.step(fleet.now, fleet.facts.append)
    assert [(one.metric, one.sixteenths) for one in fleet.scores(0)] == [(0, 16)] * 5


def test_devices_of_one_site_speak_once_for_the_same_hours() -> None:
    census: dict[Profile, int] = {("v1", "eu", "always"): 100}
    roster = Roster(Watch(divide(census), SHORT, BASE, 0))
    facts: list[Fact] = []
    names = [f"d{one}" for one in range(100)]
    for one, name in enumerate(names):
        roster.meet(name, VALUES, 0, "mill" if one < 50 else "")
    for name in names[:10]:
        roster.permit(name, 0)
        roster.confirmed(name, 0)
    for hour in range(1, 25):
        for one, name in enumerate(names):
            roster.measured(name, hour * HOUR_S, "errors", one + hour % 5, HOUR_S)
        roster.step(hour * HOUR_S, facts.append)
    assert sum(isinstance(one, Score) for one in facts) == 1


def test_the_time_of_a_report_is_counted_once_and_shared_out_over_the_hours_that_it_covers() -> (
    None
):
    """One report of a day and the same in hourly ones; and what was told twice is no more than once."""
    census: dict[Profile, int] = {("v1", "eu", "always"): 40}
    roster = Roster(Watch(divide(census), HARM, BASE, 0))
    facts: list[Fact] = []
    for one in range(40):
        roster.meet(f"d{one}", VALUES, 0)
    roster.permit("d0", 0)
    roster.confirmed("d0", 0)
    for hour in range(1, 28):
        for one in range(40):
            name = f"d{one}"
            if one % 2:
                roster.measured(name, hour * HOUR_S, "errors", 5.0, HOUR_S)
            elif hour % 12 == 0:
                roster.measured(name, hour * HOUR_S, "errors", 60.0, 12 * HOUR_S)
                roster.measured(name, hour * HOUR_S, "errors", 60.0, 12 * HOUR_S)
        roster.step(hour * HOUR_S, facts.append)
    assert not [one for one in facts if isinstance(one, Score)]  # all are the same


def test_a_fleet_that_is_stored_and_taken_up_again_is_ranked_as_if_nothing_had_been() -> None:
    one, other = Fleet(40, 7, SHORT), Fleet(40, 7, SHORT)
    for half in range(9):
        for fleet in (one, other):
            if half in {0, 3, 5}:
                fleet.update(fleet.names[half * 2 : half * 2 + 2], 1.0)
            fleet.go(0.5)
        other.roster = Roster.load(other.roster.dump(), other.scheme, SHORT, BASE)
        assert one.facts == other.facts
        assert one.roster.dump() == other.roster.dump()
    # Four of 40 had their 32; of the last two each has one of the two who are left.
    assert len(one.scores(0)) == 6
