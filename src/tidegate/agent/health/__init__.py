"""Health checks: what a device must show before it keeps a new image. One file each; `kind` in the contract is the file's name.

A check is a module with `REASON`, the `health.*` code that its failure stands for, `KNOWN`, the settings that it knows, and `create(settings, place) ->
HealthProbe`. A probe never raises, is bounded in time, and changes nothing. It runs in a process of its own (`agent.checkup`), in a thread beside others, and
is made anew for every round: what it compares with from one round to the next stands in `place`, which is part of the journal. When everything passes and for
how long is decided in `agent.trial`.

Every check takes `timeout_s`, how long it may take (default 5, at most 60 seconds), and `fails_max`, how often in a row it may fail once it has passed
(default 0): for a link that is known to blink. A contract may ask for a check, or a setting, that this agent does not have, or set one up in a way that cannot
work: that check fails, and says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, cast

from tidegate.agent import backends
from tidegate.agent.ports import Bases, HealthProbe
from tidegate.core.errors import ConfigError
from tidegate.core.nearest import did_you_mean
from tidegate.core.release import HealthCheck

#: Settings of a check, as the contract carries them.
CheckSettings = Mapping[str, str | int | list[str]]
#: What every check takes; `agent.checkup.examiner` reads it.
COMMON = frozenset({"timeout_s", "fails_max"})


@dataclass
class Place:
    """What a check may know beside its settings.

    Attributes:
        server: the control plane's URL; "" where there is none.
        timeout_s: how long the check may take, in seconds.
        bases: what it compares with: of its first look in this warm-up, or of the last one.
        name: of the check, with a slash behind it.
        fails_max: failures in a row that do not count, once it has passed.
    """

    server: str = ""
    timeout_s: float = 5.0
    bases: Bases = field(default_factory=dict)
    name: str = ""
    fails_max: int = 0

    def tolerate(self, ok: bool, detail: str) -> tuple[bool, str]:
        """Let a check that passed before fail a few times in a row, as far as its contract allows that."""
        if not self.fails_max:
            return ok, detail
        fails = 0 if ok else self.base("fails", 0) + 1
        self.bases["fails"] = fails
        if ok:
            self.bases["passed"] = 1
        if ok or not self.base("passed", 0) or fails > self.fails_max:
            return ok, detail
        return True, f"tolerated, {fails} in a row: {detail}"[:200]

    def base(self, of: str, value: int) -> int:
        """Return the number of the first look; at the first look that is `value`, and it is remembered."""
        found = self.bases.setdefault(of, value)
        return found if isinstance(found, int) else value

    def growth(self, value: int) -> int:
        """Return what a number grew by since the first look. One that fell began anew: what was counted before stays counted."""
        last, grown = self.base("last", value), self.base("grown", 0)
        grown += value - last if value >= last else max(value, 0)
        self.bases.update(last=value, grown=grown)
        return grown

    def hours(self, now: float) -> float:
        """Return how long ago the first look was, in hours; the first one counts as a whole one, so that one early error is no rate."""
        return max(1.0, (now - self.base("began", int(now))) / 3600)


class Kind(Protocol):
    """What a module here offers."""

    REASON: str
    KNOWN: frozenset[str]

    def create(self, settings: CheckSettings, place: Place, /) -> HealthProbe:
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


def load(check: HealthCheck, place: Place | None = None) -> tuple[str, HealthProbe]:
    """Return the reason that a check stands for, and its probe."""
    kind = cast("Kind | None", backends.find(__name__, check.kind))
    if kind is None:
        return "health.command", Broken(f"no check {check.kind!r} on this device")
    try:
        _known(check.settings, kind.KNOWN | COMMON)
        return kind.REASON, kind.create(check.settings, place or Place())
    except ConfigError as error:
        return kind.REASON, Broken(error.detail[:200])


def _known(settings: CheckSettings, known: frozenset[str]) -> None:
    """Refuse a setting that nobody reads: what it was meant to demand would go unasked."""
    for name in settings:
        if name not in known:
            near = did_you_mean(name, known)
            raise ConfigError("config.unknown_key", f"this check has no setting {name!r}{near}")


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
    """Return a setting that is a whole number, not below 0.

    Raises:
        ConfigError: it is something else.
    """
    found = settings.get(key, default)
    if not isinstance(found, int) or isinstance(found, bool) or found < 0:
        raise ConfigError("config.invalid", f"{key} is not a number")
    return found


def one_of(settings: CheckSettings, key: str, words: tuple[str, ...]) -> str:
    """Return a setting that is one of these words, the first where it is not there.

    Raises:
        ConfigError: it is another.
    """
    found = text(settings, key, words[0])
    if found not in words:
        raise ConfigError("config.invalid", f"{key} = {found[:40]!r}: {', '.join(words)}")
    return found
