"""One device's habit is the batched fleet's, tick by tick."""

import math

import numpy as np

from tidegate.sim.exact.presence import TICK_S, Habit, second
from tidegate.sim.fleet.population import NEVER, populate
from tidegate.sim.fleet.spec import FleetSpec, Nuisance, Scenario

ZERO = 3_600.0
WEEK = range(0, 7 * 96, 3)
FLEET = populate(
    Scenario(
        "habits",
        starts_h=13.5,
        fleet=FleetSpec(devices=60),
        nuisances=(
            Nuisance("isp_outage", share=0.5, at_h=30, lasts_h=6),
            Nuisance("server_outage", at_h=35, lasts_h=2),
        ),
    ),
    np.random.default_rng(3),
)


def _habit(number: int) -> Habit:
    period, opens = int(FLEET.period[number]), int(FLEET.opens[number])
    habit = Habit(ZERO, period, opens, int(FLEET.length[number]))
    for outage in FLEET.outages:
        if outage.devices[number]:
            habit.cut(second(ZERO, outage.start), second(ZERO, outage.end))
    return habit


def test_a_device_is_online_exactly_when_the_fleet_says_so() -> None:
    everybody = np.arange(FLEET.size)
    habits = [_habit(number) for number in everybody.tolist()]
    for tick in WEEK:
        at = ZERO + (tick + 0.5) * TICK_S
        assert [one.is_online(at) for one in habits] == FLEET.online(everybody, tick).tolist()


def test_it_is_next_online_in_the_tick_that_the_fleet_says() -> None:
    everybody = np.arange(FLEET.size)
    habits = [_habit(number) for number in everybody.tolist()]
    for tick in WEEK:
        found = [one.next_online(ZERO + (tick + 0.5) * TICK_S) for one in habits]
        ticks = [int((at - ZERO) // TICK_S) for at in found]
        assert ticks == FLEET.next_online(everybody, tick).tolist()
        assert all(one.is_online(at) for one, at in zip(habits, found, strict=True))


def test_everybody_is_online_before_the_start_and_what_never_comes_is_never() -> None:
    assert all(_habit(number).is_online(ZERO - 1) for number in range(FLEET.size))
    assert math.isinf(second(ZERO, NEVER))
