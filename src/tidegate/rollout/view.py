"""What a gate is shown: a part of the evidence, and where in the rollout it stands."""

import math
from dataclasses import dataclass, field
from functools import cached_property

from tidegate.rollout import tally as sums
from tidegate.rollout.model import ALL_BP, Evidence, RingProgress, Tally


@dataclass(frozen=True)
class View:
    """Evidence of one scope: the whole rollout, one ring of it, one variant, or all the others.

    `label` names the scope in sentences; empty = the whole rollout. The last five fields are only set where a ring's step is judged: `added_bp` is the share
    that the step adds, `approved_by` who let this step pass, `last_step` that nothing would open after it, `audience_known` that devices were counted.
    """

    evidence: Evidence
    label: str = ""
    ring: str = ""
    variant: str = ""
    progress: RingProgress = field(default_factory=RingProgress)
    added_bp: int = ALL_BP
    approved_by: frozenset[str] = frozenset()
    last_step: bool = False
    audience_known: bool = False

    @cached_property
    def tally(self) -> Tally:
        """Return the sum of the outcomes in view."""
        return sums.total(self.evidence)

    @property
    def at_least(self) -> int | None:
        """Return how many devices this step adds at the least; None when they were not counted.

        A step takes devices by hash, so it adds its share of the ring only up to chance: two standard deviations are allowed for (one step in 40 adds
        fewer), and a step of a small ring may add nobody at all.
        """
        if not self.audience_known:
            return None
        audience, share = self.tally.audience, self.added_bp / ALL_BP
        return max(0, math.floor(audience * share - 2 * math.sqrt(audience * share * (1 - share))))

    @cached_property
    def attempts_since(self) -> int:
        """Return the attempts of this ring since its step opened."""
        return max(0, self.tally.attempts - self._before(0))

    @cached_property
    def ended_since(self) -> int:
        """Return the outcomes of this ring since its step opened."""
        return max(0, self.tally.ended - self._before(1))

    @cached_property
    def confirmed_since(self) -> int:
        """Return the devices of this ring that confirmed since its step opened."""
        return max(0, self.tally.confirmed - self._before(2))

    def _before(self, which: int) -> int:
        variants = {variant for _, variant in self.evidence.tallies}
        return sum(
            counts[which] for variant, counts in self.progress.before.items() if variant in variants
        )

    @property
    def prefix(self) -> str:
        """Return the label as the beginning of a sentence."""
        return f"{self.label}: " if self.label else ""
