"""`tidegate notify`: webhooks and mail, what was delivered and what was not."""

from typing import Any

import click

from tidegate.cli._people import rows, show_lines, when
from tidegate.cli._sorting import with_sort
from tidegate.cli.client import with_client
from tidegate.cli.output import Output, with_list, with_output
from tidegate.client import Client, structs


@click.group("notify")
def command() -> None:
    """See what webhooks and mail were sent, send it again, and try them.

    \b
    tidegate notify list --state dead
    tidegate notify test ops
    """


@command.command("list")
@click.option("--state", type=click.Choice(["waiting", "retrying", "delivered", "dead"]))
@with_sort(Client.notifications_list)
@with_client
@with_list(structs.NoticeFacts)
def list_notices(state: str | None, sort: Any, client: Client, out: Output) -> None:
    """List messages, newest first: which arrived, which are tried again, and which were given up.

    \b
    tidegate notify list
    tidegate notify list --state dead --json
    """
    items = rows(out, client.notifications_list(state=state, sort=sort, limit=200), _row)
    columns = ("number", "state", "channel", "event", "about", "tries", "owed", "again", "error")
    out.table("notifications/1", items, columns)
    channels = client.notifications_list(limit=1).first().channels
    for one in channels:
        events = ", ".join(one.events) or "every event"
        out.note(f"Channel {one.name}: {one.kind}, {one.place}, {events}")
    if not channels:
        out.note("No channel: add [[webhook]] or [[mail]] to tidegate.toml.")


def _row(one: structs.NoticeFacts) -> dict[str, object]:
    return {"owed": when(one.created_at), "again": when(one.next_at)}


@command.command("replay")
@click.argument("number", type=int)
@with_client
@with_output
def replay(number: int, client: Client, out: Output) -> None:
    """Deliver a message once more, under the same id; a receiver that has seen it may drop it.

    \b
    tidegate notify replay 42
    """
    found = client.notifications_replay(number)
    show_lines(out, "notification/1", found, [f"{number} to {found.channel}: {found.state}"])


@command.command("test")
@click.argument("channel")
@with_client
@with_output
def test(channel: str, client: Client, out: Output) -> None:
    """Send a channel a message that says nothing but that it is one.

    \b
    tidegate notify test ops
    """
    found = client.notifications_test(structs.NewTest(channel=channel))
    show_lines(out, "notification-test/1", found, [f"Owed to {channel}."])
    out.note("Next: tidegate notify list")
