"""What the commands of operators share: how an act is confirmed, how times and tables look, how a policy file is read."""

import datetime as dt
import sys
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from tidegate.cli.output import Output, need_confirmation, printable
from tidegate.client import Client
from tidegate.core.errors import ConfigError, RequestError

API = "/api/v1"
T = TypeVar("T", bound=msgspec.Struct)


def when(at: object) -> str:
    """Write unix seconds for people, in UTC; a dash where there is none."""
    if not isinstance(at, int) or not at:
        return "-"
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d %H:%M")


def quoted(name: str) -> str:
    """Return a name as one part of a path."""
    from urllib.parse import quote

    return quote(name, safe="")


def read_toml(path: Path) -> dict[str, Any]:
    """Read a policy file; times become text.

    Raises:
        ConfigError: `config.unreadable`, `config.invalid`.
    """
    try:
        found = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError("config.unreadable", f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("config.invalid", f"{path}: {error}") from error
    plain: dict[str, Any] = _plain(found)
    return plain


def confirm(
    client: Client, out: Output, what: str, devices: int, *, yes: bool, reason: str | None
) -> str:
    """Say what an act reaches, ask for the number of devices, and return the reason.

    Raises:
        RequestError: `request.confirmation_needed`.
    """
    out.note(what)
    if yes and reason:
        return reason
    if not yes and sys.stdin.isatty():
        out.note(f"Server {client.server}.")
        reason = reason or click.prompt("Why?", err=True)
    need_confirmation(
        f"To go on, type the number of devices it reaches: {devices}",
        str(devices),
        yes=yes,
        reason=reason,
    )
    return reason or ""


def need_reason(reason: str | None) -> str:
    """Return the reason of an act that cannot be undone, asked for on a terminal.

    Raises:
        RequestError: `request.confirmation_needed`.
    """
    if reason and reason.strip():
        return reason
    if sys.stdin.isatty():
        return str(click.prompt("Why?", err=True))
    raise RequestError("request.confirmation_needed", "give --reason: it cannot be undone")


def rows(
    out: Output, items: Iterable[T], more: Callable[[T], dict[str, object]]
) -> list[T] | list[dict[str, object]]:
    """Return the rows of a table: things as they are for programs, with `more` columns of each for people."""
    if out.json:
        return list(items)
    return [{**msgspec.structs.asdict(one), **more(one)} for one in items]


def show_lines(out: Output, schema: str, value: object, lines: list[str]) -> None:
    """Print one thing: as JSON, or these lines (untrusted text made harmless)."""
    out.data(schema, value, "\n".join(printable(line) for line in lines))


def fields(pairs: list[tuple[str, object]]) -> list[str]:
    """Lay out names and values in two columns; empty values are left out."""
    known = [(name, str(value)) for name, value in pairs if value not in {None, "", "-"}]
    width = max((len(name) for name, _ in known), default=0)
    return [f"  {name.ljust(width)}  {value}" for name, value in known]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    return value
