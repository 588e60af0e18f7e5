"""Check `boot`: the system finished booting.

`by = "systemd"` (default): `systemctl is-system-running` says running, or degraded by no other units than `allow_degraded`. `by = "marker:PATH"`: the file
is there, made by the product's own software on a file system that is empty after a boot.
"""

import subprocess
from pathlib import Path

from tidegate.agent.health import PROBE_S, CheckSettings, text, texts
from tidegate.agent.ports import HealthProbe
from tidegate.core.errors import ConfigError

REASON = "health.boot"


def create(settings: CheckSettings) -> HealthProbe:
    """Make the probe."""
    by = text(settings, "by", "systemd")
    kind, _, path = by.partition(":")
    if kind == "marker" and path:
        return Marker(Path(path))
    if by == "systemd":
        return Systemd(frozenset(texts(settings, "allow_degraded")))
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

    def __init__(self, allowed: frozenset[str]) -> None:
        self._allowed = allowed

    def check(self, now: float) -> tuple[bool, str]:
        """Ask the service manager."""
        state = _ask("is-system-running").strip()
        if state != "degraded":
            return state == "running", state or "no service manager answers"
        listed = _ask("list-units", "--state=failed", "--plain", "--no-legend")
        failed = {line.split()[0] for line in listed.splitlines() if line.split()}
        wrong = sorted(failed - self._allowed)
        return not wrong, ", ".join(wrong)[:200] or "degraded, as allowed"


def _ask(*words: str) -> str:
    command = ["systemctl", *words]
    try:
        return subprocess.run(  # noqa: PLW1510 - its exit code says no more than its answer
            command, capture_output=True, text=True, timeout=PROBE_S
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
