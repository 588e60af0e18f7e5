"""Read those values of `agent.toml` that say how bytes may come and what may wait. `agent.config` names them; all of it is the site's own word."""

from typing import Final
from urllib.parse import urlsplit

from tidegate.core import amounts
from tidegate.core.errors import ConfigError

METERED: Final = ("allow", "deny", "security-only")


def metered(value: object, key: str) -> str:
    """Read what a metered link is used for."""
    if value not in METERED:
        raise ConfigError(
            "config.invalid", f'{key} = {value!r}: "allow", "deny" or "security-only"'
        )
    return str(value)


def mirrors(value: object, key: str) -> tuple[str, ...]:
    """Read the base addresses of mirrors, in their order."""
    found = [one.strip() for one in value.split(",")] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ConfigError("config.invalid", f"{key}: a list of addresses belongs here")
    for one in found:
        parts = urlsplit(one)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise ConfigError(
                "config.invalid",
                f"{key}: {one[:80]!r} is no address such as http://cache.site:8080/ota",
            )
        if "@" in parts.netloc:
            raise ConfigError("config.invalid", f"{key}: a mirror is asked without a password")
    return tuple(found)


def limit(value: object, key: str) -> int | None:
    """Read a duration; None for the word `never`."""
    return None if value == "never" or amounts.is_off(value) else amounts.parse_duration(value, key)
