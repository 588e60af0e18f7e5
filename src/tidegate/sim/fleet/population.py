"""The fleet as arrays, one entry a device: what it is, where it stands, and when it can be reached.

The same spec and seed make the same fleet. Presence is a formula (period, phase, length) for every class, so that "when is this device online next"
costs the same for a million devices as for one; outages are laid over it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from tidegate.sim.fleet.spec import (
    CLASSES,
    DAY_TICKS,
    TICKS_H,
    FleetSpec,
    Nuisance,
    Scenario,
)

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

#: The tick of what never happens.
NEVER: Final = 1 << 40
#: Local hours in which a device of the class `night` installs.
NIGHT_FROM_H: Final = 1.0
NIGHT_H: Final = 3.0


@dataclass(frozen=True)
class Outage:
    """Devices that cannot be reached from one tick to another (exclusive)."""

    devices: Bools
    start: int
    end: int


@dataclass(frozen=True)
class Fleet:
    """Devices as arrays. Codes index the tuples of names; `site` is -1 for a device that stands alone.

    Attributes:
        order: place in the order of the salted hash, which is a fresh permutation for every release.
        utc: ticks that the device's clock is ahead of UTC.
        period, opens, length: when it is online: `(tick - opens) mod period < length`.
        act_period, act_opens, act_length: the same for when it may install.
        outages: laid over that.
    """

    size: int
    names: Mapping[str, tuple[str, ...]]
    variant: Ints
    from_version: Ints
    region: Ints
    klass: Ints
    site: Ints
    site_kind: Ints
    order: Ints
    utc: Ints
    download: Ints
    frailty: Floats
    period: Ints
    opens: Ints
    length: Ints
    act_period: Ints
    act_opens: Ints
    act_length: Ints
    outages: tuple[Outage, ...]

    def codes(self, attribute: str) -> Ints:
        """Return the codes of one of `spec.ATTRIBUTES`."""
        found: Mapping[str, Ints] = {
            "variant": self.variant,
            "from_version": self.from_version,
            "region": self.region,
            "class": self.klass,
            "site_kind": self.site_kind,
        }
        return found[attribute]

    def where(self, wanted: Mapping[str, str]) -> Bools:
        """Return which devices have all these attributes."""
        mask = np.ones(self.size, bool)
        for attribute, value in wanted.items():
            mask &= self.codes(attribute) == self.names[attribute].index(value)
        return mask

    def online(self, idx: Ints, tick: int | Ints) -> Bools:
        """Say which of these devices can be reached at a tick (or each at its own)."""
        found: Bools = (tick - self.opens[idx]) % self.period[idx] < self.length[idx]
        for outage in self.outages:
            if isinstance(tick, int) and not outage.start <= tick < outage.end:
                continue
            found &= ~(outage.devices[idx] & (tick >= outage.start) & (tick < outage.end))
        return found

    def asking(self, idx: Ints, tick: int) -> Bools:
        """Say which of these devices are online and may install."""
        phase = (tick - self.act_opens[idx]) % self.act_period[idx]
        return self.online(idx, tick) & (phase < self.act_length[idx])

    def left(self, idx: Ints, tick: int) -> Ints:
        """Return for how many more ticks the habit of each keeps it online, this one included; `NEVER` for those always on."""
        phase = (tick - self.opens[idx]) % self.period[idx]
        left = np.maximum(self.length[idx] - phase, 0)
        return np.where(self.period[idx] == 1, NEVER, left)

    def next_online(self, idx: Ints, tick: int | Ints) -> Ints:
        """Return the first tick from `tick` on at which each can be reached."""
        return self._next(idx, tick, self.period, self.opens, self.length)

    def next_asking(self, idx: Ints, tick: int | Ints) -> Ints:
        """Return the first tick from `tick` on at which each may install and can be reached."""
        return self._next(idx, tick, self.act_period, self.act_opens, self.act_length)

    def last_online(self, idx: Ints, tick: Ints) -> Ints:
        """Return the last tick up to `tick` at which each could be reached; outages count."""
        found = self._last(idx, tick)
        for _ in self.outages:
            for outage in self.outages:
                out = outage.devices[idx] & (found >= outage.start) & (found < outage.end)
                found = np.where(out, self._last(idx, np.full_like(found, outage.start - 1)), found)
        return found

    def _last(self, idx: Ints, tick: Ints) -> Ints:
        phase = (tick - self.opens[idx]) % self.period[idx]
        late = np.maximum(phase - self.length[idx] + 1, 0)
        found: Ints = tick - late
        return found

    def _next(self, idx: Ints, tick: int | Ints, period: Ints, opens: Ints, length: Ints) -> Ints:
        every, since, lasts = period[idx], opens[idx], length[idx]
        found: Ints = tick + _wait(tick - since, every, lasts)
        # One outage may end in the next: as many rounds as there are outages settle it.
        for _ in self.outages if found.size else ():
            moved = False
            for outage in self.outages:
                if found.max() < outage.start or found.min() >= outage.end:
                    continue
                inside = (found >= outage.start) & (found < outage.end)
                out = np.flatnonzero(outage.devices[idx] & inside)
                if out.size:
                    wait = _wait(outage.end - since[out], every[out], lasts[out])
                    found[out] = outage.end + wait
                    moved = True
            if not moved:
                break
        return found


def _wait(since: Ints, every: Ints, lasts: Ints) -> Ints:
    """Return how long it is until a device is there: it is every so many ticks, and stays for `lasts`."""
    phase = since % every
    found: Ints = np.where(phase < lasts, 0, every - phase)
    return found


def populate(scenario: Scenario, rng: np.random.Generator) -> Fleet:
    """Make the fleet of a scenario."""
    spec, size = scenario.fleet, scenario.fleet.devices
    start = round(scenario.starts_h * TICKS_H)
    variant = _draw(rng, list(spec.variants.values()), size)
    from_version = _draw(rng, list(spec.from_versions.values()), size)
    region = _draw(rng, [one.share for one in spec.regions.values()], size)
    klass = _draw(rng, list(spec.classes.values()), size)
    site, site_kind = _sites(rng, spec, region)
    utc = np.array([one.utc_h for one in spec.regions.values()], np.int64)[region] * TICKS_H
    download = np.exp(rng.normal(0.0, spec.download_sigma, size)) * spec.download_h * TICKS_H
    period, opens, length, night = _presence(rng, spec, klass, utc, start)
    night_opens = round(NIGHT_FROM_H * TICKS_H) - utc - start
    fleet = Fleet(
        size=size,
        names={
            "variant": tuple(spec.variants),
            "from_version": tuple(spec.from_versions),
            "region": tuple(spec.regions),
            "class": tuple(spec.classes),
            "site_kind": (*spec.sites.kinds, "none"),
        },
        variant=variant,
        from_version=from_version,
        region=region,
        klass=klass,
        site=site,
        site_kind=site_kind,
        order=rng.permutation(size),
        utc=utc,
        download=np.maximum(np.ceil(download), 1).astype(np.int64),
        frailty=rng.exponential(1.0, size) if scenario.world.frailty else np.ones(size),
        period=period,
        opens=opens,
        length=length,
        act_period=np.where(night, DAY_TICKS, period),
        act_opens=np.where(night, night_opens, opens),
        act_length=np.where(night, round(NIGHT_H * TICKS_H), length),
        outages=(),
    )
    return _with_outages(fleet, scenario.nuisances, rng)


def _draw(rng: np.random.Generator, weights: Sequence[float], size: int) -> Ints:
    """Draw codes with these weights. Every code that has a weight gets its share up to chance, as in a real fleet."""
    whole = np.asarray(weights, float)
    return rng.choice(len(whole), size, p=whole / whole.sum()).astype(np.int64)


def _sites(rng: np.random.Generator, spec: FleetSpec, region: Ints) -> tuple[Ints, Ints]:
    """Put a share of the devices onto sites of log-uniform size. A site lies in one region, whose devices it takes."""
    site = np.full(region.size, -1, np.int64)
    kind = np.full(region.size, len(spec.sites.kinds), np.int64)
    number = 0
    for code in range(len(spec.regions)):
        there = np.flatnonzero((region == code) & (rng.random(region.size) < spec.sites.share))
        rng.shuffle(there)
        begin = 0
        while begin < there.size:
            count = int(np.exp(rng.uniform(np.log(spec.sites.least), np.log(spec.sites.most + 1))))
            mine = there[begin : begin + count]
            site[mine] = number
            kind[mine] = _draw(rng, list(spec.sites.kinds.values()), 1)[0]
            number, begin = number + 1, begin + count
    return site, kind


def _presence(
    rng: np.random.Generator, spec: FleetSpec, klass: Ints, utc: Ints, start: int
) -> tuple[Ints, Ints, Ints, Bools]:
    """Return period, opens, length of every device, and which are of the night class. Daily devices start between 6 and 12 local time."""
    size = klass.size
    period, opens = np.ones(size, np.int64), np.zeros(size, np.int64)
    length, night = np.ones(size, np.int64), np.zeros(size, bool)
    for code, name in enumerate(spec.classes):
        mine = klass == code
        days, hours = CLASSES[name]
        night |= mine & (name == "night")
        if days:
            hours = spec.daily_h if name == "daily" else hours
            low, high = (6 * TICKS_H, 12 * TICKS_H) if name == "daily" else (0, days * DAY_TICKS)
            phase = rng.integers(low, high, size) - utc - start
            period[mine] = days * DAY_TICKS
            length[mine] = round(hours * TICKS_H)
            opens[mine] = phase[mine]
    return period, opens, length, night


def _with_outages(fleet: Fleet, nuisances: Sequence[Nuisance], rng: np.random.Generator) -> Fleet:
    outages = []
    for one in nuisances:
        start = round(one.at_h * TICKS_H)
        end = start + max(1, round(one.lasts_h * TICKS_H))
        if one.kind == "isp_outage":
            cut = rng.random(fleet.size) < one.share
            if one.region:
                cut &= fleet.where({"region": one.region})
            outages.append(Outage(cut, start, end))
        elif one.kind == "server_outage":
            outages.append(Outage(np.ones(fleet.size, bool), start, end))
        elif one.kind == "site_power_cut":
            outages.append(Outage(pick_sites(fleet, one.count, rng), start, end))
    return Fleet(**{**fleet.__dict__, "outages": tuple(outages)})


def pick_sites(fleet: Fleet, count: int, rng: np.random.Generator) -> Bools:
    """Return the devices of `count` sites taken at random, large ones as likely as small ones."""
    sites = np.unique(fleet.site[fleet.site >= 0])
    chosen = rng.permutation(sites)[:count]
    return np.isin(fleet.site, chosen)
