"""`tidegate advisories`: bring in what is known against parts of releases, and see whom it concerns."""

from pathlib import Path
from typing import Any

import click
from msgspec.structs import asdict

from tidegate.cli._people import fields, need_reason, show_lines, when
from tidegate.cli.client import with_client
from tidegate.cli.output import Output, exit_code, printable, render_table, with_list, with_output
from tidegate.client import Client, File, structs
from tidegate.core.errors import ConfigError, PublisherError, TidegateError
from tidegate.core.supply.documents import ADVISORY_MAX

_FILE = click.Path(path_type=Path)


@click.group("advisories")
def command() -> None:
    """Bring in advisories as files, and see which releases and devices they concern.

    \b
    tidegate advisories import CVE-2025-9230.json vex/*.json
    tidegate advisories list --release gw1-2.4.1
    """


@command.command("import")
@click.argument("files", type=_FILE, nargs=-1, required=True)
@with_client
@with_output
def bring(files: tuple[Path, ...], client: Client, out: Output) -> int:
    """Take in files of OSV, CSAF 2.0 or OpenVEX. One that is refused does not keep the others out.

    \b
    tidegate advisories import CVE-2025-9230.json
    tidegate advisories import advisories/*.json --json
    """
    results: list[dict[str, Any]] = []
    worst = 0
    for path in files:
        try:
            done = _send(client, path)
            results.append({"file": str(path), "ok": True, **asdict(done)})
            out.note(f"{path}: {_said(done)}")
        except TidegateError as error:
            if error.code in {"link.unreachable", "request.unauthenticated", "request.forbidden"}:
                raise
            worst = max(worst, exit_code(error))
            results.append(
                {"file": str(path), "ok": False, "code": error.code, "detail": error.detail}
            )
            out.note(f"{path}: error[{error.code}]: {printable(error.detail)}")
    good = sum(one["ok"] for one in results)
    text = f"{good} of {len(files)} files taken in."
    out.data("advisories-import/1", {"items": results, "taken": good}, text)
    return worst


def _send(client: Client, path: Path) -> structs.ImportFacts:
    try:
        size = path.stat().st_size
        if size > ADVISORY_MAX:
            raise PublisherError("supply.too_large", f"{size} bytes; at most {ADVISORY_MAX}")
        return client.advisories_create(File(path))
    except OSError as error:
        raise ConfigError("config.unreadable", f"{path}: {error.strerror}") from error


def _said(done: structs.ImportFacts) -> str:
    parts = [done.format]
    if done.advisories:
        parts.append(printable(", ".join(done.advisories[:3])))
    if done.statements:
        parts.append(f"{done.statements} statements")
    silenced = f", {done.silenced} silenced" if done.silenced else ""
    parts.append(f"{done.findings} findings{silenced}, {done.devices:,} devices")
    return "; ".join(parts)


@command.command("list")
@click.option("--release", metavar="RELEASE", help="Only what concerns this release.")
@with_client
@with_list(structs.AdvisoryFacts)
def list_advisories(release: str | None, client: Client, out: Output) -> None:
    """List advisories with the number of devices that they concern now.

    \b
    tidegate advisories list
    tidegate advisories list --release gw1-2.4.1 --json
    """
    items = client.advisories_list(release=release, limit=200)
    columns = ("id", "severity", "devices", "findings", "silenced", "title")
    out.table("advisories/1", items, columns, empty="no advisories")


@command.command("show")
@click.argument("name")
@with_client
@with_output
def show(name: str, client: Client, out: Output) -> None:
    """Show an advisory, by its id or an alias, and what it concerns.

    \b
    tidegate advisories show CVE-2025-9230
    """
    found = client.advisories_list(name=name).first().items[0]
    findings = list(client.advisories_findings_list(found.number, limit=200))
    lines = [
        f"{found.id}   {found.severity or 'unrated'}   {found.devices:,} devices exposed",
        *fields(
            [
                ("title", found.title),
                ("also", ", ".join(found.aliases)),
                ("published", when(found.published_at)),
                ("taken in", f"{when(found.imported_at)} by {found.imported_by}"),
                ("see", found.url),
                ("withdrawn", "yes" if found.withdrawn else ""),
            ]
        ),
    ]
    if findings:
        heads = ("release", "part", "version", "status", "devices", "because")
        rows = [
            [
                printable(str(getattr(one, key)))
                for key in ("release", "part", "version", "status", "devices")
            ]
            + [printable(one.justification or one.note)]
            for one in findings
        ]
        lines += render_table(heads, rows).splitlines()
    show_lines(out, "advisory/1", {**asdict(found), "items": findings}, lines)


@command.command("forget")
@click.argument("name")
@click.option("--reason", help="Why; it stands in the record for ever.")
@with_client
@with_output
def forget(name: str, reason: str | None, client: Client, out: Output) -> None:
    """Forget an advisory that was brought in by mistake.

    \b
    tidegate advisories forget CVE-2025-9230 --reason "wrong product"
    """
    why = need_reason(reason)
    found = client.advisories_list(name=name).first().items[0]
    client.advisories_forget(found.number, structs.Because(reason=why))
    out.made(found.id)
