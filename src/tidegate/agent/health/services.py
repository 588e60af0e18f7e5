"""Check `services`: the product's core services run.

`units`: systemd units that must be active, each restarted at most `restarts_max` times (default 2) since the check began. `pid_files`: files whose process
must live, for systems without systemd.
"""

import os
import subprocess
from pathlib import Path

from tidegate.agent.health import PROBE_S, CheckSettings, number, texts
from tidegate.agent.ports import HealthProbe
from tidegate.core.errors import ConfigError

REASON = "health.service"


def create(settings: CheckSettings) -> HealthProbe:
    """Make the probe."""
    units, files = texts(settings, "units"), texts(settings, "pid_files")
    if not units and not files:
        raise ConfigError("config.missing", "units or pid_files: which services?")
    return Services(units, [Path(one) for one in files], number(settings, "restarts_max", 2))


class Services:
    """Every unit and process in turn."""

    def __init__(self, units: list[str], files: list[Path], restarts_max: int) -> None:
        self._units = units
        self._files = files
        self._restarts_max = restarts_max
        self._first: dict[str, int] = {}

    def check(self, now: float) -> tuple[bool, str]:
        """Look at each; the first that does not run is the detail."""
        for path in self._files:
            if not _lives(path):
                return False, f"{path.name} does not run"
        for unit in self._units:
            active, restarts = _unit(unit)
            before = self._first.setdefault(unit, restarts)
            if not active:
                return False, f"{unit} is not active"
            if restarts - before > self._restarts_max:
                return False, f"{unit} was restarted {restarts - before} times"
        return True, "all run"


def _lives(path: Path) -> bool:
    try:
        os.kill(int(path.read_text().split()[0]), 0)
    except (OSError, ValueError, IndexError) as error:
        return isinstance(error, PermissionError)
    return True


def _unit(unit: str) -> tuple[bool, int]:
    command = ["systemctl", "show", unit, "--property=ActiveState,NRestarts"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_S).stdout  # noqa: PLW1510 - an empty answer fails
    except (OSError, subprocess.SubprocessError):
        return False, 0
    found = dict(line.partition("=")[::2] for line in answer.splitlines())
    restarts = found.get("NRestarts", "0")
    return found.get("ActiveState") == "active", int(restarts) if restarts.isdigit() else 0
