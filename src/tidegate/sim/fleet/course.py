"""What happened to the devices of a run, and the figures that follow from it: the same for both modes of the simulator."""

from dataclasses import dataclass

import numpy as np

from tidegate.sim.fleet.outcome import Outcome
from tidegate.sim.fleet.population import NEVER, Ints
from tidegate.sim.fleet.spec import TICK_H, Scenario
from tidegate.sim.fleet.truth import BRICKED, Truth


@dataclass(frozen=True)
class Course:
    """Ticks, one entry a device; `NEVER` for what did not happen.

    Attributes:
        activated: the boot flag was set.
        outcome_at: the server heard how that ended, or gave the device up.
        harm_at: the release bricked it, crashed it late or silenced it for ever.
    """

    activated: Ints
    outcome_at: Ints
    harm_at: Ints


@dataclass(frozen=True)
class Ending:
    """How a rollout ended, in ticks; `NEVER` for what did not happen. `curve` and `meters` as in `Outcome`."""

    stop_tick: int = NEVER
    isolated: tuple[str, ...] = ()
    isolated_at: int = NEVER
    why: str = ""
    curve: tuple[tuple[float, int], ...] = ()
    meters: tuple[tuple[float, dict[str, float]], ...] = ()


def reckon(
    scenario: Scenario,
    truth: Truth,
    course: Course,
    ending: Ending,
    policy: str,
    seed: int,
    run_s: float,
) -> Outcome:
    """Work out the figures of a run.

    Args:
        scenario: that was played.
        truth: of its devices.
        course: what became of them.
        ending: of the rollout.
        policy: name of the policy.
        seed: of the run.
        run_s: what it took, in seconds.
    """
    end, bad, size = scenario.ticks, scenario.bad, course.activated.size
    affected = truth.affected if bad else np.ones(size, bool)
    stopped = min(ending.stop_tick, ending.isolated_at)
    at_stop = min(stopped, end)
    begun = course.activated < NEVER
    mine = affected & begun
    ended = np.sort(course.outcome_at)
    shares = [int(ended[min(size - 1, int(q * size))]) for q in (0.95, 0.99)]
    halted = ending.stop_tick < NEVER
    t95, t99 = (one * TICK_H if one < end and not halted else None for one in shares)
    state = "halted" if halted else "isolated" if ending.isolated else "running"
    if state == "running" and t95 is not None:
        state = "completed"
    exposed_end = int(mine.sum())
    return Outcome(
        scenario=scenario.name,
        group=scenario.group,
        policy=policy,
        seed=seed,
        devices=size,
        bad=bad,
        state=state,
        why=ending.why,
        stopped_h=stopped * TICK_H if stopped < NEVER else None,
        isolated=ending.isolated,
        isolations=len(ending.isolated),
        affected=int(affected.sum()),
        exposed=int((mine & (course.activated <= at_stop)).sum()),
        exposed_end=exposed_end,
        harmed=int((course.harm_at <= at_stop).sum()),
        harmed_end=int((course.harm_at < end).sum()),
        failed_end=int((truth.by_fault & begun & (truth.fate != BRICKED)).sum()),
        t95_h=t95,
        t99_h=t99,
        true_cause=bad or truth.excess,
        caught=bad and stopped < NEVER and exposed_end * 2 < int(affected.sum()),
        run_s=round(run_s, 3),
        curve=ending.curve,
        meters=ending.meters,
    )
