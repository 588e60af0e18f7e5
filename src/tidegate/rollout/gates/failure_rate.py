"""`failure_rate`: no more than this share of attempts may end badly, silence counted.

Attempts are devices that acted on the release: permits granted, and installs that failed before one; never the whole ring, whose silent majority would hide
any failure, and never only those that reported, because failures report in minutes and successes after the warm-up. What is still out counts as
not failed, so a ramp that goes up fast cannot look worse than it is. Reverted, failed after the permit, lost at a deadline, and failed installs are bad;
transfers and refusals say nothing against an image.

Below `sample` attempts a share means little, yet eight of eight that never come back must not wait for more: fewer attempts stop, too, when so many failures
would happen once in `odds` times or less at the limit itself (exact binomial tail). Each look at a growing sample is one such chance, so this part is meant for
the first handful only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tidegate.core.amounts import format_share
from tidegate.rollout.limits import Setting, Value
from tidegate.rollout.model import ALL_BP, Finding, Tally
from tidegate.rollout.stats import binomial_tail
from tidegate.rollout.view import View

NAME: Final = "failure_rate"
SETTINGS: Final[Mapping[str, Setting]] = {
    "max": Setting("share", "5%", "share of attempts that may end badly; more than that stops"),
    "sample": Setting("count", 20, "attempts from which the share is judged"),
    "odds": Setting("count", 1000, "fewer attempts stop at 1 in so many; 0 = never"),
    "healthy": Setting("count", 5, "confirmed devices of the others before one is isolated"),
}


@dataclass(frozen=True, slots=True)
class FailureRate:
    """Limits: basis points of attempts, attempts, 1 in `odds`, confirmed others."""

    max_bp: int
    sample: int
    odds: int
    healthy: int
    stops: bool = field(default=True, init=False)

    def judge(self, view: View, now: int) -> Finding:
        """Compare bad attempts with the limit, strictly."""
        tally = view.tally
        return Finding(
            gate=NAME,
            passed=not self._over(tally.harmed, tally.attempts),
            text=view.prefix + self._sentence(tally),
            ring=view.ring,
            variant=view.variant,
            observed=round(tally.harmed / tally.attempts, 4) if tally.attempts else None,
            limit=self.max_bp / ALL_BP,
            sample=tally.attempts,
        )

    def calm(self, view: View) -> bool:
        """Say whether enough others are confirmed, and few enough failed even of those whose outcome is known."""
        tally = view.tally
        known = tally.confirmed + tally.harmed
        return tally.confirmed >= self.healthy and tally.harmed * ALL_BP <= self.max_bp * known

    def _over(self, harmed: int, attempts: int) -> bool:
        if attempts >= self.sample:
            return harmed * ALL_BP > self.max_bp * attempts
        # `harmed` can pass `attempts` only if a counter is wrong; then it is the failures that are believed.
        trials = max(attempts, harmed)
        return self.odds > 0 and (
            harmed > 0 and binomial_tail(harmed, trials, self.max_bp / ALL_BP) * self.odds <= 1
        )

    def rare(self, attempts: int) -> tuple[int | None, float]:
        """Return how many failures of so many attempts stop by their rarity alone, below `sample`; None = no number of them does.

        With it the chance that luck brings as many at the limit: of that number, or, where no number does, of all of them.
        """
        chance = self.max_bp / ALL_BP
        for harmed in range(1, attempts + 1):
            luck = binomial_tail(harmed, attempts, chance)
            if self.odds > 0 and luck * self.odds <= 1:
                return harmed, luck
        return None, binomial_tail(attempts, attempts, chance)

    def _sentence(self, tally: Tally) -> str:
        limit = format_share(self.max_bp)
        if not tally.attempts and not tally.harmed:
            return f"no attempt yet; at most {limit} may end badly"
        share = format_share(tally.harmed * ALL_BP // max(1, tally.attempts) // 10 * 10)
        said = (
            f"{tally.harmed:,} of {tally.attempts:,} attempts ended badly ({share}), limit {limit}"
        )
        if tally.reasons and tally.harmed:
            code, count = max(tally.reasons.items(), key=lambda item: (item[1], item[0]))
            said += f"; most often {code} ({count:,})"
        if tally.attempts < self.sample:
            said += f"; a share counts from {self.sample:,} attempts on"
            if self._over(tally.harmed, tally.attempts):
                said += f", but so many happen less than once in {self.odds:,} at that limit"
        return said


def create(**settings: Value) -> FailureRate:
    """Make the gate of read settings."""
    return FailureRate(
        max_bp=int(settings["max"]),
        sample=int(settings["sample"]),
        odds=int(settings["odds"]),
        healthy=int(settings["healthy"]),
    )
