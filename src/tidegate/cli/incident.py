"""`tidegate incident`: an incident and its story."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import msgspec

from tidegate.cli._incident_grant import grant, grant_lines
from tidegate.cli._incident_public import publish, publish_update, unpublish
from tidegate.cli._people import rows, show_lines, when
from tidegate.cli._sorting import with_sort
from tidegate.cli.client import with_client
from tidegate.cli.output import Output, give_up, with_list, with_output
from tidegate.client import Client, structs

_SEVERITY = click.Choice(["critical", "major", "minor"])
_LISTS = ("affected", "exposed", "past-return", "stopped")


@click.group("incident")
def command() -> None:
    """Tell what happened, lead it through, and tell the world.

    \b
    tidegate incident list
    tidegate incident show INC-2026-014
    """


for _one in (grant, publish, publish_update, unpublish):
    command.add_command(_one)


@command.command("list")
@click.option(
    "--state", type=click.Choice(["open", "mitigated", "closed", "unclosed"]), help="[all]"
)
@with_sort(Client.incidents_list)
@with_client
@with_list(structs.IncidentFacts)
def list_incidents(state: str | None, sort: Any, client: Client, out: Output) -> None:
    """List incidents, newest first.

    \b
    tidegate incident list --state unclosed
    """
    import time

    found = client.incidents_list(state=state, sort=sort, limit=200)
    now = int(time.time())
    items = rows(
        out,
        found,
        lambda one: {"opened": when(one.opened_at), "follow-up": _due(one.due_at, now)},
    )
    columns = (
        "name",
        "state",
        "severity",
        "owner",
        "kind",
        "opened",
        "follow-up",
        "rollout",
        "summary",
    )
    out.table("incidents/1", items, columns)


def _due(due_at: int, now: int) -> str:
    """Say when the first follow-up that is not done is due."""
    return f"{when(due_at)}{' OVERDUE' if due_at < now else ''}" if due_at else ""


@command.command("open")
@click.argument("summary")
@click.option("--rollout", metavar="NAME", help="The rollout that it is about.")
@click.option("--variant", metavar="NAME", help="The hardware variant that it is about.")
@click.option("--severity", type=_SEVERITY, default="major", show_default=True)
@click.option("--owner", metavar="NAME", help="Who leads.")
@with_client
@with_output
def open_incident(
    summary: str,
    rollout: str | None,
    variant: str | None,
    severity: str,
    owner: str | None,
    client: Client,
    out: Output,
) -> None:
    """Open an incident for what no gate saw. It stops nothing by itself.

    \b
    tidegate incident open "screens black in Lyon" --rollout gw1-2.6.0
    """
    body = {
        "summary": summary,
        "rollout": rollout or "",
        "variant": variant or "",
        "severity": severity,
        "owner": owner or "",
    }
    found = client.incidents_create(msgspec.convert(body, structs.NewIncident))
    out.note(f"Next: tidegate incident show {found.name}")
    out.made(found.name)


@command.command("show")
@click.argument("name")
@with_client
@with_output
def show(name: str, client: Client, out: Output) -> None:
    """Show an incident's report.

    \b
    tidegate incident show INC-2026-014
    """
    found = client.incidents_show(name)
    text = "" if out.json else client.incidents_export(name, format="md")
    lines = text.rstrip().split("\n")
    if found.grants:
        lines += ["", "Grants of a way back", *grant_lines(found.grants)]
    show_lines(out, "incident/1", found, lines)
    if found.report.missing:
        out.note(f"Missing: {', '.join(found.report.missing)}")
        out.note(f"Next: tidegate incident note {name} --action TEXT")


@command.command("edit")
@click.argument("name")
@click.option("--severity", type=_SEVERITY)
@click.option("--owner", metavar="NAME", help='Who leads; "" for nobody.')
@click.option("--summary", metavar="TEXT", help="What happened, in a sentence.")
@with_client
@with_output
def edit(
    name: str,
    severity: str | None,
    owner: str | None,
    summary: str | None,
    client: Client,
    out: Output,
) -> None:
    """Set severity, owner or summary.

    \b
    tidegate incident edit INC-2026-014 --owner olga --severity critical
    """
    wanted = {"severity": severity, "owner": owner, "summary": summary}
    body = {key: value for key, value in wanted.items() if value is not None}
    if not body:
        give_up("request.invalid", "give --severity, --owner or --summary")
    found = client.incidents_edit(name, msgspec.convert(body, structs.IncidentEdit))
    said = f"{name}: {found.severity}, led by {found.owner or 'nobody'}"
    show_lines(out, "incident/1", found, [said])


@command.command("note")
@click.argument("name")
@click.argument("text", required=False)
@click.option(
    "--action",
    metavar="TEXT",
    help="What was done (not: is planned) so that it does not happen again.",
)
@click.option("--hypothesis", metavar="TEXT", help="What the cause may be; replaces the last one.")
@click.option("--cause", metavar="TEXT", help="The proved cause, and how it was proved.")
@click.option(
    "--evidence", metavar="TEXT", help="What shows the cause otherwise than the counts do."
)
@click.option(
    "--by",
    "means",
    type=click.Choice(["log", "bench", "code", "supplier", "other"]),
    help="Of evidence: what it is.  [default: other]",
)
@click.option("--kept", metavar="PLACE", help="Of evidence: where it can be looked at again.")
@with_client
@with_output
def note(
    name: str,
    text: str | None,
    action: str | None,
    hypothesis: str | None,
    cause: str | None,
    evidence: str | None,
    means: str | None,
    kept: str | None,
    client: Client,
    out: Output,
) -> None:
    """Write a note, a hypothesis, the proved cause, its evidence or a corrective action into an incident.

    \b
    tidegate incident note INC-2026-014 "called the site: screens black"
    tidegate incident note INC-2026-014 --hypothesis "modem firmware 3.1"
    tidegate incident note INC-2026-014 --cause "modem firmware 3.1: 20 of 20 boards hang with it, none with 3.0"
    tidegate incident note INC-2026-014 --evidence "ten boards, seen by gus" --by bench --kept "ticket HW-311"
    tidegate incident note INC-2026-014 --action "the contract now checks the modem"
    """
    given = {
        "note": text,
        "action": action,
        "hypothesis": hypothesis,
        "cause": cause,
        "evidence": evidence,
    }
    said = {kind: words for kind, words in given.items() if words is not None}
    if len(said) != 1:
        give_up(
            "request.invalid", "give one of TEXT, --action, --hypothesis, --cause and --evidence"
        )
    ((kind, words),) = said.items()
    if kind != "evidence" and (means or kept):
        give_up("request.invalid", "--by and --kept belong to --evidence")
    body = {"text": words, "kind": kind, "means": means or "", "kept": kept or ""}
    said_as = msgspec.convert(body, structs.NewNote)
    found = client.incidents_notes(name, said_as)
    show_lines(out, "incident/1", found, [f"{name}: written down"])


@command.command("followup")
@click.argument("name")
@click.argument("text", required=False)
@click.option("--owner", metavar="NAME", help="Who does it [you].")
@click.option("--due", type=click.DateTime(["%Y-%m-%d"]), help="Until the end of this day, UTC.")
@click.option(
    "--recall", is_flag=True, help="It is to decide on a recall of the release; needs no TEXT."
)
@click.option("--done", type=int, metavar="NUMBER", help="Note that a follow-up was done.")
@click.option("--change", type=int, metavar="NUMBER", help="Give one another --owner or --due.")
@with_client
@with_output
def followup(
    name: str,
    text: str | None,
    owner: str | None,
    due: Any,
    recall: bool,
    done: int | None,
    change: int | None,
    client: Client,
    out: Output,
) -> None:
    """Write down what is left to do, or that it was done.

    \b
    tidegate incident followup INC-2026-014 "modem in the lab" --owner gus --due 2026-12-24
    tidegate incident followup INC-2026-014 --recall --owner olga --due 2026-12-03
    tidegate incident followup INC-2026-014 --change 1 --due 2027-01-15
    tidegate incident followup INC-2026-014 --done 1
    """
    import datetime as dt

    if sum((text is not None or recall, done is not None, change is not None)) != 1:
        give_up("request.invalid", "give a TEXT or --recall, or --change NUMBER, or --done NUMBER")
    at = int(due.replace(tzinfo=dt.UTC).timestamp()) + 86_399 if due else None
    if done is not None:
        found = client.incidents_followups_done(name, done)
    elif change is not None:
        edit = {"owner": owner, "due_at": at}
        wanted = {key: value for key, value in edit.items() if value is not None}
        if not wanted:
            give_up("request.invalid", "say what changes: --owner, --due")
        said = msgspec.convert(wanted, structs.FollowUpEdit)
        found = client.incidents_followups_edit(name, change, said)
    else:
        left = {"text": text or "", "owner": owner or "", "due_at": at or 0}
        about = {"about": "recall"} if recall else {}
        found = client.incidents_followups(
            name, msgspec.convert({**left, **about}, structs.NewFollowUp)
        )
    show_lines(out, "incident/1", found, [f"{name}: written down"])


def _told(out: Output, name: str, found: structs.IncidentFacts) -> None:
    show_lines(out, "incident/1", found, [f"{name} is {found.state}"])


@command.command("mitigate")
@click.argument("name")
@click.option("--reason", metavar="TEXT", default="", help="What stopped the harm.")
@with_client
@with_output
def mitigate(name: str, reason: str, client: Client, out: Output) -> None:
    """Note that an incident does no more harm; the work goes on.

    \b
    tidegate incident mitigate INC-2026-014 --reason "all 17 are back on 2.4.1"
    """
    _told(out, name, client.incidents_mitigate(name, structs.Because(reason=reason)))


@command.command("reopen")
@click.argument("name")
@click.option("--reason", metavar="TEXT", default="")
@with_client
@with_output
def reopen(name: str, reason: str, client: Client, out: Output) -> None:
    """Open an incident again: it is not over.

    \b
    tidegate incident reopen INC-2026-014 --reason "it came back"
    """
    _told(out, name, client.incidents_reopen(name, structs.Because(reason=reason)))


@command.command("close")
@click.argument("name")
@click.option("--reason", metavar="TEXT", default="")
@with_client
@with_output
def close(name: str, reason: str, client: Client, out: Output) -> None:
    """Close an incident that has a corrective action; with a reason where something is missing.

    That is: a proved cause, what shows it beside the counts, who decides on a recall until when, and a date for every follow-up.

    \b
    tidegate incident close INC-2026-014
    """
    _told(out, name, client.incidents_close(name, structs.Because(reason=reason)))


@command.command("cohort")
@click.argument("name")
@click.option("--list", "which", type=click.Choice(_LISTS), default="affected", show_default=True)
@click.option(
    "--format", "form", type=click.Choice(["table", "csv"]), default="table", show_default=True
)
@with_client
@with_list(structs.CohortDevice)
def cohort(name: str, which: str, form: str, client: Client, out: Output) -> None:
    """List every device of an incident: affected, exposed, past the point of no return, or stopped before.

    \b
    tidegate incident cohort INC-2026-014 --list past-return
    tidegate incident cohort INC-2026-014 --format csv > cohort.csv
    """
    found = client.incidents_cohort_list(name, which=which, limit=500)
    if form == "csv" and not out.json:
        if out.fields:
            give_up("request.invalid", "--fields is for the table and for --json")
        click.echo(_csv(found), nl=False)
        return
    items = rows(out, found, lambda one: {"since": when(one.at)})
    columns = ("device", "variant", "ring", "state", "reason", "since", "site")
    out.table("incident-cohort/1", items, columns)


def _csv(items: Iterable[structs.CohortDevice]) -> str:
    """Write devices as CSV (RFC 4180). Nothing that a device says of itself becomes a formula in a spreadsheet."""
    import csv
    import io

    fields = (
        "device",
        "variant",
        "ring",
        "state",
        "reason",
        "at",
        "from_counter",
        "site",
        "region",
    )
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(fields)
    for one in items:
        cells = [str(getattr(one, field)) for field in fields]
        writer.writerow(
            [
                f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
                for cell in cells
            ]
        )
    return text.getvalue()


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
    found = client.incidents_export(name, format=form)
    text = f"{found.rstrip()}\n" if form == "json" else found
    if target is None:
        click.echo(text, nl=False)
        return
    target.write_text(text, encoding="utf-8")
    if not quiet:
        click.echo(f"Written {target}.", err=True)
