"""Holds the batched simulator against real agents under the real server: the same fleets, the same fates, two ways to play them.

For each seed both modes draw the same devices, so that differences are taken seed by seed. Two means that differ by more than `BOUND` standard errors of
their difference do not agree; one of the two is wrong then, and finding out which is what this is for.
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

Pair = tuple[Outcome, Outcome]


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure in both modes: means over the runs that have it in both, and the difference with its standard error. Nearer than `resolution` is the same."""

    name: str
    runs: int
    batched: float
    exact: float
    difference: float
    se: float
    resolution: float = 0.0

    @property
    def agrees(self) -> bool:
        """Say whether the means are no further apart than chance puts them."""
        return abs(self.difference) <= BOUND * self.se + self.resolution


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """A scenario in both modes. `stopped_*`: runs that halted or isolated; `apart`: seeds that were stopped in one mode only."""

    scenario: str
    policy: str
    devices: int
    runs: int
    stopped_batched: int
    stopped_exact: int
    apart: int
    figures: tuple[Figure, ...]

    @property
    def agrees(self) -> bool:
        """Say whether figures agree, and stops in one mode only are no more than chance: of so many coins, as likely to fall on one side."""
        lopsided = abs(self.stopped_batched - self.stopped_exact)
        return all(one.agrees for one in self.figures) and lopsided <= BOUND * math.sqrt(self.apart)


def compare(scenario: Scenario, policy: str, pairs: Sequence[Pair]) -> Agreement:
    """Compare runs of both modes.

    Args:
        scenario: that was played.
        policy: under which.
        pairs: (batched, exact), one a seed.
    """
    stopped = [[one.stopped_h is not None for one in pair] for pair in pairs]
    exposed = [(float(one.exposed), float(other.exposed)) for one, other in pairs]
    hours = [
        (one.stopped_h, other.stopped_h)
        for one, other in pairs
        if one.stopped_h is not None and other.stopped_h is not None
    ]
    harmed = [(float(one.harmed_end), float(other.harmed_end)) for one, other in pairs]
    figures = [_figure("exposed at the stop", exposed), _figure("harmed in the end", harmed)]
    if len(hours) > 1:
        figures.append(_figure("stopped after, h", hours, RESOLUTION_H))
    return Agreement(
        scenario=scenario.name,
        policy=policy,
        devices=scenario.fleet.devices,
        runs=len(pairs),
        stopped_batched=sum(one for one, _ in stopped),
        stopped_exact=sum(one for _, one in stopped),
        apart=sum(one != other for one, other in stopped),
        figures=tuple(figures),
    )


def play_both(
    scenario: Scenario,
    policy: str,
    seeds: int,
    *,
    processes: int = 1,
    tell: Callable[[int, int], None] = lambda _done, _whole: None,
) -> list[Pair]:
    """Play a scenario in both modes with `seeds` seeds, counted from its own.

    Args:
        scenario: of a size that real agents can be played at.
        policy: a preset of the gate.
        seeds: how many.
        processes: how many at once.
        tell: called with (done, of how many) after each.
    """
    plain = without_history(scenario)
    work = [(plain, policy, scenario.seed + number) for number in range(seeds)]
    found: dict[int, Pair] = {}
    for number, pair in _run(work, processes):
        found[number] = pair
        tell(len(found), len(work))
    return [found[number] for number in range(len(work))]


def _figure(name: str, values: Sequence[tuple[float, float]], resolution: float = 0.0) -> Figure:
    count = len(values)
    differences = [exact - batched for batched, exact in values]
    mean = sum(differences) / count
    spread = sum((one - mean) ** 2 for one in differences) / max(1, count - 1)
    return Figure(
        name=name,
        runs=count,
        batched=sum(one for one, _ in values) / count,
        exact=sum(one for _, one in values) / count,
        difference=mean,
        se=math.sqrt(spread / count),
        resolution=resolution,
    )


Work = tuple[Scenario, str, int]


def _run(work: Sequence[Work], processes: int) -> Iterator[tuple[int, Pair]]:
    numbered = list(enumerate(work))
    if processes <= 1 or len(work) < 2:
        yield from map(_one, numbered)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(_one, numbered)


def _one(numbered: tuple[int, Work]) -> tuple[int, Pair]:
    number, (scenario, policy, seed) = numbered
    batched = Play(scenario, make_policy(policy), policy, seed).run()
    with tempfile.TemporaryDirectory(prefix="tidegate-sim-") as folder:
        exact = play_exactly(scenario, policy, seed, Path(folder))
    return number, (batched, exact)
