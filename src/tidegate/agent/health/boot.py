"""Check `boot`: the system finished booting.

`by = "systemd"` (default): `systemctl is-system-running` says running, or degraded by no other units than `allow_degraded` (names or patterns,
`"*-wait-online.service"`). `by = "marker:PATH"`: the file is there, made by the product's own software on a file system that is empty after a boot.
"""

from pathlib import Path

from tidegate.agent.checkup import systemd
from tidegate.agent.health import CheckSettings, Place, text, texts
from tidegate.agent.ports import HealthProbe
from tidegate.core.errors import ConfigError

REASON = "health.boot"
KNOWN = frozenset({"by", "allow_degraded"})


def create(settings: CheckSettings, place: Place) -> HealthProbe:
    """Make the probe."""
    by = text(settings, "by", "systemd")
    kind, _, path = by.partition(":")
    if kind == "marker" and path:
        return Marker(Path(path))
    if by == "systemd":
        return Systemd(texts(settings, "allow_degraded"), place.timeout_s)
    raise ConfigError("config.invalid", f"by = {by[:64]!r} is neither systemd nor marker:PATH")


class Marker:
    """A file says so."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def check(self, now: float) -> tuple[bool, str]:
        """Look for the file."""
        there = self._path.exists()
        return there, "booted" if there else f"{self._path} is not there"


class Systemd:
    """The service manager says so."""

    def __init__(self, allowed: list[str], timeout_s: float) -> None:
        self._allowed = allowed
        self._timeout_s = timeout_s

    def check(self, now: float) -> tuple[bool, str]:
        """Ask the service manager."""
        state, problem = systemd.state(self._timeout_s / 2)
        if state != "degraded":
            return state == "running", state or problem
        wrong, problem = systemd.failed(self._allowed, self._timeout_s / 2)
        if problem:
            return False, problem
        return not wrong, f"failed: {', '.join(wrong)}"[:200] if wrong else "degraded, as allowed"
