"""Holds the batched simulator against real agents under the real server: the same fleets, the same fates, two ways to play them.

Fleets and fates are the same seed by seed, but which devices ask first is not, and a few of them decide a halt. So means are compared, and the batched mode,
which costs next to nothing, plays `MORE` times as many seeds. Two means further apart than `BOUND` standard errors of their difference do not agree; one of
the two is wrong then, and finding out which is what this is for.
"""

import math
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from tidegate.sim.exact.play import play_exactly, without_history
from tidegate.sim.fleet.catalog import make_policy
from tidegate.sim.fleet.outcome import Outcome
from tidegate.sim.fleet.play import Play
from tidegate.sim.fleet.spec import TICK_H, Scenario

#: Standard errors: of twenty figures that truly agree, one is further apart.
BOUND: Final = 2.0
#: What the batched mode does not know finer, in hours: a tick until a device hears of the release, a tick until a silence is noticed.
RESOLUTION_H: Final = 2 * TICK_H

#: Seeds of the batched mode for each of the exact one.
MORE: Final = 10

#: Runs of the batched mode, and of the exact one.
Both = tuple[list[Outcome], list[Outcome]]


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure in both modes: means with their standard errors. Nearer than `resolution` is the same."""

    name: str
    batched: float
    batched_se: float
    exact: float
    exact_se: float
    resolution: float = 0.0

    @property
    def difference(self) -> float:
        """By how much the exact mode's mean is greater."""
        return self.exact - self.batched

    @property
    def se(self) -> float:
        """Standard error of the difference."""
        return math.hypot(self.batched_se, self.exact_se)

    @property
    def agrees(self) -> bool:
        """Say whether the means are no further apart than chance puts them."""
        return abs(self.difference) <= BOUND * self.se + self.resolution


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """A scenario in both modes, and how many runs of each."""

    scenario: str
    policy: str
    devices: int
    batched: int
    exact: int
    figures: tuple[Figure, ...]

    @property
    def agrees(self) -> bool:
        """Say whether every figure does."""
        return all(one.agrees for one in self.figures)


def compare(
    scenario: Scenario, policy: str, batched: Sequence[Outcome], exact: Sequence[Outcome]
) -> Agreement:
    """Compare runs of both modes.

    Args:
        scenario: that was played.
        policy: under which.
        batched: runs as arrays, at least two.
        exact: runs with real agents, at least two.
    """
    modes = (batched, exact)
    stopped = [[float(one.stopped_h is not None) for one in runs] for runs in modes]
    hours = [[one.stopped_h for one in runs if one.stopped_h is not None] for runs in modes]
    figures = [
        # Where all or none of a few were stopped, the next one may still be the first that is not.
        _figure("stopped", stopped, 1 / len(exact)),
        # Fractions of a permit that several variants saved up come due in one tick, and the batched mode grants all; a server decides anew after the first.
        _figure(
            "exposed at the stop",
            [[float(one.exposed) for one in runs] for runs in modes],
            len(scenario.fleet.variants) - 1,
        ),
        _figure("harmed in the end", [[float(one.harmed_end) for one in runs] for runs in modes]),
    ]
    if all(len(one) > 1 for one in hours):
        figures.append(_figure("stopped after, h", hours, RESOLUTION_H))
    return Agreement(
        scenario=scenario.name,
        policy=policy,
        devices=scenario.fleet.devices,
        batched=len(batched),
        exact=len(exact),
        figures=tuple(figures),
    )


def play_both(
    scenario: Scenario,
    policy: str,
    seeds: int,
    *,
    processes: int = 1,
    tell: Callable[[int, int], None] = lambda _done, _whole: None,
) -> Both:
    """Play a scenario in both modes, seeds counted from its own.

    Args:
        scenario: of a size that real agents can be played at.
        policy: a preset of the gate.
        seeds: how many of the exact mode; the batched one plays `MORE` times as many.
        processes: how many at once.
        tell: called with (done, of how many) after each exact run.
    """
    plain = without_history(scenario)
    batched = [
        Play(plain, make_policy(policy), policy, scenario.seed + number).run()
        for number in range(MORE * seeds)
    ]
    work = [(number, (plain, policy, scenario.seed + number)) for number in range(seeds)]
    found: dict[int, Outcome] = {}
    for number, outcome in _run(work, processes):
        found[number] = outcome
        tell(len(found), len(work))
    return batched, [found[number] for number in range(seeds)]


def _figure(name: str, values: Sequence[Sequence[float]], resolution: float = 0.0) -> Figure:
    (batched, batched_se), (exact, exact_se) = (_mean(one) for one in values)
    return Figure(
        name=name,
        batched=batched,
        batched_se=batched_se,
        exact=exact,
        exact_se=exact_se,
        resolution=resolution,
    )


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and its standard error."""
    count = len(values)
    mean = sum(values) / count
    spread = sum((one - mean) ** 2 for one in values) / max(1, count - 1)
    return mean, math.sqrt(spread / count)


Work = tuple[int, tuple[Scenario, str, int]]


def _run(work: Sequence[Work], processes: int) -> Iterator[tuple[int, Outcome]]:
    if processes <= 1 or len(work) < 2:
        yield from map(_one, work)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(_one, work)


def _one(work: Work) -> tuple[int, Outcome]:
    number, (scenario, policy, seed) = work
    with tempfile.TemporaryDirectory(prefix="tidegate-sim-") as folder:
        return number, play_exactly(scenario, policy, seed, Path(folder))
