"""What a rollout would be like, played on the batched simulator with the numbers of the fleet that a dry run found."""

from typing import TYPE_CHECKING, Final

from tidegate.cli._sim_fleet import need_numpy
from tidegate.client import structs
from tidegate.core.amounts import format_duration
from tidegate.core.errors import ConfigError
from tidegate.sim.fleet.spec import CLASSES, Fault, FleetSpec, Scenario, Sites

if TYPE_CHECKING:
    from tidegate.sim.fleet.outcome import Outcome

#: More devices are not played: what a gate sees depends on how many act, hardly on how many wait.
PLAYED_MAX: Final = 20_000
#: Bad releases are played so often, for chance decides when one is stopped.
SEEDS: Final = 3
#: The brick rate that is asked about.
RATE: Final = 0.01
DAYS: Final = 14
_USUAL: Final = "daily"
_HINT: Final = "pip install 'tidegate[sim]' plays it with this fleet's numbers"


def scenario_of(found: structs.Reach, faults: tuple[Fault, ...] = ()) -> Scenario:
    """Return a release on the fleet of a dry run (`reach/1`). Of a larger fleet the first `PLAYED_MAX` stand for all."""
    offered = found.offered
    variants: dict[str, float] = {}
    for ring in found.rings:
        for name, count in ring.variants.items():
            variants[name] = variants.get(name, 0.0) + count
    classes: dict[str, float] = {}
    for name, count in found.connectivity.items():
        known = name if name in CLASSES else _USUAL
        classes[known] = classes.get(known, 0.0) + count
    fleet = FleetSpec(
        devices=min(offered, PLAYED_MAX),
        variants={name: count for name, count in variants.items() if count} or {"all": 1.0},
        classes=classes or {_USUAL: 1.0},
        sites=Sites(share=min(1.0, found.at_sites / max(1, offered))),
    )
    return Scenario(
        name="dry-run", days=DAYS, policy=found.weighed or "normal", fleet=fleet, faults=faults
    )


def lines(found: structs.Reach) -> list[str]:
    """Return what playing a good release and one that bricks shows; where it cannot be played, why, and what holds all the same."""
    if not found.offered:
        return []
    if not found.weighed:
        return ["Not played: the policy weighs no evidence (guards)."]
    try:
        need_numpy()
    except ConfigError:
        return [f"Not played: numpy is not installed ({_HINT}). The notes above are computed."]
    good = _play(scenario_of(found), 1)
    bricks = (Fault("brick", RATE),)
    bad = [_play(scenario_of(found, bricks), seed) for seed in range(1, SEEDS + 1)]
    played = min(found.offered, PLAYED_MAX)
    return [
        f"Played with this fleet's numbers: {played:,} devices, evidence weighed as in {found.weighed}; rings, windows and the budget of bytes come on top.",
        f"  a good release: {_until(good)}",
        f"  one that bricks {RATE:.0%}: {_stopped(bad)}",
    ]


def _play(scenario: Scenario, seed: int) -> "Outcome":
    from tidegate.sim.fleet.catalog import make_policy
    from tidegate.sim.fleet.play import Play

    return Play(scenario, make_policy(scenario.policy), scenario.policy, seed).run()


def _until(found: "Outcome") -> str:
    if found.state == "halted":
        return f"stopped without a cause after {_hours(found.stopped_h)}: {found.why}"
    if found.t95_h is None:
        return f"fewer than 95 % have an outcome after {DAYS} d"
    return f"95 % have an outcome after {_hours(found.t95_h)}"


def _stopped(found: list["Outcome"]) -> str:
    halted = sorted(one.exposed for one in found if one.stopped_h is not None)
    if not halted:
        return f"not stopped in any of {len(found)} plays: a fleet of this size cannot show it"
    often = "" if len(halted) == len(found) else f" in {len(halted)} of {len(found)} plays"
    hours = sorted(one.stopped_h for one in found if one.stopped_h is not None)
    bricked = sorted(one.harmed for one in found if one.stopped_h is not None)
    middle = len(halted) // 2
    return (
        f"stopped{often} after about {_hours(hours[middle])}, when {halted[middle]:,} devices "
        f"have it ({halted[0]:,} to {halted[-1]:,}) and {bricked[middle]:,} are dead"
    )


def _hours(hours: float | None) -> str:
    return format_duration(round((hours or 0.0) * 3600))
