"""Counts a device's errors, for the warm-up and for heartbeats: from a number in a file, a metric, or the journal.

A count goes on from an earlier reading: an agent that was restarted in the middle of a warm-up, and a source that began anew, hide nothing. What a source did
before the first reading does not count: a rate is one of the warm-up.
"""

# pathlib would cost the resident process a quarter of a MiB.
# ruff: noqa: PTH123

import contextlib
from collections.abc import Callable

from tidegate.agent.ports import ErrorCounter, Reading
from tidegate.agent.settings import ErrorSource

#: Longest time for one look, in seconds.
LOOK_S = 3.0


def counter(source: ErrorSource) -> ErrorCounter:
    """Make the counter that the configuration names.

    Raises:
        ConfigError: `config.invalid`: it cannot work like that.
    """
    if source.journal is not None:
        return JournalErrors(source.journal, source.units)
    if source.metrics is not None:
        return Growth(_metric(source.metrics, source.metric))
    if source.file is not None:
        return Growth(_file(source.file))
    return Nobody()


class Nobody:
    """Nothing counts errors here."""

    def read(self, last: Reading | None) -> Reading:
        """Return nought, and say so."""
        return Reading(problem="nothing counts errors on this device: set [errors]")


class Growth:
    """The growth of a number that somebody else raises.

    Args:
        look: returns (the number, "") or (None, why there is none).
    """

    def __init__(self, look: Callable[[], tuple[float | None, str]]) -> None:
        self._look = look

    def read(self, last: Reading | None) -> Reading:
        """Add what the number grew by. One that is smaller than before began anew: all of it is new."""
        value, problem = self._look()
        before = last or Reading()
        if value is None:
            return Reading(count=before.count, mark=before.mark, problem=problem)
        if last is None:
            return Reading(mark=repr(value))
        # A source that could not be read when the count began has everything still to be counted.
        known = _number(before.mark) or 0.0
        grown = value - known if value >= known else max(value, 0.0)
        # What is left of a fraction is counted once it has become a whole.
        return Reading(count=before.count + int(grown), mark=repr(value - grown % 1))


class JournalErrors:
    """Entries of systemd's journal that are at least so urgent.

    Args:
        priority: a name or number of syslog's.
        units: only entries of these; none = of all.
    """

    def __init__(self, priority: str, units: tuple[str, ...]) -> None:
        self._priority = priority
        self._units = units

    def read(self, last: Reading | None) -> Reading:
        """Count what came since. A journal that cannot be read to its end is read on from there the next time."""
        from tidegate.agent.checkup import journald

        before = last or Reading()
        found = (
            journald.count(before.mark, self._priority, self._units)
            if before.mark
            else journald.end()
        )
        return Reading(
            count=before.count + found.entries,
            mark=found.cursor or before.mark,
            problem=found.problem,
        )


def _number(text: str) -> float | None:
    with contextlib.suppress(ValueError):
        return float(text)
    return None


def _file(path: str) -> Callable[[], tuple[float | None, str]]:
    def look() -> tuple[float | None, str]:
        try:
            with open(path, "rb") as file:
                return float(int(file.read(32).split()[0])), ""
        except OSError as error:
            return None, f"{path}: {error.strerror}"[:200]
        except (ValueError, IndexError):
            return None, f"{path} holds no number"[:200]

    return look


def _metric(source: str, metric: str) -> Callable[[], tuple[float | None, str]]:
    from tidegate.agent.checkup.metric_source import MetricSource
    from tidegate.agent.checkup.metric_text import parse_wanted

    return MetricSource(source, parse_wanted(metric), LOOK_S).value
