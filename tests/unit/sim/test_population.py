"""A population is the same for the same seed, and has the mix that was asked for."""

from collections import Counter

from tidegate.sim.population import VARIANTS, PopulationSpec, populate


def test_the_same_seed_makes_the_same_fleet() -> None:
    spec = PopulationSpec(size=50)
    assert populate(spec, 7) == populate(spec, 7)
    assert populate(spec, 7) != populate(spec, 8)


def test_the_bench_is_one_variant_always_on_and_the_pilot_ring_holds_the_others() -> None:
    plans = populate(PopulationSpec(size=200, internal=6, pilot=16), 1)
    internal = [plan for plan in plans if plan.stage == "internal"]
    pilot = [plan for plan in plans if plan.stage == "pilot"]
    assert {VARIANTS[0].name} == {plan.variant for plan in internal}
    assert {"always"} == {plan.connectivity for plan in internal}
    assert {variant.name: 4 for variant in VARIANTS[1:]} == Counter(plan.variant for plan in pilot)


def test_a_large_fleet_has_the_shares_of_its_spec() -> None:
    spec = PopulationSpec(size=4000)
    plans = populate(spec, 3)
    counts = Counter(plan.variant for plan in plans)
    for variant in VARIANTS:
        assert abs(counts[variant.name] / 4000 - variant.weight) < 0.04
    offline = sum(plan.connectivity == "intermittent" for plan in plans) / 4000
    assert abs(offline - spec.daily - spec.weekly) < 0.03
    assert len({plan.device_id for plan in plans}) == 4000
