"""`tidegate notify`: webhooks and mail, what was delivered and what was not."""

import click

from tidegate.cli._people import API, show_lines, when
from tidegate.cli.client import Client, with_client
from tidegate.cli.output import Output, with_output


@click.group("notify")
def command() -> None:
    """See what webhooks and mail were sent, send it again, and try them.

    \b
    tidegate notify list --state dead
    tidegate notify test ops
    """


@command.command("list")
@click.option("--state", type=click.Choice(["waiting", "retrying", "delivered", "dead"]))
@with_client
@with_output
def list_notices(state: str | None, client: Client, out: Output) -> None:
    """List messages, newest first: which arrived, which are tried again, and which were given up.

    \b
    tidegate notify list
    tidegate notify list --state dead --json
    """
    path, asked = f"{API}/notifications", {"state": state, "limit": 200}
    items = list(client.pages(path, asked))
    rows = items if out.json else [_row(one) for one in items]
    columns = ("number", "state", "channel", "event", "about", "tries", "owed", "again", "error")
    out.table("notifications/1", rows, columns)
    channels = client.get(path, {"limit": 1})["channels"]
    for one in channels:
        out.note(
            f"Channel {one['name']}: {one['kind']}, {one['place']}, {', '.join(one['events']) or 'every event'}"
        )
    if not channels:
        out.note("No channel: add [[webhook]] or [[mail]] to tidegate.toml.")


def _row(one: dict[str, object]) -> dict[str, object]:
    return {**one, "owed": when(one["created_at"]), "again": when(one["next_at"])}


@command.command("replay")
@click.argument("number", type=int)
@with_client
@with_output
def replay(number: int, client: Client, out: Output) -> None:
    """Deliver a message once more, under the same id; a receiver that has seen it may drop it.

    \b
    tidegate notify replay 42
    """
    found = client.post(f"{API}/notifications/{number}/replay", {})
    show_lines(out, "notification/1", found, [f"{number} to {found['channel']}: {found['state']}"])


@command.command("test")
@click.argument("channel")
@with_client
@with_output
def test(channel: str, client: Client, out: Output) -> None:
    """Send a channel a message that says nothing but that it is one.

    \b
    tidegate notify test ops
    """
    found = client.post(f"{API}/notifications/test", {"channel": channel})
    show_lines(out, "notification-test/1", found, [f"Owed to {channel}."])
    out.note("Next: tidegate notify list")
