"""A fleet that stands at sites: most failures are no evidence there, since a site speaks once, and still the rest must not be walked through."""

from tidegate.rollout.evidence.settings import PRESETS
from tidegate.sim.fleet.gate import Gate
from tidegate.sim.fleet.outcome import Outcome
from tidegate.sim.fleet.play import Play
from tidegate.sim.fleet.spec import Fault, FleetSpec, Nuisance, Scenario, Sites

SEEDS = range(1, 9)


def _played(seed: int, size: int, *, faults: tuple[Fault, ...] = (), bad_sites: int = 0) -> Outcome:
    nuisances = (Nuisance("bad_site", 0.8, bad_sites),) if bad_sites else ()
    fleet = FleetSpec(devices=2_000, sites=Sites(1.0, size, least=size))
    scenario = Scenario("x", fleet=fleet, faults=faults, nuisances=nuisances)
    return Play(scenario, Gate(PRESETS["normal"]), "normal", seed).run()


def test_a_silent_release_is_not_walked_through_large_sites() -> None:
    """Three in a hundred at ten sites of two hundred; before admission saw every failure, four in five devices had it in the end."""
    found = [_played(seed, 200, faults=(Fault("brick", 0.03),)) for seed in SEEDS]
    exposed = sum(one.exposed_end for one in found) / len(found)
    assert exposed < 1_200
    assert sum(one.state == "halted" for one in found) >= 5


def test_a_good_release_is_through_as_soon_and_is_stopped_for_no_bad_site() -> None:
    found = [_played(seed, 40, bad_sites=seed % 3) for seed in (1, 2, 3)]
    assert [one.state for one in found] == ["completed"] * 3
    assert all(one.t95_h is not None and one.t95_h < 240 for one in found)
