"""`tidegate drill`: rehearse lost keys and a stolen server on a scratch copy, and an incident on a simulated fleet, before it happens."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidegate.cli._ceremony import date
from tidegate.cli.output import Output, printable, with_output

if TYPE_CHECKING:
    from tidegate.sim.drill.drill import Report, Step, TheftReport
    from tidegate.sim.drill.incident import IncidentDrill

#: Those that read this installation; "all" plays the incident as well.
_PARTS = ("rotate", "lost-key", "theft")


@click.command("drill", short_help="Rehearse lost keys, a stolen server, an incident.")
@click.argument("part", type=click.Choice([*_PARTS, "all", "incident"]), default="all")
@click.option("--data", "data_dir", type=click.Path(path_type=Path), help="Data directory.")
@click.option("--config", "config", type=click.Path(path_type=Path), help="tidegate.toml")
@click.option("--seed", default=1, show_default=True, help="incident: of the simulated world.")
@click.option(
    "--out", "target", type=click.Path(path_type=Path), help="incident: a file for the report."
)
@with_output
def command(
    part: str,
    data_dir: Path | None,
    config: Path | None,
    seed: int,
    target: Path | None,
    out: Output,
) -> int:
    """Rehearse lost keys, a stolen server, or an incident. Nothing is changed.

    Keys and server: it reads this installation's root, targets, products and fleet, puts a scratch key in the place of every key, and asks the real
    agent what it would do. Parts: rotate (other online keys), lost-key (each root key in turn), theft (the whole server). Exit code 1
    when something did not work, or a device did what no offline key allowed.

    incident plays a bad release on a simulated fleet of its own, with the real server and real agents, from the first bad boot to the
    published report, and times each step. It fails when a step did not happen.

    \b
    tidegate drill
    tidegate drill incident --out drill.md
    tidegate drill theft --data ./tidegate-data --json
    """
    if part == "incident":
        return _incident(seed, target, out)
    from tidegate.server.config import load
    from tidegate.sim.drill.drill import rehearse

    settings = load(config, options={"data_dir": data_dir})
    parts = _PARTS if part == "all" else (part,)
    found = rehearse(Path(settings.data_dir), parts, now=int(time.time()), randomness=os.urandom)
    body, lines, failed = _plain(found), printable_lines(found), found.failed
    if part == "all":
        played = _play_incident(seed, target)
        body["incident"] = _plain(played)
        lines += ["", *incident_lines(played)]
        failed = failed or played.failed
    out.data("drill/1", {"failed": failed, **body}, "\n".join(lines))
    return 1 if failed else 0


def _incident(seed: int, target: Path | None, out: Output) -> int:
    found = _play_incident(seed, target)
    body = {"failed": found.failed, **_plain(found)}
    out.data("incident-drill/1", body, "\n".join(incident_lines(found)))
    return 1 if found.failed else 0


def _play_incident(seed: int, target: Path | None) -> "IncidentDrill":
    import tempfile

    from tidegate.sim.drill.incident import rehearse_incident

    with tempfile.TemporaryDirectory(prefix="tidegate-drill-") as folder:
        found = rehearse_incident(Path(folder), seed=seed)
    if target is not None:
        target.write_text(found.report, encoding="utf-8")
    return found


def incident_lines(found: "IncidentDrill") -> list[str]:
    """Write the rehearsal of an incident for people."""
    width = max(len(one.what) for one in found.steps)
    lines = [
        f"An incident on {found.devices} simulated devices, {found.enrolled} of them enrolled by its end, seed {found.seed}.",
        "Server and agents are the real ones, boards and clock are simulated.",
        "The time of people is made up: what its operator does at once takes none, minutes pass before the next step, or the drill waits to see what follows.",
        "",
        f"  {'STEP':<{width}}          SIMULATED  MACHINE",
        *(
            f"  {one.what:<{width}}  {'ok' if one.ok else 'FAILED':<6}  {_span(one.at_s):>9}  {one.took_ms / 1000:>5.1f} s  {one.text}"
            for one in found.steps
        ),
        "",
        "FAILED: see above." if found.failed else "Every step happened.",
        f"{_span(found.simulated_s)} of simulated time, {found.took_ms / 1000:.1f} s of this machine's.",
    ]
    return [printable(line) for line in lines]


def _span(seconds: int) -> str:
    """Write a span as hours, minutes and seconds: `3:05:12`."""
    return f"{seconds // 3600}:{seconds % 3600 // 60:02d}:{seconds % 60:02d}"


def _plain(found: "Report | IncidentDrill") -> dict[str, object]:
    import msgspec

    plain: dict[str, object] = msgspec.to_builtins(found)
    return plain


def printable_lines(found: "Report") -> list[str]:
    """Write a rehearsal for people."""
    lines = [
        f"Rehearsal on a scratch copy of {found.folder}",
        f"  root {found.root_version}, {len(found.products)} products, {found.devices} devices",
        "",
        "  real     metadata, releases, mandates, thresholds, and what devices run",
        f"  scratch  every key: {', '.join(found.scratch)}",
        "           (no key file was opened; signatures are by throw-away keys in their places)",
        "  agent    the device's own worker decides; one device of each kind is asked",
    ]
    if found.left_out:
        lines.append(f"  left out {found.left_out} devices of products with no published role")
    if found.rotation:
        lines += ["", "Other online keys", *_steps(found.rotation)]
    if found.lost_key:
        lines += ["", "One root key lost or stolen", *_steps(found.lost_key)]
    if found.theft is not None:
        lines += ["", *_theft(found.theft)]
    lines += ["", _footprint(found)]
    verdict = "FAILED: see above" if found.failed else "All of it came out as it must"
    lines.append(f"{verdict}. {found.took_ms / 1000:.1f} s")
    return [printable(line) for line in lines]


def _footprint(found: "Report") -> str:
    if found.untouched:
        return "Untouched: every file of the data directory has the digest that it had before."
    names = ", ".join(found.changed[:6])
    return (
        f"Changed meanwhile: {names}. The drill only reads; a server that runs here writes."
        " Stop it, or drill on a backup, to see no difference."
    )


def _steps(steps: "tuple[Step, ...]") -> list[str]:
    width = max(len(one.what) for one in steps)
    return [
        f"  {'ok' if one.ok else 'FAILED':<7} {one.what:<{width}}  {one.took_ms:>6} ms  {one.text}"
        for one in steps
    ]


def _theft(found: "TheftReport") -> list[str]:
    lines = [
        "The server is stolen, with every online key",
        f"  {found.devices} devices of {found.kinds} kinds attacked",
    ]
    if found.skipped:
        lines.append(f"  {found.skipped} devices of the rarest kinds were not tried")
    for kind, why in found.broken.items():
        lines.append(f"  FAILED  {kind} does not believe even the honest server: {why}")
    if found.attempts:
        width = max(len(one.goal) for one in found.attempts)
        lines += [
            "",
            f"  {'THE THIEF TRIES TO':<{width}}   ORDERS  OBEYED  ALLOWED  BREACH  WHY NOT",
        ]
        for one in found.attempts:
            why = ", ".join(f"{code} {count}" for code, count in one.reasons.items())
            lines.append(
                f"  {one.goal:<{width}}  {one.tried:>7}  {one.obeyed:>6}  {one.allowed:>7}"
                f"  {one.breach or '-':>6}  {why}"
            )
        lines.append(
            "  ORDERS = each kind of order, to each device that it is for."
            " ALLOWED = by offline keys: a live, newer release for that hardware and channel,"
            " or a way back that the running release names."
        )
    lines += ["", f"What he would reach at once: {found.reached} of {found.devices} devices"]
    if found.reach:
        width = max(len(one.release) for one in found.reach)
        lines.append(f"  {'RELEASE':<{width}}  CHANNEL   AT ONCE  HELD BY A MANDATE")
        for reach in found.reach:
            held = f"{reach.held}, the last until {date(reach.all_by)}" if reach.all_by else "-"
            if reach.recalled:
                held += "   RECALLED, and still signed: tidegate product re-sign --withdraw"
            lines.append(
                f"  {reach.release:<{width}}  {reach.channel:<8}  {reach.at_once:>7}  {held}"
            )
    lines.append(
        "  He can also hide releases, and a new root from devices that talk to nobody else, until"
        f" root ends on {date(found.freeze_until)} (by the keys that he has; not tried here)."
    )
    return [*lines, "", "The way back", *_steps(found.recovery)]
