"""The address of a database server in the settings, and its password: where it may stand, and that no error repeats it."""

from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, quote, urlsplit

from tidegate.core.errors import ConfigError

#: Settings from the environment are named so; others stand where people may read them.
_ENVIRONMENT: Final = "TIDEGATE_"


def read(value: object, key: str) -> str:
    """Return an address from the settings: with a password in the environment alone.

    Raises:
        ConfigError: `config.invalid`; not a word of the address is repeated.
    """
    if not isinstance(value, str):
        raise ConfigError("config.invalid", f"{key}: a text in quotes is wanted")
    if key.startswith(_ENVIRONMENT):
        _split(value, key)
    else:
        require_no_password(value, key)
    return value


def require_no_password(address: str, key: str) -> None:
    """Make sure that this is the address of a database, and holds no password.

    Raises:
        ConfigError: `config.invalid`; not a word of the address is repeated.
    """
    found = _split(address, key)
    if found.password or "password=" in found.query:
        raise ConfigError(
            "config.invalid",
            f"{key}: no password here, where others may read it: [database] password_file, or TIDEGATE_DATABASE_URL",
        )


def _split(address: str, key: str) -> SplitResult:
    try:
        found = urlsplit(address)
        _ = found.password
    except ValueError:
        raise ConfigError("config.invalid", f"{key}: this is not an address") from None
    if found.scheme not in {"postgresql", "postgres"}:
        raise ConfigError("config.invalid", f"{key}: postgresql://USER@HOST/DATABASE is wanted")
    return found


def with_password(address: str, password_file: str) -> str:
    """Return an address with the password that a file holds, where one is named; secret.

    Raises:
        ConfigError: `config.unreadable`.
    """
    if not address or not password_file:
        return address
    try:
        password = Path(password_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "config.unreadable", f"[database] password_file: {password_file}"
        ) from error
    mark = "&" if urlsplit(address).query else "?"
    return f"{address}{mark}password={quote(password, safe='')}"
