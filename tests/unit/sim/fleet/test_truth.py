"""The fleet and what really happens to it follow the shares and rates that a scenario names."""

import dataclasses
import math

import numpy as np
import pytest

from tidegate.sim.fleet.catalog import make_policy
from tidegate.sim.fleet.play import Play
from tidegate.sim.fleet.population import NEVER, Fleet, populate
from tidegate.sim.fleet.spec import Fault, FleetSpec, Nuisance, Region, Scenario, Sites, WorldSpec
from tidegate.sim.fleet.truth import BRICKED, INSTALL_FAILED, REVERTED, SLOW, Truth, tell

DEVICES = 40_000
#: Standard deviations that a count may lie off: one test in a million by chance, with fixed seeds never.
SIGMAS = 5.0


def _world(scenario: Scenario, seed: int = 3) -> tuple[Fleet, Truth]:
    fleet = populate(scenario, np.random.default_rng([seed, 0]))
    return fleet, tell(scenario, fleet, np.random.default_rng([seed, 1]))


def _near(count: int, of: int, share: float) -> bool:
    return abs(count - of * share) <= SIGMAS * math.sqrt(of * share * (1 - share)) + 1


def _scenario(*faults: Fault, **world: object) -> Scenario:
    calm = WorldSpec(failures={"*": 0.0}, silence={"*": 0.0}, drift=0.0, crash_day=0, dark_day=0)
    changed = dataclasses.replace(calm, **world)  # type: ignore[arg-type]
    return Scenario("x", fleet=FleetSpec(devices=DEVICES), world=changed, faults=faults)


@pytest.mark.parametrize("attribute", ["variant", "region", "class"])
def test_every_share_of_the_fleet_is_that_of_the_file(attribute: str) -> None:
    scenario = _scenario()
    fleet, _ = _world(scenario)
    spec = scenario.fleet
    wanted = {
        "variant": spec.variants,
        "region": {name: one.share for name, one in spec.regions.items()},
        "class": spec.classes,
    }[attribute]
    for value, share in wanted.items():
        assert _near(int(fleet.where({attribute: value}).sum()), DEVICES, share), value


@pytest.mark.parametrize(
    ("kind", "fate"),
    [("install_failure", INSTALL_FAILED), ("boot_failure", REVERTED), ("brick", BRICKED)],
)
def test_a_fault_strikes_its_share_of_those_it_names_and_nobody_else(kind: str, fate: int) -> None:
    fleet, truth = _world(_scenario(Fault(kind, 0.07, {"variant": "v2", "region": "east"})))
    mine = fleet.where({"variant": "v2", "region": "east"})
    assert _near(int((truth.fate[mine] == fate).sum()), int(mine.sum()), 0.07)
    assert not (truth.fate[~mine] == fate).any()
    assert (truth.affected == mine).all()
    assert (truth.by_fault == (truth.fate == fate)).all()


def test_late_faults_come_after_their_onset_and_as_spread_as_they_say() -> None:
    fleet, truth = _world(_scenario(Fault("dark", 0.2, after_h=72, mean_h=24)))
    struck = truth.dark[truth.dark < NEVER] / 4
    assert _near(struck.size, fleet.size, 0.2)
    assert struck.min() >= 72
    assert abs(struck.mean() - 96) < SIGMAS * 24 / math.sqrt(struck.size) + 0.25


def test_what_happens_anyway_happens_as_often_as_the_file_says() -> None:
    scenario = _scenario(
        failures={"*": 0.02}, silence={"*": 0.01}, crash_day=0.002, dark_day=0.0007, day_night=0.5
    )
    fleet, truth = _world(scenario)
    assert _near(int((truth.fate == INSTALL_FAILED).sum()), fleet.size, 0.02)
    assert _near(int((truth.fate == SLOW).sum()), fleet.size, 0.98 * 0.01)
    for at, a_day in ((truth.crash_at, 0.002), (truth.dark_at, 0.0007)):
        assert _near(int((at < NEVER).sum()), fleet.size, 1 - math.exp(-28 * a_day))


def test_drift_moves_this_release_and_the_history_alike() -> None:
    ratios = []
    for seed in range(60):
        scenario = Scenario(
            "x",
            fleet=FleetSpec(devices=5_000, variants={"v1": 1.0}),
            world=WorldSpec(failures={"*": 0.05}, drift=0.4),
        )
        _, truth = _world(scenario, seed)
        ratios.append((truth.history.failures / truth.history.attempts / 0.05)[:, 0])
    spread = float(np.log(np.concatenate(ratios)).std())
    assert 0.33 < spread < 0.47


