"""The arithmetic, against exact fractions and by hand."""

import math
from fractions import Fraction

import pytest

from tidegate.rollout import stats

ALTERNATIVES = (1.5, 2.5, 5.0, 12.0, 40.0)


@pytest.mark.parametrize("trials", [1, 2, 8, 20, 60])
@pytest.mark.parametrize("chance", [Fraction(1, 100), Fraction(1, 20), Fraction(1, 2)])
def test_the_tail_is_the_exact_sum(trials: int, chance: Fraction) -> None:
    for bad in range(trials + 1):
        exact = sum(
            math.comb(trials, k) * chance**k * (1 - chance) ** (trials - k)
            for k in range(bad, trials + 1)
        )
        assert float(exact) == pytest.approx(stats.binomial_tail(bad, trials, float(chance)))


def test_the_tail_has_its_edges() -> None:
    assert stats.binomial_tail(0, 5, 0.1) == 1.0
    assert stats.binomial_tail(6, 5, 0.1) == 0.0
    assert stats.binomial_tail(1, 5, 0.0) == 0.0
    assert stats.binomial_tail(5, 5, 1.0) == 1.0


def test_a_race_without_events_or_without_a_rival_says_nothing() -> None:
    assert stats.race([], 1.5, ALTERNATIVES) == pytest.approx(0.0)
    assert stats.race([(0, 10.0, 0, 10.0)], 1.5, ALTERNATIVES) == pytest.approx(0.0)
    assert stats.race([(9, 10.0, 0, 0.0)], 1.5, ALTERNATIVES) == pytest.approx(0.0)


def test_at_the_tolerated_ratio_a_bet_is_worth_its_stake_on_average() -> None:
    # Expectation over where n events fall, by exact enumeration: E[wealth] = 1 at the boundary.
    time, other, tolerated = 30.0, 70.0, 1.5
    fair = tolerated * time / (tolerated * time + other)
    for events in (1, 5, 12):
        wealth = sum(
            math.comb(events, k) * fair**k * (1 - fair) ** (events - k)
            * math.exp(stats.race([(k, time, events - k, other)], tolerated, ALTERNATIVES))
            for k in range(events + 1)
        )  # fmt: skip
        assert wealth == pytest.approx(1.0)


def test_below_the_tolerated_ratio_a_bet_loses_on_average() -> None:
    time, other = 30.0, 70.0
    share = time / (time + other)
    wealth = sum(
        math.comb(8, k) * share**k * (1 - share) ** (8 - k)
        * math.exp(stats.race([(k, time, 8 - k, other)], 1.5, ALTERNATIVES))
        for k in range(9)
    )  # fmt: skip
    assert wealth < 1.0


def test_strata_do_not_mix_their_base_rates() -> None:
    # Updated devices are mostly of the noisy variant. Pooled, they look five times worse; stratum by stratum they are the same.
    strata = [(100, 10.0, 10, 1.0), (1, 1.0, 10, 10.0)]
    assert stats.race(strata, 1.5, ALTERNATIVES) < 0
    pooled = [(101, 11.0, 20, 11.0)]
    assert stats.race(pooled, 1.5, ALTERNATIVES) > math.log(1000)
