"""Exact small-sample arithmetic of the gates. Nothing but `math`."""

import math
from collections.abc import Iterable, Sequence


def binomial_tail(bad: int, trials: int, chance: float) -> float:
    """Return P(X ≥ bad) of X ~ Binomial(trials, chance): how surprising that many would be if each failed with that chance."""
    if bad <= 0:
        return 1.0
    if chance <= 0.0 or bad > trials:
        return 0.0
    if chance >= 1.0:
        return 1.0
    log_p, log_q = math.log(chance), math.log1p(-chance)
    terms = (
        _log_choose(trials, count) + count * log_p + (trials - count) * log_q
        for count in range(bad, trials + 1)
    )
    return min(1.0, math.fsum(math.exp(term) for term in terms))


def race(
    strata: Iterable[tuple[int, float, int, float]], tolerated: float, alternatives: Sequence[float]
) -> float:
    """Return ln E: the evidence that the first side's rate is more than `tolerated` times the second's.

    Each event of a stratum falls on the first side with probability r·t1/(r·t1 + t2) when the rates stand exactly at the tolerated ratio r, whatever
    the rate itself is (conditional binomial of two Poisson counts). A gambler bets on each event at those odds that the true ratio is θ·r instead; E is
    the gambler's wealth, the mean over the alternatives θ > 1, multiplied over strata. E ≥ 1000 happens with probability ≤ 1/1000 while the ratio is at
    most r.

    Args:
        strata: (events 1, time 1, events 2, time 2) each; a stratum without time on both sides says nothing.
        tolerated: r ≥ 1.
        alternatives: θ > 1, equally weighted.
    """
    usable = [one for one in strata if one[1] > 0 and one[3] > 0]
    logs = [
        math.fsum(_bet(stratum, tolerated, theta) for stratum in usable) for theta in alternatives
    ]
    most = max(logs)
    return most + math.log(math.fsum(math.exp(one - most) for one in logs) / len(logs))


def _bet(stratum: tuple[int, float, int, float], tolerated: float, theta: float) -> float:
    events, time, others, other_time = stratum
    fair = tolerated * time + other_time
    bold = theta * tolerated * time + other_time
    return events * math.log(theta * fair / bold) + others * math.log(fair / bold)


def _log_choose(trials: int, count: int) -> float:
    return math.lgamma(trials + 1) - math.lgamma(count + 1) - math.lgamma(trials - count + 1)
