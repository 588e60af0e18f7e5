"""What really happens to each device: drawn once, before any policy has a say, so that all policies meet the same release on the same fleet.

A device's fate under the release (fails to install, reverts, falls silent, is well), its late crash, when it would crash or fall silent anyway:
everything is known here and to nobody else. Policies see reports.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from tidegate.sim.fleet.population import (
    NEVER,
    NIGHT_FROM_H,
    Bools,
    Fleet,
    Floats,
    Ints,
    pick_sites,
)
from tidegate.sim.fleet.spec import DAY_TICKS, TICKS_H, WEEK_TICKS, Scenario, WorldSpec

#: Fates of a first attempt.
OK: Final = 0
INSTALL_FAILED: Final = 1
REVERTED: Final = 2
BRICKED: Final = 3
#: Is well, but is not heard of in time.
SLOW: Final = 4
#: A reported figure of earlier releases rests on so many attempts at most, a variant.
MOST_HISTORY: Final = 5_000
#: Days over which the fleet's hazards of before the rollout are known.
HAZARD_DAYS: Final = 30


@dataclass(frozen=True)
class History:
    """What is known from before: attempts and failures by release and variant, and late events of the last 30 days.

    Attributes:
        attempts, failures: arrays (release, variant), oldest release first; no rows without history.
        silence: share of well devices that are silent at the deadline, by class code.
        crashes, darks: late events of the whole fleet in `HAZARD_DAYS`.
    """

    attempts: Ints
    failures: Ints
    silence: tuple[float, ...]
    crashes: int
    darks: int


@dataclass(frozen=True)
class Struck:
    """A release's fate on every device. Delays are ticks from activation, `NEVER` for never.

    Attributes:
        by_fault: the fate is a fault's doing, not the usual failures'.
        crash, dark: delay to a late crash, to falling silent for ever, by a fault.
        night: crashes in the first local night after activation.
        shift, slope: what errors are multiplied by minus 1, at once and a tick.
        affected: devices that a fault may strike.
    """

    fate: Ints
    by_fault: Bools
    crash: Ints
    dark: Ints
    night: Bools
    shift: Floats
    slope: Floats
    affected: Bools


@dataclass(frozen=True)
class Truth(Struck):
    """What the release does, and what happens besides.

    Attributes:
        lies: a failure of this device is reported as success.
        delay: extra ticks before its report is sent.
        back: ticks after which one is heard of that is well and was silent at the deadline.
        crash_at, dark_at: tick of the crash or the silence that comes anyway.
        excess: whether a variant of ≥ 50 devices truly fails by more than its long-run rate + 1 pp.
    """

    lies: Bools
    delay: Ints
    back: Ints
    crash_at: Ints
    dark_at: Ints
    excess: bool
    history: History


def tell(scenario: Scenario, fleet: Fleet, rng: np.random.Generator) -> Truth:
    """Draw the truth of a scenario."""
    world, size = scenario.world, fleet.size
    names = fleet.names["variant"]
    rates = np.array([_of(world.failures, name) for name in names])
    now, history = _history(world, fleet, rates, rng)
    fate = np.where(rng.random(size) < now[fleet.variant], INSTALL_FAILED, OK)
    silence = np.array([_of(world.silence, name) for name in fleet.names["class"]])
    fate = np.where((fate == OK) & (rng.random(size) < silence[fleet.klass]), SLOW, fate)
    lies, delay = np.zeros(size, bool), np.zeros(size, np.int64)
    lying = late_share = 0.0
    for one in scenario.nuisances:
        if one.kind == "bad_site":
            there = pick_sites(fleet, one.count, rng)
            fate = np.where(there & (rng.random(size) < one.share), INSTALL_FAILED, fate)
        elif one.kind == "lying":
            lies |= rng.random(size) < one.share
            lying = one.share
        elif one.kind == "late_reports":
            late = rng.random(size) < one.share
            most = max(1, round(one.lasts_h * TICKS_H))
            late_share = one.share
            delay = np.where(late, rng.integers(1, most + 1, size), delay)
    struck = _faults(scenario, fleet, fate, rng)
    return Truth(
        **vars(struck),
        lies=lies,
        delay=delay,
        back=1 + rng.exponential(12.0 * TICKS_H, size).astype(np.int64),
        crash_at=_anyway(world.crash_day, world, fleet, scenario, rng, patterned=True),
        dark_at=_anyway(world.dark_day, world, fleet, scenario, rng, patterned=False),
        excess=_exceeds(fleet, now, rates, struck.fate, struck.by_fault),
        history=History(
            attempts=history[0],
            # Devices that lie or report late did so before as well.
            failures=rng.binomial(history[1], 1 - lying).astype(np.int64),
            silence=tuple((silence + (1 - silence) * late_share).tolist()),
            crashes=int(rng.poisson(size * world.crash_day * HAZARD_DAYS)),
            darks=int(rng.poisson(size * world.dark_day * HAZARD_DAYS)),
        ),
    )


def pattern(world: WorldSpec, local_tick: Ints) -> Floats:
    """Return how frequent crashes and errors are at a local tick of the week (0 = Monday 00:00), about 1 on average."""
    hour = local_tick % DAY_TICKS / TICKS_H
    swing = 1 + world.day_night * np.sin((hour - 8) / 24 * 2 * np.pi)
    off = local_tick % WEEK_TICKS >= 5 * DAY_TICKS
    found: Floats = swing * np.where(off, 1 - world.weekend, 1.0)
    return found


def _of(table: Mapping[str, float], name: str) -> float:
    return table.get(name, table.get("*", 0.0))


def _history(
    world: WorldSpec, fleet: Fleet, rates: Floats, rng: np.random.Generator
) -> tuple[Floats, tuple[Ints, Ints]]:
    """Draw the drift of this release and of earlier ones, half of it common to all variants, and what was counted of those."""
    rows = world.releases + 1
    half = world.drift / np.sqrt(2)
    drift = rng.normal(0, half, (rows, 1)) + rng.normal(0, half, (rows, rates.size))
    each = np.minimum(rates * np.exp(drift), 0.9)
    attempts = np.minimum(np.bincount(fleet.variant, minlength=rates.size), MOST_HISTORY)
    before = np.broadcast_to(attempts, (world.releases, rates.size))
    return each[-1], (before.astype(np.int64), rng.binomial(before, each[:-1]).astype(np.int64))


def _exceeds(fleet: Fleet, now: Floats, rates: Floats, fate: Ints, by_fault: Bools) -> bool:
    """Say whether a variant of ≥ 50 devices is truly over its limit: expected failures plus those of faults, against its long-run rate + 1 pp."""
    sizes = np.bincount(fleet.variant, minlength=rates.size)
    bad = np.bincount(
        fleet.variant, weights=by_fault & np.isin(fate, (INSTALL_FAILED, REVERTED, BRICKED))
    )
    bad = np.pad(bad, (0, rates.size - bad.size))
    share = now + bad / np.maximum(sizes, 1)
    return bool(np.any((sizes >= 50) & (share > rates + 0.01)))


def _faults(scenario: Scenario, fleet: Fleet, fate: Ints, rng: np.random.Generator) -> Struck:
    size = fleet.size
    by_fault, night, affected = np.zeros(size, bool), np.zeros(size, bool), np.zeros(size, bool)
    crash, dark = np.full(size, NEVER), np.full(size, NEVER)
    shift, slope = np.zeros(size), np.zeros(size)
    fates = {"install_failure": INSTALL_FAILED, "boot_failure": REVERTED, "brick": BRICKED}
    for one in scenario.faults:
        mine = fleet.where(one.where)
        affected |= mine
        struck = mine & (rng.random(size) < one.rate)
        wait = one.after_h + (rng.exponential(one.mean_h, size) if one.mean_h else 0.0)
        ticks = np.where(struck, np.ceil(np.asarray(wait) * TICKS_H), NEVER).astype(np.int64)
        match one.kind:
            case "install_failure" | "boot_failure" | "brick":
                by_fault |= struck & np.isin(fate, (OK, SLOW))
                fate = np.where(struck & np.isin(fate, (OK, SLOW)), fates[one.kind], fate)
            case "late_crash":
                crash = np.minimum(crash, ticks)
            case "dark":
                dark = np.minimum(dark, ticks)
            case "night_job":
                night |= struck
            case "metric_shift":
                shift = np.where(mine, shift + one.rate, shift)
            case _:
                slope = np.where(mine, slope + one.rate / DAY_TICKS, slope)
    return Struck(fate, by_fault, crash, dark, night, shift, slope, affected)


def _anyway(
    a_day: float,
    world: WorldSpec,
    fleet: Fleet,
    scenario: Scenario,
    rng: np.random.Generator,
    *,
    patterned: bool,
) -> Ints:
    """Draw the first tick at which each device crashes, or falls silent, without any update."""
    ticks = scenario.ticks
    weight = np.ones((1, ticks))
    zones = np.zeros(fleet.size, np.int64)
    if patterned:
        clocks, zones = np.unique(fleet.utc, return_inverse=True)
        start = round(scenario.starts_h * TICKS_H)
        weight = np.stack([pattern(world, start + clock + np.arange(ticks)) for clock in clocks])
    cumulated = np.cumsum(weight, axis=1) * a_day / DAY_TICKS
    need = rng.exponential(1.0, fleet.size)
    found = np.full(fleet.size, NEVER)
    for zone in range(len(cumulated)):
        mine = np.flatnonzero(zones == zone)
        at = np.searchsorted(cumulated[zone], need[mine])
        found[mine] = np.where(at < ticks, at, NEVER)
    return found


def first_night(fleet: Fleet, scenario: Scenario, idx: Ints, tick: int) -> Ints:
    """Return the ticks from `tick` to each device's next local night (the hour at which nightly jobs run)."""
    start = round(scenario.starts_h * TICKS_H)
    local = (tick + start + fleet.utc[idx]) % DAY_TICKS
    wait: Ints = (round((NIGHT_FROM_H + 1) * TICKS_H) - local) % DAY_TICKS
    # A job of this very tick is over: the device has just come up.
    return np.where(wait < 2, wait + DAY_TICKS, wait)
