"""`tidegate rollout`: bring a release to devices, watch it, stop it, bring them back."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from msgspec.structs import asdict, replace

from tidegate.cli import _edit, _evidence_text, _rollout_text, _series_text
from tidegate.cli._people import confirm, need_reason, read_toml, rows, show_lines, when
from tidegate.cli._sorting import with_sort
from tidegate.cli._stop import DRY_RUN, narrow
from tidegate.cli._widen import widen
from tidegate.cli.client import with_client
from tidegate.cli.output import Output, printable, with_list, with_output
from tidegate.client import Client, structs
from tidegate.core.amounts import parse_duration
from tidegate.core.errors import RequestError

F = TypeVar("F", bound=Callable[..., Any])
#: `rollout wait --timeout` ran out.
TIMED_OUT = 12
_FILE = click.Path(path_type=Path)


def _widening(function: F) -> F:
    """Give a command the options of everything that widens."""
    for option in (
        click.option("--yes", is_flag=True, help="Do not ask; needs --reason."),
        click.option("--reason", metavar="TEXT", help="Why."),
        click.option("--dry-run", is_flag=True, help="Say what it would reach; write nothing."),
    ):
        function = option(function)
    return function


def _whom(function: F) -> F:
    """Give a command the two ways of saying who is isolated."""
    for option in (
        click.option("--where", default="", metavar="QUERY", help="As in 'site = lyon'."),
        click.option("--variant", default="", metavar="VARIANT", help="As in gw1-r6."),
    ):
        function = option(function)
    return function


def _one_of(variant: str, where: str, reason: str | None = None) -> structs.Act:
    """Return what was named, as the API takes it."""
    if bool(variant) == bool(where):
        raise RequestError("request.invalid", "name a --variant, or --where QUERY")
    return structs.Act(variant=variant, where=where, reason=reason or "")


@click.group("rollout")
def command() -> None:
    """Bring a release to a group of devices, ring by ring.

    \b
    tidegate rollout create rollout.toml --dry-run
    tidegate rollout show gw1-2.4.1
    """


@command.command("create")
@click.argument("file", type=_FILE, default="rollout.toml")
@click.option("--release", metavar="NAME", help="The release, in place of the file's.")
@click.option("--name", metavar="NAME", help="Name of the rollout [the release's].")
@click.option(
    "--preset",
    metavar="NAME",
    help="careful, normal, fast, emergency or lab, in place of the file's.",
)
@click.option("--start", metavar="TIME", help='"at once", or 2026-12-24T02:00:00Z.')
@click.option("--draft", is_flag=True, help="Make it and do not start it.")
@click.option("--snapshot", is_flag=True, help="Fix the audience now; newcomers are left out.")
@click.option("--play", is_flag=True, help="With --dry-run: play it on the simulator.")
@_widening
@with_client
@with_output
def create(
    file: Path,
    draft: bool,
    snapshot: bool,
    play: bool,
    yes: bool,
    reason: str | None,
    dry_run: bool,
    client: Client,
    out: Output,
    **given: str | None,
) -> None:
    """Make a rollout of a policy file, and start it.

    \b
    tidegate rollout create rollout.toml --dry-run
    tidegate rollout create rollout.toml --yes --reason "monthly update"
    """
    body = read_toml(file)
    body |= {key: value for key, value in given.items() if value is not None}
    body |= {"draft": True} if draft else {}
    body |= {"dynamic": False} if snapshot else {}
    found = client.rollouts_create_dry_run(body)
    shown = str(body.get("name") or body.get("release"))
    if dry_run:
        told = _rollout_text.reach(shown, found)
        if play:
            from tidegate.cli import _foresee

            played = _foresee.lines(found)
            show_lines(out, "reach/1", {**asdict(found), "played": played}, [*told, "", *played])
        else:
            show_lines(out, "reach/1", found, told)
        out.note("Nothing was written.")
        return
    for line in _rollout_text.lints(found):
        if not line.lstrip().startswith("note"):
            out.note(printable(line))
    what = (
        f"Rollout {shown} would bring {found.release} to {found.offered:,} of "
        f"{found.matched:,} matching devices."
    )
    if not draft:
        reason = confirm(client, out, what, found.offered, yes=yes, reason=reason)
    done = client.rollouts_create({**body, "reason": reason or ""})
    _rollout_text.told(out, done)
    out.made(done.name, state=done.state, request=done.request)


@command.command("list")
@click.option("--state", metavar="STATE,...", help="Only these states.")
@with_sort(Client.rollouts_list)
@with_client
@with_list(structs.RolloutFacts)
def list_rollouts(state: str | None, sort: Any, client: Client, out: Output) -> None:
    """List rollouts, newest first.

    \b
    tidegate rollout list
    tidegate rollout list --state active,halted --sort name
    """
    found = client.rollouts_list(state=state, sort=sort, limit=200)
    items = rows(out, found, lambda one: {"created": when(one.created_at)})
    out.table("rollouts/1", items, ("name", "state", "release", "kind", "created", "created_by"))


@command.command("show")
@click.argument("name")
@with_client
@with_output
def show(name: str, client: Client, out: Output) -> None:
    """Show a rollout: its rings, outcomes and why it is where it is.

    \b
    tidegate rollout show gw1-2.4.1
    tidegate rollout show gw1-2.4.1 --json
    """
    found, evidence = client.rollouts_show(name), client.rollouts_evidence(name)
    told = {**asdict(found), "evidence": evidence}
    show_lines(out, "rollout/1", told, _rollout_text.shown(found, evidence))


@command.command("series")
@click.argument("name")
@with_client
@with_output
def series(name: str, client: Client, out: Output) -> None:
    """Show how a rollout's counters stood, hour by hour. `bad`: reverted, failed or lost; MB: fetched within the hour."""
    found = client.rollouts_series_list(name)
    items = list(found.items) if out.json else _series_text.hours(found)
    out.table("rollout-series/1", items, _series_text.COLUMNS, empty="nothing has happened yet")


