"""Reads a device's own metrics for heartbeats: a number in a file, of a command, or of a metrics endpoint.

A counter is told by its growth since the server heard of it last; one that is smaller than before began anew, and all of it is new. A gauge is told as its
value times the seconds. What cannot be read, is no number or is not finite is left out: of a metric that is missing nothing is believed.
"""

# pathlib would cost the resident process a quarter of a MiB.
# ruff: noqa: PTH123

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from tidegate.agent.settings import MeterSource

#: Longest time for one look, and from then on nothing further is looked at in this round, in seconds.
LOOK_S: Final = 3.0
ROUND_S: Final = 10.0
#: Values beyond this are no measurement.
_LARGEST: Final = 1e30

Look = Callable[[], float | None]


def meters(sources: Sequence[MeterSource]) -> "DeviceMeters | None":
    """Make what reads these; None where there are none.

    Raises:
        ConfigError: `config.invalid`: one cannot work like that.
    """
    if not sources:
        return None
    return DeviceMeters({one.name: (one.counter, _look(one)) for one in sources})


class DeviceMeters:
    """`agent.ports.Meters` of a real device.

    Args:
        looks: by name, whether it is a counter and how it is read.
    """

    def __init__(self, looks: Mapping[str, tuple[bool, Look]]) -> None:
        self._looks = looks
        #: Counters as the server knows them, and as they were told last.
        self._known: dict[str, float] = {}
        self._told: dict[str, float] = {}

    def told(self, seconds: int) -> dict[str, float]:
        """Read all of them; those that have to wait for the next round are left out."""
        found: dict[str, float] = {}
        end = time.monotonic() + ROUND_S
        self._told = {}
        for name, (counter, look) in self._looks.items():
            value = look() if time.monotonic() < end else None
            if value is None or not abs(value) < _LARGEST:
                continue
            if not counter:
                found[name] = value * seconds
                continue
            self._told[name] = value
            before = self._known.get(name)
            if before is not None:
                found[name] = value - before if value >= before else max(0.0, value)
        # Where nothing was heard of yet, there is only a beginning.
        self._known = {**self._told, **self._known}
        return {name: one for name, one in found.items() if math.isfinite(one)}

    def heard(self) -> None:
        """Count on from what was told."""
        self._known.update(self._told)


def _look(source: MeterSource) -> Look:
    if source.command:
        return _command(list(source.command))
    if source.metrics is not None:
        from tidegate.agent.checkup.metric_source import MetricSource
        from tidegate.agent.checkup.metric_text import parse_wanted

        value = MetricSource(source.metrics, parse_wanted(source.metric), LOOK_S).value
        return lambda: value()[0]
    assert source.file is not None  # noqa: S101 - one of the three, asked by `meter_files`
    return _file(source.file)


def _file(path: str) -> Look:
    def look() -> float | None:
        with contextlib.suppress(OSError), open(path, "rb") as file:
            return _number(file.read(64))
        return None

    return look


def _command(words: list[str]) -> Look:
    def look() -> float | None:
        from tidegate.agent import programs

        ran = programs.run(words, LOOK_S)
        return _number(ran.output[:64]) if ran.code == 0 else None

    return look


def _number(text: bytes) -> float | None:
    with contextlib.suppress(ValueError, IndexError):
        value = float(text.split()[0])
        return value if math.isfinite(value) else None
    return None
