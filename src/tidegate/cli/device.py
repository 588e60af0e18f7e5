"""`tidegate device`: look at devices, ask why, let them in, hold them."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from tidegate.cli import _factory
from tidegate.cli._people import fields, need_reason, rows, show_lines, when
from tidegate.cli._sorting import with_sort
from tidegate.cli.client import with_client
from tidegate.cli.output import Output, need_confirmation, with_list, with_output
from tidegate.client import Client, structs
from tidegate.core.errors import RequestError
from tidegate.core.words import key_beginning

#: How many reports are looked through for those that are not heartbeats.
_LOOKED_THROUGH: Final = 10_000
#: Entries of a factory's list in one request.
_BATCH: Final = 500


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
@with_sort(Client.devices_list)
@with_client
@with_list(structs.DeviceRecord)
def list_devices(
    query: str | None,
    group: str | None,
    state: str | None,
    sort: Any,
    limit: int,
    client: Client,
    out: Output,
) -> None:
    """List devices that match a query.

    \b
    tidegate device list --query 'state != confirmed'
    tidegate device list --group pilot --json
    """
    found = client.devices_list(
        query=query, group=group, state=state, sort=sort, limit=min(limit, 500)
    )
    items = list(itertools.islice(found, limit + 1))
    more = len(items) > limit
    told = rows(out, items[:limit], _row)
    out.table("devices/1", told, ("device", "variant", "runs", "update", "reason", "seen"))
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
    found, updates = client.devices_show(device), client.devices_updates_list(device).items
    told = {**msgspec.structs.asdict(found), "updates": updates}
    show_lines(out, "device/1", told, _shown(found, updates))


@command.command("why")
@click.argument("device")
@with_client
@with_output
def why(device: str, client: Client, out: Output) -> None:
    """Say why a device is, or is not, updating.

    \b
    tidegate device why gw1-01f77b
    """
    found = client.devices_why(device)
    lines = [found.verdict, ""]
    lines += [f"  {'ok' if one.ok else 'WAIT':5} {one.text}" for one in found.checks]
    show_lines(out, "why/1", found, lines)


@command.command("log")
@click.argument("device")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@click.option("--all", "everything", is_flag=True, help="Heartbeats too.")
@with_client
@with_list(structs.EventFacts)
def log(device: str, limit: int, everything: bool, client: Client, out: Output) -> None:
    """Show what a device reported, newest first.

    \b
    tidegate device log gw1-00c2d9
    """
    items = []
    size = min(limit, 500) if everything else 500
    for at, one in enumerate(client.devices_log_list(device, limit=size), start=1):
        if everything or one.kind != "heartbeat":
            items.append(one)
        if len(items) == limit or at == _LOOKED_THROUGH:
            break
    told = rows(out, items, _event)
    out.table("events/1", told, ("when", "seq", "kind", "reason", "update", "signed", "detail"))


@command.command("logs")
@click.argument("device")
@click.option("--show", "number", type=click.IntRange(1), help="Print one, by its id.")
@with_client
@with_output
def logs(device: str, number: int | None, client: Client, out: Output) -> None:
    """List the logs that a device sent after failures, or print one.

    The first devices of each rollout and reason are asked for theirs; [poll] send_logs in agent.toml says whether a device sends one.

    \b
    tidegate device logs gw1-00c2d9
    tidegate device logs gw1-00c2d9 --show 12
    """
    if number is not None:
        found = client.devices_logs_show(device, number)
        out.data("device-log/1", found, found.text.rstrip("\n"))
        return
    asked = client.devices_logs_list(device).items
    items = rows(
        out, asked, lambda one: {"came": when(one.received_at) if one.received_at else "wanted"}
    )
    columns = ("id", "came", "rollout", "reason", "chars")
    out.table("device-logs/1", items, columns, empty="no log was asked of this device")


@command.command("pending")
@with_client
@with_list(structs.DeviceRecord)
def pending(client: Client, out: Output) -> None:
    """List devices that ask to join.

    \b
    tidegate device pending
    """
    found = client.devices_list(state="pending", limit=500)
    items = rows(out, found, lambda one: {"since": when(one.enrolled_at)})
    columns = ("id", "product", "variant", "serial", "key_words", "since")
    out.table("devices/1", items, columns, empty="nobody asks to join")


_Verb = Callable[[Client, str, structs.Because], structs.DeviceRecord]


def _each(client: Client, out: Output, verb: _Verb, names: tuple[str, ...], reason: str) -> None:
    because = structs.Because(reason=reason)
    found = [verb(client, name, because) for name in names]
    done = [{"id": one.id, "state": one.state, "held": one.held} for one in found]
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
        asked = client.devices_list(query=all_matching, state="pending", limit=500)
        found = tuple(one.id for one in asked)
        question = f"To let {len(found)} devices in, type their number"
        need_confirmation(question, str(len(found)), yes=yes, reason=reason)
        devices += found
    _each(client, out, _accept, devices, reason or "")


@command.command("approve")
@click.argument("device")
@click.option(
    "--fingerprint",
    metavar="WORDS|HEX",
    required=True,
    help="What the device shows: its eight words, or 16 to 64 hex digits.",
)
@click.option("--reason", metavar="TEXT")
@with_client
@with_output
def approve(device: str, fingerprint: str, reason: str | None, client: Client, out: Output) -> None:
    """Let one device in, if its key is the one that it shows you.

    \b
    tidegate device approve gw1-00c2d9 --fingerprint "acorn otter ..."
    """
    key_beginning(fingerprint)
    let_in = structs.LetIn(fingerprint=fingerprint, reason=reason or "")
    found = client.devices_accept(device, let_in)
    show_lines(out, "device/1", found, [f"{found.id} is {found.state}."])


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
    _each(client, out, Client.devices_reject, devices, reason or "")


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
    _each(client, out, Client.devices_hold, devices, reason or "")


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
    _each(client, out, Client.devices_unhold, devices, reason or "")


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
    _each(client, out, Client.devices_revoke, devices, need_reason(reason))


@command.command("decommission")
@click.argument("device")
@click.option("--yes", is_flag=True, help="Do not ask; needs --reason.")
@click.option("--reason", metavar="TEXT", help="Why; required, for it cannot be undone.")
@with_client
@with_output
def decommission(device: str, yes: bool, reason: str | None, client: Client, out: Output) -> None:
    """Retire a device for ever: neither its id nor its key is taken again. What it reported stays.

    \b
    tidegate device decommission gw1-00c2d9 --reason "scrapped"
    """
    words = need_reason(reason)
    question = f"To retire {device} for ever, type its id"
    need_confirmation(question, device, yes=yes, reason=reason)
    _each(client, out, Client.devices_decommission, (device,), words)


@command.command("swap")
@click.argument("device")
@click.option(
    "--fingerprint",
    metavar="WORDS|HEX",
    required=True,
    help="Of the new key, read from the device.",
)
@with_client
@with_output
def swap(device: str, fingerprint: str, client: Client, out: Output) -> None:
    """Approve a device's new key: after a board was swapped, or to leave quarantine or revocation.

    The old key is retired when the device comes with the new one, within seven days.

    \b
    tidegate device swap gw1-00c2d9 --fingerprint "acorn otter ..."
    """
    key_beginning(fingerprint)
    found = client.devices_swap(device, structs.Swap(fingerprint=fingerprint))
    show_lines(out, "device/1", found, [f"{found.id} may come with its new key now."])


@command.command("rekey")
@click.argument("devices", metavar="DEVICE...", nargs=-1, required=True)
@click.option("--reason", metavar="TEXT")
@with_client
@with_output
def rekey(devices: tuple[str, ...], reason: str | None, client: Client, out: Output) -> None:
    """Have devices make themselves new keys; each does when it asks next.

    \b
    tidegate device rekey gw1-00c2d9
    """
    _each(client, out, Client.devices_rekey, devices, reason or "")


@command.command("clear")
@click.argument("device")
@click.option("--reason", metavar="TEXT", help="How it is known that there is one only; required.")
@with_client
@with_output
def clear(device: str, reason: str | None, client: Client, out: Output) -> None:
    """Let a device out of quarantine with the key that it has: there was one device after all.

    Where there were two, give the right one a new key: `tidegate-agent rekey` there, and `swap` here.

    \b
    tidegate device clear gw1-00c2d9 --reason "virtual machine restored twice"
    """
    _each(client, out, Client.devices_clear, (device,), need_reason(reason))


@command.command("preauthorize")
@click.argument("file", type=click.Path(path_type=Path))
@with_client
@with_output
def preauthorize(file: Path, client: Client, out: Output) -> None:
    """Announce devices by a factory's list: who comes with a key of it is let in.

    FILE is CSV with a header, JSON lines or a JSON array, with id or serial, and public_key or
    key_sha256; keytype, product, channel and attributes if you like. A bad line is named and the
    others are taken; importing again changes nothing.

    \b
    tidegate device preauthorize line-4.csv
    """
    done = {"added": 0, "known": 0}
    problems: list[dict[str, Any]] = []
    batch: list[tuple[int, dict[str, Any]]] = []

    def send() -> None:
        if not batch:
            return
        entries = [entry for _, entry in batch]
        found = client.preauthorized_create(structs.FactoryList(entries=entries))
        done["added"] += found.added
        done["known"] += found.known
        problems.extend(
            {"line": batch[one.index][0], "problem": one.detail} for one in found.refused
        )
        batch.clear()

    for line in _factory.read(file):
        if line.entry is None:
            problems.append({"line": line.number, "problem": line.problem})
            continue
        batch.append((line.number, line.entry))
        if len(batch) == _BATCH:
            send()
    send()
    problems.sort(key=lambda one: int(one["line"]))
    text = [f"{done['added']:,} added, {done['known']:,} known already, {len(problems):,} refused"]
    text += [f"{file}, line {one['line']}: {one['problem']}" for one in problems]
    show_lines(out, "preauthorized/1", {**done, "refused": problems}, text)
    if problems:
        raise RequestError(
            "request.invalid",
            f"{len(problems):,} lines of {file} were refused",
            hint="correct them and import the file again: what is known stays as it is",
        )


@command.command("preauthorized")
@click.option("--drop", metavar="KEY", help="Take an entry off, by its key_sha256.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
@with_client
@with_list(structs.Listed)
def announced(drop: str | None, limit: int, client: Client, out: Output) -> None:
    """List the devices that the factory announced, or take one off that has not come yet.

    \b
    tidegate device preauthorized
    """
    if drop is not None:
        client.preauthorized_remove(drop)
        out.note(f"{drop[:16]} is off the list.")
        return
    found = itertools.islice(client.preauthorized_list(limit=min(limit, 500)), limit)
    items = rows(out, found, lambda one: {"came": when(one.used_at)})
    columns = ("id", "serial", "product", "channel", "key_sha256", "came")
    out.table("preauthorized/1", items, columns, empty="nobody was announced")


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
    found = client.devices_tags_replace(device, structs.Tags(tags=tags))
    show_lines(out, "device/1", found, [f"{found.id}: {', '.join(found.tags) or 'no tags'}"])


def _accept(client: Client, name: str, because: structs.Because) -> structs.DeviceRecord:
    return client.devices_accept(name, structs.LetIn(reason=because.reason))


def _row(one: structs.DeviceRecord) -> dict[str, object]:
    update = one.update
    return {
        "device": one.id,
        "variant": one.variant,
        "runs": one.running_version or "-",
        "update": f"{update.rollout} {update.state}" if update else "-",
        "reason": (update.reason if update else None) or "-",
        "seen": when(one.last_seen),
    }


def _event(one: structs.EventFacts) -> dict[str, object]:
    return {
        "when": when(one.received_at),
        "reason": one.reason or "-",
        "update": one.update or "-",
        "signed": "signed" if one.signed else "-",
        "detail": one.body.get("detail", ""),
    }


def _restarts(found: structs.DeviceRecord) -> str:
    """Tell of restarts that nobody had asked for."""
    if not found.restarts:
        return ""
    return f"{found.restarts} that nobody asked for; the last {when(found.restarted_at)} UTC ({found.restart_cause})"


def _promise(found: structs.DeviceRecord) -> str:
    if found.key_promised:
        return f"expected: {found.key_promised}"
    return "ordered; the device makes it when it asks next" if found.rekey else ""


def _shown(found: structs.DeviceRecord, updates: Sequence[structs.UpdateFacts]) -> list[str]:
    runs = found.running_version or "a factory image"
    held = f"HELD by {found.held_by}" if found.held else ""
    head = (
        f"{found.id}   {found.variant}   {found.state}   runs {found.product} {runs} "
        f"(counter {found.running_counter})   seen {when(found.last_seen)} UTC"
    )
    lines = [
        head,
        *fields(
            [
                ("groups", ", ".join(found.groups)),
                ("tags", ", ".join(found.tags)),
                ("channel", found.channel),
                ("agent", found.agent),
                ("site", found.site),
                ("serial", found.serial),
                ("key", f"{found.key_words}   {found.key_sha256}"),
                ("new key", _promise(found)),
                ("floor", found.security_floor),
                ("held", held),
                ("inhibitors", ", ".join(found.inhibitors)),
                ("waiting", found.waiting),
                ("restarts", _restarts(found)),
                ("refuses", ", ".join(one[:12] for one in found.refuses)),
            ]
        ),
    ]
    for name, slot in sorted(found.slots.items()):
        version = slot.get("version") or f"counter {slot.get('release_counter', 0)}"
        lines.append(f"  slot {name}  {slot.get('state', '-'):9}  {version}")
    for name, beside in sorted(found.components.items()):
        digest = (beside.get("sha256") or "")[:12]
        lines.append(f"  beside {name}  counter {beside.get('counter', 0)}  {digest}".rstrip())
    lines += ["", "Updates"] if updates else []
    for one in updates:
        reason = f": {one.reason}" if one.reason else ""
        lines.append(f"  {when(one.state_at)}  {one.rollout}, ring {one.ring}: {one.state}{reason}")
    return lines
