"""Scenarios: a story as a TOML file, played in a whole simulated world, with what is expected of it.

```toml
schema = 1
name   = "bad-service"
about  = "One hardware revision loses its core service; the rest must go on."
seed   = 1
lasts  = "5d"

[fleet]
devices = 120
internal = 8                 # all of the first revision, as a bench usually is
pilot   = 24                 # of all other revisions
daily   = "22%"              # have a network only part of each day
weekly  = "6%"
lossy   = "15%"              # have a bad link

[policy]                     # as in rollout.toml; here for every release of the story
preset  = "lab"

[[release]]
version = "1.1.0"
at      = "1h"               # when its rollout is created
fails   = "health.service"   # or never_boots, hangs, health.network, errors; left out = a good release
where   = "gw1-r7"           # a variant, or a list of them; default: all
# errors_per_hour = 12       # with fails = "errors"
# after = "20m"              # … and only so long after boot

[[expect]]
release  = "1.1.0"
state    = "completed"
isolated = ["gw1-r7"]
reverted_at_most = 8
```
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tidegate.core.amounts import parse_duration, parse_share
from tidegate.core.errors import ConfigError
from tidegate.core.nearest import did_you_mean
from tidegate.sim.faults import Behaviour
from tidegate.sim.population import PopulationSpec
from tidegate.sim.report import Outcomes, outcomes
from tidegate.sim.world import World, WorldSpec

SCHEMA: Final = 1
_KEYS: Final = (
    "schema",
    "mode",
    "name",
    "about",
    "seed",
    "lasts",
    "fleet",
    "policy",
    "release",
    "expect",
)
_FLEET: Final = ("devices", "internal", "pilot", "daily", "weekly", "lossy", "sites", "poll")
_RELEASE: Final = ("version", "at", "fails", "where", "errors_per_hour", "after", "back_to")
_STATE: Final = ("state", "isolated")
_BOUNDED: Final = ("exposed", "confirmed", "reverted")
#: New modules of the interpreter's library, one a release.
_EXTRAS: Final = ("queue.py", "sched.py", "shelve.py", "statistics.py", "textwrap.py", "uuid.py")


@dataclass(frozen=True)
class ReleaseStep:
    """A release of the story, and how it really behaves."""

    version: str
    at_s: int
    behaviours: Mapping[str, Behaviour]
    back_to: tuple[int, ...]


@dataclass(frozen=True)
class Expectation:
    """What must be true of a release's rollout at the end. `bounds` by `exposed_at_most` and the like."""

    release: str
    state: str
    isolated: tuple[str, ...] | None
    bounds: Mapping[str, int]


@dataclass(frozen=True)
class Scenario:
    """A whole story."""

    name: str
    about: str
    seed: int
    lasts_s: int
    population: PopulationSpec
    poll_s: int
    policy: Mapping[str, Any]
    releases: tuple[ReleaseStep, ...]
    expectations: tuple[Expectation, ...]


@dataclass(frozen=True)
class Told:
    """What happened. `unmet` names the expectations that did not come true."""

    scenario: Scenario
    story: tuple[str, ...]
    outcomes: Mapping[str, Outcomes]
    states: Mapping[str, str]
    unmet: tuple[str, ...]
    digest: str


