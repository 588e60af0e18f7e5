"""What each fact is worth, in micro-nats (millionths of a unit of natural logarithm), rounded down.

Rounding down never favours a halt: to the nearest, a million permits would drift by a third of a nat towards one. The result is the true floor on every
platform: `math.log` is right to the last bits, and where those could decide, the logarithm is taken again with forty decimal digits.

Every bet is fair or worse at the edge of what is tolerated: `gain` against `charge`, a `race` won against lost, all `rank`s together have a mean of at most 1
there. Tests check that with exact arithmetic on the rounded values.
"""

import math
from decimal import ROUND_FLOOR, Context, Decimal
from functools import lru_cache
from typing import Final

from tidegate.rollout.evidence.settings import (
    CONTROLS,
    DAY_S,
    DELTAS_PPM,
    HELD_BACK,
    LAMBDAS_PCT,
    LATER_S,
    LATER_STAKES,
    MILLION,
    RATES_PCT,
    THETAS_PCT,
)

Stakes = tuple[int, ...]

#: A baseline with its tolerance is never more than this.
_MOST_PPM: Final = 900_000
#: `math.log` errs by less than this many micro-nats for every ratio that is asked here.
_UNSURE: Final = 1e-5
#: The ratio that `THETAS_PCT` were chosen for.
_USUAL_HAZARD_PCT: Final = 150
_DIGITS: Final = Context(prec=40, rounding=ROUND_FLOOR)


def micro_log(numerator: int, denominator: int) -> int:
    """Return ln(numerator / denominator) in micro-nats, rounded down; both must be positive."""
    value = math.log(numerator / denominator) * MILLION
    near = round(value)
    if abs(value - near) > _UNSURE:
        return math.floor(value)
    if numerator == denominator:
        return 0
    exact = _DIGITS.ln(_DIGITS.divide(Decimal(numerator), Decimal(denominator)))
    return int(_DIGITS.multiply(exact, Decimal(MILLION)).to_integral_value(ROUND_FLOOR))


def limit_ppm(baseline_ppm: int, tolerance_ppm: int) -> int:
    """Return the probability that is still within the limit, in parts per million, at least 1."""
    return max(1, min(_MOST_PPM, baseline_ppm + tolerance_ppm))


@lru_cache(maxsize=1)
def charge() -> Stakes:
    """Return what a device costs that did not fail, for each alternative; the same for every limit."""
    return tuple(micro_log(MILLION - delta, MILLION) for delta in DELTAS_PPM)


@lru_cache(maxsize=4096)
def gain(limit: int) -> Stakes:
    """Return what a failure pays for each alternative, when `limit` ppm are allowed to fail."""
    scaled = limit * MILLION
    return tuple(micro_log(scaled + delta * (MILLION - limit), scaled) for delta in DELTAS_PPM)


@lru_cache(maxsize=4096)
def credit(limit: int) -> Stakes:
    """Return what a failure pays that was charged before: its gain, and its charge back."""
    return tuple(won - lost for won, lost in zip(gain(limit), charge(), strict=True))


@lru_cache(maxsize=65_536)
def race(updated: int, control: int, hazard_pct: int, *, won: bool) -> Stakes:
    """Return what a late event is worth for each alternative.

    Args:
        updated: updated devices at risk, ≥ 1.
        control: not-updated devices at risk.
        hazard_pct: tolerated ratio of their hazards. Alternatives lie above it in the same proportion as above the default.
        won: the event was of an updated device.
    """
    fair = hazard_pct * updated + 100 * control
    worth = []
    for usual in THETAS_PCT:
        theta = usual * hazard_pct // _USUAL_HAZARD_PCT
        bold = theta * updated + 100 * control
        worth.append(micro_log(theta * fair, hazard_pct * bold) if won else micro_log(fair, bold))
    return tuple(worth)


@lru_cache(maxsize=1024)
def rank(sixteenths: int, metric_ppm: int) -> Stakes:
    """Return what a rank is worth for each alternative.

    Args:
        sixteenths: how many of `CONTROLS` not-updated devices the updated one was worse than, in half steps: 0 (none) to 2 · CONTROLS (all).
        metric_ppm: tolerated mean rank.
    """
    steps = 2 * CONTROLS
    lead = sixteenths * MILLION - metric_ppm * steps
    whole = 100 * steps * MILLION
    return tuple(micro_log(whole + share * lead, whole) for share in LAMBDAS_PCT)


@lru_cache(maxsize=1)
def burst() -> Stakes:
    """Return what a late event pays against the bound of the fleet's hazard, for each alternative."""
    return tuple(micro_log(rate, 100) for rate in RATES_PCT)


@lru_cache(maxsize=1)
def begun() -> int:
    """Return the part of a stream that is bet from the start, where the rest is held back for later."""
    held, whole = HELD_BACK
    return micro_log(whole - held, whole)


@lru_cache(maxsize=1)
def afresh() -> int:
    """Return one later stake, measured by what was bet at the start: no alternative of a race is worth less when it is laid down."""
    held, whole = HELD_BACK
    return micro_log(held, (whole - held) * LATER_STAKES)


@lru_cache(maxsize=1)
def daily() -> int:
    """Return the later stakes of one day together."""
    held, whole = HELD_BACK
    return micro_log(held * (DAY_S // LATER_S), whole * LATER_STAKES)