@command.command("explain")
@click.argument("name")
@click.option("--ring", metavar="RING", help="Of this ring.")
@with_client
@with_output
def explain(name: str, ring: str | None, client: Client, out: Output) -> None:
    """Say why a rollout is where it is, with numbers.

    \b
    tidegate rollout explain gw1-2.4.1
    tidegate rollout explain gw1-2.4.1 --ring fleet
    """
    found = client.rollouts_explain(name, ring=ring)
    show_lines(out, "explanation/1", found, list(found.lines))


@command.command("evidence")
@click.argument("name")
@click.option(
    "--replay", is_flag=True, help="Book its log anew and compare; exit code 1 if it differs."
)
@with_client
@with_output
@click.pass_context
def evidence(ctx: click.Context, name: str, *, replay: bool, client: Client, out: Output) -> None:
    """Show the odds against a rollout's release, who may go next and why no more.

    \b
    tidegate rollout evidence gw1-2.4.1
    tidegate rollout evidence gw1-2.4.1 --replay
    """
    if replay:
        found = client.rollouts_evidence_replay(name)
        show_lines(out, "replay/1", found, _evidence_text.replayed(name, found))
        if found.differs_at or found.digest != found.kept:
            ctx.exit(1)
        return
    gate = client.rollouts_evidence(name).gate
    if gate is None:
        raise RequestError(
            "request.not_found",
            f"no evidence is weighed for {name}",
            hint='its policy needs the guard { type = "evidence" }, and the rollout to have begun',
        )
    show_lines(out, "evidence/1", gate, _evidence_text.shown(name, gate))


@command.command("log")
@click.argument("name")
@with_sort(Client.rollouts_log_list)
@with_client
@with_list(structs.LogLine)
def log(name: str, sort: Any, client: Client, out: Output) -> None:
    """Tell a rollout's story: who did what, when and why.

    \b
    tidegate rollout log gw1-2.4.1
    """
    items = rows(out, client.rollouts_log_list(name, sort=sort), lambda one: {"when": when(one.at)})
    out.table("log/1", items, ("when", "actor", "action", "text"))


