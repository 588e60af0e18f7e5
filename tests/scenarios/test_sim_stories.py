"""Whole stories: the real server and real agents on simulated boards, in virtual time. The files are the ones that `tidegate sim run` is shown with."""

from pathlib import Path

import pytest

from tidegate.core.errors import ConfigError
from tidegate.sim.faults import Behaviour
from tidegate.sim.population import PopulationSpec
from tidegate.sim.report import outcomes, running
from tidegate.sim.scenario import play, read_scenario
from tidegate.sim.world import HOUR_S, World, WorldSpec

SCENARIOS = Path(__file__).parents[2] / "examples" / "scenarios"
FILES = sorted(SCENARIOS.glob("*.scenario.toml"))
SMALL = WorldSpec(population=PopulationSpec(size=16, internal=4, pilot=4), seed=5, poll_s=1800)


def _policy(name: str) -> dict[str, object]:
    return {
        "name": name,
        "release": name,
        "preset": "lab",
        "guards": [
            {"type": "failure_rate", "max": "30%", "sample": 3, "healthy": 2},
            {"type": "metric", "ratio": 2.0, "exposure": "2h", "devices": 2},
        ],
        "deadlines": {"return": "4h", "confirm": "4h"},
        "ring": [
            {"name": "internal", "audience": "stage = internal", "soak": "1h"},
            {"name": "fleet", "audience": "rest", "soak": "1h"},
        ],
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name.partition(".")[0])
def test_what_a_scenario_expects_comes_true(file: Path, tmp_path: Path) -> None:
    told = play(read_scenario(file), tmp_path)
    assert told.unmet == (), "\n".join(told.story)
    assert told.scenario.expectations


def test_the_same_seed_tells_the_same_story_and_another_seed_another(tmp_path: Path) -> None:
    digests = []
    for number, seed in enumerate((5, 5, 6)):
        spec = WorldSpec(population=SMALL.population, seed=seed, poll_s=SMALL.poll_s)
        folder = tmp_path / str(number)
        folder.mkdir()
        with World(spec, folder) as world:
            world.run(HOUR_S)
            name = world.publish(2, "1.1.0", "queue.py")
            world.roll_out(_policy(name))
            world.run(4 * HOUR_S)
            digests.append((world.digest(), world.events_digest()))
    assert digests[0] == digests[1]
    assert digests[0][0] != digests[2][0]
    assert digests[0][1] != digests[2][1]


def test_the_servers_counts_are_what_really_happened_and_the_cohort_is_ordered_back(
    tmp_path: Path,
) -> None:
    with World(SMALL, tmp_path) as world:
        world.run(HOUR_S)
        good = world.publish(2, "1.1.0", "queue.py")
        world.roll_out(_policy(good))
        world.run(30 * HOUR_S, until=lambda: world.desk.rollout(good).count("confirmed") >= 16)
        noisy = world.publish(
            3, "1.2.0", "sched.py", {"*": Behaviour(errors_per_hour=20.0, calm_s=900.0)}
        )
        world.roll_out(_policy(noisy))
        view = world.run_until_state(noisy, "halted", within_s=24 * HOUR_S)
        assert (view.state, view.isolated) == ("halted", ())
        assert "errors" in view.halt_reason
        world.run(3 * HOUR_S)
        view, found = world.desk.rollout(noisy), outcomes(world.truths(), 3)
        counted = (view.count("exposed"), view.count("confirmed"), view.count("reverted"))
        assert counted == (found.tried, found.confirmed, found.reverted)
        assert found.confirmed > 0
        back = world.desk.fall_back(noisy, good)
        world.run(
            30 * HOUR_S,
            until=lambda: world.desk.rollout(back).count("confirmed") >= found.confirmed,
        )
        truths = world.truths()
        assert outcomes(truths, 3).fallen_back == found.confirmed
        assert running(truths) == {2: 16}


def test_a_mistake_in_a_scenario_is_named_with_the_nearest_word(tmp_path: Path) -> None:
    path = tmp_path / "x.scenario.toml"
    path.write_text('[[release]]\nversion = "1"\nfails = "never_boot"\n')
    with pytest.raises(ConfigError, match="never_boots"):
        read_scenario(path)
    path.write_text("[flet]\n")
    with pytest.raises(ConfigError, match="fleet") as error:
        read_scenario(path)
    assert error.value.code == "config.unknown_key"
