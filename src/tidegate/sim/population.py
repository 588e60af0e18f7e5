"""A fleet on paper: which hardware, where, how connected. The same seed makes the same fleet."""

from dataclasses import dataclass
from random import Random
from typing import Final, Literal

from tidegate.core.hardware import Hardware
from tidegate.sim.faults import LinkFaults
from tidegate.sim.link import Pattern, Presence

DAY_S: Final = 86_400.0
Connectivity = Literal["always", "intermittent"]


@dataclass(frozen=True)
class Variant:
    """A model and revision, and its share of the fleet as a weight."""

    model: str
    rev: int
    weight: float

    @property
    def name(self) -> str:
        """The hardware variant's name, `gw1-r3`."""
        return f"{self.model}-r{self.rev}"


#: The mix of the rollout studies (five revisions, the last one rare).
VARIANTS: Final = (
    Variant("gw1", 3, 0.45),
    Variant("gw1", 4, 0.22),
    Variant("gw1", 5, 0.13),
    Variant("gw1", 6, 0.10),
    Variant("gw1", 7, 0.10),
)


@dataclass(frozen=True)
class PopulationSpec:
    """What a population is made of. Shares are 0..1.

    Attributes:
        size: number of devices.
        internal: devices of the audience `stage=internal`; all of the first variant, as a bench usually is.
        pilot: devices of the audience `stage=pilot`, of every other variant in turn and then of all.
        daily: share that has a network only part of each day.
        weekly: share that has a network only part of each week.
        day_s: length of a simulated day, for stories that have no time for whole ones.
        lossy: share with a bad link.
    """

    size: int = 300
    variants: tuple[Variant, ...] = VARIANTS
    internal: int = 8
    pilot: int = 24
    daily: float = 0.22
    weekly: float = 0.06
    day_s: float = DAY_S
    lossy: float = 0.15
    regions: tuple[str, ...] = ("north", "south", "coast")
    sites: int = 12
    product: str = "gw"
    channel: str = "stable"
    prefix: str = "sim"


@dataclass(frozen=True)
class DevicePlan:
    """One device on paper."""

    device_id: str
    hardware: Hardware
    attributes: dict[str, str]
    region: str
    site: str
    connectivity: Connectivity
    pattern: Presence
    link: LinkFaults
    seed: int

    @property
    def variant(self) -> str:
        """The hardware variant's name."""
        return self.hardware.variant

    @property
    def stage(self) -> str:
        """Audience: internal, pilot or fleet."""
        return self.attributes["stage"]


def populate(spec: PopulationSpec, seed: int) -> list[DevicePlan]:
    """Make the population of a spec and a seed."""
    random = Random(f"population {seed}")  # noqa: S311 - a story, not a secret
    return [_device(spec, random, number) for number in range(spec.size)]


def _device(spec: PopulationSpec, random: Random, number: int) -> DevicePlan:
    stage = _stage(spec, number)
    variant = _variant(spec, random, number, stage)
    site = random.randrange(spec.sites)
    region = spec.regions[site % len(spec.regions)]
    connectivity, pattern = _connectivity(spec, random, stage)
    device_id = f"{spec.prefix}-{number + 1:05d}"
    return DevicePlan(
        device_id=device_id,
        hardware=Hardware(model=variant.model, rev=variant.rev, serial=f"S{number + 1:07d}"),
        attributes={
            "stage": stage,
            "region": region,
            "site": f"site-{site + 1:02d}",
            "connectivity": connectivity,
        },
        region=region,
        site=f"site-{site + 1:02d}",
        connectivity=connectivity,
        pattern=pattern,
        link=_link(spec, random, stage),
        seed=random.getrandbits(63),
    )


def _stage(spec: PopulationSpec, number: int) -> str:
    if number < spec.internal:
        return "internal"
    return "pilot" if number < spec.internal + spec.pilot else "fleet"


def _variant(spec: PopulationSpec, random: Random, number: int, stage: str) -> Variant:
    """Give the bench one revision, the pilot ring each of the others alike, and the fleet its mix."""
    if stage == "internal" or len(spec.variants) == 1:
        return spec.variants[0]
    if stage == "pilot":
        return spec.variants[1 + (number - spec.internal) % (len(spec.variants) - 1)]
    weights = [variant.weight for variant in spec.variants]
    return random.choices(spec.variants, weights)[0]


def _connectivity(spec: PopulationSpec, random: Random, stage: str) -> tuple[Connectivity, Pattern]:
    draw = random.random()
    if stage == "internal" or draw >= spec.daily + spec.weekly:
        return "always", Pattern()
    day = spec.day_s
    if draw < spec.daily:
        return "intermittent", Pattern(day, random.random() * day, day * 10 / 24)
    week = 7 * day
    return "intermittent", Pattern(week, random.random() * week, day)


def _link(spec: PopulationSpec, random: Random, stage: str) -> LinkFaults:
    latency = 0.02 + random.expovariate(1 / 0.08)
    rate = random.choice((250_000.0, 1_000_000.0, 4_000_000.0))
    if stage == "internal" or random.random() >= spec.lossy:
        return LinkFaults(latency_s=latency, bytes_per_s=rate)
    return LinkFaults(latency_s=latency * 4, bytes_per_s=rate / 4, loss_ratio=0.04, cut_ratio=0.25)
