"""Reads scenario files of the batched simulator: TOML, every mistake with its place and the nearest word that is known.

The format is described in `docs/reference/scenarios.md`.
"""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from tidegate.core.amounts import parse_duration, parse_share
from tidegate.core.errors import ConfigError
from tidegate.core.nearest import did_you_mean
from tidegate.sim.fleet.spec import (
    ATTRIBUTES,
    CLASSES,
    FAULTS,
    NUISANCES,
    Expectation,
    Fault,
    FleetSpec,
    Nuisance,
    Region,
    Scenario,
    Sites,
    WorldSpec,
)

SCHEMA: Final = 1
MOST_DEVICES: Final = 2_000_000
MOST_DAYS: Final = 120
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
#: Figures of an outcome that an expectation may bound.
FIGURES: Final = ("exposed", "affected", "harmed", "stopped_h", "t95_h", "t99_h", "isolations")
STATES: Final = ("halted", "isolated", "completed", "running")
#: Faults whose rate is a factor, which may pass 100 %.
_METRIC: Final = frozenset({"metric_shift", "metric_slope"})


def read_mode(path: Path) -> str:
    """Return how the file asks to be played: `exact` (the default) or `batched`.

    Raises:
        ConfigError: `config.*`.
    """
    found = _load(path).get("mode", "exact")
    if found not in ("exact", "batched"):
        near = did_you_mean(str(found), ("exact", "batched"))
        raise ConfigError("config.invalid", f'{path.name}: mode = "{str(found)[:40]}"{near}')
    return str(found)


def read_scenario(path: Path) -> Scenario:
    """Read a scenario file of the batched simulator.

    Args:
        path: the file; its content is untrusted.

    Raises:
        ConfigError: `config.*`, naming file and key.
    """
    return parse_scenario(_load(path), path.name)


def parse_scenario(plain: Mapping[str, Any], where: str) -> Scenario:
    """Make a scenario of decoded TOML; `where` is the file's name, for messages."""
    top = _Table(plain, where)
    if top.whole("schema", SCHEMA, 0, 1_000_000) != SCHEMA:
        raise ConfigError("config.invalid", f"{where}: this version reads schema {SCHEMA}")
    top.word("mode", "batched", ("batched",))
    fleet = _fleet(top.table("fleet"))
    scenario = Scenario(
        name=top.text("name", where.partition(".")[0]),
        about=top.text("about", ""),
        seed=top.whole("seed", 1, 0, (1 << 31) - 1),
        days=top.whole_days("lasts", 28),
        starts_h=_starts(top),
        policy=top.text("policy", "normal"),
        harmless=top.flag("harmless"),
        fleet=fleet,
        world=_world(top.table("world"), fleet),
        faults=tuple(_fault(one, fleet) for one in top.tables("fault")),
        nuisances=tuple(_nuisance(one, fleet) for one in top.tables("nuisance")),
        expectations=tuple(_expectation(one) for one in top.tables("expect")),
    )
    top.finish()
    return scenario


