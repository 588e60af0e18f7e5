"""Amounts with their units, as people write them: `"24h"`, `"64MiB"`, `"2MiB/s"`, `"10%"`, `"1pp"`.

In configuration an amount is a string with its unit; in code it is an integer with the unit in its name. A bare number where a unit belongs is an error
that shows the likely readings, because guessing between seconds and hours is how a soak becomes a blink.
"""

import re
from decimal import Decimal
from typing import Final

from tidegate.core.errors import ConfigError
from tidegate.core.nearest import did_you_mean

_MS: Final[dict[str, int]] = {
    "ms": 1,
    "s": 1_000,
    "m": 60_000,
    "min": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
}
_BYTES: Final[dict[str, int]] = {
    "B": 1,
    "KB": 1_000,
    "MB": 1_000_000,
    "GB": 1_000_000_000,
    "TB": 1_000_000_000_000,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
}
#: Words for "no limit". They are words, never 0.
OFF_WORDS: Final = frozenset({"none", "off"})
#: The largest amount accepted, in its smallest unit: everything fits a signed 64-bit column.
_MOST: Final = (1 << 63) - 1
_PART: Final = re.compile(r"(\d{1,18}(?:\.\d{1,6})?)\s?([A-Za-z]+)")
_BARE: Final = re.compile(r"\d+(\.\d+)?")


def is_off(value: object) -> bool:
    """Say whether a value is one of the words for "no limit"."""
    return isinstance(value, str) and value.strip().lower() in OFF_WORDS


def parse_duration(value: object, key: str = "") -> int:
    """Return whole seconds, ≥ 0, of `"30s"`, `"24h"`, `"1h30m"`, `"4d"`.

    Args:
        value: untrusted; what stood in the file.
        key: where it stood, for the message.

    Raises:
        ConfigError: `config.invalid`: no amount, no unit, or not a whole number of seconds.
    """
    whole, rest = divmod(parse_duration_ms(value, key), 1_000)
    if rest:
        raise _invalid(value, key, "is not a whole number of seconds")
    return whole


def parse_duration_ms(value: object, key: str = "") -> int:
    """Return milliseconds, ≥ 0; like `parse_duration`, with `ms` allowed."""
    return _parse(value, key, _MS, "a duration", ("s", "m", "h"))


def parse_size(value: object, key: str = "") -> int:
    """Return bytes, ≥ 0, of `"64MiB"` (1024) or `"20GB"` (1000).

    Raises:
        ConfigError: `config.invalid`.
    """
    return _parse(value, key, _BYTES, "a size", ("KiB", "MiB", "GiB"))


def parse_rate(value: object, key: str = "") -> int:
    """Return bytes a second, ≥ 0, of `"2MiB/s"`.

    Raises:
        ConfigError: `config.invalid`.
    """
    text = _text(value, key, "a rate", ("KiB/s", "MiB/s", "GiB/s"))
    if not text.endswith("/s"):
        raise _invalid(value, key, 'is not a rate: it ends in "/s", as in "2MiB/s"')
    return parse_size(text.removesuffix("/s").rstrip(), key)


def parse_share(value: object, key: str = "") -> int:
    """Return basis points, 0 to 10,000, of `"10%"`.

    Raises:
        ConfigError: `config.invalid`: not a share, over 100 %, or finer than 0.01 %.
    """
    points = _percent(value, key, "%", "a share")
    if points > 10_000:
        raise _invalid(value, key, "is more than 100%")
    return points


def parse_difference(value: object, key: str = "") -> int:
    """Return basis points of a difference of shares, `"0.25pp"`.

    Raises:
        ConfigError: `config.invalid`.
    """
    return _percent(value, key, "pp", "a difference of shares")


def format_duration(seconds: int) -> str:
    """Write seconds for people, at most two units: `3 h 10 min`, `45 s`, `4 d`. Negative counts as 0."""
    left = max(0, seconds)
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count} {unit}" if count else "")
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if part) or "0 s"


def format_share(basis_points: int) -> str:
    """Write basis points for people: `10 %`, `0.25 %`."""
    return f"{_trim(Decimal(basis_points) / 100)} %"


def format_size(size_bytes: int) -> str:
    """Write bytes for people, in thousands: `6.8 MB`."""
    for unit in ("TB", "GB", "MB", "KB"):
        if size_bytes >= _BYTES[unit]:
            return f"{_trim(round(Decimal(size_bytes) / _BYTES[unit], 1))} {unit}"
    return f"{size_bytes} B"


def _trim(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _parse(
    value: object, key: str, units: dict[str, int], what: str, likely: tuple[str, ...]
) -> int:
    text = _text(value, key, what, likely)
    total = Decimal(0)
    end = 0
    for part in _PART.finditer(text):
        if text[end : part.start()].strip():
            break
        if part[2] not in units:
            raise _invalid(value, key, f'has no unit "{part[2]}"{did_you_mean(part[2], units)}')
        total += Decimal(part[1]) * units[part[2]]
        end = part.end()
    if end == 0 or text[end:].strip():
        raise _invalid(value, key, f'is not {what}, as in "10{likely[1]}"')
    return _whole(total, value, key)


def _percent(value: object, key: str, sign: str, what: str) -> int:
    text = _text(value, key, what, (sign,))
    number = text.removesuffix(sign).rstrip()
    if number == text or not _BARE.fullmatch(number) or len(number) > 12:
        raise _invalid(value, key, f'is not {what}, as in "10{sign}"')
    return _whole(Decimal(number) * 100, value, key)


def _text(value: object, key: str, what: str, likely: tuple[str, ...]) -> str:
    bare = isinstance(value, int | float) and not isinstance(value, bool)
    text = str(value).strip() if bare or isinstance(value, str) else ""
    if bare or _BARE.fullmatch(text):
        readings = ", ".join(f'"{text}{unit}"' for unit in likely)
        raise _invalid(value, key, f"has no unit: {readings}?")
    if not text or len(text) > 64:
        raise _invalid(value, key, f'is not {what}, as in "10{likely[-1]}"')
    return text


def _whole(number: Decimal, value: object, key: str) -> int:
    if number != number.to_integral_value():
        raise _invalid(value, key, "is finer than what can be kept")
    if number > _MOST:
        raise _invalid(value, key, "is too large")
    return int(number)


def _invalid(value: object, key: str, problem: str) -> ConfigError:
    shown = f'"{value}"' if isinstance(value, str) else repr(value)
    where = f"{key}: " if key else ""
    return ConfigError("config.invalid", f"{where}{shown[:80]} {problem}")