def test_a_release_within_its_history_has_no_true_cause_and_one_over_it_has() -> None:
    assert not _world(_scenario(failures={"*": 0.02}))[1].excess
    over = _scenario(Fault("install_failure", 0.02, {"variant": "v5"}), failures={"*": 0.02})
    assert _world(over)[1].excess


def test_presence_is_what_the_class_says() -> None:
    scenario = Scenario("x", fleet=FleetSpec(devices=4_000, regions={"one": Region(1.0, 5)}))
    fleet, _ = _world(scenario)
    idx = np.arange(fleet.size)
    week = np.stack([fleet.online(idx, tick) for tick in range(672)])
    hours = week.sum(axis=0) / 4
    for code, (name, want) in enumerate(
        {"always": 168, "night": 168, "daily": 70, "weekly": 24}.items()
    ):
        assert fleet.names["class"][code] == name
        assert (hours[fleet.klass == code] == want).all()
    asks = np.stack([fleet.asking(idx, tick) for tick in range(96)])
    night = asks[:, fleet.names["class"].index("night") == fleet.klass]
    local = (np.flatnonzero(night.any(axis=1)) / 4 + scenario.starts_h + 5) % 24
    assert local.min() >= 1
    assert local.max() < 4


def test_next_and_last_contact_agree_with_presence_also_across_outages() -> None:
    scenario = Scenario(
        "x",
        fleet=FleetSpec(devices=800),
        nuisances=(
            Nuisance("isp_outage", 0.5, at_h=30, lasts_h=20),
            Nuisance("server_outage", at_h=50, lasts_h=3),
        ),
    )
    fleet, _ = _world(scenario)
    idx = np.arange(fleet.size)
    online = np.stack([fleet.online(idx, tick) for tick in range(4 * 24 * 65)])
    for tick in (0, 100, 130, 199, 201, 211, 212, 240):
        after = fleet.next_online(idx, tick)
        assert (after == tick + online[tick:].argmax(axis=0)).all()
        seen = online[: tick + 1].any(axis=0)
        before = fleet.last_online(idx, np.full(idx.size, tick))
        assert (before[seen] == tick - online[tick::-1].argmax(axis=0)[seen]).all()


def test_sites_are_of_one_region_and_one_kind_and_no_larger_than_they_may_be() -> None:
    sites = Sites(0.4, 50, {"shop": 0.5, "plant": 0.5})
    fleet, _ = _world(Scenario("x", fleet=FleetSpec(devices=10_000, sites=sites)))
    there = fleet.site >= 0
    assert _near(int(there.sum()), fleet.size, 0.4)
    for site in np.unique(fleet.site[there]):
        mine = fleet.site == site
        assert np.unique(fleet.region[mine]).size == 1
        assert np.unique(fleet.site_kind[mine]).size == 1
        assert mine.sum() <= 50


def test_one_seed_is_one_story_and_another_seed_another() -> None:
    scenario = Scenario(
        "x", fleet=FleetSpec(devices=3_000), faults=(Fault("late_crash", 0.1, mean_h=12),)
    )
    digests = [
        Play(scenario, make_policy("hawk80"), "hawk80", seed).run().digest() for seed in (5, 5, 6)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_all_policies_meet_the_same_fates() -> None:
    scenario = Scenario("x", fleet=FleetSpec(devices=2_000), faults=(Fault("brick", 0.1),))
    plays = [Play(scenario, make_policy(name), name, 4) for name in ("hawk80", "aws10")]
    assert (plays[0].truth.fate == plays[1].truth.fate).all()
    assert (plays[0].fleet.order == plays[1].fleet.order).all()


def test_who_lies_or_reports_late_did_so_before() -> None:
    spec = FleetSpec(devices=DEVICES, variants={"v1": 1.0})
    world = WorldSpec(failures={"*": 0.2}, silence={"*": 0.01}, drift=0.0)
    habits = (Nuisance("lying", 0.5), Nuisance("late_reports", 0.02, lasts_h=48))
    history = _world(Scenario("x", fleet=spec, world=world, nuisances=habits))[1].history
    attempts = int(history.attempts.sum())
    assert _near(int(history.failures.sum()), attempts, 0.1)
    assert all(abs(one - 0.0298) < 1e-9 for one in history.silence)
