"""Scenarios drawn at random: what a gate is judged by, since it was not tuned on them one by one.

The classes are those of the rollout studies (gates.md, *Refinements*): ten kinds of bad releases, seven kinds of good ones, on fleets of 200 to 100,000
devices. The halves `tune` and `report` come from disjoint streams: whoever changes a rule looks at the first and is judged by the second.

What those studies leave open is chosen so that the peers do here what they did there (decisions/0041).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, TypeVar

import numpy as np

from tidegate.sim.fleet.spec import (
    Fault,
    FleetSpec,
    Nuisance,
    Region,
    Scenario,
    Sites,
    WorldSpec,
)

Half = Literal["tune", "report"]
HALVES: Final[tuple[Half, ...]] = ("tune", "report")
Rng = np.random.Generator
Part = TypeVar("Part")

#: Connectivity mixes: mostly always on, mostly 8 h a day, half of it weekly, mostly in a night window.
MIXES: Final[tuple[Mapping[str, float], ...]] = (
    {"always": 0.75, "night": 0.10, "daily": 0.10, "weekly": 0.04, "monthly": 0.01},
    {"always": 0.25, "daily": 0.70, "weekly": 0.04, "monthly": 0.01},
    {"always": 0.30, "daily": 0.20, "weekly": 0.50},
    {"always": 0.15, "night": 0.70, "daily": 0.10, "weekly": 0.05},
)
_ZONES: Final = (("west", -6), ("mid", 0), ("east", 3), ("south", 5), ("far", 9))
#: A combination or a kind of site that a fault names holds at least so many devices, or so large a share of a small fleet.
_LEAST_HIT: Final = 20


def draw(count: int, seed: int, half: Half, *, bad: bool) -> list[Scenario]:
    """Draw scenarios; the classes take turns.

    Args:
        count: how many.
        seed: of the whole set. The first scenarios of a larger set are those of a smaller one.
        half: which stream; the two never share a scenario.
        bad: bad releases, or good ones.
    """
    classes = BAD if bad else GOOD
    names = tuple(classes)
    found = []
    for number in range(count):
        rng = np.random.default_rng([seed, HALVES.index(half), int(bad), number])
        name = names[number % len(names)]
        found.append(classes[name](_Ground(rng, name), f"{half}-{name}-{number:04d}"))
    return found


class _Ground:
    """A fleet and its world, drawn; what the class of the scenario adds comes on top."""

    def __init__(self, rng: Rng, group: str) -> None:
        self.rng, self.group = rng, group
        self.size = round(self.log(200, 100_000))
        variants = _skewed(rng, "v", int(rng.integers(1, 13)))
        regions = _skewed(rng, "", int(rng.integers(2, 6)))
        mix = int(rng.integers(0, 4))
        base = self.log(0.0005, 0.04)
        always = float(rng.uniform(0.001, 0.006))
        self.fleet = FleetSpec(
            devices=self.size,
            variants=variants,
            from_versions=_skewed(rng, "1.", int(rng.integers(1, 5))),
            regions={
                _ZONES[n][0]: Region(share, _ZONES[n][1])
                for n, share in enumerate(regions.values())
            },
            classes=MIXES[mix],
            daily_h=8.0 if mix == 1 else 10.0,
            sites=Sites(
                share=float(rng.choice([0.0, 0.2, 0.5])),
                kinds=_skewed(rng, "kind", int(rng.integers(2, 5))),
            ),
        )
        self.world = WorldSpec(
            failures={
                name: min(0.2, base * float(np.exp(rng.normal(0, 0.4)))) for name in variants
            },
            drift=float(rng.uniform(0.1, 0.6)),
            silence={"always": always, "night": always, "*": 4 * always},
            crash_day=self.log(0.0005, 0.005),
            dark_day=self.log(0.0002, 0.0015),
            errors_h=self.log(0.02, 0.5),
            day_night=float(rng.uniform(0, 0.4)),
            weekend=float(rng.uniform(-0.4, 0.4)),
        )
        self.starts_h = float(rng.integers(0, 168))

    def log(self, low: float, high: float) -> float:
        """Draw log-uniformly."""
        return float(np.exp(self.rng.uniform(math.log(low), math.log(high))))

    def with_sites(self) -> None:
        """Make sure that the fleet has sites."""
        sites = self.fleet.sites
        if not sites.share:
            self.fleet = _replaced(self.fleet, sites=Sites(0.5, sites.most, sites.kinds))

    def scenario(
        self, name: str, faults: Sequence[Fault] = (), nuisances: Sequence[Nuisance] = ()
    ) -> Scenario:
        """Put it together."""
        return Scenario(
            name,
            group=self.group,
            starts_h=self.starts_h,
            fleet=self.fleet,
            world=self.world,
            faults=tuple(faults),
            nuisances=tuple(nuisances),
        )


def _skewed(rng: Rng, prefix: str, count: int) -> dict[str, float]:
    """Return shares that fall by a power of the rank."""
    weights = np.arange(1, count + 1) ** -float(rng.uniform(0.5, 2.0))
    shares = weights / weights.sum()
    return {f"{prefix}{number + 1}": float(share) for number, share in enumerate(shares)}


def _replaced(fleet: FleetSpec, **changed: object) -> FleetSpec:
    return FleetSpec(**{**vars(fleet), **changed})


# --- bad releases ---------------------------------------------------------------------------------------------------------


def _some_harm(ground: _Ground, where: Mapping[str, str], low: float, high: float) -> Fault:
    """Draw one of the kinds that break devices, for those that `where` names."""
    kind = ("boot_failure", "brick", "late_crash", "dark")[int(ground.rng.integers(0, 4))]
    late = kind in ("late_crash", "dark")
    return Fault(
        kind,
        ground.log(low, high),
        where,
        after_h=ground.log(6, 72) if kind == "dark" else 0.0,
        mean_h=float(ground.rng.uniform(6, 48)) if late else 0.0,
    )


def _boot(ground: _Ground, name: str) -> Scenario:
    return ground.scenario(name, [Fault("boot_failure", ground.log(0.01, 0.3))])


def _brick(ground: _Ground, name: str) -> Scenario:
    return ground.scenario(name, [Fault("brick", ground.log(0.002, 0.2))])


def _late(ground: _Ground, name: str) -> Scenario:
    mean = float(ground.rng.uniform(6, 48))
    return ground.scenario(name, [Fault("late_crash", ground.log(0.01, 0.2), mean_h=mean)])


def _dark(ground: _Ground, name: str) -> Scenario:
    onset, mean = ground.log(12, 260), float(ground.rng.uniform(12, 48))
    return ground.scenario(name, [Fault("dark", ground.log(0.02, 0.3), {}, onset, mean)])


def _shift(ground: _Ground, name: str) -> Scenario:
    return ground.scenario(name, [Fault("metric_shift", ground.log(0.1, 2.0))])


def _slope(ground: _Ground, name: str) -> Scenario:
    return ground.scenario(name, [Fault("metric_slope", ground.log(0.05, 0.5))])


def _combination(ground: _Ground, name: str) -> Scenario:
    """Two attributes that a fair number of devices share."""
    spec = ground.fleet
    values: Mapping[str, Mapping[str, float]] = {
        "variant": spec.variants,
        "from_version": spec.from_versions,
        "region": {one: region.share for one, region in spec.regions.items()},
        "class": spec.classes,
    }
    several = [one for one, shares in values.items() if len(shares) > 1]
    first, second = sorted(ground.rng.choice(len(several), 2, replace=False))
    pairs = {
        (one, other): share * part
        for one, share in values[several[first]].items()
        for other, part in values[several[second]].items()
    }
    one, other = _part(ground, pairs, 2 * _LEAST_HIT)
    where = {several[first]: one, several[second]: other}
    return ground.scenario(name, [_some_harm(ground, where, 0.1, 0.6)])


def _night(ground: _Ground, name: str) -> Scenario:
    return ground.scenario(name, [Fault("night_job", ground.log(0.02, 0.3))])


def _site_kind(ground: _Ground, name: str) -> Scenario:
    ground.with_sites()
    sites = ground.fleet.sites
    kinds = {one: sites.share * part for one, part in sites.kinds.items()}
    where = {"site_kind": _part(ground, kinds, _LEAST_HIT)}
    return ground.scenario(name, [_some_harm(ground, where, 0.05, 0.5)])


def _variant(ground: _Ground, name: str) -> Scenario:
    where = {"variant": _part(ground, ground.fleet.variants, _LEAST_HIT)}
    return ground.scenario(name, [_some_harm(ground, where, 0.05, 0.5)])


def _part(ground: _Ground, shares: Mapping[Part, float], least: int) -> Part:
    """Draw the part of the fleet that a device drawn at random belongs to, among those of at least so many devices; the largest where none is."""
    enough = [one for one, share in shares.items() if share * ground.size >= least]
    names = enough or [max(shares, key=lambda one: shares[one])]
    weights = np.array([shares[one] for one in names])
    return names[int(ground.rng.choice(len(names), p=weights / weights.sum()))]


# --- good releases --------------------------------------------------------------------------------------------------------


def _plain(ground: _Ground, name: str) -> Scenario:
    return ground.scenario(name)


def _isp(ground: _Ground, name: str) -> Scenario:
    region = str(ground.rng.choice(list(ground.fleet.regions)))
    at = float(ground.rng.uniform(2, 200))
    # Three in ten devices of the whole fleet, or one whole region.
    whole = bool(ground.rng.random() < 0.5)
    cut = Nuisance("isp_outage", 1.0 if whole else 0.3, 0, region if whole else "", at, 6.0)
    return ground.scenario(name, nuisances=[cut])


def _server(ground: _Ground, name: str) -> Scenario:
    at = float(ground.rng.uniform(0.5, 200))
    return ground.scenario(name, nuisances=[Nuisance("server_outage", at_h=at, lasts_h=2.0)])


def _pattern(ground: _Ground, name: str) -> Scenario:
    ground.world = WorldSpec(
        **{
            **vars(ground.world),
            "day_night": float(ground.rng.uniform(0.4, 0.8)),
            "weekend": float(ground.rng.choice([-0.6, -0.4, 0.4, 0.6])),
        }
    )
    return ground.scenario(name)


def _site(ground: _Ground, name: str) -> Scenario:
    ground.with_sites()
    if ground.rng.random() < 0.6:
        count = int(ground.rng.integers(1, 4))
        return ground.scenario(name, nuisances=[Nuisance("bad_site", 0.8, count)])
    at, lasts = float(ground.rng.uniform(1, 150)), float(ground.rng.uniform(2, 24))
    return ground.scenario(name, nuisances=[Nuisance("site_power_cut", 0.0, 2, "", at, lasts)])


def _drift(ground: _Ground, name: str) -> Scenario:
    drift = float(ground.rng.uniform(0.5, 0.6))
    ground.world = WorldSpec(**{**vars(ground.world), "drift": drift})
    return ground.scenario(name)


def _reports(ground: _Ground, name: str) -> Scenario:
    lying, late = Nuisance("lying", 0.1), Nuisance("late_reports", 0.02, lasts_h=48.0)
    return ground.scenario(name, nuisances=[lying, late])


_Maker = Callable[[_Ground, str], Scenario]
#: Classes of bad and of good releases.
BAD: Final[Mapping[str, _Maker]] = {
    "boot": _boot,
    "brick": _brick,
    "late-crash": _late,
    "dark": _dark,
    "metric-shift": _shift,
    "metric-slope": _slope,
    "combination": _combination,
    "night-job": _night,
    "site-kind": _site_kind,
    "one-variant": _variant,
}
GOOD: Final[Mapping[str, _Maker]] = {
    "plain": _plain,
    "isp-outage": _isp,
    "server-outage": _server,
    "pattern": _pattern,
    "site": _site,
    "drift": _drift,
    "reports": _reports,
}
