"""When a device may download or activate: windows in wall time, and a spread that needs no randomness.

A window is written as people say it: `"02:00-05:00"`, `"Mon-Fri 22:00-04:00"`, `"Sat,Sun"`; no window at all, or `"any"`, is always open. A window that
passes midnight belongs to the day on which it opens.

**Change of clocks.** A window is a set of *wall* times, and it is open at an instant exactly when the wall clock of its zone shows one of them. So an hour
that does not exist is skipped (a window inside it does not open that day; one that began in it opens where the clock jumps to), and an hour that comes
twice counts twice (a window that ends inside it closes, opens again and closes again). A day that a zone skips is skipped.
"""

import hashlib
import re
import zoneinfo
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from tidegate.core.errors import ConfigError
from tidegate.core.nearest import did_you_mean

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_EVERY_DAY: Final = frozenset(range(7))
_DAY_MIN: Final = 24 * 60
_DAY_S: Final = 86_400
#: A weekly window that falls into a skipped hour opens a week later; two weeks and a margin reach every next change.
_HORIZON_DAYS: Final = 16
_CHUNK_DAYS: Final = 2

#: The zone without any rules (RFC 8536, version 1: six counts, one type of local time, its name).
_UTC: Final = (
    b"TZif" + bytes(16) + bytes(12) + bytes(4) + b"\0\0\0\1" + b"\0\0\0\4" + bytes(6) + b"UTC\0"
)

_TIMES: Final = re.compile(r"(\d\d):(\d\d)-(\d\d):(\d\d)")
_LOOSE: Final = re.compile(r"(\d{1,2})(?:[:.](\d\d))?\s*-\s*(\d{1,2})(?:[:.](\d\d))?")


