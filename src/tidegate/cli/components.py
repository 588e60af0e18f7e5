"""`tidegate components`: which releases and devices have a part, below a version."""

import itertools
from collections.abc import Iterable
from typing import Any, Final, TypeVar

import click
from msgspec.structs import asdict

from tidegate.cli._people import when
from tidegate.cli._supply import csv_text
from tidegate.cli.client import with_client
from tidegate.cli.output import Output, printable, render_table, with_output
from tidegate.client import Client, structs
from tidegate.core.amounts import parse_duration

_PARTS: Final = ("name", "version", "release", "component", "devices")
_DEVICES: Final = ("device", "variant", "ring", "release", "part", "version", "since")

T = TypeVar("T")


@click.group("components")
def command() -> None:
    """Find what releases are made of, and the devices that run it.

    \b
    tidegate components find openssl --below 3.0.17
    tidegate components find openssl --below 3.0.17 --devices --csv
    """


@command.command("find")
@click.argument("name")
@click.option("--below", metavar="VERSION", help="Only older ones, as its packaging orders them.")
@click.option("--product", metavar="PRODUCT", help="Only in this product.")
@click.option("--release", metavar="RELEASE", help="Only in this release.")
@click.option("--devices", "by_device", is_flag=True, help="List the devices.")
@click.option("--variant", metavar="VARIANT", help="With --devices: only of this variant.")
@click.option("--ring", metavar="RING", help="With --devices: only those that confirmed it there.")
@click.option("--for", "at_least", metavar="TIME", help="With --devices: run it for so long, 30d.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
@click.option("--csv", "as_csv", is_flag=True, help="CSV on stdout; no cell is a formula.")
@with_client
@with_output
def find(
    name: str,
    below: str | None,
    by_device: bool,
    at_least: str | None,
    limit: int,
    as_csv: bool,
    client: Client,
    out: Output,
    **where: str | None,
) -> None:
    """Find a part by its name or package URL.

    \b
    tidegate components find openssl --below 3.0.17
    tidegate components find pkg:deb/debian/openssl --devices --ring fleet --for 30d
    """
    asked = {"product": where["product"], "release": where["release"]}
    if by_device:
        parts = client.components_devices_list(
            name=name,
            below=below,
            variant=where["variant"],
            ring=where["ring"],
            at_least_s=None if at_least is None else parse_duration(at_least, "--for"),
            limit=min(limit, 500),
            **asked,
        )
        _devices(parts, limit, as_csv, out)
        return
    if where["variant"] or where["ring"] or at_least:
        raise click.UsageError("--variant, --ring and --for go with --devices")
    listing = client.components_list(name=name, below=below, limit=min(limit, 500), **asked)
    if as_csv:
        items, _ = _cut(listing, limit)
        click.echo(csv_text((*_PARTS, "purl"), [asdict(one) for one in items]), nl=False)
        return
    found = listing.first()
    out.data("components/1", found, _told(found, name, below))
    if not out.json and found.next:
        out.note(f"{found.items_in_all:,} parts match: --limit, or --csv for all.")


def _devices(found: Iterable[structs.DeviceFacts], limit: int, as_csv: bool, out: Output) -> None:
    items, more = _cut(found, limit)
    rows = [{**asdict(one), "device": one.id, "since": when(one.since)} for one in items]
    if as_csv:
        click.echo(csv_text((*_DEVICES, "site"), rows), nl=False)
    else:
        shown: list[Any] = list(items) if out.json else rows
        out.table("component-devices/1", shown, _DEVICES, empty="no device runs such a part")
    if more:
        out.note(f"There are more than {limit:,}: --limit, or narrower.")


def _cut(items: Iterable[T], limit: int) -> tuple[list[T], bool]:
    found = list(itertools.islice(items, limit + 1))
    return found[:limit], len(found) > limit


def _told(found: structs.Components, name: str, below: str | None) -> str:
    what = f"{name} below {below}" if below else name
    lines = [f"{found.devices:,} devices run {printable(what)}."]
    if found.items:
        rows = [[printable(str(getattr(one, key))) for key in _PARTS] for one in found.items]
        lines += ["", render_table(_PARTS, rows)]
    if found.groups:
        heads = ("variant", "ring", "devices", "since")
        groups = [
            [
                printable(one.variant),
                printable(one.ring) or "-",
                str(one.devices),
                when(one.first_at),
            ]
            for one in found.groups
        ]
        lines += ["", render_table(heads, groups)]
    if found.near:
        lines.append(f"There are parts called {printable(', '.join(found.near))}.")
    if found.unknown:
        lines += [
            "",
            f"{found.unknown:,} devices run a release without a bill of materials: unknown.",
        ]
    if any(not one.sure for one in found.items):
        lines += ["", "A part without a version counts as older."]
    return "\n".join(lines)
