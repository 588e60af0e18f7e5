"""`tidegate incident`: an incident and its story."""

from pathlib import Path

import click

from tidegate.cli._incident_grant import grant, grant_lines
from tidegate.cli._people import API, quoted, show_lines, when
from tidegate.cli.client import Client, with_client
from tidegate.cli.output import Output, give_up, with_output


@click.group("incident")
def command() -> None:
    """Tell what happened after a halt, an isolation or a fallback.

    \b
    tidegate incident list
    tidegate incident show INC-2026-014
    """


command.add_command(grant)


@command.command("list")
@click.option("--state", type=click.Choice(["open", "closed"]))
@with_client
@with_output
def list_incidents(state: str | None, client: Client, out: Output) -> None:
    """List incidents, newest first.

    \b
    tidegate incident list --state open
    """
    items = list(client.pages(f"{API}/incidents", {"state": state, "limit": 200}))
    rows = items if out.json else [{**one, "opened": when(one["opened_at"])} for one in items]
    columns = ("name", "state", "kind", "opened", "rollout", "opened_by", "summary")
    out.table("incidents/1", rows, columns)


@command.command("show")
@click.argument("name")
@with_client
@with_output
def show(name: str, client: Client, out: Output) -> None:
    """Show an incident's report.

    \b
    tidegate incident show INC-2026-014
    """
    path = f"{API}/incidents/{quoted(name)}"
    found = client.get(path)
    text = "" if out.json else str(client.get(f"{path}/export", {"format": "md"}))
    lines = text.rstrip().split("\n")
    if found["grants"]:
        lines += ["", "Grants of a way back", *grant_lines(found["grants"])]
    show_lines(out, "incident/1", found, lines)
    if found["report"]["missing"]:
        out.note(f"Missing: {', '.join(found['report']['missing'])}")
        out.note(f"Next: tidegate incident note {name} --action TEXT")


@command.command("note")
@click.argument("name")
@click.argument("text", required=False)
@click.option("--action", metavar="TEXT", help="What was done so that it does not happen again.")
@with_client
@with_output
def note(name: str, text: str | None, action: str | None, client: Client, out: Output) -> None:
    """Write a note or a corrective action into an incident.

    \b
    tidegate incident note INC-2026-014 "modem firmware 3.1 is to blame"
    tidegate incident note INC-2026-014 --action "the contract now checks the modem"
    """
    if (text is None) == (action is None):
        give_up("request.invalid", "give a TEXT, or --action TEXT")
    body = {"text": action or text, "kind": "action" if action else "note"}
    found = client.post(f"{API}/incidents/{quoted(name)}/notes", body)
    show_lines(out, "incident/1", found, [f"{name}: written down"])


@command.command("close")
@click.argument("name")
@click.option("--reason", metavar="TEXT", default="")
@with_client
@with_output
def close(name: str, reason: str, client: Client, out: Output) -> None:
    """Close an incident that has a corrective action.

    \b
    tidegate incident close INC-2026-014
    """
    found = client.post(f"{API}/incidents/{quoted(name)}/close", {"reason": reason})
    show_lines(out, "incident/1", found, [f"{name} is {found['state']}"])


@command.command("export")
@click.argument("name")
@click.option(
    "--format", "form", type=click.Choice(["md", "html", "json"]), default="md", show_default=True
)
@click.option("--out", "target", type=click.Path(path_type=Path), help="A file [stdout].")
@with_client
@click.option("-q", "--quiet", is_flag=True, help="No notes.")
def export(name: str, form: str, target: Path | None, quiet: bool, client: Client) -> None:
    """Write an incident's report as Markdown, HTML or JSON.

    \b
    tidegate incident export INC-2026-014 --format html --out inc-014.html
    tidegate incident export INC-2026-014 --format json
    """
    import json

    found = client.get(f"{API}/incidents/{quoted(name)}/export", {"format": form})
    text = json.dumps(found, ensure_ascii=False) + "\n" if form == "json" else str(found)
    if target is None:
        click.echo(text, nl=False)
        return
    target.write_text(text)
    if not quiet:
        click.echo(f"Written {target}.", err=True)
