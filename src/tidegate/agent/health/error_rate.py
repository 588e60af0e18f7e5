"""Check `error_rate`: errors become more no faster than allowed.

`max_per_hour` is what they may grow by in an hour since the first look in this warm-up; the first hour counts as a whole one, so that one early error is no
rate. What is counted: `file`, which holds one number written by the product's software; or `journal`, entries of systemd's at least so urgent (`"err"`), of
`units` only where they are named. For metrics see `metric`. Besides this check, a contract's own `errors_per_hour` judges what the device's configuration says
are its errors, over the whole warm-up.
"""

from collections.abc import Callable
from pathlib import Path

from tidegate.agent.checkup import journald
from tidegate.agent.health import CheckSettings, Place, number, text, texts
from tidegate.agent.ports import HealthProbe
from tidegate.core.errors import ConfigError

REASON = "health.error_rate"
KNOWN = frozenset({"file", "journal", "units", "max_per_hour"})
#: What one look returns: (errors since the first look, "") or (None, why nobody knows).
Look = Callable[[Place], tuple[int | None, str]]


def create(settings: CheckSettings, place: Place) -> HealthProbe:
    """Make the probe."""
    file, journal = text(settings, "file", ""), text(settings, "journal", "")
    if bool(file) == bool(journal):
        raise ConfigError("config.invalid", "either file or journal: what is counted?")
    if journal and not journald.is_priority(journal):
        raise ConfigError("config.invalid", f"journal = {journal[:40]!r} is no priority: err")
    units = tuple(texts(settings, "units"))
    look = _in_file(Path(file)) if file else _in_journal(journal, units)
    return ErrorRate(look, number(settings, "max_per_hour", 0), place)


class ErrorRate:
    """Growth since the first look."""

    def __init__(self, look: Look, max_per_hour: int, place: Place) -> None:
        self._look = look
        self._max_per_hour = max_per_hour
        self._place = place

    def check(self, now: float) -> tuple[bool, str]:
        """Compare with the first look."""
        grown, problem = self._look(self._place)
        if grown is None:
            return False, problem
        return grown <= self._max_per_hour * self._place.hours(now), f"{grown} errors"


def _in_file(path: Path) -> Look:
    def look(place: Place) -> tuple[int | None, str]:
        try:
            value = int(path.read_text("ascii", "replace")[:32].split()[0])
        except (OSError, ValueError, IndexError):
            return None, f"{path} holds no number"[:200]
        return place.growth(value), ""

    return look


def _in_journal(priority: str, units: tuple[str, ...]) -> Look:
    def look(place: Place) -> tuple[int | None, str]:
        cursor, before = place.bases.get("cursor"), place.base("grown", 0)
        known = isinstance(cursor, str)
        found = journald.count(str(cursor), priority, units) if known else journald.end()
        # What was read of a journal that cannot be read to its end counts, and is not read again.
        place.bases.update(cursor=found.cursor, grown=before + found.entries)
        return (None, found.problem) if found.problem else (before + found.entries, "")

    return look
