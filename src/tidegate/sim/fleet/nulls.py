"""Releases that no gate may stop: clean ones, and ones exactly at every limit; and the bare bet on failures at the edge of its limit.

What is counted here is every halt and every isolation, whether or not chance put a variant above its limit: there is no excuse. The fleets are those of the
rollout studies (gates.md, sections 3 and 17.5), each in five connectivity mixes.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final, Literal

import msgspec
import numpy as np

from tidegate.rollout.evidence import stakes
from tidegate.rollout.evidence.settings import DELTAS_PPM, MILLION, PRESETS
from tidegate.sim.fleet.draw import MIXES
from tidegate.sim.fleet.outcome import Outcome
from tidegate.sim.fleet.spec import Fault, FleetSpec, Scenario, WorldSpec

Kind = Literal["clean", "limit"]
KINDS: Final[tuple[Kind, ...]] = ("clean", "limit")
DEVICES: Final = 20_000
#: Usual failures of the largest variant, and what each variant's are, as multiples of that.
_BASES: Final = (0.003, 0.01, 0.02)
_VARIANTS: Final[Mapping[str, float]] = {"v1": 1.0, "v2": 0.8, "v3": 1.5, "v4": 2.0, "v5": 1.2}
_SURE: Final = 0.95
#: Of the bare bet: ticks of a ramp, and after how many a failure and a success are known.
_TICKS, _SEEN_BAD, _SEEN_WELL = 260, 1, 5


class Null(msgspec.Struct, frozen=True, kw_only=True):
    """How often a policy stopped releases that it should let through. `at_most`: share of runs stopped, upper bound (exact, one-sided 95 %)."""

    kind: str
    policy: str
    runs: int
    halts: int
    isolations: int
    at_most: float
    t95_h: float | None


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """Share of ramps at the edge of the limit whose odds ever reached 1000 : 1: charged on permit, and by resolved devices only."""

    rate: float
    limit: float
    growing: bool
    runs: int
    charged: float
    resolved: float


def null_set(count: int, seed: int, kind: Kind) -> list[Scenario]:
    """Return scenarios of a kind; bases and connectivity mixes take turns, the start moves through the week.

    Args:
        count: how many. The first scenarios of a larger set are those of a smaller one.
        seed: of the whole set: where in the week the first one starts.
        kind: clean (no drift from release to release, no fault), or limit (every variant fails exactly one point more often than it always did, a
            quarter point more of each class says nothing, crashes and losses are exactly 1.5 times as frequent).
    """
    mixes = (FleetSpec().classes, *MIXES)
    found = []
    for number in range(count):
        base = _BASES[number % len(_BASES)]
        world = WorldSpec(
            failures={name: base * times for name, times in _VARIANTS.items()}, drift=0.0
        )
        classes = mixes[number // len(_BASES) % len(mixes)]
        scenario = Scenario(
            f"{kind}-{number:04d}",
            group=kind,
            starts_h=float((seed * 31 + number * 17) % 168),
            harmless=True,
            fleet=FleetSpec(devices=DEVICES, classes=classes),
            world=world,
        )
        found.append(scenario if kind == "clean" else replace(scenario, faults=_to_limit(scenario)))
    return found


def _to_limit(scenario: Scenario) -> tuple[Fault, ...]:
    """Return faults that bring a clean release to each limit of the preset `normal`, and not beyond."""
    world, limits = scenario.world, PRESETS["normal"]
    more, quiet = limits.extra_failure_ppm / MILLION, limits.extra_silence_ppm / MILLION
    hazard = limits.hazard_pct / 100 - 1
    # A fault strikes those that were well: so many of them that the sum is the limit.
    failing = [
        Fault("install_failure", more / (1 - usual), {"variant": name})
        for name, usual in world.failures.items()
    ]
    silent = []
    for name in scenario.fleet.classes:
        usual = world.silence.get(name, world.silence["*"])
        silent.append(Fault("brick", quiet / (1 - usual), {"class": name}))
    late = [
        Fault(kind, 1.0, mean_h=24 / (hazard * a_day))
        for kind, a_day in (("late_crash", world.crash_day), ("dark", world.dark_day))
    ]
    return (*failing, *silent, *late)


def nulls(outcomes: Iterable[Outcome]) -> list[Null]:
    """Summarize runs of null sets, by kind and policy."""
    found: dict[tuple[str, str], list[Outcome]] = {}
    for one in outcomes:
        found.setdefault((one.group, one.policy), []).append(one)
    return [_null(kind, policy, runs) for (kind, policy), runs in found.items()]


def _null(kind: str, policy: str, runs: list[Outcome]) -> Null:
    stopped = sum(one.stopped_h is not None for one in runs)
    hours = [one.t95_h for one in runs if one.t95_h is not None]
    return Null(
        kind=kind,
        policy=policy,
        runs=len(runs),
        halts=sum(one.state == "halted" for one in runs),
        isolations=sum(one.isolations for one in runs),
        at_most=share_at_most(stopped, len(runs)),
        t95_h=float(np.median(hours)) if 2 * len(hours) >= len(runs) else None,
    )


def share_at_most(hits: int, of: int) -> float:
    """Return the exact upper bound (Clopper and Pearson, one-sided 95 %) of a share that came up `hits` times of `of`."""
    if hits >= of:
        return 1.0
    low, high = hits / of, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if _at_most(hits, of, middle) > 1 - _SURE:
            low = middle
        else:
            high = middle
    return high


def _at_most(hits: int, of: int, share: float) -> float:
    """Return the chance of at most so many hits."""
    log_share, log_rest = math.log(share), math.log1p(-share)
    return sum(
        math.exp(
            math.lgamma(of + 1)
            - math.lgamma(k + 1)
            - math.lgamma(of - k + 1)
            + k * log_share
            + (of - k) * log_rest
        )
        for k in range(hits + 1)
    )


def at_the_edge(runs: int, seed: int, *, rate: float, limit: float, growing: bool) -> Edge:
    """Play the bare bet on failures, without admission: twenty devices a tick, or a ramp that grows by half every five ticks up to 400.

    Args:
        runs: how many ramps.
        seed: of all of them.
        rate: at which devices fail.
        limit: what the bet allows; a rate up to it must reach 1000 : 1 in one ramp of a thousand at most.
        growing: the ramp grows.
    """
    rng = np.random.default_rng([seed, int(growing)])
    ticks = np.arange(_TICKS)
    admitted = np.minimum(400, 20 * 1.5 ** (ticks // 5)) if growing else np.full(_TICKS, 20)
    admitted = admitted.astype(np.int64)
    permits = np.cumsum(admitted)
    ppm = round(limit * MILLION)
    charge, credit, gain = (
        np.array(one) / MILLION for one in (stakes.charge(), stakes.credit(ppm), stakes.gain(ppm))
    )
    charged, resolved = (np.full(runs, -np.inf) for _ in range(2))
    failed, well = np.zeros((_TICKS + 1, runs), np.int64), np.zeros((_TICKS + 1, runs), np.int64)
    for tick in range(_TICKS):
        bad = rng.binomial(admitted[tick], rate, runs)
        failed[tick + 1] = failed[tick] + bad
        well[tick + 1] = well[tick] + admitted[tick] - bad
        known = failed[max(0, tick + 1 - _SEEN_BAD)]
        answered = well[max(0, tick + 1 - _SEEN_WELL)]
        charged = np.maximum(charged, _mean(known, credit, permits[tick], charge))
        resolved = np.maximum(resolved, _mean(known, gain, answered, charge))
    over = math.log(1_000)
    return Edge(
        rate=rate,
        limit=limit,
        growing=growing,
        runs=runs,
        charged=float((charged >= over).mean()),
        resolved=float((resolved >= over).mean()),
    )


_Numbers = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
_Counts = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


def _mean(bad: _Counts, worth: _Numbers, others: _Counts | np.int64, lost: _Numbers) -> _Numbers:
    """Return the logarithm of the mean over the alternatives."""
    logs = np.multiply.outer(bad, worth) + np.multiply.outer(others, lost)
    top = logs.max(axis=-1, keepdims=True)
    whole: _Numbers = top[..., 0] + np.log(np.exp(logs - top).sum(axis=-1) / len(DELTAS_PPM))
    return whole