@command.command("devices")
@click.argument("name")
@click.option(
    "--state",
    metavar="STATE,...",
    help="As in confirmed; waiting = without leave yet, past = cannot be stopped any more.",
)
@with_client
@with_list(structs.Participant)
def devices(name: str, state: str | None, client: Client, out: Output) -> None:
    """List the devices of a rollout and where each stands.

    \b
    tidegate rollout devices gw1-2.4.1 --state past
    tidegate rollout devices gw1-2.4.1 --state reverted,lost --json
    """
    found = client.rollouts_updates_list(name, state=state, limit=500)
    items = rows(out, found, lambda one: {"since": when(one.since)})
    columns = ("device", "state", "reason", "ring", "variant", "site", "since")
    out.table("rollout-devices/1", items, columns, empty="no device is in that state")


@command.command("stragglers")
@click.argument("name")
@with_client
@with_list(structs.Straggler)
def stragglers(name: str, client: Client, out: Output) -> None:
    """List who was ordered back and has not gone, when each was last heard, and why.

    \b
    tidegate rollout stragglers gw1-2.5.1
    """
    found = client.rollouts_stragglers_list(name, limit=500)
    items = rows(out, found, lambda one: {"heard": when(one.last_seen)})
    columns = ("device", "state", "heard", "variant", "site", "why")
    out.table("stragglers/1", items, columns, empty="everybody has gone back")


@command.command("wait")
@click.argument("name")
@click.option("--for", "target", default="completed", show_default=True, metavar="STATE|ring:RING")
@click.option("--timeout", default="none", metavar="TIME", help='At most so long, as in "2h".')
@click.option("--every", default="2s", show_default=True, metavar="TIME")
@with_client
@with_output
@click.pass_context
def wait(
    ctx: click.Context,
    name: str,
    target: str,
    timeout: str,
    every: str,
    client: Client,
    out: Output,
) -> None:
    """Wait until a rollout is completed, halted, or has passed a ring; for scripts.

    \b
    tidegate rollout wait gw1-2.4.1
    tidegate rollout wait gw1-2.4.1 --for ring:pilot --timeout 2d
    """
    end = None if timeout == "none" else time.monotonic() + parse_duration(timeout, "--timeout")
    pause = max(1, parse_duration(every, "--every"))
    last = ""
    while True:
        found = client.rollouts_show(name)
        line = f"{found.state}: {found.because[0].text}" if found.because else found.state
        if line != last:
            out.note(printable(line))
            last = line
        code = _rollout_text.waited(found, target)
        if code is None and end is not None and time.monotonic() >= end:
            code = TIMED_OUT
        if code is not None:
            said = f"{name} {found.state}"
            if code == TIMED_OUT:
                said = f"{name} is still {line} (after {timeout})"
            show_lines(out, "rollout/1", found, [said])
            ctx.exit(code)
        time.sleep(pause)


@command.command("approve")
@click.argument("name")
@click.option("--reason", metavar="TEXT", default="", help="What you looked at.")
@with_client
@with_output
def approve(name: str, reason: str, client: Client, out: Output) -> None:
    """Approve what somebody else asked for, or a ring's step.

    \b
    tidegate rollout approve gw1-2.4.1
    """
    _rollout_text.told(out, client.rollouts_approve(name, structs.Act(reason=reason)))


@command.command("requests")
@click.option("--all", "everything", is_flag=True, help="Those that were decided, too.")
@with_client
@with_list(structs.RequestFacts)
def requests(everything: bool, client: Client, out: Output) -> None:
    """List what waits for a second person.

    \b
    tidegate rollout requests
    """
    found = client.approvals_list(state="" if everything else "open")
    items = rows(out, found.items, lambda one: {"asked": when(one.asked_at)})
    columns = ("id", "rollout", "action", "state", "asked_by", "asked", "reason")
    out.table("requests/1", items, columns, empty="nothing waits")


