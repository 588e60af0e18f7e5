"""Check `error_rate`: a count of errors grows no faster than allowed.

`file` holds one number, written by the product's software; `max_per_hour` is what it may grow by in an hour since the check began. Besides this check, a
contract's own `error_rate_per_hour` judges the device's error counter over the whole warm-up.
"""

from pathlib import Path

from tidegate.agent.health import CheckSettings, number, text
from tidegate.agent.ports import HealthProbe

REASON = "health.error_rate"


def create(settings: CheckSettings) -> HealthProbe:
    """Make the probe."""
    return ErrorRate(Path(text(settings, "file")), number(settings, "max_per_hour", 0))


class ErrorRate:
    """The file's growth since the first look."""

    def __init__(self, path: Path, max_per_hour: int) -> None:
        self._path = path
        self._max_per_hour = max_per_hour
        self._first: tuple[int, float] | None = None

    def check(self, now: float) -> tuple[bool, str]:
        """Compare with the first look; a first hour counts as a whole one, so that one early error is no rate."""
        try:
            count = int(self._path.read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return False, f"{self._path} holds no number"
        if self._first is None or count < self._first[0]:
            self._first = (count, now)
        grown = count - self._first[0]
        hours = max(1.0, (now - self._first[1]) / 3600)
        return grown <= self._max_per_hour * hours, f"{grown} errors"
