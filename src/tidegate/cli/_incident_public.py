"""The part of `tidegate incident` that tells the world."""

import click
from msgspec.structs import asdict

from tidegate.cli._people import need_reason, show_lines
from tidegate.cli.client import with_client
from tidegate.cli.output import Output, printable, with_output
from tidegate.client import Client, structs


@click.command("publish")
@click.argument("name")
@click.option("--summary", metavar="TEXT", help="What happened, in words for those it hit.")
@click.option("--title", metavar="TEXT", help="[what was done to which release]")
@click.option("--impact", metavar="TEXT", help="[rounded counts]")
@click.option("--action", metavar="TEXT", help="[the newest corrective action]")
@click.option("--dry-run", is_flag=True, help="Show what would be said; publish nothing.")
@with_client
@with_output
def publish(
    name: str,
    summary: str | None,
    title: str | None,
    impact: str | None,
    action: str | None,
    dry_run: bool,
    client: Client,
    out: Output,
) -> None:
    """Put an incident on the status page, or change what it says there. A text that names a device is refused.

    \b
    tidegate incident publish INC-2026-014 --dry-run
    tidegate incident publish INC-2026-014 --summary "Some gateways lost their link."
    """
    given = {"title": title, "summary": summary, "impact": impact, "action": action}
    said = {key: value for key, value in given.items() if value is not None}
    found = client.incidents_show(name)
    before = asdict(found.publication) if found.publication is not None else {}
    whole = {**asdict(found.proposal), **before, **said}
    lines = [f"{key.capitalize():<8} {printable(str(whole[key]) or '-')}" for key in given]
    if dry_run:
        show_lines(out, "publication/1", {key: whole[key] for key in given}, lines)
        return
    done = client.incidents_publish(name, structs.NewPublication(**said))
    show_lines(out, "incident/1", done, [f"{name} is published", *lines])
    if not found.public:
        out.note("This server shows no status page: set [status] public in tidegate.toml.")


@click.command("publish-update")
@click.argument("name")
@click.argument("text")
@with_client
@with_output
def publish_update(name: str, text: str, client: Client, out: Output) -> None:
    """Add a line to what the status page says of an incident.

    \b
    tidegate incident publish-update INC-2026-014 "All gateways are back."
    """
    found = client.incidents_publish_update(name, structs.NewUpdate(text=text))
    show_lines(out, "incident/1", found, [f"{name}: the status page has one line more"])


@click.command("unpublish")
@click.argument("name")
@click.option("--reason", metavar="TEXT", help="Why; it stays in the audit log.")
@with_client
@with_output
def unpublish(name: str, reason: str | None, client: Client, out: Output) -> None:
    """Take an incident off the status page.

    \b
    tidegate incident unpublish INC-2026-014 --reason "wrong release named"
    """
    why = structs.Withdrawal(reason=need_reason(reason))
    found = client.incidents_unpublish(name, why)
    show_lines(out, "incident/1", found, [f"{name} is not on the status page"])
