"""Two modes agree when their means are no further apart than chance and the tick put them."""

import pytest

from tidegate.sim.exact.agree import Agreement, compare
from tidegate.sim.fleet.outcome import Outcome
from tidegate.sim.fleet.spec import FleetSpec, Scenario

SCENARIO = Scenario("both", fleet=FleetSpec(devices=50, variants={"v1": 0.5, "v2": 0.5}))


def _outcome(exposed: int, stopped_h: float | None) -> Outcome:
    return Outcome(
        scenario="both", group="", policy="normal", seed=1, devices=50, bad=True,
        state="running" if stopped_h is None else "halted", why="", stopped_h=stopped_h,
        isolated=(), isolations=0, affected=50, exposed=exposed, exposed_end=exposed, harmed=2,
        harmed_end=2, failed_end=0, t95_h=None, t99_h=None, true_cause=True, caught=True, run_s=1.0,
    )  # fmt: skip


def _compared(exact: list[tuple[int, float | None]]) -> Agreement:
    batched = [(8, 2.0), (10, 3.0), (7, 2.5), (9, 2.0), (11, 4.0), (8, 3.0)]
    return compare(
        SCENARIO,
        "normal",
        [_outcome(*one) for one in 4 * batched],
        [_outcome(*one) for one in exact],
    )


def test_scatter_around_the_same_mean_agrees() -> None:
    found = _compared([(10, 3.0), (8, 2.0), (9, 2.5), (7, 2.5), (10, 3.5), (9, 3.0)])
    assert found.agrees
    exposed = found.figures[1]
    assert exposed.batched == exposed.exact == pytest.approx(53 / 6)
    assert exposed.se > exposed.exact_se > 0
    assert (found.batched, found.exact) == (24, 6)


def test_a_shift_of_every_run_does_not() -> None:
    found = _compared([(13, 2.0), (15, 3.0), (12, 2.5), (14, 2.0), (17, 4.0), (13, 3.0)])
    assert [one.agrees for one in found.figures] == [True, False, True, True]
    assert not found.agrees


def test_half_an_hour_is_the_tick_and_two_hours_are_not() -> None:
    def later(hours: float) -> Agreement:
        return _compared([(8, 2.0 + hours), (10, 3.0 + hours), (7, 2.5 + hours), (9, 2.0 + hours), (11, 4.0 + hours), (8, 3.0 + hours)])  # fmt: skip

    assert later(0.5).agrees
    assert not later(2.0).agrees


def test_one_mode_that_never_stops_differs_whatever_it_exposed() -> None:
    found = _compared([(8, None), (10, None), (7, None), (9, None), (11, None), (8, 3.0)])
    assert [one.name for one in found.figures if not one.agrees] == ["stopped"]
