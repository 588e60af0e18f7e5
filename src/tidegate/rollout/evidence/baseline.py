"""What was normal before this release, and what a fleet of this size can show at all.

Baselines come from earlier releases' first attempts. They drift from release to release, and a small variant's is uncertain, so a rate is drawn towards the
mean of all variants and then raised by what drift and uncertainty allow (80 % bound). Without history the defaults are *assumed*, and that is said.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from tidegate.rollout.evidence.settings import HOUR_S, MILLION, Harm
from tidegate.rollout.evidence.strata import OTHER

#: Without history: 2 % fail, 1 % fall silent.
ASSUMED_FAILURE_PPM: Final = 20_000
ASSUMED_SILENCE_PPM: Final = 10_000
#: A device of an unknown kind is worth this many of the mean of all.
_SHRINK: Final = 60
#: Standard deviations of an upper bound that holds in four of five.
_Z: Final = 0.84
#: Drift between releases before any was seen: a fifth, worth twenty failures.
_DRIFT: Final = 0.04
_DRIFT_WEIGHT: Final = 20
_MOST_WEIGHT: Final = 50
#: Hazard of late crash and of going dark together, before any was seen: one event in so many device-hours.
PRIOR_HOURS: Final = 8_889

#: (failures, first attempts) by variant, of one earlier release.
Past = Mapping[str, tuple[int, int]]


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """What is normal: failures by variant, silence by connectivity class, both in ppm; `other` for all that is not named. `assumed`: no history."""

    failure_ppm: dict[str, int] = {}
    silence_ppm: dict[str, int] = {}
    assumed: bool = False

    def failure(self, variant: str) -> int:
        """Return the failure baseline of a variant, ppm."""
        return self.failure_ppm.get(variant, self.failure_ppm.get(OTHER, ASSUMED_FAILURE_PPM))

    def silence(self, connectivity: str) -> int:
        """Return the silence baseline of a connectivity class, ppm."""
        return self.silence_ppm.get(connectivity, self.silence_ppm.get(OTHER, ASSUMED_SILENCE_PPM))


def from_history(past: Sequence[Past], silence_ppm: Mapping[str, int] | None = None) -> Baseline:
    """Return failure baselines from earlier releases, oldest first; of the last five.

    Args:
        past: what each variant's first attempts came to, release by release.
        silence_ppm: silence by connectivity class, if known.
    """
    recent = past[-5:]
    totals: dict[str, tuple[int, int]] = {}
    for release in recent:
        for variant, (failed, tried) in release.items():
            before = totals.get(variant, (0, 0))
            totals[variant] = (before[0] + failed, before[1] + tried)
    failures = sum(one[0] for one in totals.values())
    attempts = sum(one[1] for one in totals.values())
    known = dict(silence_ppm or {})
    if not attempts:
        return Baseline(silence_ppm=known, assumed=True)
    mean = (failures + 1) / (attempts + 2)
    spread = math.sqrt(_drift(recent, totals))
    bounds = {v: _bound(failed, tried, mean, spread) for v, (failed, tried) in totals.items()}
    bounds[OTHER] = _bound(0, 0, mean, spread)
    return Baseline(failure_ppm=bounds, silence_ppm=known)


def _bound(failed: int, tried: int, mean: float, spread: float) -> int:
    weight = tried + _SHRINK
    rate = (failed + _SHRINK * mean) / weight
    raised = rate * math.exp(_Z * spread) + _Z * math.sqrt(rate * (1 - rate) / weight)
    return min(MILLION // 2, math.ceil(raised * MILLION))


def _drift(past: Sequence[Past], totals: Mapping[str, tuple[int, int]]) -> float:
    """Return the variance of the logarithm of a variant's rate from release to release, beyond what chance explains."""
    over = float(_DRIFT_WEIGHT * _DRIFT)
    weights = float(_DRIFT_WEIGHT)
    releases = len(past)
    for release in past if releases > 1 else ():
        for variant, (failed, tried) in release.items():
            whole = totals[variant]
            rate = whole[0] / whole[1] if whole[1] else 0.0
            if not tried or not rate:
                continue
            weight = min(tried * rate, _MOST_WEIGHT)
            chance = rate * (1 - rate) / tried
            seen = (failed / tried - rate) ** 2 * releases / (releases - 1)
            over += weight * (seen - chance) / rate**2
            weights += weight
    return max(0.0, over / weights)


def bounded_rate(events: int, hours: int) -> float:
    """Return an upper bound of a hazard per device-hour: two standard deviations over one more event than was seen."""
    return (events + 1 + 2.05 * math.sqrt(events + 1)) / max(1, hours)


def hazard_ppb(events: int, device_s: int) -> int:
    """Return how bad the control still could be per device-hour, in 10⁻⁹: its mean, one event in the prior's hours added."""
    return (1 + events) * 1_000_000_000 // (PRIOR_HOURS + device_s // HOUR_S)


def devices_needed(harm: Harm, limit_ppm: int, actual_ppm: int) -> int | None:
    """Return how many devices a halt of the whole fleet takes on the average when `actual_ppm` of them fail and `limit_ppm` may; None = never."""
    limit, actual = limit_ppm / MILLION, min(actual_ppm, MILLION) / MILLION
    if actual <= limit:
        return None
    streams = harm.streams
    given = (
        streams.failure + streams.silence + streams.crash + streams.dark
        + streams.crash_rate + streams.dark_rate + sum(streams.metric)
    )  # fmt: skip
    strata = harm.strata
    whole = strata.fleet + strata.variants + strata.singles + strata.pairs
    nats = (
        math.log(harm.odds)
        + math.log(whole / max(1, strata.fleet))
        + math.log(given / max(1, streams.failure))
        + math.log(6)
    )
    gained = actual * math.log(actual / limit)
    if actual < 1:
        gained += (1 - actual) * math.log((1 - actual) / (1 - limit))
    return math.ceil(nats / gained)


def least_visible_ppm(harm: Harm, limit_ppm: int, devices: int) -> int | None:
    """Return the smallest failure rate, ppm, that would stop a release before so many devices have it; None = not even total failure would."""
    low, high = limit_ppm, MILLION
    needed = devices_needed(harm, limit_ppm, high)
    if needed is None or needed > devices:
        return None
    while high - low > 1_000:
        middle = (low + high) // 2
        needed = devices_needed(harm, limit_ppm, middle)
        low, high = (low, middle) if needed is not None and needed <= devices else (middle, high)
    return high