def read_scenario(path: Path) -> Scenario:
    """Read a scenario file.

    Raises:
        ConfigError: `config.*`, naming file and key.
    """
    try:
        plain = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError("config.unreadable", f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("config.invalid", f"{path}: {error}") from error
    where = path.name
    _known(plain, _KEYS, where)
    if plain.get("schema", SCHEMA) != SCHEMA:
        raise ConfigError("config.invalid", f"{where}: this version reads schema {SCHEMA}")
    fleet = _table(plain, "fleet", where)
    _known(fleet, _FLEET, f"{where}: [fleet]")
    releases = tuple(_release(one, where) for one in _tables(plain, "release", where))
    if not 1 <= len(releases) <= len(_EXTRAS):
        raise ConfigError("config.invalid", f"{where}: 1 to {len(_EXTRAS)} [[release]]")
    return Scenario(
        name=str(plain.get("name", path.name.partition(".")[0])),
        about=str(plain.get("about", "")),
        seed=int(plain.get("seed", 1)),
        lasts_s=parse_duration(plain.get("lasts", "5d"), f"{where}: lasts"),
        population=_population(fleet, where),
        poll_s=parse_duration(fleet.get("poll", "30m"), f"{where}: [fleet] poll"),
        policy=_table(plain, "policy", where),
        releases=releases,
        expectations=tuple(_expectation(one, where) for one in _tables(plain, "expect", where)),
    )


def play(scenario: Scenario, folder: Path, *, seed: int | None = None) -> Told:
    """Play a scenario in a world of its own below `folder`.

    Args:
        scenario: from `read_scenario`.
        folder: for the world's files; empty.
        seed: another seed than the scenario's own.
    """
    spec = WorldSpec(
        population=scenario.population,
        seed=scenario.seed if seed is None else seed,
        poll_s=scenario.poll_s,
    )
    names: dict[str, str] = {}
    with World(spec, folder) as world:
        for number, step in enumerate(scenario.releases):
            world.run(max(0.0, step.at_s - world.timeline.at()))
            name = world.publish(
                number + 2, step.version, _EXTRAS[number], step.behaviours, back_to=step.back_to
            )
            names[step.version] = world.roll_out({**scenario.policy, "name": name, "release": name})
        world.run(max(0.0, scenario.lasts_s - world.timeline.at()))
        truths = world.truths()
        found = {
            step.version: outcomes(truths, number + 2)
            for number, step in enumerate(scenario.releases)
        }
        views = {version: world.desk.rollout(name) for version, name in names.items()}
        unmet = [
            line
            for one in scenario.expectations
            for line in _unmet(
                one, views[one.release].state, views[one.release].isolated, found[one.release]
            )
        ]
        return Told(
            scenario=scenario,
            story=tuple(world.story),
            outcomes=found,
            states={version: view.state for version, view in views.items()},
            unmet=tuple(unmet),
            digest=world.digest(),
        )


def _unmet(
    expected: Expectation, state: str, isolated: tuple[str, ...], found: Outcomes
) -> list[str]:
    lines = []
    if expected.state and state != expected.state:
        lines.append(f"{expected.release}: state is {state}, not {expected.state}")
    if expected.isolated is not None and isolated != expected.isolated:
        lines.append(f"{expected.release}: isolated is {isolated}, not {expected.isolated}")
    counts = {"exposed": found.tried, "confirmed": found.confirmed, "reverted": found.reverted}
    for name, bound in expected.bounds.items():
        figure, _, side = name.partition("_at_")
        count = counts[figure]
        if (count > bound) if side == "most" else (count < bound):
            lines.append(f"{expected.release}: {figure} is {count}, not at {side} {bound}")
    return lines


# --- reading ------------------------------------------------------------------------------------------------------------


def _population(fleet: Mapping[str, Any], where: str) -> PopulationSpec:
    def share(key: str, default: str) -> float:
        return parse_share(fleet.get(key, default), f"{where}: [fleet] {key}") / 10_000

    return PopulationSpec(
        size=int(fleet.get("devices", 120)),
        internal=int(fleet.get("internal", 8)),
        pilot=int(fleet.get("pilot", 24)),
        daily=share("daily", "22%"),
        weekly=share("weekly", "6%"),
        lossy=share("lossy", "15%"),
        sites=int(fleet.get("sites", 12)),
    )


def _release(plain: Mapping[str, Any], where: str) -> ReleaseStep:
    place = f"{where}: [[release]]"
    _known(plain, _RELEASE, place)
    version = plain.get("version")
    if not isinstance(version, str):
        raise ConfigError("config.missing", f"{place} version")
    fails = plain.get("fails")
    found = plain.get("where", "*")
    variants = [found] if isinstance(found, str) else list(found)
    behaviours = {} if fails is None else {str(one): _behaviour(plain, place) for one in variants}
    return ReleaseStep(
        version=version,
        at_s=parse_duration(plain.get("at", "1h"), f"{place} at"),
        behaviours=behaviours,
        back_to=tuple(plain.get("back_to", ())),
    )


def _behaviour(plain: Mapping[str, Any], place: str) -> Behaviour:
    match plain["fails"]:
        case "never_boots":
            return Behaviour(boots=False)
        case "hangs":
            return Behaviour(hangs=True)
        case "health.service":
            return Behaviour(service=False)
        case "health.network":
            return Behaviour(network=False)
        case "errors":
            calm_s = parse_duration(plain.get("after", "20m"), f"{place} after")
            return Behaviour(errors_per_hour=float(plain.get("errors_per_hour", 12)), calm_s=calm_s)
        case other:
            known = ("never_boots", "hangs", "health.service", "health.network", "errors")
            near = did_you_mean(str(other), known)
            raise ConfigError("config.invalid", f'{place} fails = "{str(other)[:40]}"{near}')


def _expectation(plain: Mapping[str, Any], where: str) -> Expectation:
    place = f"{where}: [[expect]]"
    sides = [f"{name}_at_{side}" for name in _BOUNDED for side in ("most", "least")]
    _known(plain, ("release", *_STATE, *sides), place)
    isolated = plain.get("isolated")
    return Expectation(
        release=str(plain.get("release", "")),
        state=str(plain.get("state", "")),
        isolated=None if isolated is None else tuple(isolated),
        bounds={name: int(plain[name]) for name in sides if name in plain},
    )


def _known(plain: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in plain:
        if key not in known:
            near = did_you_mean(str(key), known)
            raise ConfigError("config.unknown_key", f'{where}: unknown key "{key}"{near}')


def _table(plain: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    found = plain.get(key, {})
    if not isinstance(found, dict):
        raise ConfigError("config.invalid", f"{where}: [{key}] is a table")
    return found


def _tables(plain: Mapping[str, Any], key: str, where: str) -> list[Mapping[str, Any]]:
    found = plain.get(key, [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ConfigError("config.invalid", f"{where}: [[{key}]] is an array of tables")
    return list(found)