@command.command("decline")
@click.argument("name")
@click.option("--reason", metavar="TEXT", help="Why; whoever asked will read it.")
@with_client
@with_output
def decline(name: str, reason: str | None, client: Client, out: Output) -> None:
    """Decline what somebody else asked for.

    \b
    tidegate rollout decline gw1-2.4.1 --reason "not before the holidays"
    """
    numbers = [one.id for one in client.approvals_list().items if one.rollout == name]
    if not numbers:
        raise RequestError("request.not_found", f"nothing of {name} waits for approval")
    because = structs.Decision(reason=need_reason(reason))
    _rollout_text.told(out, client.approvals_decline(numbers[0], because))


@command.command("start")
@click.argument("name")
@_widening
@with_client
@with_output
def start(name: str, client: Client, out: Output, **options: Any) -> None:
    """Start a draft.

    \b
    tidegate rollout start gw1-2.4.1 --yes --reason "tested"
    """
    widen(client, out, "start", name, options)


@command.command("activate")
@click.argument("name")
@_widening
@with_client
@with_output
def activate(name: str, client: Client, out: Output, **options: Any) -> None:
    """Let what was fetched ahead be activated, ring by ring.

    \b
    tidegate rollout activate gw1-2.4.1 --dry-run
    tidegate rollout activate gw1-2.4.1 --yes --reason "everybody has it"
    """
    widen(client, out, "activate", name, options)


@command.command("resume")
@click.argument("name")
@_widening
@with_client
@with_output
def resume(name: str, client: Client, out: Output, **options: Any) -> None:
    """Let a paused or halted rollout go on.

    \b
    tidegate rollout resume gw1-2.4.1 --yes --reason "router fixed"
    """
    widen(client, out, "resume", name, options)


@command.command("advance")
@click.argument("name")
@click.option("--ring", required=True, metavar="RING", help="The ring that is open now.")
@_widening
@with_client
@with_output
def advance(name: str, ring: str, client: Client, out: Output, **options: Any) -> None:
    """Pass a ring's step by hand; guards stay in force.

    \b
    tidegate rollout advance gw1-2.4.1 --ring pilot --yes --reason "seen enough"
    """
    widen(client, out, "advance", name, options, structs.Act(ring=ring))


@command.command("readmit")
@click.argument("name")
@_whom
@_widening
@with_client
@with_output
def readmit(
    name: str, variant: str, where: str, client: Client, out: Output, **options: Any
) -> None:
    """Let those in again that were isolated.

    \b
    tidegate rollout readmit gw1-2.5.0 --variant gw1-r6 --yes --reason "was the router"
    tidegate rollout readmit gw1-2.5.0 --where 'site = lyon' --yes --reason "was the router"
    """
    widen(client, out, "readmit", name, options, _one_of(variant, where))


@command.command("edit")
@click.argument("name")
@click.argument("file", type=_FILE, required=False)
@_edit.parts
@click.option("--dry-run", is_flag=True, help="Say what it would come to; write nothing.")
@click.option("--yes", is_flag=True, help="Do not ask; needs --reason.")
@click.option("--reason", metavar="TEXT", help="Why.")
@with_client
@with_output
def edit(
    name: str,
    file: Path | None,
    dry_run: bool,
    yes: bool,
    reason: str | None,
    client: Client,
    out: Output,
    **given: Any,
) -> None:
    """Replace a rollout's policy by a file's, or change parts of it, also while it runs.

    What is open of a ring stays open. What only narrows is one person's act.

    \b
    tidegate rollout edit gw1-2.4.1 --in-flight 50 --dry-run
    tidegate rollout edit gw1-2.4.1 rollout.toml --yes --reason "longer soak"
    tidegate rollout edit gw1-2.4.1 --steps fleet=1%,5%,20%,100% --in-flight 50 --yes --reason "slower"
    """
    method, body = _edit.body_of(file, given)
    send = client.rollouts_change if method == "PATCH" else client.rollouts_replace
    found = client.rollouts_show(name)
    seen = f'"{found.generation}"'
    word = "changes" if file is None else "replaces"
    what = f"This {word} the policy of {name}, which is {found.state}."
    if dry_run or not yes:
        look = send(name, {**body, "reason": reason or "looked at"}, dry_run=True, if_match=seen)
        what = "\n".join([what, *_rollout_text.looked(look)])
        if dry_run:
            out.data("act/1", look, what)
            out.note("Nothing was changed.")
            return
    devices = sum(one.audience for one in client.rollouts_evidence(name).tallies)
    reason = confirm(client, out, what, devices, yes=yes, reason=reason)
    done = send(name, {**body, "reason": reason}, if_match=seen)
    _rollout_text.told(out, done)


