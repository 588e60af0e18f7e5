"""Check `failed_units`: no systemd unit is in the state failed, whether or not the boot waited for it.

`allow`: units that may be, by name or pattern (`"user@*.service"`). `boot` asks once whether the system came up; this check asks on through the warm-up.
"""

from tidegate.agent.checkup import systemd
from tidegate.agent.health import CheckSettings, Place, texts
from tidegate.agent.ports import HealthProbe

REASON = "health.service"
KNOWN = frozenset({"allow"})


def create(settings: CheckSettings, place: Place) -> HealthProbe:
    """Make the probe."""
    return FailedUnits(texts(settings, "allow"), place.timeout_s)


class FailedUnits:
    """Every unit of the system."""

    def __init__(self, allowed: list[str], timeout_s: float) -> None:
        self._allowed = allowed
        self._timeout_s = timeout_s

    def check(self, now: float) -> tuple[bool, str]:
        """Ask the service manager."""
        wrong, problem = systemd.failed(self._allowed, self._timeout_s)
        if problem:
            return False, problem
        return not wrong, f"failed: {', '.join(wrong)}"[:200] if wrong else "none failed"
