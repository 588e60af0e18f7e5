"""What a scenario of the batched simulator says: a fleet, its world, what is wrong with the release, what goes wrong besides.

Nouns only. `reader` makes them of a file, `draw` of a seed. Shares and rates are 0..1, times are hours unless a name says otherwise.
The model is that of the rollout studies: a tick of 15 minutes, devices that fail independently given the release, and whatever a `Nuisance` adds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

TICK_H: Final = 0.25
#: Ticks an hour.
TICKS_H: Final = 4
DAY_TICKS: Final = 24 * TICKS_H
WEEK_TICKS: Final = 7 * DAY_TICKS

#: Connectivity classes: name → (period in days, hours online of each period; 0 = all the time).
CLASSES: Final[Mapping[str, tuple[int, float]]] = {
    "always": (0, 0.0),
    "night": (0, 0.0),
    "daily": (1, 10.0),
    "weekly": (7, 24.0),
    "monthly": (30, 24.0),
}
#: Hours after the last contact from which a device of a class counts as gone dark.
PERSONAL_H: Final[Mapping[str, float]] = {
    "always": 4.0,
    "night": 4.0,
    "daily": 26.0,
    "weekly": 172.0,
    "monthly": 724.0,
}

#: Kinds of faults and what each does.
FAULTS: Final[Mapping[str, str]] = {
    "install_failure": "the installation fails and says so",
    "boot_failure": "the new system does not come up healthy; the device reverts and says so",
    "brick": "the device never says a word again",
    "late_crash": "the device confirms, and crashes later",
    "dark": "the device confirms, and falls silent for ever later",
    "night_job": "the device confirms, and crashes in its first night",
    "metric_shift": "errors become more frequent at once",
    "metric_slope": "errors become more frequent day by day",
}
#: Kinds of nuisances and what each does. None of them is the release's doing.
NUISANCES: Final[Mapping[str, str]] = {
    "isp_outage": "a share of the devices of a region is cut off for a while",
    "server_outage": "nobody reaches the server for a while",
    "bad_site": "at some sites most installations fail, whatever is installed",
    "site_power_cut": "some sites lose power for a while",
    "lying": "a share of the failures is reported as success",
    "late_reports": "a share of the reports comes hours or days late",
}
#: Attributes of a device that `where` may name.
ATTRIBUTES: Final = ("variant", "from_version", "region", "class", "site_kind")


@dataclass(frozen=True)
class Region:
    """A region, which is also a time zone: its share of the fleet and its hours ahead of UTC."""

    share: float
    utc_h: int = 0


@dataclass(frozen=True)
class Sites:
    """Devices that stand together: which share of the fleet, how many at one site (from `least` to `most`), and the kinds with their shares."""

    share: float = 0.0
    most: int = 200
    kinds: Mapping[str, float] = field(default_factory=lambda: {"site": 1.0})
    least: int = 2


@dataclass(frozen=True)
class FleetSpec:
    """A fleet on paper. Mappings go from a name to its share; shares are weights and need not add up."""

    devices: int = 10_000
    variants: Mapping[str, float] = field(
        default_factory=lambda: {"v1": 0.55, "v2": 0.25, "v3": 0.10, "v4": 0.06, "v5": 0.04}
    )
    from_versions: Mapping[str, float] = field(default_factory=lambda: {"1.0.0": 1.0})
    regions: Mapping[str, Region] = field(
        default_factory=lambda: {
            name: Region(0.25, hours)
            for name, hours in (("west", -6), ("mid", 0), ("east", 3), ("far", 9))
        }
    )
    classes: Mapping[str, float] = field(
        default_factory=lambda: {
            "always": 0.49,
            "night": 0.21,
            "daily": 0.22,
            "weekly": 0.06,
            "monthly": 0.02,
        }
    )
    daily_h: float = 10.0
    sites: Sites = field(default_factory=Sites)
    download_h: float = 0.25
    download_sigma: float = 0.8


@dataclass(frozen=True)
class WorldSpec:
    """How the fleet fares without this release.

    Attributes:
        failures: share of the installations that fail for reasons of the device, by variant; "*" for the others.
        drift: standard deviation of the logarithm of that share from release to release; half of its variance is common to all variants.
        releases: earlier releases that the policy knows the figures of; 0 = a fleet without history.
        silence: share of the devices that say nothing within an hour of activation although they are well, by class; "*" for the others.
        crash_day: share of the devices that crash in a day.
        dark_day: share of the devices that fall silent for ever in a day.
        errors_h: errors of a device in an hour, on average.
        frailty: whether devices differ in that (exponentially) or are alike.
        day_night: how far crashes and errors swing with the hour of the day, 0..1.
        weekend: by which share there are fewer (above 0) or more of them on Saturdays and Sundays, -1..1.
    """

    failures: Mapping[str, float] = field(
        default_factory=lambda: {"v1": 0.01, "v2": 0.008, "v3": 0.015, "v4": 0.02, "v5": 0.012}
    )
    drift: float = 0.3
    releases: int = 5
    silence: Mapping[str, float] = field(
        default_factory=lambda: {"always": 0.003, "night": 0.003, "*": 0.012}
    )
    crash_day: float = 0.002
    dark_day: float = 0.0007
    errors_h: float = 0.05
    frailty: bool = True
    day_night: float = 0.0
    weekend: float = 0.0


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with the release.

    Attributes:
        kind: one of `FAULTS`.
        rate: share of the affected devices that it strikes; with the metric kinds, by which share errors rise (a day, with `metric_slope`).
        where: attribute → value; all must hold. Empty: everywhere.
        after_h: hours from activation before which nothing happens.
        mean_h: mean of the exponential time from then on; 0 = at once.
    """

    kind: str
    rate: float
    where: Mapping[str, str] = field(default_factory=dict)
    after_h: float = 0.0
    mean_h: float = 0.0


