"""Check `services`: the product's core services run.

`units`: systemd units that must be active, each restarted by the manager at most `restarts_max` times (default 2). `since` says from when restarts count:
`"boot"` (default), or `"trial"`, the first look in this warm-up, for releases that are tried without a reboot. `pid_files`: files whose process must live, for
systems without systemd. Containers and plain processes have checks of their own.
"""

import os
from pathlib import Path

from tidegate.agent.checkup import systemd
from tidegate.agent.health import CheckSettings, Place, number, one_of, texts
from tidegate.agent.ports import HealthProbe
from tidegate.core.errors import ConfigError

REASON = "health.service"
KNOWN = frozenset({"units", "pid_files", "restarts_max", "since"})


def create(settings: CheckSettings, place: Place) -> HealthProbe:
    """Make the probe."""
    units, files = texts(settings, "units"), texts(settings, "pid_files")
    if not units and not files:
        raise ConfigError("config.missing", "units or pid_files: which services?")
    since_boot = one_of(settings, "since", ("boot", "trial")) == "boot"
    allowed = number(settings, "restarts_max", 2)
    return Services(units, [Path(one) for one in files], allowed, place, since_boot=since_boot)


class Services:
    """Every unit and process in turn."""

    def __init__(
        self,
        units: list[str],
        files: list[Path],
        restarts_max: int,
        place: Place,
        *,
        since_boot: bool,
    ) -> None:
        self._units = units
        self._files = files
        self._restarts_max = restarts_max
        self._place = place
        self._since_boot = since_boot

    def check(self, now: float) -> tuple[bool, str]:
        """Look at each; the first that does not run is the detail."""
        for path in self._files:
            if not _lives(path):
                return False, f"{path.name} does not run"
        if not self._units:
            return True, "all run"
        found, problem = systemd.units(self._units, self._place.timeout_s)
        if problem:
            return False, problem
        wrong = [word for name, unit in found.items() if (word := self._wrong(name, unit))]
        return not wrong, wrong[0] if wrong else "all run"

    def _wrong(self, name: str, unit: systemd.Unit) -> str:
        base = 0 if self._since_boot else self._place.base(name, unit.restarts)
        if not unit.loaded:
            return f"{name} is not there"
        if unit.active != "active":
            return f"{name} is {unit.active}"
        # A manager that was told to forget its count begins at 0 again.
        restarts = unit.restarts - base if unit.restarts >= base else unit.restarts
        if restarts > self._restarts_max:
            return f"{name} was restarted {restarts} times"
        return ""


def _lives(path: Path) -> bool:
    try:
        os.kill(int(path.read_text().split()[0]), 0)
    except (OSError, ValueError, IndexError, OverflowError) as error:
        return isinstance(error, PermissionError)
    return True
