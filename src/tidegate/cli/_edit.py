"""What `rollout edit` changes: a whole policy file, or single parts."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from tidegate.cli._people import read_toml
from tidegate.rollout import gate_texts

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS: Final = (
    click.option("--preset", metavar="PRESET", help="Steps, gates and guards of another preset."),
    click.option(
        "--steps", multiple=True, metavar="RING=SHARES", help="As in fleet=1%,10%,100%; repeatable."
    ),
    click.option("--audience", metavar="QUERY", help="Whom it means; rest = all of the product."),
    click.option(
        "--ring-audience",
        multiple=True,
        metavar="RING=QUERY",
        help="As in pilot=group:pilot; repeatable.",
    ),
    click.option(
        "--gates",
        multiple=True,
        metavar="RING=GATES",
        help="As in 'fleet=soak time=24h; minimum_sample healthy=50', or fleet=none; repeatable.",
    ),
    click.option(
        "--guards", metavar="GATES", help="Gates that hold for every ring, in the same way."
    ),
    click.option("--in-flight", metavar="COUNT|none", help="Permits out at once, at most."),
    click.option("--first", metavar="COUNT|none", help="Permits before anything is proved."),
    click.option("--priority", type=int, metavar="NUMBER", help="Of several rollouts the highest."),
    click.option("--activate", metavar="WINDOWS", help="As in 'Sat 02:00-05:00; Sun 02:00-05:00'."),
    click.option("--download", metavar="WINDOWS", help="The same of downloads."),
    click.option("--rate", metavar="RATE", help="As in 1MiB/s, or none."),
)


_LIKE: Final = {
    "steps": "a ring and its shares, as in fleet=1%,10%,100%",
    "ring_audience": "a ring and its query, as in pilot=group:pilot",
    "gates": "a ring and its gates, as in 'fleet=soak time=24h'",
}


def parts(function: F) -> F:
    """Give a command the options that change single parts."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def body_of(file: Path | None, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the method and the body of the call.

    Args:
        file: a policy file; None = single parts.
        given: what `parts` took.

    Raises:
        click.UsageError: both, or neither.
    """
    body = _body(given)
    if (file is None) == (not body):
        raise click.UsageError("name a policy file, or what is to change")
    return ("PATCH", body) if file is None else ("PUT", read_toml(file))


def _body(given: dict[str, Any]) -> dict[str, Any]:
    body = {key: given[key] for key in ("preset", "audience", "priority") if given[key] is not None}
    if given["guards"] is not None:
        body["guards"] = gate_texts.read(given["guards"], "--guards")
    tables = {
        "steps": {name: _shares(text) for name, text in _rings(given, "steps")},
        "audiences": dict(_rings(given, "ring_audience")),
        "gates": {
            name: gate_texts.read(text, f"--gates {name}") for name, text in _rings(given, "gates")
        },
        "flow": _said(given, (("in_flight", _count), ("first", _count))),
        "windows": _said(given, (("activate", _windows), ("download", _windows))),
        "delivery": _said(given, (("rate", str),)),
    }
    return body | {key: table for key, table in tables.items() if table}


def _said(
    given: dict[str, Any], names: Iterable[tuple[str, Callable[[str], Any]]]
) -> dict[str, Any]:
    return {name: read(given[name]) for name, read in names if given[name] is not None}


def _rings(given: dict[str, Any], key: str) -> Iterator[tuple[str, str]]:
    for text in given[key]:
        name, mark, value = text.partition("=")
        if not mark or not name.strip() or not value.strip():
            option = key.replace("_", "-")
            raise click.UsageError(f"--{option} {text}: {_LIKE[key]}")
        yield name.strip(), value.strip()


def _shares(text: str) -> list[str]:
    return [one.strip() for one in text.split(",")]


def _count(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _windows(text: str) -> list[str] | str:
    found = [one.strip() for one in text.split(";") if one.strip()]
    return "any" if found in ([], ["any"]) else found
