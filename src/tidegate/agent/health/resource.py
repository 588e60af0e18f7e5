"""Check `resource`: there is room left.

`disk` and `inodes`: `"PATH:AMOUNT"` each, what must be free for everybody on the file system of that path, as a size (`"/data:100MiB"`, for inodes a number)
or a share (`"/:5%"`). `memory`: what must be available without swapping, a size (`"32MiB"`) or a share of all. `load_max`: most runnable processes per
processor over the last minute, in hundredths (`400` = 4). `temperature_max`: of the hottest thermal zone, in whole degrees Celsius. At least one of them.
"""

import os
from pathlib import Path
from typing import Final, NamedTuple

from tidegate.agent.health import CheckSettings, Place, number, text, texts
from tidegate.agent.ports import HealthProbe
from tidegate.core.amounts import parse_size
from tidegate.core.errors import ConfigError

REASON = "health.resource"
KNOWN = frozenset({"disk", "inodes", "memory", "load_max", "temperature_max"})
_MEMORY: Final = Path("/proc/meminfo")
_ZONES: Final = Path("/sys/class/thermal")


class Least(NamedTuple):
    """What must be left: so many, or such a share (percent)."""

    amount: int
    share: bool

    def met(self, left: int, of: int) -> bool:
        """Compare."""
        return left * 100 >= self.amount * of if self.share else left >= self.amount


def create(settings: CheckSettings, _here: Place) -> HealthProbe:
    """Make the probe."""
    if not settings.keys() & KNOWN:
        raise ConfigError("config.missing", f"which of {', '.join(sorted(KNOWN))}?")
    memory = text(settings, "memory", "")
    return Resource(
        disks=[_place(one, "disk") for one in texts(settings, "disk")],
        inodes=[_place(one, "inodes") for one in texts(settings, "inodes")],
        memory=_least(memory, "memory") if memory else None,
        load_max=number(settings, "load_max", 0),
        temperature_max=number(settings, "temperature_max", 0),
    )


class Resource:
    """Each of them in turn; the first that runs short is the detail."""

    def __init__(
        self,
        *,
        disks: list[tuple[str, Least]],
        inodes: list[tuple[str, Least]],
        memory: Least | None,
        load_max: int,
        temperature_max: int,
    ) -> None:
        self._disks = disks
        self._inodes = inodes
        self._memory = memory
        self._load_max = load_max
        self._temperature_max = temperature_max

    def check(self, now: float) -> tuple[bool, str]:
        """Look at everything that has a bound."""
        try:
            short = self._short()
        except (OSError, ValueError) as error:
            words = getattr(error, "strerror", None) or str(error)
            return False, f"{getattr(error, 'filename', None) or 'resource'}: {words}"[:200]
        return not short, short[:200] or "enough"

    def _short(self) -> str:
        for path, least in self._disks:
            found = os.statvfs(path)
            left, of = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
            if not least.met(left, of):
                return f"{path}: {left >> 20} MiB of {of >> 20} MiB are free"
        for path, least in self._inodes:
            found = os.statvfs(path)
            # File systems that make inodes as they need them say that they have none.
            if found.f_files and not least.met(found.f_favail, found.f_files):
                return f"{path}: {found.f_favail} of {found.f_files} inodes are free"
        if self._memory is not None:
            left, of = _memory()
            if not self._memory.met(left, of):
                return f"{left >> 20} MiB of {of >> 20} MiB memory are available"
        return self._too_much()

    def _too_much(self) -> str:
        if self._load_max:
            load = os.getloadavg()[0] / (os.cpu_count() or 1)
            if load * 100 > self._load_max:
                return f"load {load:.2f} per processor"
        if self._temperature_max:
            hottest = _hottest()
            if hottest is None:
                return "no thermal zone says a temperature"
            if hottest > self._temperature_max:
                return f"{hottest} degrees"
        return ""


def _memory() -> tuple[int, int]:
    """Return (available, all), bytes."""
    found = dict(line.partition(":")[::2] for line in _MEMORY.read_text().splitlines())
    left, of = (int(found[name].split()[0]) << 10 for name in ("MemAvailable", "MemTotal"))
    return left, of


def _hottest() -> int | None:
    found = []
    for zone in _ZONES.glob("thermal_zone*/temp"):
        try:
            found.append(int(zone.read_text()) // 1000)
        except (OSError, ValueError):
            # A zone whose sensor is off.
            continue
    return max(found, default=None)


def _place(words: str, key: str) -> tuple[str, Least]:
    path, _, least = words.rpartition(":")
    if not path.startswith("/"):
        raise ConfigError("config.invalid", f"{key}: {words[:64]!r} is not PATH:AMOUNT")
    return path, _least(least, key)


def _least(words: str, key: str) -> Least:
    digits = words.removesuffix("%").strip()
    if words.endswith("%") and digits.isdigit() and int(digits) <= 100:
        return Least(int(digits), share=True)
    if key == "inodes" and words.isdigit():
        return Least(int(words), share=False)
    return Least(parse_size(words, key), share=False)
