"""Settings of gates: what each may be, read from what people wrote. Amounts carry their unit (`core.amounts`)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from tidegate.core import amounts
from tidegate.core.errors import ConfigError, RequestError
from tidegate.core.nearest import did_you_mean

Value: TypeAlias = int | float | str
Kind: TypeAlias = Literal["share", "duration", "count", "ratio", "text"]

_MOST_COUNT: Final = 1_000_000_000
_MOST_TEXT: Final = 100


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a gate: its kind, its default as it would be written, and what it means, in one line."""

    kind: Kind
    default: Value
    help: str

    def read(self, value: object, key: str) -> Value:
        """Return the value in code: a share in basis points, a duration in seconds.

        Raises:
            ConfigError: `config.invalid`, naming the key.
        """
        return _READERS[self.kind](value, key)


def read_settings(
    known: Mapping[str, Setting], given: Mapping[str, object], key: str
) -> dict[str, Value]:
    """Return every known setting, the given ones read, the others at their default.

    Args:
        known: the gate's own table.
        given: untrusted.
        key: where they stand, for messages: `ring pilot, gate soak`.

    Raises:
        RequestError: `request.invalid`: unknown name (with the nearest) or bad value.
    """
    for name in given:
        if name not in known:
            near = did_you_mean(str(name), known)
            raise RequestError("request.invalid", f'{key}: no setting "{str(name)[:40]}"{near}')
    try:
        return {
            name: setting.read(given.get(name, setting.default), f"{key}, {name}")
            for name, setting in known.items()
        }
    except ConfigError as error:
        raise RequestError("request.invalid", error.detail) from error


def _count(value: object, key: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST_COUNT:
        raise ConfigError(
            "config.invalid", f"{key}: {value!r:.40} is not a whole number, 0 or more"
        )
    return value


def _ratio(value: object, key: str) -> float:
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
    if not 1.0 <= number <= _MOST_COUNT:
        raise ConfigError("config.invalid", f"{key}: {value!r:.40} is not a number from 1 on")
    return number


def _text(value: object, key: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _MOST_TEXT:
        raise ConfigError("config.invalid", f"{key}: {value!r:.40} is not a word")
    return value


_READERS: Final[dict[Kind, Callable[[object, str], Value]]] = {
    "share": amounts.parse_share,
    "duration": amounts.parse_duration,
    "count": _count,
    "ratio": _ratio,
    "text": _text,
}
