"""`metric`: updated devices may have no more than `ratio` times the errors per device-hour of those not updated.

Both are counted over the same time in the same fleet, variant by variant, so what hits everybody (an outage, a holiday) cancels, and so does a variant that is
noisy by nature. The test is exact at any count, however small: given the number of errors, which side they fall on is binomial, and `stats.race` bets on that.
It halts at `odds` : 1 against the release (a safe logrank test with counts in place of risk sets).

Looking again and again is allowed for by the betting form: wealth of 1000 is reached with probability at most 1/1000 while the ratio holds, for as long as the
two sides' times grow in step. They do not quite: the updated side grows as the rollout does. Each single look keeps the bound whatever the times, and the
wealth of one look is that of the next but for a few events, so the bound is near, not exact, over all looks. Errors that come in bursts from one device are
not independent: set `clump` to how many come together, and the evidence is taken to that root, which keeps the bound.

What the noisiest updated device of each variant had is set aside: one device, broken or lying, stops nothing by its errors alone, and a release that is bad for
many is seen in the others.

A variant with no device left to compare with says nothing: keep a ring, or a share, back. Each variant is judged at the same odds as
the whole, so with V variants one of them is wrongly blamed up to V times as often.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tidegate.rollout import tally as sums
from tidegate.rollout.limits import Setting, Value
from tidegate.rollout.model import Exposure, Finding
from tidegate.rollout.stats import race
from tidegate.rollout.view import View

NAME: Final = "metric"
SETTINGS: Final[Mapping[str, Setting]] = {
    "ratio": Setting("ratio", 1.5, "times the errors of devices not updated that are tolerated"),
    "odds": Setting("count", 1000, "evidence to 1 at which it stops"),
    "exposure": Setting("duration", "10h", "device-time on each side before it is judged"),
    "devices": Setting("count", 3, "devices on each side before it is judged"),
    "clump": Setting("ratio", 1, "errors that come together from one device, on average"),
}

#: Ratios that are bet on, times the tolerated one: slight, plain, gross, absurd.
_ALTERNATIVES: Final = (1.5, 2.5, 5.0, 12.0, 40.0)
_HOUR_S: Final = 3600
#: Beyond this many to 1 the exact figure says nothing more.
_MOST_ODDS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Metric:
    """Limits: ratio of rates, evidence to 1, device-seconds and devices on each side, errors that come together."""

    ratio: float
    odds: int
    exposure_s: int
    devices: int
    clump: float
    stops: bool = field(default=True, init=False)

    def judge(self, view: View, now: int) -> Finding:
        """Bet on each error's side."""
        updated = sums.exposure(view.evidence.updated)
        control = sums.exposure(view.evidence.control)
        judged = self._enough(updated) and self._enough(control)
        log_e = self._log_evidence(view)
        return Finding(
            gate=NAME,
            passed=not (judged and log_e >= math.log(max(1, self.odds))),
            text=view.prefix + self._sentence(updated, control, log_e if judged else None),
            ring=view.ring,
            variant=view.variant,
            observed=_ratio(updated, control),
            limit=self.ratio,
            sample=updated.device_s // _HOUR_S,
        )

    def calm(self, view: View) -> bool:
        """Say whether there is enough to judge, and betting against the release has lost money."""
        updated = sums.exposure(view.evidence.updated)
        control = sums.exposure(view.evidence.control)
        return self._enough(updated) and self._enough(control) and self._log_evidence(view) < 0

    def _enough(self, side: Exposure) -> bool:
        return side.device_s >= max(1, self.exposure_s) and side.devices >= self.devices

    def _log_evidence(self, view: View) -> float:
        blank = Exposure()
        strata = [
            (one.errors - one.top, float(one.device_s), other.errors, float(other.device_s))
            for variant, one in sorted(view.evidence.updated.items())
            for other in (view.evidence.control.get(variant, blank),)
        ]
        return race(strata, self.ratio, _ALTERNATIVES) / self.clump

    def _sentence(self, updated: Exposure, control: Exposure, log_e: float | None) -> str:
        if not updated.device_s:
            return "errors per device-hour: nothing counted after the update yet"
        said = f"{_rate(updated)} after the update, {_rate(control)} without it"
        if updated.top:
            said += f"; {updated.top:,} of one device set aside"
        if log_e is None:
            wanted = self.exposure_s / _HOUR_S
            return (
                f"{said}; judged from {wanted:g} device-hours and {self.devices} devices a side on"
            )
        times = _ratio(updated, control)
        how = f"{times:g} times" if times is not None else "none to compare with"
        odds = min(_MOST_ODDS, math.floor(math.exp(min(log_e, 30.0)) * 10) / 10)
        return (
            f"{said}: {how}, limit {self.ratio:g}; "
            f"{odds:,.10g} : 1 that it is worse than allowed, halts at {self.odds:,} : 1"
        )


def _rate(side: Exposure) -> str:
    if not side.device_s:
        return "no device-hours"
    hours = side.device_s / _HOUR_S
    return f"{side.errors:,} errors in {hours:,.1f} device-hours"


def _ratio(updated: Exposure, control: Exposure) -> float | None:
    if not (updated.device_s and control.device_s and control.errors):
        return None
    return round(updated.errors * control.device_s / (control.errors * updated.device_s), 2)


def create(**settings: Value) -> Metric:
    """Make the gate of read settings."""
    return Metric(
        ratio=float(settings["ratio"]),
        odds=int(settings["odds"]),
        exposure_s=int(settings["exposure"]),
        devices=int(settings["devices"]),
        clump=float(settings["clump"]),
    )