@command.command("fallback")
@click.argument("name")
@click.option("--to", metavar="RELEASE", default="", help="[the newest that was signed for it]")
@click.option("--cohort", default="exposed", show_default=True, metavar="exposed|variant:V|query:Q")
@_widening
@with_client
@with_output
def fallback(
    name: str,
    to: str,
    cohort: str,
    yes: bool,
    reason: str | None,
    dry_run: bool,
    client: Client,
    out: Output,
) -> None:
    """Order the devices of a halted rollout back to where they came from.

    \b
    tidegate rollout fallback gw1-2.5.1 --dry-run
    tidegate rollout fallback gw1-2.5.1 --to gw1-2.4.1 --yes --reason "INC-2026-014"
    """
    order = structs.FallbackOrder(to=to, cohort=cohort)
    found = client.rollouts_fallback_dry_run(name, order)
    if dry_run:
        show_lines(out, "fallback/1", found, _rollout_text.way_back(found))
        out.note("Nothing was written.")
        return
    devices = found.resident
    what = f"This orders {devices:,} devices back to {found.to}."
    reason = confirm(client, out, what, devices, yes=yes, reason=reason)
    done = client.rollouts_fallback(name, replace(order, to=found.to, reason=reason))
    _rollout_text.told(out, done)
    out.made(done.name, state=done.state, request=done.request)


@command.command("pause")
@click.argument("name")
@click.option("--reason", metavar="TEXT")
@DRY_RUN
@with_client
@with_output
def pause(name: str, reason: str | None, dry_run: bool, client: Client, out: Output) -> None:
    """Let nothing open and give no permit until it is resumed.

    \b
    tidegate rollout pause gw1-2.4.1
    """
    narrow(client, out, "pause", name, structs.Act(reason=reason or ""), dry_run=dry_run)


@command.command("halt")
@click.argument("name")
@click.option("--reason", metavar="TEXT")
@DRY_RUN
@with_client
@with_output
def halt(name: str, reason: str | None, dry_run: bool, client: Client, out: Output) -> None:
    """Stop a rollout at once.

    \b
    tidegate rollout halt gw1-2.4.1 --reason "screens black in Lyon"
    """
    narrow(client, out, "halt", name, structs.Act(reason=reason or ""), dry_run=dry_run)


@command.command("cancel")
@click.argument("name")
@click.option("--reason", metavar="TEXT", help="Why; required, for it cannot be undone.")
@DRY_RUN
@with_client
@with_output
def cancel(name: str, reason: str | None, dry_run: bool, client: Client, out: Output) -> None:
    """End a rollout for good.

    \b
    tidegate rollout cancel gw1-2.4.1 --reason "wrong release"
    """
    act = structs.Act(reason=(reason or "") if dry_run else need_reason(reason))
    narrow(client, out, "cancel", name, act, dry_run=dry_run)


@command.command("isolate")
@click.argument("name")
@_whom
@click.option("--reason", metavar="TEXT")
@DRY_RUN
@with_client
@with_output
def isolate(
    name: str,
    variant: str,
    where: str,
    reason: str | None,
    dry_run: bool,
    client: Client,
    out: Output,
) -> None:
    """Keep a hardware variant, or the devices that a query finds, out; the rest goes on.

    \b
    tidegate rollout isolate gw1-2.5.0 --variant gw1-r6
    tidegate rollout isolate gw1-2.5.0 --where 'site = lyon and revision >= 6'
    """
    narrow(client, out, "isolate", name, _one_of(variant, where, reason), dry_run=dry_run)
