"""`tidegate upload`: files on their way to the server, and those that somebody gave up."""

import click

from tidegate.cli._people import rows, when
from tidegate.cli.client import with_client
from tidegate.cli.output import Output, with_list, with_output
from tidegate.client import Client, structs
from tidegate.core.amounts import format_size


@click.group("upload")
def command() -> None:
    """Look after bundles that are on their way to the server.

    `tidegate release publish` begins them, and goes on with them when it is called again.

    \b
    tidegate upload list
    tidegate upload abort 5f0c8a1b2c3d4e5f5f0c8a1b2c3d4e5f
    """


@command.command("list")
@with_client
@with_list(structs.Upload)
def list_uploads(client: Client, out: Output) -> None:
    """List files on their way, and those that came to an end lately.

    \b
    tidegate upload list
    """
    items = rows(out, client.uploads_list().items, _row)
    columns = ("id", "state", "here", "created_by", "begun", "forgotten", "outcome")
    out.table("uploads/1", items, columns, empty="nothing is on its way")


@command.command("abort")
@click.argument("upload_id", metavar="ID")
@with_client
@with_output
def abort(upload_id: str, client: Client, out: Output) -> None:
    """Forget a file that is on its way, with all that arrived of it; room for others is free again.

    What it published stays published.

    \b
    tidegate upload abort 5f0c8a1b2c3d4e5f5f0c8a1b2c3d4e5f
    """
    client.uploads_remove(upload_id)
    out.note(f"{upload_id} is forgotten.")


def _row(one: structs.Upload) -> dict[str, object]:
    percent = 100 * one.offset // one.length if one.length else 100
    return {
        "here": f"{percent} % of {format_size(one.length)}",
        "begun": when(one.created_at),
        "forgotten": when(one.expires_at),
        "outcome": one.code or (_brought(one.published) if one.published else ""),
    }


def _brought(found: structs.Published) -> str:
    """Say what a bundle brought; one that was here before brings nothing."""
    return ", ".join((*found.releases, *found.roles, *found.withdrawn)) or "was here before"
