"""How single values of `tidegate.toml` are read (untrusted): each by the key that mistakes are told under."""

import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tidegate.core.amounts import is_off, parse_duration, parse_rate
from tidegate.core.errors import ConfigError
from tidegate.core.nearest import did_you_mean
from tidegate.server.actors import ROLES

#: Reads a value, for whoever tells mistakes by the key. Raises `ConfigError`: `config.invalid`.
Reader = Callable[[object, str], Any]
#: Nothing is forgotten sooner, in seconds.
_LASTING_MIN_S: Final = 86_400


def split_listen(text: str, key: str = "[http] listen") -> tuple[str, int]:
    """Return host and port of `host:port`, `[::1]:8440`.

    Raises:
        ConfigError: `config.invalid`.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ConfigError("config.invalid", f'{key}: "{text}" is not host:port')
    return host.strip("[]"), int(port)


def word(value: object, key: str) -> str:
    """Read a text."""
    if not isinstance(value, str):
        raise ConfigError("config.invalid", f"{key}: a text in quotes is wanted")
    return value


def words(value: object, key: str) -> tuple[str, ...]:
    """Read a list of texts, or one text with commas."""
    found = value.split(",") if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ConfigError("config.invalid", f"{key}: a list of texts is wanted")
    return tuple(one.strip() for one in found if one.strip())


def attributes(value: object, key: str) -> tuple[str, ...]:
    """Read names of devices' own attributes: at most 4."""
    found = words(value, key)
    for one in found:
        if not one.startswith("attr.") or not 5 < len(one) <= 69:
            raise ConfigError("config.invalid", f'{key}: "{one[:40]}" is not attr.NAME')
    if len(found) > 4 or len(set(found)) != len(found):
        raise ConfigError("config.invalid", f"{key}: at most 4 attributes, each once")
    return found


def number(value: object, key: str) -> int:
    """Read a whole number from 0 on."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ConfigError("config.invalid", f"{key}: a whole number is wanted")
    return value


def yes(value: object, key: str) -> bool:
    """Read true or false."""
    found = {"true": True, "false": False}.get(value) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise ConfigError("config.invalid", f"{key}: true or false is wanted")
    return found


def rate(value: object, key: str) -> int:
    """Read bytes a second; `off` or `none` is 0."""
    return 0 if is_off(value) else parse_rate(value, key)


def networks(value: object, key: str) -> tuple[str, ...]:
    """Read addresses of networks."""
    try:
        return tuple(str(ipaddress.ip_network(one)) for one in words(value, key))
    except ValueError as error:
        raise ConfigError("config.invalid", f"{key}: {error}") from error


def lasting(value: object, key: str) -> int:
    """Read how long something is kept; `never` forgets nothing."""
    if value == "never":
        return 0
    found = parse_duration(value, key)
    if found < _LASTING_MIN_S:
        raise ConfigError("config.invalid", f"{key}: at least 1d, or never")
    return found


def life(value: object, key: str) -> int:
    """Read a duration; `off` or `none` is 0."""
    return 0 if is_off(value) else parse_duration(value, key)


def roles(value: object, key: str) -> tuple[str, ...]:
    """Read names of roles."""
    return tuple(choice(*ROLES)(one, key) for one in words(value, key))


def choice(*allowed: str) -> Reader:
    """Make what reads one of these words."""

    def read(value: object, key: str) -> str:
        found = word(value, key)
        if found not in allowed:
            raise ConfigError("config.invalid", f'{key}: "{found}"{did_you_mean(found, allowed)}')
        return found

    return read


def choices(*allowed: str) -> Reader:
    """Make what reads a list of these words."""

    def read(value: object, key: str) -> tuple[str, ...]:
        return tuple(choice(*allowed)(one, key) for one in words(value, key))

    return read


def folder(value: object, key: str) -> Path:
    """Read a path; `~` is one's home."""
    return Path(word(value, key)).expanduser()


def listen(value: object, key: str) -> str:
    """Read HOST:PORT."""
    text = word(value, key)
    split_listen(text, key)
    return text
