"""`tidegate status`: the fleet on one screen."""

import click

from tidegate.cli import _series_text
from tidegate.cli._people import show_lines, when
from tidegate.cli.client import with_client
from tidegate.cli.output import Output, with_output
from tidegate.client import Client, structs

_FIRMWARE_SHOWN = 4


@click.command("status", short_help="The fleet on one screen.")
@click.option("--days", type=click.IntRange(1, 1000), help="What happened in each of so many days.")
@with_client
@with_output
def command(days: int | None, client: Client, out: Output) -> None:
    """Show the fleet on one screen: devices, rollouts, incidents, what waits; or, with --days, what happened day by day.

    \b
    tidegate status
    tidegate status --days 7
    """
    if days:
        since = client.status().at - (days - 1) * 86_400
        told = client.series(since=since)
        show_lines(out, "fleet-series/1", told, _series_text.days(told) or ["nothing happened"])
        return
    found = client.status()
    show_lines(out, "status/1", found, _lines(client.server, found))


def _lines(server: str, found: structs.Status) -> list[str]:
    total = found.devices.get("accepted", 0)
    lines = [
        f"{server}, {when(found.at)} UTC",
        "",
        f"Fleet      {total:,} devices   {found.seen_24h:,} seen in 24 h",
    ]
    ordered = sorted(found.firmware, key=lambda one: -int(one.devices))
    for one in ordered[:_FIRMWARE_SHOWN]:
        share = f" ({100 * one.devices / total:.0f} %)" if total else ""
        version = one.version or ("factory image" if not one.counter else f"counter {one.counter}")
        lines.append(f"           {one.product} {version} on {one.devices:,}{share}")
    lines += _section("Rollouts", [_rollout(one) for one in found.active], "none is active")
    opened = [
        f"{one.name}   {one.kind}   {when(one.opened_at)}   {one.summary}"
        for one in found.incidents
    ]
    lines += _section("Incidents", opened, "none is open")
    waits = []
    if found.approvals:
        waits.append(f"{found.approvals:,} approvals")
    if found.pending_devices:
        waits.append(f"{found.pending_devices:,} devices ask to join")
    lines += _section("Waiting", [", ".join(waits)] if waits else [], "nothing")
    if found.single_operator:
        lines += [
            "",
            "warning: one person alone can widen any rollout; a second account would end that",
        ]
    return lines


def _rollout(one: structs.RolloutFacts) -> str:
    isolated = f"   ISOLATED {', '.join(one.isolated)}" if one.isolated else ""
    because = f"   {one.because[0].text}" if one.because else ""
    return f"{one.name}   {one.state}{isolated}{because}"


def _section(title: str, items: list[str], empty: str) -> list[str]:
    shown = items or [empty]
    return [f"{title:10} {shown[0]}", *(f"           {one}" for one in shown[1:])]