def _load(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError("config.unreadable", f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("config.invalid", f"{path}: {error}") from error


class _Table:
    """A table of the file. Remembers which keys were asked for, so that the others can be named."""

    def __init__(self, plain: Mapping[str, Any], where: str) -> None:
        self._plain = plain
        self.where = where
        self._asked: set[str] = set()

    def _get(self, key: str, default: object) -> Any:
        self._asked.add(key)
        return self._plain.get(key, default)

    def invalid(self, key: str, problem: str) -> ConfigError:
        """Make the error of a key."""
        return ConfigError("config.invalid", f"{self.where}: {key} {problem}")

    def has(self, key: str) -> bool:
        """Say whether the key is there."""
        return key in self._plain

    def finish(self) -> None:
        """Refuse keys that nobody asked for."""
        for key in self._plain:
            if key not in self._asked:
                near = did_you_mean(str(key), self._asked)
                raise ConfigError("config.unknown_key", f'{self.where}: unknown key "{key}"{near}')

    def text(self, key: str, default: str) -> str:
        """Return a text."""
        found = self._get(key, default)
        if not isinstance(found, str):
            raise self.invalid(key, "is a text in quotes")
        return found

    def word(self, key: str, default: str, known: Iterable[str]) -> str:
        """Return one of the known words."""
        found, words = self.text(key, default), tuple(known)
        if found not in words:
            raise self.invalid(key, f'= "{found[:40]}" is not known{did_you_mean(found, words)}')
        return found

    def flag(self, key: str) -> bool:
        """Return true or false; default false."""
        found = self._get(key, default=False)
        if not isinstance(found, bool):
            raise self.invalid(key, "is true or false")
        return found

    def whole(self, key: str, default: int, least: int, most: int) -> int:
        """Return a whole number within bounds."""
        found = self._get(key, default)
        if isinstance(found, bool) or not isinstance(found, int) or not least <= found <= most:
            raise self.invalid(key, f"is a whole number from {least} to {most}")
        return found

    def number(self, key: str, default: float, least: float, most: float) -> float:
        """Return a number within bounds."""
        found = self._get(key, default)
        bad = isinstance(found, bool) or not isinstance(found, int | float)
        if bad or not least <= found <= most:
            raise self.invalid(key, f"is a number from {least:g} to {most:g}")
        return float(found)

    def share(self, key: str, default: float) -> float:
        """Return a share, 0..1, of a text such as `"5%"`."""
        found = self._get(key, None)
        return default if found is None else parse_share(found, f"{self.where}: {key}") / 10_000

    def hours(self, key: str, default: float) -> float:
        """Return hours of a duration such as `"36h"`."""
        found = self._get(key, None)
        return default if found is None else parse_duration(found, f"{self.where}: {key}") / 3_600

    def whole_days(self, key: str, default: int) -> int:
        """Return the whole days of a duration."""
        days = self.hours(key, 24.0 * default) / 24
        if days != int(days) or not 1 <= days <= MOST_DAYS:
            raise self.invalid(key, f"is 1 to {MOST_DAYS} whole days")
        return int(days)

    def shares(self, key: str, default: Mapping[str, float]) -> Mapping[str, float]:
        """Return names with their shares; they add up to 100 %, within what rounding needs."""
        if not self.has(key):
            self._asked.add(key)
            return default
        table = self.table(key)
        found = {name: table.share(name, 0.0) for name in table.names()}
        if not found or abs(sum(found.values()) - 1) > 0.02:
            raise self.invalid(key, "are names with shares that add up to 100%")
        return found

    def names(self) -> list[str]:
        """Return all keys, as names."""
        return [str(key) for key in self._plain]

    def table(self, key: str) -> "_Table":
        """Return a table below this one; empty when it is not there."""
        found = self._get(key, {})
        if not isinstance(found, dict):
            raise self.invalid(key, "is a table")
        return _Table(found, f"{self.where}: [{key}]")

    def tables(self, key: str) -> list["_Table"]:
        """Return an array of tables."""
        found = self._get(key, [])
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise self.invalid(key, "is an array of tables: [[...]]")
        return [_Table(one, f"{self.where}: [[{key}]] {n + 1}") for n, one in enumerate(found)]


def _starts(top: _Table) -> float:
    """Read `"mon 09:00"`, in UTC, as hours from Monday 00:00."""
    text = top.text("starts", "mon 09:00")
    day, _, clock = text.partition(" ")
    hour, _, minute = clock.partition(":")
    if day not in _DAYS or not (hour.isdecimal() and minute.isdecimal()):
        raise top.invalid("starts", 'is a day and a time in UTC, as in "mon 09:00"')
    if int(hour) > 23 or int(minute) > 59:
        raise top.invalid("starts", 'is a day and a time in UTC, as in "mon 09:00"')
    return _DAYS.index(day) * 24 + int(hour) + int(minute) / 60


def _fleet(table: _Table) -> FleetSpec:
    usual = FleetSpec()
    classes = table.shares("classes", usual.classes)
    for name in classes:
        if name not in CLASSES:
            raise table.invalid("classes", f'"{name}" is not known{did_you_mean(name, CLASSES)}')
    found = FleetSpec(
        devices=table.whole("devices", usual.devices, 1, MOST_DEVICES),
        variants=table.shares("variants", usual.variants),
        from_versions=table.shares("from_versions", usual.from_versions),
        regions=_regions(table, usual.regions),
        classes=classes,
        daily_h=table.hours("daily", usual.daily_h),
        sites=_sites(table.table("sites")),
        download_h=table.hours("download", usual.download_h),
        download_sigma=table.number("download_sigma", usual.download_sigma, 0, 3),
    )
    if not 1 <= found.daily_h <= 23:
        raise table.invalid("daily", "is 1h to 23h: how long a daily device is online each day")
    table.finish()
    return found


def _regions(table: _Table, usual: Mapping[str, Region]) -> Mapping[str, Region]:
    below = table.table("regions")
    if not below.names():
        return usual
    found = {}
    for name in below.names():
        one = below.table(name)
        found[name] = Region(one.share("share", 0.0), one.whole("utc", 0, -12, 14))
        one.finish()
    if abs(sum(one.share for one in found.values()) - 1) > 0.02:
        raise table.invalid("regions", "are names with shares that add up to 100%")
    return found


def _sites(table: _Table) -> Sites:
    usual = Sites()
    most = table.whole("most", usual.most, 2, 100_000)
    found = Sites(
        share=table.share("share", usual.share),
        most=most,
        kinds=table.shares("kinds", usual.kinds),
        least=table.whole("least", min(usual.least, most), 1, most),
    )
    table.finish()
    return found


def _world(table: _Table, fleet: FleetSpec) -> WorldSpec:
    usual = WorldSpec()
    found = WorldSpec(
        failures=_by_name(table, "failures", usual.failures, fleet.variants),
        drift=table.number("drift", usual.drift, 0, 2),
        releases=table.whole("releases", usual.releases, 0, 50),
        silence=_by_name(table, "silence", usual.silence, CLASSES),
        crash_day=table.share("crashes_per_day", usual.crash_day),
        dark_day=table.share("dark_per_day", usual.dark_day),
        errors_h=table.number("errors_per_hour", usual.errors_h, 0, 1_000),
        frailty=table.word("devices", "differ", ("differ", "alike")) == "differ",
        day_night=table.number("day_night", usual.day_night, 0, 1),
        weekend=table.number("weekend", usual.weekend, -1, 1),
    )
    table.finish()
    return found


def _by_name(
    table: _Table, key: str, usual: Mapping[str, float], known: Iterable[str]
) -> Mapping[str, float]:
    """Read one share for all, or a table of them with `"*"` for the others."""
    if not table.has(key):
        table.share(key, 0.0)
        return usual
    if not isinstance(table._plain[key], dict):  # noqa: SLF001 - of this file
        return {"*": table.share(key, 0.0)}
    below = table.table(key)
    for name in below.names():
        if name != "*" and name not in known:
            raise below.invalid(f'"{name}"', f"is not known{did_you_mean(name, known)}")
    return {name: below.share(name, 0.0) for name in below.names()}


def _values(fleet: FleetSpec) -> Mapping[str, Iterable[str]]:
    return {
        "variant": fleet.variants,
        "from_version": fleet.from_versions,
        "region": fleet.regions,
        "class": fleet.classes,
        "site_kind": [*fleet.sites.kinds, "none"],
    }


def _fault(table: _Table, fleet: FleetSpec) -> Fault:
    if not table.has("kind"):
        raise ConfigError("config.missing", f"{table.where}: kind{did_you_mean('', FAULTS)}")
    kind = table.word("kind", "", FAULTS)
    below, values = table.table("where"), _values(fleet)
    for name in below.names():
        if name not in ATTRIBUTES:
            raise below.invalid(f'"{name}"', f"is not known{did_you_mean(name, ATTRIBUTES)}")
    found = Fault(
        kind=kind,
        rate=table.number("by", 0.0, 0, 100) if kind in _METRIC else table.share("rate", 1.0),
        where={name: below.word(name, "", values[name]) for name in below.names()},
        after_h=table.hours("after", 0.0),
        mean_h=table.hours("mean", 0.0),
    )
    table.finish()
    return found


def _nuisance(table: _Table, fleet: FleetSpec) -> Nuisance:
    if not table.has("kind"):
        raise ConfigError("config.missing", f"{table.where}: kind{did_you_mean('', NUISANCES)}")
    kind = table.word("kind", "", NUISANCES)
    of_sites = kind in ("bad_site", "site_power_cut")
    if of_sites and not fleet.sites.share:
        raise table.invalid("kind", f'= "{kind}" needs sites: give [fleet.sites] a share')
    found = Nuisance(
        kind=kind,
        share=table.share("share", {"isp_outage": 0.3, "bad_site": 0.8}.get(kind, 0.02)),
        count=table.whole("count", 1, 1, 10_000) if of_sites else 0,
        region=table.word("region", "", ["", *fleet.regions]) if kind == "isp_outage" else "",
        at_h=table.hours("at", 24.0),
        lasts_h=table.hours("lasts", 6.0),
    )
    table.finish()
    return found


def _expectation(table: _Table) -> Expectation:
    sides = [f"{name}_at_{side}" for name in FIGURES for side in ("most", "least")]
    found = Expectation(
        state=table.word("state", "", ["", *STATES]),
        policy=table.text("policy", ""),
        bounds={one: table.number(one, 0, 0, 1e9) for one in sides if table.has(one)},
    )
    for one in sides:
        table.number(one, 0, 0, 1e9)  # known, so that a mistyped one gets its nearest word
    table.finish()
    return found
