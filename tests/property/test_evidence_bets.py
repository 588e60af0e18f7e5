"""No bet of the evidence gate has a mean above 1 at the edge of what is tolerated: exact arithmetic on the rounded stakes."""

from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tidegate.rollout.evidence import stakes
from tidegate.rollout.evidence.pairs import _rank
from tidegate.rollout.evidence.settings import (
    DELTAS_PPM,
    LAMBDAS_PCT,
    MILLION,
    RATES_PCT,
    THETAS_PCT,
)

_UP = Context(prec=40, rounding=ROUND_CEILING)
_LIMITS = st.integers(1, 900_000)


def factor(micro_nats: int) -> Fraction:
    """What a stake multiplies the wealth by, rounded up a little."""
    exact = _UP.exp(_UP.divide(Decimal(micro_nats), Decimal(MILLION)))
    return Fraction(exact.next_plus(context=_UP))


@given(limit=_LIMITS, within=st.fractions(0, 1))
def test_failure_and_silence_pay_no_more_than_they_cost(limit: int, within: Fraction) -> None:
    chance = within * Fraction(limit, MILLION)
    for won, lost in zip(stakes.gain(limit), stakes.charge(), strict=True):
        assert chance * factor(won) + (1 - chance) * factor(lost) <= 1


@given(limit=_LIMITS)
def test_permits_not_resolved_never_add(limit: int) -> None:
    assert all(one < 0 for one in stakes.charge())
    assert all(one > 0 for one in stakes.credit(limit))
    assert len(stakes.credit(limit)) == len(DELTAS_PPM)


@given(
    limit=_LIMITS,
    devices=st.integers(1, 30),
    split=st.fractions(0, 1),
    within=st.fractions(0, 1),
)
def test_a_site_that_pays_once_is_fair_whatever_its_size(
    limit: int, devices: int, split: Fraction, within: Fraction
) -> None:
    allowed = within * Fraction(limit, MILLION)
    alone, together = allowed * split, allowed * (1 - split)
    at_least_one = min(Fraction(1), devices * alone + together)
    for credit, lost in zip(stakes.credit(limit), stakes.charge(), strict=True):
        charged = factor(devices * lost)
        assert at_least_one * charged * factor(credit) + (1 - at_least_one) * charged <= 1


@given(
    updated=st.integers(1, 10**6),
    control=st.integers(1, 10**6),
    hazard=st.integers(100, 1_000),
    within=st.fractions(0, 1),
)
def test_a_race_is_fair_at_the_tolerated_ratio_and_loses_below(
    updated: int, control: int, hazard: int, within: Fraction
) -> None:
    tolerated = Fraction(hazard * updated, hazard * updated + 100 * control)
    chance = within * tolerated
    won = stakes.race(updated, control, hazard, won=True)
    lost = stakes.race(updated, control, hazard, won=False)
    assert len(won) == len(THETAS_PCT)
    for one, other in zip(won, lost, strict=True):
        assert chance * factor(one) + (1 - chance) * factor(other) <= 1


@given(
    weights=st.lists(st.integers(0, 1_000), min_size=17, max_size=17),
    tolerated=st.integers(500_000, 600_000),
)
@settings(max_examples=40)
def test_ranks_with_a_mean_within_the_tolerance_lose(weights: list[int], tolerated: int) -> None:
    whole = sum(weights)
    mean = Fraction(sum(rank * one for rank, one in enumerate(weights)), 16 * whole) if whole else 1
    if mean > Fraction(tolerated, MILLION):
        return
    for index in range(len(LAMBDAS_PCT)):
        paid = sum(
            (Fraction(one, whole) * factor(stakes.rank(rank, tolerated)[index]))
            for rank, one in enumerate(weights)
        )
        assert paid <= 1


@given(events=st.integers(1, 6))
def test_a_burst_pays_what_the_alternative_says_and_no_more(events: int) -> None:
    for rate, one in zip(RATES_PCT, stakes.burst(), strict=True):
        assert factor(events * one) <= Fraction(rate, 100) ** events


@given(numerator=st.integers(1, 10**12), denominator=st.integers(1, 10**12))
def test_a_logarithm_is_rounded_down_to_the_last_micro_nat(
    numerator: int, denominator: int
) -> None:
    found = stakes.micro_log(numerator, denominator)
    exact = Context(prec=50).ln(
        Context(prec=50).divide(Decimal(numerator), Decimal(denominator))
    ) * Decimal(MILLION)
    assert found <= exact < found + 1


_RATE = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6, allow_subnormal=False))


_BEFORE = st.sampled_from([st.none(), _RATE])
_COMPARED = st.tuples(st.sampled_from([2, 3, 5, 9]), _BEFORE).flatmap(
    lambda drawn: st.lists(st.tuples(_RATE, drawn[1]), min_size=drawn[0], max_size=drawn[0])
)


@given(whole=_COMPARED)
# Counts as small as these tell measures apart that are not the same for all; numbers at random seldom do.
@example(whole=[(4.0, 1.0), (3.0, 1.0), (2.0, 0.0)])
@example(whole=[(0.0, 2.0), (3.0, 2.0), (1.0, 4.0), (1.0, 1.0), (2.0, 0.0)])
def test_whoever_of_those_compared_is_the_updated_one_ranks_in_the_middle(
    whole: list[tuple[float, float | None]],
) -> None:
    """All are exchangeable within the limit, so the mean rank over who it is must be one half, whatever was measured."""
    ranks = [_rank(one, whole[:at] + whole[at + 1 :]) for at, one in enumerate(whole)]
    if None in ranks:
        assert not any(ranks)
    else:
        assert sum(rank for rank in ranks if rank is not None) == 8 * len(whole)
