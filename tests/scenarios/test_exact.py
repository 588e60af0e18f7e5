"""A batched scenario played by real agents: their boards show the truth that the batched simulator draws."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tidegate.core.errors import ConfigError
from tidegate.rollout.evidence.settings import Harm
from tidegate.server.gatekeeper import opening
from tidegate.sim.exact.agree import play_both
from tidegate.sim.exact.device import FatedDevice
from tidegate.sim.exact.play import LEAD_S, TIMEOUT_S, WARM_UP_S, ExactPlay, without_history
from tidegate.sim.exact.presence import TICK_S
from tidegate.sim.fleet.population import NEVER
from tidegate.sim.fleet.reader import read_scenario
from tidegate.sim.fleet.spec import Fault, FleetSpec, Region, Scenario, WorldSpec, sized
from tidegate.sim.fleet.truth import BRICKED

AGREE = Path(__file__).parents[2] / "examples" / "scenarios" / "agree"
SCENARIO = Scenario(
    "exact",
    days=1,
    fleet=FleetSpec(
        devices=24,
        variants={"old": 0.5, "new": 0.5},
        from_versions={"1": 0.5, "2": 0.5},
        regions={"here": Region(1.0, 2)},
        classes={"always": 0.8, "night": 0.2},
    ),
    world=WorldSpec(crash_day=0.2, dark_day=0.2),
    faults=(Fault("brick", 0.5, {"variant": "old"}), Fault("dark", 1.0, {"variant": "new"}, 6.0)),
)


class Ungated(ExactPlay):
    """Nothing stops the release, so that every device meets its fate."""

    def _request(self, name: str) -> dict[str, object]:
        return {**super()._request(name), "guards": []}


def test_boards_meet_the_fates_that_the_batched_simulator_draws(tmp_path: Path) -> None:
    with Ungated(without_history(SCENARIO), "emergency", 3, tmp_path) as play:
        outcome = play.play()
        fates = play.fates
        devices = [one for one in play.fleet.devices if isinstance(one, FatedDevice)]
        begun = np.array([one.activated_at or NEVER for one in devices], float)
        dead = np.array([one.board.dead for one in devices])
        now = play.timeline.at()
    tried = begun < now
    bricked = tried & (fates.fate == BRICKED)
    late_at = np.where(tried & ~bricked, begun + fates.dark * TICK_S, np.inf)
    dies_at = np.minimum(late_at, LEAD_S + fates.dark_at * TICK_S)
    settled = np.abs(dies_at - now) > 3600
    assert (dead == (bricked | (dies_at < now)))[settled].all()
    assert bricked.any()
    assert (late_at < now).any()
    assert (dies_at < now)[~tried | ~np.isfinite(late_at)].any()
    assert (outcome.devices, outcome.exposed_end) == (24, tried.sum())
    assert outcome.harmed >= bricked.sum()


def test_a_brick_is_stopped_after_as_many_devices_by_the_real_server_as_in_the_batched_run() -> (
    None
):
    scenario = sized(read_scenario(AGREE / "early-brick.scenario.toml"), devices=48)
    played, (exact,) = play_both(replace(scenario, faults=(Fault("brick", 1.0),)), "normal", 1)
    assert {one.state for one in (*played, exact)} == {"halted"}
    assert "silence" in exact.why
    assert abs(exact.exposed - sum(one.exposed for one in played) / len(played)) <= 3
    assert exact.exposed_end == exact.exposed == exact.harmed <= 12
    assert exact.stopped_h is not None
    assert 1.25 <= exact.stopped_h <= 6


def test_more_agents_than_can_be_played_and_a_peers_policy_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at most 5,000"):
        ExactPlay(sized(SCENARIO, devices=100_000), "normal", 1, tmp_path)
    with pytest.raises(ConfigError, match="careful"):
        ExactPlay(SCENARIO, "hawk80", 1, tmp_path)


def test_a_real_server_waits_no_longer_for_an_answer_than_the_batched_gate() -> None:
    """Else the first devices are proved later, fewer are out when harm shows, and the modes differ for no reason of the gate's."""
    assert TIMEOUT_S + opening._RESTART_S <= Harm().report_s
    assert WARM_UP_S < TIMEOUT_S
