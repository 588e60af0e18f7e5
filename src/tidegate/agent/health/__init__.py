"""Health checks: what a device must show before it keeps a new image. One file each; `kind` in the contract is the file's name.

A check is a module with `REASON`, the `health.*` code that its failure stands for, and `create(settings) -> HealthProbe`. A probe never raises, is bounded in
time, and changes nothing. When everything passes and for how long is decided in `agent.trial`; the warm-up is part of the journal, so that it survives a
restart of the agent.

A contract may ask for a check that this agent does not have, or set one up in a way that cannot work: that check fails, and says so.
"""

from collections.abc import Mapping
from typing import Protocol, cast

from tidegate.agent import backends
from tidegate.agent.ports import HealthProbe
from tidegate.core.errors import ConfigError
from tidegate.core.release import HealthCheck

#: Settings of a check, as the contract carries them.
CheckSettings = Mapping[str, str | int | list[str]]
#: Longest time that one probe may take, in seconds.
PROBE_S: float = 5.0


class Kind(Protocol):
    """What a module here offers."""

    REASON: str

    def create(self, settings: CheckSettings) -> HealthProbe:
        """Make a probe. Raises ConfigError for settings that cannot work."""
        ...


class Broken:
    """Stands in for a check that cannot be made: it fails."""

    def __init__(self, detail: str) -> None:
        self._detail = detail

    def check(self, now: float) -> tuple[bool, str]:
        """Fail, and say why."""
        return False, self._detail


def names() -> list[str]:
    """Name the checks that are shipped."""
    import pkgutil  # costs 0.7 MiB: only where names are asked for

    return sorted(one.name for one in pkgutil.iter_modules(__path__))


def load(check: HealthCheck) -> tuple[str, HealthProbe]:
    """Return the reason that a check stands for, and its probe."""
    kind = cast("Kind | None", backends.find(__name__, check.kind))
    if kind is None:
        return "health.command", Broken(f"no check {check.kind!r} on this device")
    try:
        return kind.REASON, kind.create(check.settings)
    except ConfigError as error:
        return kind.REASON, Broken(error.detail[:200])


def text(settings: CheckSettings, key: str, default: str | None = None) -> str:
    """Return a setting that is a text.

    Raises:
        ConfigError: it is missing, or something else.
    """
    found = settings.get(key, default)
    if not isinstance(found, str):
        raise ConfigError("config.invalid", f"{key} is missing, or not a text")
    return found


def texts(settings: CheckSettings, key: str) -> list[str]:
    """Return a setting that is a list of texts; none of them is an empty list.

    Raises:
        ConfigError: it is something else.
    """
    found = settings.get(key, [])
    if not isinstance(found, list):
        raise ConfigError("config.invalid", f"{key} is not a list")
    return found


def number(settings: CheckSettings, key: str, default: int) -> int:
    """Return a setting that is a whole number.

    Raises:
        ConfigError: it is something else.
    """
    found = settings.get(key, default)
    if not isinstance(found, int):
        raise ConfigError("config.invalid", f"{key} is not a number")
    return found
