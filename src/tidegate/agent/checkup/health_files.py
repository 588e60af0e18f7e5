"""What a configuration says about health: the device's own policy (`[health]`, `health.d/*.toml`), where errors are counted, and the hardware watchdog.

A file of the policy has the form of a release's `health.toml`: `warm_up`, `errors_per_hour`, and `[[check]]` tables with `type`, `name` and the check's
settings. So a check can be written once and moved from a device into a release. `drop` names optional checks of releases that are left out here. Files of the
same name in a later folder replace those in an earlier one.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from tidegate.agent.checkup.contract import OWN_MAX, HealthPolicy
from tidegate.agent.settings import ErrorSource, WatchdogSettings
from tidegate.core.amounts import parse_duration
from tidegate.core.errors import ConfigError
from tidegate.core.nearest import did_you_mean
from tidegate.core.release import HealthCheck

#: Where the files of the policy are, the last one first in rank.
FOLDERS: Final = (
    "/usr/lib/tidegate/health.d",
    "/etc/tidegate/health.d",
    "/run/tidegate/health.d",
)
_KEYS: Final = frozenset({"schema", "name", "warm_up", "errors_per_hour", "drop", "check"})


def policy(values: Mapping[str, Any]) -> HealthPolicy:
    """Make the device's policy of the values of `[health]` and the files in its folders.

    Raises:
        ConfigError: naming file and key.
    """
    parts = [_own(values), *(_read(path) for path in _files(values["health.dir"]))]
    limits = [one.error_rate_per_hour for one in parts if one.error_rate_per_hour is not None]
    checks = tuple(check for one in parts for check in one.checks)
    names = [one.name for one in checks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            "config.invalid", f"health.d: two checks are called {twice[0]}; give each its name"
        )
    if len(checks) > OWN_MAX:
        raise ConfigError("config.invalid", f"health.d: more than {OWN_MAX} checks")
    return HealthPolicy(
        # The strictest word of all holds.
        warmup_s=max(one.warmup_s for one in parts),
        error_rate_per_hour=min(limits) if limits else None,
        drop=tuple(dict.fromkeys(name for one in parts for name in one.drop)),
        checks=checks,
    )


def by_hand(values: Mapping[str, Any]) -> bool:
    """Say whether a person confirms here, beside the contract.

    Raises:
        ConfigError: another word.
    """
    word = values["health.confirm"]
    if word not in ("auto", "manual"):
        raise ConfigError("config.invalid", f'health.confirm = "{word[:40]}": auto or manual')
    return bool(word == "manual")


def error_source(values: Mapping[str, Any]) -> ErrorSource:
    """Make the place where errors are counted of the values of `[errors]`.

    Raises:
        ConfigError: more than one place, or one that cannot be.
    """
    file, metrics, journal = (values[f"errors.{one}"] for one in ("file", "metrics", "journal"))
    if sum(one is not None for one in (file, metrics, journal)) > 1:
        raise ConfigError("config.invalid", "[errors]: one of file, metrics and journal")
    if (metrics is not None) != bool(values["errors.metric"]):
        raise ConfigError("config.missing", "[errors] metrics and metric belong together")
    found = ErrorSource(
        file=file,
        metrics=metrics,
        metric=values["errors.metric"],
        journal=journal,
        units=values["errors.units"],
    )
    if journal is not None:
        from tidegate.agent.checkup.journald import PRIORITIES, is_priority

        if not is_priority(journal):
            near = did_you_mean(journal, PRIORITIES)
            raise ConfigError("config.invalid", f"errors.journal = {journal!r}{near}")
    from tidegate.agent.checkup.errors import counter

    # What cannot work is told now, not in the middle of an update.
    counter(found)
    return found


def watchdog(values: Mapping[str, Any]) -> WatchdogSettings | None:
    """Make the settings of the hardware watchdog of the values of `[watchdog]`; None where there is none.

    Raises:
        ConfigError: times that would bite a healthy device.
    """
    device, when = values["watchdog.device"], values["watchdog.when"]
    timeout_s, pretimeout_s = values["watchdog.timeout"], values["watchdog.pretimeout"]
    if when not in ("trial", "always"):
        raise ConfigError("config.invalid", f'watchdog.when = "{when[:40]}": trial or always')
    if device is None:
        return None
    # To connect, to ask and to be answered, and then what is done meanwhile.
    least_s = 3 * int(values["server.timeout"]) + 20
    if timeout_s < least_s:
        raise ConfigError(
            "config.invalid",
            f"watchdog.timeout = {timeout_s} s: with server.timeout = {values['server.timeout']} s at least {least_s} s",
        )
    if pretimeout_s >= timeout_s:
        raise ConfigError("config.invalid", "watchdog.pretimeout is shorter than watchdog.timeout")
    return WatchdogSettings(
        device=device,
        timeout_s=timeout_s,
        pretimeout_s=pretimeout_s,
        least_s=least_s,
        always=when == "always",
    )


def _own(values: Mapping[str, Any]) -> HealthPolicy:
    return _policy(
        {
            "warmup_s": values["health.warm_up"],
            "error_rate_per_hour": values["health.errors_per_hour"],
            "drop": values["health.drop"],
        },
        "[health]",
    )


def _files(folders: Sequence[str]) -> list[Path]:
    by_name: dict[str, Path] = {}
    for folder in folders:
        by_name.update({one.name: one for one in sorted(Path(folder).glob("*.toml"))})
    return [by_name[name] for name in sorted(by_name)]


def _read(path: Path) -> HealthPolicy:
    where = str(path)
    try:
        plain = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError("config.unreadable", f"{where}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("config.invalid", f"{where}: {error}") from error
    for key in plain:
        if key not in _KEYS:
            near = did_you_mean(key, _KEYS)
            raise ConfigError("config.unknown_key", f"{where}: unknown key {key}{near}")
    tables = plain.get("check", [])
    if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
        raise ConfigError("config.invalid", f"{where}: check is an array of tables: [[check]]")
    return _policy(
        {
            "warmup_s": parse_duration(plain.get("warm_up", "0s"), f"{where}: warm_up"),
            "error_rate_per_hour": plain.get("errors_per_hour"),
            "drop": plain.get("drop", []),
            "checks": [_check(one, where) for one in tables],
        },
        where,
    )


def _check(plain: Mapping[str, Any], where: str) -> HealthCheck:
    kind = plain.get("type")
    if not isinstance(kind, str):
        raise ConfigError("config.missing", f"{where}: [[check]] without type")
    from tidegate.agent import health

    if kind not in health.names():
        near = did_you_mean(kind, health.names())
        raise ConfigError("config.invalid", f"{where}: [[check]] type = {kind[:64]!r}{near}")
    settings = {key: value for key, value in plain.items() if key not in ("name", "type")}
    try:
        made = msgspec.convert(
            {"name": plain.get("name", kind), "kind": kind, "settings": settings}, type=HealthCheck
        )
    except msgspec.ValidationError as error:
        raise ConfigError("config.invalid", f"{where}: [[check]] {kind}: {error}") from error
    # Nobody rehearses a device's own checks before they decide about an update: what cannot work is told now.
    _, probe = health.load(made, health.Place(server="http://server"))
    if isinstance(probe, health.Broken):
        raise ConfigError(
            "config.invalid", f"{where}: [[check]] {made.name}: {probe.check(0.0)[1]}"
        )
    return made


def _policy(values: Mapping[str, Any], where: str) -> HealthPolicy:
    try:
        return msgspec.convert(values, type=HealthPolicy)
    except msgspec.ValidationError as error:
        # In the words of the file.
        said = str(error).replace("$.error_rate_per_hour", "errors_per_hour")
        raise ConfigError("config.invalid", f"{where}: {said}") from error
