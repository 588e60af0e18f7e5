"""Large fleets as arrays under the real gate: the named failure modes and the disasters that others have had. The files are the ones that people are shown."""

from pathlib import Path

import pytest

from tidegate.sim.fleet.catalog import make_policy
from tidegate.sim.fleet.outcome import unmet
from tidegate.sim.fleet.play import Play
from tidegate.sim.fleet.reader import read_scenario

SCENARIOS = Path(__file__).parents[2] / "examples" / "scenarios"
#: Those that end within the first days; the others are `make sim-compare`'s.
QUICK = (
    "modes/install30",
    "modes/boot10",
    "modes/brick100",
    "modes/brick5",
    "modes/late10",
    "disasters/battery-drain",
    "disasters/content-to-everybody",
    "disasters/harm-in-use",
    "disasters/phantom-braking",
    "disasters/printers-dark",
    "disasters/soundbar-brick",
    "disasters/wrong-build",
    "disasters/wrong-hardware",
)


@pytest.mark.parametrize("name", QUICK)
def test_what_is_expected_of_the_gate_comes_true(name: str) -> None:
    scenario = read_scenario(SCENARIOS / f"{name}.scenario.toml")
    outcome = Play(scenario, make_policy("normal"), "normal", scenario.seed).run()
    assert outcome.state in ("halted", "isolated")
    assert unmet(scenario, outcome) == ()


@pytest.mark.parametrize("peer", ["bigbang", "hawk80"])
@pytest.mark.parametrize("name", ["content-to-everybody", "battery-drain"])
def test_the_peers_do_what_they_did_in_the_world(name: str, peer: str) -> None:
    scenario = read_scenario(SCENARIOS / "disasters" / f"{name}.scenario.toml")
    outcome = Play(scenario, make_policy(peer), peer, scenario.seed).run()
    assert unmet(scenario, outcome) == ()
