"""`tidegate group`: groups of devices, static or by query."""

from pathlib import Path
from typing import Any

import click
import msgspec

from tidegate.cli._people import rows, show_lines, when
from tidegate.cli._sorting import with_sort
from tidegate.cli.client import with_client
from tidegate.cli.output import Output, give_up, with_list, with_output
from tidegate.client import Client, structs

_FILE = click.Path(path_type=Path)


@click.group("group")
def command() -> None:
    """Put devices into groups, by a list or by a query.

    \b
    tidegate group create pilot --query 'tag:beta and revision >= 3'
    tidegate group create internal --devices bench.txt
    """


@command.command("list")
@with_sort(Client.groups_list)
@with_client
@with_list(structs.GroupFacts)
def list_groups(sort: Any, client: Client, out: Output) -> None:
    """List groups.

    \b
    tidegate group list
    """
    items = rows(out, client.groups_list(sort=sort), lambda one: {"created": when(one.created_at)})
    out.table("groups/1", items, ("name", "query", "members", "created", "created_by"))


@command.command("show")
@click.argument("name")
@with_client
@with_output
def show(name: str, client: Client, out: Output) -> None:
    """Show a group and its devices.

    \b
    tidegate group show pilot
    """
    found = client.groups_show(name)
    devices = [one.id for one in client.devices_list(group=name, limit=500)]
    head = f"{name}   {found.query or 'static'}   {len(devices):,} devices"
    told = {**msgspec.structs.asdict(found), "devices": devices}
    show_lines(out, "group/1", told, [head, *devices])


@command.command("create")
@click.argument("name")
@click.option("--query", metavar="QUERY", help="Members are whatever matches.")
@click.option("--devices", type=_FILE, help="File: one device a line.")
@with_client
@with_output
def create(name: str, query: str | None, devices: Path | None, client: Client, out: Output) -> None:
    """Make a group.

    \b
    tidegate group create pilot --query 'tag:beta'
    """
    listed = devices.read_text().split() if devices else []
    client.groups_create(structs.NewGroup(name=name, query=query, devices=listed))
    out.made(name)


@command.command("edit")
@click.argument("name")
@click.option("--query", metavar="QUERY")
@click.option("--devices", type=_FILE, help="File: one device a line.")
@with_client
@with_output
def edit(name: str, query: str | None, devices: Path | None, client: Client, out: Output) -> None:
    """Replace a group's query or list.

    \b
    tidegate group edit pilot --query 'tag:beta or tag:gamma'
    """
    if (query is None) == (devices is None):
        give_up("request.invalid", "give --query or --devices")
    listed = devices.read_text().split() if devices else None
    found = client.groups_replace(name, structs.GroupChange(query=query, devices=listed))
    show_lines(out, "group/1", found, [f"{name}: {found.query or found.members}"])


@command.command("remove")
@click.argument("name")
@with_client
@with_output
def remove(name: str, client: Client, out: Output) -> None:
    """Remove a group.

    \b
    tidegate group remove pilot
    """
    client.groups_remove(name)
    out.note(f"{name} is removed. Audiences that name it match nobody by it.")
