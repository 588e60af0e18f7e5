"""`tidegate device`: look at devices, ask why, let them in, hold them."""

from typing import Any, Final

import click

from tidegate.cli._people import API, fields, need_reason, quoted, show_lines, when
from tidegate.cli.client import Client, with_client
from tidegate.cli.output import Output, need_confirmation, with_output

#: How many reports are looked through for those that are not heartbeats.
_LOOKED_THROUGH: Final = 10_000


@click.group("device")
def command() -> None:
    """Look at devices, ask why one is not updating, let new ones in.

    \b
    tidegate device list --query 'model = gw1 and revision >= 3'
    tidegate device why gw1-01f77b
    """


@command.command("list")
@click.option("--query", metavar="QUERY", help="tidegate help queries")
@click.option("--group", metavar="GROUP", help="Only members of this group.")
@click.option("--state", metavar="STATE", help="accepted, pending, rejected, revoked, quarantined")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
@with_client
@with_output
def list_devices(
    query: str | None, group: str | None, state: str | None, limit: int, client: Client, out: Output
) -> None:
    """List devices that match a query.

    \b
    tidegate device list --query 'state != confirmed'
    tidegate device list --group pilot --json
    """
    asked = {"query": query, "group": group, "state": state, "limit": min(limit, 500)}
    items: list[dict[str, Any]] = []
    more = False
    for one in client.pages(f"{API}/devices", asked):
        if len(items) == limit:
            more = True
            break
        items.append(one)
    rows = items if out.json else [_row(one) for one in items]
    out.table("devices/1", rows, ("device", "variant", "runs", "update", "reason", "seen"))
    if more:
        out.note(f"There are more than {limit:,}: --limit, or a narrower query.")


@command.command("show")
@click.argument("device")
@with_client
@with_output
def show(device: str, client: Client, out: Output) -> None:
    """Show a device, its slots and its updates.

    \b
    tidegate device show gw1-00c2d9
    """
    found = client.get(f"{API}/devices/{quoted(device)}")
    updates = client.get(f"{API}/devices/{quoted(device)}/updates")["items"]
    show_lines(out, "device/1", {**found, "updates": updates}, _shown(found, updates))


@command.command("why")
@click.argument("device")
@with_client
@with_output
def why(device: str, client: Client, out: Output) -> None:
    """Say why a device is, or is not, updating.

    \b
    tidegate device why gw1-01f77b
    """
    found = client.get(f"{API}/devices/{quoted(device)}/why")
    lines = [found["verdict"], ""]
    lines += [f"  {'ok' if one['ok'] else 'WAIT':5} {one['text']}" for one in found["checks"]]
    show_lines(out, "why/1", found, lines)


@command.command("log")
@click.argument("device")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@click.option("--all", "everything", is_flag=True, help="Heartbeats too.")
@with_client
@with_output
def log(device: str, limit: int, everything: bool, client: Client, out: Output) -> None:
    """Show what a device reported, newest first.

    \b
    tidegate device log gw1-00c2d9
    """
    items = []
    size = min(limit, 500) if everything else 500
    for at, one in enumerate(
        client.pages(f"{API}/devices/{quoted(device)}/log", {"limit": size}), start=1
    ):
        if everything or one["kind"] != "heartbeat":
            items.append(one)
        if len(items) == limit or at == _LOOKED_THROUGH:
            break
    rows = items if out.json else [_event(one) for one in items]
    out.table("events/1", rows, ("when", "seq", "kind", "reason", "update", "signed", "detail"))


@command.command("pending")
@with_client
@with_output
def pending(client: Client, out: Output) -> None:
    """List devices that ask to join.

    \b
    tidegate device pending
    """
    items = list(client.pages(f"{API}/devices", {"state": "pending", "limit": 500}))
    rows = items if out.json else [{**one, "since": when(one["enrolled_at"])} for one in items]
    columns = ("id", "product", "variant", "serial", "key_sha256", "since")
    out.table("devices/1", rows, columns, empty="nobody asks to join")


def _each(
    client: Client, out: Output, verb: str, names: tuple[str, ...], reason: str | None
) -> None:
    done: list[dict[str, Any]] = []
    for name in names:
        found = client.post(f"{API}/devices/{quoted(name)}/{verb}", {"reason": reason or ""})
        done.append({"id": found["id"], "state": found["state"], "held": found["held"]})
    out.table("devices/1", done, ("id", "state", "held"))


@command.command("accept")
@click.argument("devices", metavar="DEVICE...", nargs=-1)
@click.option("--all-matching", metavar="QUERY", help="Every pending device that matches.")
@click.option("--yes", is_flag=True, help="Do not ask; needs --reason.")
@click.option("--reason", metavar="TEXT")
@with_client
@with_output
def accept(
    devices: tuple[str, ...],
    all_matching: str | None,
    yes: bool,
    reason: str | None,
    client: Client,
    out: Output,
) -> None:
    """Let devices in that ask to join.

    \b
    tidegate device accept gw1-00c2d9
    tidegate device accept --all-matching 'model = gw1' --yes --reason "line 4"
    """
    if all_matching is not None:
        asked = {"query": all_matching, "state": "pending", "limit": 500}
        found = tuple(str(one["id"]) for one in client.pages(f"{API}/devices", asked))
        question = f"To let {len(found)} devices in, type their number"
        need_confirmation(question, str(len(found)), yes=yes, reason=reason)
        devices += found
    _each(client, out, "accept", devices, reason)