@dataclass(frozen=True)
class Nuisance:
    """Something that goes wrong besides, which the release is not to blame for. Who lies or reports late did so under earlier releases as well.

    Attributes:
        kind: one of `NUISANCES`.
        share: of the devices (isp_outage), of the failures (lying), of the reports (late_reports), or of the installations at a site (bad_site).
        count: sites (bad_site, site_power_cut).
        region: where an isp_outage strikes; empty = everywhere.
        at_h: when it begins, in hours from the start of the rollout.
        lasts_h: how long it lasts; with late_reports, how late a report may be at most.
    """

    kind: str
    share: float = 0.0
    count: int = 0
    region: str = ""
    at_h: float = 0.0
    lasts_h: float = 0.0


@dataclass(frozen=True)
class Expectation:
    """What must be true at the end. `bounds`: a figure's name with `_at_most` or `_at_least` → the bound."""

    state: str = ""
    policy: str = ""
    bounds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Scenario:
    """One release on one fleet.

    Attributes:
        starts_h: hours from Monday 00:00 UTC to the start of the rollout.
        group: the class that it was drawn from; empty for a file.
        harmless: the release counts as good although faults are named (a release exactly at its limit).
    """

    name: str
    about: str = ""
    seed: int = 1
    days: int = 28
    starts_h: float = 9.0
    policy: str = "normal"
    group: str = ""
    harmless: bool = False
    fleet: FleetSpec = field(default_factory=FleetSpec)
    world: WorldSpec = field(default_factory=WorldSpec)
    faults: tuple[Fault, ...] = ()
    nuisances: tuple[Nuisance, ...] = ()
    expectations: tuple[Expectation, ...] = ()

    @property
    def bad(self) -> bool:
        """Whether the release does harm."""
        return bool(self.faults) and not self.harmless

    @property
    def ticks(self) -> int:
        """How many ticks the horizon has."""
        return self.days * DAY_TICKS


def sized(scenario: Scenario, *, devices: int | None = None, days: int | None = None) -> Scenario:
    """Return a scenario with another number of devices, or another horizon in days; None = as it is."""
    fleet = scenario.fleet if devices is None else replace(scenario.fleet, devices=devices)
    return replace(scenario, fleet=fleet, days=days or scenario.days)
