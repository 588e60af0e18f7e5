"""Which server a command talks to, and who asks.

Where to: `--server`, `TIDEGATE_SERVER`, the profile in `~/.config/tidegate/config.toml`, `http://127.0.0.1:8440`. Who: `TIDEGATE_TOKEN`, `TIDEGATE_TOKEN_FILE`,
the file `~/.config/tidegate/PROFILE.token`, and for a server on this machine the token that it made for whoever may read its data directory. A token is never
an option, so that it stays out of `ps` and of shell histories.
"""

import functools
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar
from urllib.parse import urlsplit

import click

from tidegate.client import Client
from tidegate.core.errors import ConfigError

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_SERVER: Final = "http://127.0.0.1:8440"
_LOCAL: Final = frozenset({"127.0.0.1", "::1", "localhost"})


# --- which server, who asks ---------------------------------------------------------------------------------------------


def settings_dir() -> Path:
    """Return where people's own settings lie."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "tidegate"


def find_client(server: str | None, profile: str | None) -> Client:
    """Make the client that options, environment and profile name, in this order.

    Raises:
        ConfigError: `config.*`: the settings cannot be read, or the profile is not in them.
    """
    plain = _settings()
    name = profile or os.environ.get("TIDEGATE_PROFILE") or str(plain.get("profile", "default"))
    profiles = plain.get("profiles", {})
    found = profiles.get(name, {}) if isinstance(profiles, dict) else {}
    if profile and not found:
        raise ConfigError(
            "config.invalid", f'{settings_dir() / "config.toml"}: no profile "{name}"'
        )
    where = str(
        server or os.environ.get("TIDEGATE_SERVER") or found.get("server") or DEFAULT_SERVER
    )
    named = os.environ.get("TIDEGATE_CA") or found.get("ca")
    ca = settings_dir() / str(named) if named else _beside(where, "tls/ca.pem")
    token = _token(name)
    local = _beside(where, "bootstrap.token") if token is None else None
    return Client(where, _read_token(local) if local else token, ca=ca)


def _beside(server: str, name: str) -> Path | None:
    """Return a file of the data directory of a server on this machine, if there is one that this user may read."""
    if urlsplit(server).hostname not in _LOCAL:
        return None
    path = Path(os.environ.get("TIDEGATE_DATA_DIR") or "tidegate-data") / name
    return path if os.access(path, os.R_OK) else None


def _settings() -> dict[str, Any]:
    path = settings_dir() / "config.toml"
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError("config.unreadable", f"{path}: {error}") from error


def _token(profile: str) -> str | None:
    if token := os.environ.get("TIDEGATE_TOKEN"):
        return token.strip()
    named = os.environ.get("TIDEGATE_TOKEN_FILE")
    path = Path(named) if named else settings_dir() / f"{profile}.token"
    if named is None and not path.exists():
        return None
    return _read_token(path)


def _read_token(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except (OSError, ValueError) as error:
        raise ConfigError("config.unreadable", f"{path}: {error}") from error


def save_token(profile: str, token: str) -> Path:
    """Keep a token for a profile, readable for this user only."""
    folder = settings_dir()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{profile}.token"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(token + "\n")
    path.chmod(0o600)
    return path


def with_client(function: Callable[P, R]) -> Callable[..., R]:
    """Give a command `--server` and `--profile`, and the argument `client`."""

    @click.option("--server", metavar="URL", help="The control plane (TIDEGATE_SERVER).")
    @click.option("--profile", metavar="NAME", help="A named server (TIDEGATE_PROFILE).")
    @functools.wraps(function)
    def command(*args: Any, server: str | None, profile: str | None, **kwargs: Any) -> R:
        return function(*args, client=find_client(server, profile), **kwargs)  # type: ignore[arg-type]

    return command
