"""What a device meets is what the batched simulator makes of the same truth."""

from dataclasses import replace

import numpy as np

from tidegate.sim.exact.fate import Blow, OwnTruth, blow
from tidegate.sim.fleet.catalog import make_policy
from tidegate.sim.fleet.play import Play
from tidegate.sim.fleet.population import NEVER
from tidegate.sim.fleet.spec import Fault, FleetSpec, Nuisance, Scenario
from tidegate.sim.fleet.truth import BRICKED, OK, REVERTED, SLOW

SCENARIO = Scenario(
    "fates",
    days=6,
    fleet=FleetSpec(devices=400, classes={"always": 1.0}),
    faults=(
        Fault("brick", 0.2, {"variant": "v1"}),
        Fault("late_crash", 0.4, {"variant": "v2"}, mean_h=6),
        Fault("dark", 0.3, {"variant": "v3"}, after_h=5),
        Fault("night_job", 0.5, {"variant": "v4"}),
        Fault("boot_failure", 0.5, {"variant": "v5"}),
    ),
    nuisances=(Nuisance("lying", share=0.5),),
)


def test_each_device_is_harmed_when_the_batched_simulator_says_so() -> None:
    played = Play(SCENARIO, make_policy("bigbang"), "bigbang", 4)
    played.policy.human = False
    played.run()
    tried = np.flatnonzero(played.activated < NEVER).tolist()
    assert len(tried) > 350
    fates = set()
    for device in tried:
        tick = int(played.activated[device])
        met = blow(SCENARIO, played.fleet, played.truth, device, tick)
        late = 0 if met.fate == BRICKED else min(met.crash, met.dark)
        assert min(NEVER, tick + late) == played.harm_at[device]
        fates.add(met.fate)
    assert {OK, BRICKED, REVERTED, SLOW} <= fates


def test_who_lies_about_a_failure_has_a_system_that_shows_none() -> None:
    played = Play(SCENARIO, make_policy("bigbang"), "bigbang", 4)
    truth = played.truth
    liars = np.flatnonzero((truth.fate == REVERTED) & truth.lies).tolist()
    honest = np.flatnonzero((truth.fate == REVERTED) & ~truth.lies).tolist()
    found = [
        {blow(SCENARIO, played.fleet, truth, one, 0).fate for one in some}
        for some in (liars, honest)
    ]
    assert found == [{OK}, {REVERTED}]


def test_errors_rise_at_once_and_by_the_hour_and_only_under_the_release() -> None:
    truth = OwnTruth(2, rate_h=2.0, shift=0.5, slope_h=0.1)
    assert truth.of(2, "any").errors_per_hour == 2.0
    truth.blow, truth.at = Blow(OK, NEVER, NEVER, 0), 10 * 3600.0
    assert truth.of(1, "any").errors_per_hour == 2.0
    assert truth.of(2, "any").errors_per_hour == 2.0 * 2.5


def test_who_dies_before_its_answer_is_due_never_gives_it() -> None:
    """A real agent is done with its warm-up sooner than the batched simulator hears of it."""
    soon = replace(SCENARIO, faults=(Fault("dark", 1.0, after_h=0.75),))
    late = replace(SCENARIO, faults=(Fault("dark", 1.0, after_h=2),))
    played = [Play(one, make_policy("bigbang"), "bigbang", 4) for one in (soon, late)]
    mutes = []
    for one in played:
        well = np.flatnonzero((one.truth.fate == OK) & (one.truth.delay == 0)).tolist()
        met = [blow(one.scenario, one.fleet, one.truth, device, 0) for device in well]
        mutes.append({(each.mute, each.dark) for each in met if each.fate == OK})
    assert mutes == [{(3, 3)}, {(0, 8)}]
