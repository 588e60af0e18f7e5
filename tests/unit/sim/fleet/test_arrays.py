"""Wealth by arrays says what wealth one stratum at a time says."""

from collections.abc import Mapping

import pytest

from tidegate.rollout.evidence.decide import Decision
from tidegate.rollout.evidence.settings import PRESETS
from tidegate.rollout.evidence.wealth import Wealth
from tidegate.sim.fleet.gate import Gate
from tidegate.sim.fleet.play import Play
from tidegate.sim.fleet.spec import Fault, FleetSpec, Scenario, Sites


class _Both(Gate):
    """The gate, with the wealth of the product worked out beside it at every decision."""

    plain: Wealth | None = None
    looked = 0

    def _decide(self, now: int) -> Decision:
        self.plain = self.plain or Wealth(self.watch.book)
        decision = super()._decide(now)
        self._wealth.refresh()
        self.plain.refresh()
        for stratum in range(len(self.watch.book.rows)):
            assert self._wealth.of(stratum) == self.plain.of(stratum)
            assert self._wealth.weighted(stratum) == self.plain.weighted(stratum)
            assert self._wealth.streams(stratum) == pytest.approx(
                self.plain.streams(stratum), abs=1e-12
            )
        self.looked += 1
        return decision


@pytest.mark.parametrize(
    "where", [{"variant": "v3"}, {}], ids=["a part is isolated", "all is halted"]
)
def test_every_stratum_is_worth_the_same_at_every_decision(where: Mapping[str, str]) -> None:
    fleet = FleetSpec(devices=2_000, sites=Sites(0.3, 40))
    faults = (
        Fault("boot_failure", 0.3, where),
        Fault("late_crash", 0.02, mean_h=12),
        Fault("metric_shift", 0.1),
    )
    gate = _Both(PRESETS["normal"])
    outcome = Play(Scenario("x", days=6, fleet=fleet, faults=faults), gate, "normal", 3).run()
    assert outcome.stopped_h is not None
    assert gate.looked > 5