@command.command("reject")
@click.argument("devices", metavar="DEVICE...", nargs=-1, required=True)
@click.option("--reason", metavar="TEXT")
@with_client
@with_output
def reject(devices: tuple[str, ...], reason: str | None, client: Client, out: Output) -> None:
    """Turn away devices that ask to join.

    \b
    tidegate device reject gw1-00c2d9
    """
    _each(client, out, "reject", devices, reason)


@command.command("hold")
@click.argument("devices", metavar="DEVICE...", nargs=-1, required=True)
@click.option("--reason", metavar="TEXT")
@with_client
@with_output
def hold(devices: tuple[str, ...], reason: str | None, client: Client, out: Output) -> None:
    """Keep devices on what they run.

    \b
    tidegate device hold gw1-00c2d9 --reason "on the test bench"
    """
    _each(client, out, "hold", devices, reason)


@command.command("unhold")
@click.argument("devices", metavar="DEVICE...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask; needs --reason.")
@click.option("--reason", metavar="TEXT")
@with_client
@with_output
def unhold(
    devices: tuple[str, ...], yes: bool, reason: str | None, client: Client, out: Output
) -> None:
    """Let held devices go on.

    \b
    tidegate device unhold gw1-00c2d9
    """
    if len(devices) > 10:
        question = f"To let {len(devices)} devices go on, type their number"
        need_confirmation(question, str(len(devices)), yes=yes, reason=reason)
    _each(client, out, "unhold", devices, reason)


@command.command("revoke")
@click.argument("devices", metavar="DEVICE...", nargs=-1, required=True)
@click.option("--reason", metavar="TEXT", help="Why; required, for it cannot be undone.")
@with_client
@with_output
def revoke(devices: tuple[str, ...], reason: str | None, client: Client, out: Output) -> None:
    """End devices' identities: stolen, sold, scrapped.

    \b
    tidegate device revoke gw1-00c2d9 --reason "stolen"
    """
    _each(client, out, "revoke", devices, need_reason(reason))


@command.command("tag")
@click.argument("device")
@click.argument("tags", nargs=-1)
@with_client
@with_output
def tag(device: str, tags: tuple[str, ...], client: Client, out: Output) -> None:
    """Replace a device's tags; none at all takes them off.

    \b
    tidegate device tag gw1-00c2d9 beta lab-2
    """
    found = client.put(f"{API}/devices/{quoted(device)}/tags", {"tags": list(tags)})
    show_lines(out, "device/1", found, [f"{found['id']}: {', '.join(found['tags']) or 'no tags'}"])


def _row(one: dict[str, Any]) -> dict[str, Any]:
    update = one["update"] or {}
    return {
        "device": one["id"],
        "variant": one["variant"],
        "runs": one["running_version"] or "-",
        "update": f"{update['rollout']} {update['state']}" if update else "-",
        "reason": update.get("reason") or "-",
        "seen": when(one["last_seen"]),
    }


def _event(one: dict[str, Any]) -> dict[str, Any]:
    return {
        **one,
        "when": when(one["received_at"]),
        "reason": one["reason"] or "-",
        "update": one["update"] or "-",
        "signed": "signed" if one["signed"] else "-",
        "detail": one["body"].get("detail", ""),
    }


def _shown(found: dict[str, Any], updates: list[dict[str, Any]]) -> list[str]:
    runs = found["running_version"] or "a factory image"
    held = f"HELD by {found['held_by']}" if found["held"] else ""
    head = (
        f"{found['id']}   {found['variant']}   {found['state']}   runs {found['product']} {runs} "
        f"(counter {found['running_counter']})   seen {when(found['last_seen'])} UTC"
    )
    lines = [
        head,
        *fields(
            [
                ("groups", ", ".join(found["groups"])),
                ("tags", ", ".join(found["tags"])),
                ("channel", found["channel"]),
                ("agent", found["agent"]),
                ("site", found["site"]),
                ("serial", found["serial"]),
                ("floor", found["security_floor"]),
                ("held", held),
                ("inhibitors", ", ".join(found["inhibitors"])),
                ("waiting", found["waiting"]),
                ("refuses", ", ".join(one[:12] for one in found["refuses"])),
            ]
        ),
    ]
    for name, slot in sorted(found["slots"].items()):
        version = slot.get("version") or f"counter {slot.get('release_counter', 0)}"
        lines.append(f"  slot {name}  {slot.get('state', '-'):9}  {version}")
    lines += ["", "Updates"] if updates else []
    for one in updates:
        reason = f": {one['reason']}" if one["reason"] else ""
        lines.append(
            f"  {when(one['state_at'])}  {one['rollout']}, ring {one['ring']}: {one['state']}{reason}"
        )
    return lines
