"""`tidegate job`: acts on many devices that a program asked for over the API: how far they are, what was refused, and their end."""

import itertools
import time
from typing import Any, Final

import click
import msgspec

from tidegate.cli._people import fields, rows, show_lines, when
from tidegate.cli._sorting import with_sort
from tidegate.cli.client import with_client
from tidegate.cli.output import Output, printable, render_table, with_list, with_output
from tidegate.client import Client, structs
from tidegate.core.amounts import parse_duration

#: Exit codes of `job wait`: some devices were refused, somebody cancelled it, time ran out.
_BADLY: Final = 10
_OTHERWISE: Final = 11
_TIMED_OUT: Final = 12
#: Most items of one page.
_PAGE: Final = 500
_LIMIT = click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
_ALL: Final = "all"


@click.group("job")
def command() -> None:
    """Follow acts on many devices: tags, groups, revocation.

    They are begun over the API; see the guide "Use the API".

    \b
    tidegate job list
    tidegate job wait 7
    """


@command.command("list")
@click.option("--state", type=click.Choice(["running", "done", "cancelled"]))
@_LIMIT
@with_sort(Client.jobs_list)
@with_client
@with_list(structs.JobFacts)
def list_jobs(state: str | None, sort: Any, limit: int, client: Client, out: Output) -> None:
    """List jobs, newest first.

    \b
    tidegate job list
    tidegate job list --state running --json
    """
    found = client.jobs_list(state=state, sort=sort, limit=min(limit, _PAGE))
    items = list(itertools.islice(found, limit + 1))
    told = rows(out, items[:limit], lambda one: {"created": when(one.created_at)})
    columns = ("number", "act", "state", "devices", "left", "failed", "created", "created_by")
    out.table("jobs/1", told, columns)
    if len(items) > limit:
        out.note(f"There are more than {limit:,}: --limit, or --state.")


@command.command("show")
@click.argument("number", type=click.IntRange(1))
@click.option(
    "--state",
    type=click.Choice(["waiting", "done", "already", "failed", _ALL]),
    default="failed",
    show_default=True,
    help="Which of its devices to name.",
)
@_LIMIT
@with_client
@with_output
def show(number: int, state: str, limit: int, client: Client, out: Output) -> None:
    """Show a job, how far it is, and the devices for which it was refused.

    \b
    tidegate job show 7
    tidegate job show 7 --state all --limit 1000
    """
    found = client.jobs_show(number)
    asked = client.jobs_items_list(
        number, state=None if state == _ALL else state, limit=min(limit, _PAGE)
    )
    items = list(itertools.islice(asked, limit + 1))
    told = {**msgspec.structs.asdict(found), "items": items[:limit]}
    show_lines(out, "job/1", told, [*_lines(found), *_named(items[:limit])])
    if len(items) > limit:
        out.note(f"More than {limit:,} devices are {state}: --limit.")


@command.command("wait")
@click.argument("number", type=click.IntRange(1))
@click.option("--timeout", default="none", metavar="TIME", help='At most so long, as in "2h".')
@click.option("--every", default="2s", show_default=True, metavar="TIME")
@with_client
@with_output
@click.pass_context
def wait(
    ctx: click.Context, number: int, timeout: str, every: str, client: Client, out: Output
) -> None:
    """Wait until a job is over; for scripts.

    Exit code 10: it was refused for some devices. 11: somebody cancelled it. 12: the time ran out.

    \b
    tidegate job wait 7 --timeout 30m
    """
    end = None if timeout == "none" else time.monotonic() + parse_duration(timeout, "--timeout")
    pause = max(1, parse_duration(every, "--every"))
    progress = out.progress(f"job {number}")
    while True:
        found = client.jobs_show(number)
        progress(found.devices - found.left, found.devices)
        code = _waited(found)
        if code is None and end is not None and time.monotonic() >= end:
            code = _TIMED_OUT
        if code is not None:
            show_lines(out, "job/1", found, [_head(found)])
            ctx.exit(code)
        # the last pause ends with the time that was given
        time.sleep(pause if end is None else max(0.0, min(pause, end - time.monotonic())))


@command.command("cancel")
@click.argument("number", type=click.IntRange(1))
@click.option("--reason", metavar="TEXT", default="", help="Why.")
@with_client
@with_output
def cancel(number: int, reason: str, client: Client, out: Output) -> None:
    """End a job where it is; what was done stays done.

    \b
    tidegate job cancel 7 --reason "wrong query"
    """
    found = client.jobs_cancel(number, structs.Because(reason=reason))
    show_lines(out, "job/1", found, [_head(found)])


def _waited(found: structs.JobFacts) -> int | None:
    """Return the exit code of a job that is over; None while it is not."""
    if found.state == "running":
        return None
    if found.state == "cancelled":
        return _OTHERWISE
    return _BADLY if found.failed else 0


def _head(found: structs.JobFacts) -> str:
    counts: list[tuple[str, int]] = [
        ("done", found.done),
        ("already so", found.already),
        ("failed", found.failed),
        ("left", found.left),
    ]
    said = ", ".join(f"{count:,} {what}" for what, count in counts if count) or "nothing to do"
    return f"job {found.number}   {found.act}   {found.state}   {found.devices:,} devices: {said}"


def _lines(found: structs.JobFacts) -> list[str]:
    pairs: list[tuple[str, Any]] = [
        ("query", found.query),
        ("reason", found.reason),
        ("begun", f"{when(found.created_at)} UTC by {found.created_by}"),
    ]
    if found.ended_at:
        pairs.append(("ended", f"{when(found.ended_at)} UTC by {found.ended_by}"))
    return [_head(found), *fields(pairs)]


def _named(items: list[structs.JobItem]) -> list[str]:
    if not items:
        return []
    cells = [[one.device or "-", one.state, one.code, printable(one.detail)] for one in items]
    return ["", *render_table(("device", "state", "code", "detail"), cells).split("\n")]