class _Bytes:
    """Bytes that are read like a file: here nothing opens one."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def read(self, size: int, /) -> bytes:
        self._at += size
        return self._body[self._at - size : self._at]

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._at = offset if whence == 0 else self._at + offset
        return self._at


@dataclass(frozen=True, slots=True)
class Window:
    """Wall times of some weekdays (0 = Monday). `start_min` and `end_min` are minutes of the day; end ≤ start passes midnight."""

    days: frozenset[int] = _EVERY_DAY
    start_min: int = 0
    end_min: int = _DAY_MIN

    def holds(self, weekday: int, minute: int) -> bool:
        """Say whether the wall time `minute` of that weekday is inside."""
        if self.start_min < self.end_min:
            return weekday in self.days and self.start_min <= minute < self.end_min
        evening = weekday in self.days and minute >= self.start_min
        return evening or ((weekday - 1) % 7 in self.days and minute < self.end_min)

    def __str__(self) -> str:
        """Write it back in the form it is parsed from."""
        whole = (self.start_min, self.end_min) == (0, _DAY_MIN)
        days = "" if self.days == _EVERY_DAY else ",".join(_DAYS[day] for day in sorted(self.days))
        times = f"{_clock(self.start_min)}-{_clock(self.end_min)}"
        return days if whole and days else f"{days} {times}".strip()


def parse_window(text: str, key: str = "") -> Window:
    """Parse one window.

    Args:
        text: untrusted.
        key: where it stood, for the message.

    Raises:
        ConfigError: `config.invalid`, with the likely reading where there is one.
    """
    words = text.split()
    if not 1 <= len(words) <= 2:
        raise _invalid(text, key, _guess(text))
    times = _TIMES.fullmatch(words[-1])
    if times is None:
        if len(words) == 2 or _LOOSE.fullmatch(text.strip()):
            raise _invalid(text, key, _guess(words[-1]))
        return Window(days=_parse_days(words[0], text, key))
    start, end = _minute(times[1], times[2], text, key), _minute(times[3], times[4], text, key)
    if start in (end, _DAY_MIN):
        raise _invalid(text, key, ' (a whole day is written by its name, as in "Sat")')
    days = _parse_days(words[0], text, key) if len(words) == 2 else _EVERY_DAY
    return Window(days=days, start_min=start, end_min=end)


def parse_windows(texts: Iterable[str], key: str = "") -> tuple[Window, ...]:
    """Parse several windows. `"any"` or none at all gives an empty tuple: always open.

    Raises:
        ConfigError: `config.invalid`.
    """
    found = tuple(texts)
    if any(text.strip().lower() == "any" for text in found):
        return ()
    return tuple(parse_window(text, key) for text in found)


def load_zone(name: str, key: str = "") -> ZoneInfo:
    """Return an IANA zone by name (untrusted). `"device"` must have been resolved by the caller. `"UTC"` needs no time zone data.

    Raises:
        ConfigError: `config.invalid`: no such zone, or no time zone data on this machine.
    """
    try:
        return ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        if name == "UTC":
            return ZoneInfo.from_file(_Bytes(_UTC), key="UTC")
        where = f"{key}: " if key else ""
        known = zoneinfo.available_timezones()
        detail = f'{where}"{name[:80]}" is not a time zone{did_you_mean(name, known)}'
        if not known:
            detail = f'{where}"{name[:80]}": there is no time zone data here; install tzdata, or say "UTC"'
        raise ConfigError("config.invalid", detail) from error


def is_open(windows: Sequence[Window], zone: ZoneInfo, at: int) -> bool:
    """Say whether any of the windows is open at `at` (unix seconds). No windows: always."""
    if not windows:
        return True
    wall = datetime.fromtimestamp(at, zone)
    weekday, minute = wall.weekday(), wall.hour * 60 + wall.minute
    return any(window.holds(weekday, minute) for window in windows)


def next_open(windows: Sequence[Window], zone: ZoneInfo, at: int) -> int | None:
    """Return the first instant ≥ `at` at which a window is open; `at` itself when one is. None: never within sixteen days."""
    if is_open(windows, zone, at):
        return at
    return next(
        (when for when in _changes(windows, zone, at) if is_open(windows, zone, when)), None
    )


def next_close(windows: Sequence[Window], zone: ZoneInfo, at: int) -> int | None:
    """Return the first instant ≥ `at` at which no window is open. None: open for sixteen days or for ever."""
    if not windows:
        return None
    if not is_open(windows, zone, at):
        return at
    changes = _changes(windows, zone, at)
    return next((when for when in changes if not is_open(windows, zone, when)), None)


def spread(device_id: str, seconds: int, salt: str = "") -> int:
    """Return this device's own delay, 0 ≤ delay < `seconds` (0 when `seconds` is 0): the same every time, even over a fleet.

    Args:
        device_id: any text.
        seconds: the width, ≥ 0.
        salt: what is being spread, so that it is not the same devices that are always first.
    """
    if seconds <= 0:
        return 0
    digest = hashlib.sha256(f"spread\0{salt}\0{device_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % seconds


def _changes(windows: Sequence[Window], zone: ZoneInfo, at: int) -> Iterator[int]:
    """Yield, rising, every instant after `at` at which a window may open or close: wall boundaries, midnights, clock changes."""
    minutes = sorted({0, *(m for w in windows for m in (w.start_min, w.end_min % _DAY_MIN))})
    for chunk in range(0, _HORIZON_DAYS, _CHUNK_DAYS):
        low, high = at + chunk * _DAY_S, at + (chunk + _CHUNK_DAYS) * _DAY_S
        found = set(_clock_changes(zone, low, high))
        # A day more on each side: the zone's offset is up to a day from UTC.
        first = datetime.fromtimestamp(low, zone).date() - timedelta(days=1)
        for offset in range(_CHUNK_DAYS + 3):
            day = first + timedelta(days=offset)
            found.update(when for minute in minutes for when in _instants(day, minute, zone))
        yield from sorted(when for when in found if low < when <= high)


def _instants(day: date, minute: int, zone: ZoneInfo) -> Iterator[int]:
    """Yield both instants of a wall time: the same one twice on a usual day. Where it does not exist they are harmless extras."""
    for fold in (0, 1):
        wall = datetime(day.year, day.month, day.day, minute // 60, minute % 60, tzinfo=zone)
        yield int(wall.replace(fold=fold).timestamp())


def _clock_changes(zone: ZoneInfo, low: int, high: int) -> Iterator[int]:
    """Yield the instants in (low, high] at which the zone's offset changes. At most one a day is found: no zone ever had two."""
    for start in range(low, high, _DAY_S):
        before, after = start, min(start + _DAY_S, high)
        if _offset(zone, before) == _offset(zone, after):
            continue
        was = _offset(zone, before)
        while after - before > 1:
            middle = (before + after) // 2
            before, after = (middle, after) if _offset(zone, middle) == was else (before, middle)
        yield after


def _offset(zone: ZoneInfo, at: int) -> timedelta | None:
    return datetime.fromtimestamp(at, UTC).astimezone(zone).utcoffset()


def _parse_days(word: str, text: str, key: str) -> frozenset[int]:
    days: set[int] = set()
    for part in word.split(","):
        first, dash, last = part.partition("-")
        low = _day(first, text, key)
        high = _day(last, text, key) if dash else low
        days.update((low + step) % 7 for step in range((high - low) % 7 + 1))
    return frozenset(days)


def _day(name: str, text: str, key: str) -> int:
    known = {day.lower(): index for index, day in enumerate(_DAYS)}
    if name.lower() not in known:
        raise _invalid(text, key, f': "{name[:20]}" is not a day{did_you_mean(name, _DAYS)}')
    return known[name.lower()]


def _minute(hour: str, minute: str, text: str, key: str) -> int:
    value = int(hour) * 60 + int(minute)
    if int(minute) > 59 or value > _DAY_MIN:
        raise _invalid(text, key, f": {hour}:{minute} is not a time of day")
    return value


def _guess(text: str) -> str:
    loose = _LOOSE.fullmatch(text.strip())
    if loose is None:
        return ', as in "02:00-05:00", "Mon-Fri 22:00-04:00" or "Sat,Sun"'
    from_h, to_h = int(loose[1]), int(loose[3])
    return f': "{from_h:02}:{loose[2] or "00"}-{to_h:02}:{loose[4] or "00"}"?'


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def _invalid(text: str, key: str, problem: str) -> ConfigError:
    where = f"{key}: " if key else ""
    return ConfigError("config.invalid", f'{where}"{text[:80]}" is not a window{problem}')
