"""`minimum_sample`: a step stays until so many devices of the ring have confirmed since it opened.

A ring or a step may be smaller than the number asked for: then it is enough when all of it that can still confirm has (those that failed, refused or declined
have had their say, and `failure_rate` judges them). Devices that do not show up hold a ring up only in that case, and `patience` ends even that: so long after
the step opened, those who came are enough, if nobody's outcome is open. At least one device must be confirmed, except where a step may add nobody: a few per
cent of a handful.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tidegate.core.amounts import format_duration
from tidegate.rollout.limits import Setting, Value
from tidegate.rollout.model import Finding
from tidegate.rollout.view import View

NAME: Final = "minimum_sample"
SETTINGS: Final[Mapping[str, Setting]] = {
    "healthy": Setting("count", 10, "confirmed devices of this ring"),
    "patience": Setting("duration", "24h", "after so long those who came are enough; 0s = never"),
}


@dataclass(frozen=True, slots=True)
class MinimumSample:
    """Limits: confirmed devices; seconds since the step opened, 0 = never."""

    healthy: int
    patience_s: int
    stops: bool = field(default=False, init=False)

    def judge(self, view: View, now: int) -> Finding:
        """Compare the confirmed with what is asked for, or with what can still come."""
        confirmed, need = view.confirmed_since, self._need(view)
        due = view.progress.opened_at + self.patience_s
        # Whoever asked before may not be in this step at all: then its time alone has to do.
        came = confirmed > 0 or (view.progress.step > 0 and view.attempts_since == 0)
        settled = self.patience_s > 0 and came and view.tally.pending == 0
        passed = confirmed >= need or (settled and now >= due)
        return Finding(
            gate=NAME,
            passed=passed,
            text=view.prefix + self._sentence(confirmed, need, passed=passed),
            ring=view.ring,
            variant=view.variant,
            observed=confirmed,
            limit=need,
            sample=confirmed,
            opens_at=due if settled and not passed else None,
        )

    def calm(self, view: View) -> bool:
        """Numbers never blame."""
        return view.tally.confirmed > 0

    def _need(self, view: View) -> int:
        at_least = view.at_least
        if at_least is None:
            return max(1, self.healthy)
        gone = view.ended_since - view.confirmed_since
        coming = max(at_least, view.ended_since + view.tally.pending)
        return 0 if coming == 0 else max(1, min(self.healthy, coming - gone))

    def _sentence(self, confirmed: int, need: int, *, passed: bool) -> str:
        if need == 0:
            return "minimum_sample: this step may add no device, nobody to wait for"
        said = f"minimum_sample {need:,} healthy: has {confirmed:,}"
        if need < self.healthy:
            said += f" ({self.healthy:,} asked for, but no more are sure to come in this step)"
        if passed and confirmed < need:
            said += f"; enough after {format_duration(self.patience_s)}"
        return said


def create(**settings: Value) -> MinimumSample:
    """Make the gate of read settings."""
    return MinimumSample(healthy=int(settings["healthy"]), patience_s=int(settings["patience"]))
