"""`tidegate tenant`: several tenants on one server, each with its own devices, people, keys and database."""

from typing import Any

import click
import msgspec

from tidegate.cli._people import fields, rows, show_lines, when
from tidegate.cli.client import with_client
from tidegate.cli.output import Output, need_confirmation, with_list, with_output
from tidegate.client import Client, structs
from tidegate.core.amounts import parse_size
from tidegate.core.errors import RequestError

_NONE = "0 = no bound."


def _size(_: click.Context, option: click.Parameter, value: str | None) -> int | None:
    return None if value is None else 0 if value == "0" else parse_size(value, f"--{option.name}")


def _quotas(function: Any) -> Any:
    """Give a command an option for each quota, under the names that the API has."""
    number = click.IntRange(min=0)
    size: dict[str, Any] = {"callback": _size, "metavar": "SIZE"}
    options = (
        ("--devices", "devices_max", {"type": number, "help": f"Most devices enrolled. {_NONE}"}),
        ("--stored", "stored_max", {**size, "help": f"Most bytes of payloads. {_NONE}"}),
        ("--uploads", "uploads_max", {**size, "help": f"Most bytes on their way. {_NONE}"}),
        (
            "--events-per-day",
            "events_per_day",
            {"type": number, "help": "Outcomes always come in."},
        ),
        ("--requests-per-s", "requests_per_s", {"type": number, "help": "Of people and programs."}),
    )
    for option, name, more in reversed(options):
        function = click.option(option, name, **more)(function)
    return function


@click.group("tenant")
def command() -> None:
    """Serve several tenants, each with devices, people, keys and a database of its own.

    \b
    tidegate tenant add acme --host acme.ota.example.com
    tidegate tenant list
    tidegate tenant suspend acme
    """


@command.command("list")
@with_client
@with_list(structs.TenantFacts)
def list_tenants(client: Client, out: Output) -> None:
    """List tenants beside the server's own.

    \b
    tidegate tenant list
    """
    found = client.tenants_list().items
    items = rows(out, found, lambda one: {"created": when(one.created_at)})
    out.table("tenants/1", items, ("name", "host", "state", "number", "created"))


@command.command("show")
@click.argument("name")
@with_client
@with_output
def show(name: str, client: Client, out: Output) -> None:
    """Show a tenant: how it stands, what it may take, and what it takes.

    \b
    tidegate tenant show acme
    """
    found = client.tenants_show(name)
    show_lines(out, "tenant/1", found, _lines(found))


@command.command("add")
@click.argument("name")
@click.option("--host", required=True, help="Under which its devices and people ask.")
@_quotas
@with_client
@with_output
def add(name: str, host: str, client: Client, out: Output, **quotas: int | None) -> None:
    """Make a tenant, and serve it at once. Its first password and token are shown this once.

    \b
    tidegate tenant add acme --host acme.ota.example.com
    tidegate tenant add small --host small.ota.example.com --devices 1000 --stored 20GiB
    """
    given = {key: one for key, one in quotas.items() if one is not None}
    made = client.tenants_create(structs.NewTenant(name=name, host=host, **given))
    out.note(f"{name} is served at {host}. Its account {made.account} has this password:")
    show_lines(
        out, "tenant-made/1", made,
        [made.password, f"token: {made.token}", "", "Next:  a root ceremony of its own, at its own host"],
    )  # fmt: skip


@command.command("edit")
@click.argument("name")
@click.option("--host", help="Under which its devices and people ask from now on.")
@_quotas
@with_client
@with_output
def edit(name: str, host: str | None, client: Client, out: Output, **quotas: int | None) -> None:
    """Give a tenant another host, or other quotas. They count at once.

    \b
    tidegate tenant edit acme --devices 5000 --events-per-day 2000000
    """
    found = client.tenants_change(name, structs.TenantChange(host=host, **quotas))
    show_lines(out, "tenant/1", found, _lines(found))


def _told(out: Output, found: structs.TenantFacts) -> None:
    show_lines(out, "tenant/1", found, [f"{found.name} is {found.state}."])


@command.command("suspend")
@click.argument("name")
@with_client
@with_output
def suspend(name: str, client: Client, out: Output) -> None:
    """Let nobody of a tenant in. Devices come again by themselves; nothing is lost.

    \b
    tidegate tenant suspend acme
    """
    _told(out, client.tenants_suspend(name))


@command.command("resume")
@click.argument("name")
@with_client
@with_output
def resume(name: str, client: Client, out: Output) -> None:
    """Serve a tenant again that was suspended.

    \b
    tidegate tenant resume acme
    """
    _told(out, client.tenants_resume(name))


@command.command("remove")
@click.argument("name")
@with_client
@with_output
def remove(name: str, client: Client, out: Output) -> None:
    """Give up a tenant that is suspended. Its data stays where it is: `restore` brings it back, `purge` destroys it.

    \b
    tidegate tenant remove acme
    """
    _told(out, client.tenants_remove(name))


@command.command("restore")
@click.argument("name")
@with_client
@with_output
def restore(name: str, client: Client, out: Output) -> None:
    """Have a tenant back that was removed, suspended as it was.

    \b
    tidegate tenant restore acme
    """
    _told(out, client.tenants_restore(name))


@command.command("purge")
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Say what would be lost; destroy nothing.")
@click.option("--yes", is_flag=True, help="Do not ask. Needs --reason.")
@click.option("--reason", metavar="TEXT", help="Why. It stands in the audit log.")
@with_client
@with_output
def purge(
    name: str, dry_run: bool, yes: bool, reason: str | None, client: Client, out: Output
) -> None:
    """Destroy what is left of a tenant that was removed. It cannot be had back.

    Its payloads, database and keys go; the proof of its audit log stays, in that of this server. Backups are not touched.

    \b
    tidegate tenant purge acme --dry-run
    tidegate tenant purge acme --reason "contract ended, request 4711"
    """
    plan = client.tenants_purge(name, structs.Purge(), dry_run=True)
    if dry_run:
        show_lines(out, "tenant-purge/1", plan, _lost(plan))
        return
    for line in _lost(plan):
        out.note(line)
    if not reason:
        raise RequestError("request.confirmation_needed", "it cannot be undone: say why (--reason)")
    need_confirmation("To destroy it, type the tenant's name", name, yes=yes, reason=reason)
    done = client.tenants_purge(name, structs.Purge(reason=reason, confirm=plan.plan_sha256))
    out.note(f"{name} is destroyed here. Its backups, and its folders on other machines, are not.")
    show_lines(out, "tenant-purge/1", done, [done.audit_head])


def _lost(plan: structs.PurgePlan) -> list[str]:
    counts = {
        "devices": plan.devices,
        "accounts": plan.accounts,
        "releases": plan.releases,
        "rollouts": plan.rollouts,
        "events": plan.events,
        "payload bytes": plan.payload_bytes,
    }
    held = f"{plan.audit_rows:,} rows" if plan.audit_intact else "DOES NOT HOLD: look at it first"
    pairs: list[tuple[str, object]] = [
        ("removed", when(plan.removed_at)),
        *((what, f"{count:,}") for what, count in counts.items()),
        *(("place", one) for one in plan.places),
        ("audit log", held),
        ("kept of it", f"last hash {plan.audit_head or 'none'}, newest signed head, key"),
    ]
    return [f"{plan.tenant}   what a purge destroys", *fields(pairs)]


def _lines(found: structs.TenantFacts) -> list[str]:
    usage, quotas = found.usage, msgspec.structs.asdict(found.quotas)
    used = msgspec.structs.asdict(usage) if usage is not None else {}

    def of(what: str, most: str) -> str:
        bound = f"of {quotas[most]:,}" if quotas[most] else "no bound"
        return f"{used[what]:,}, {bound}" if what in used else bound

    pairs: list[tuple[str, object]] = [
        ("host", found.host),
        ("number", found.number),
        ("created", f"{when(found.created_at)} by {found.created_by}"),
        ("suspended", when(found.suspended_at)),
        ("removed", when(found.removed_at)),
        ("wrong", found.wrong),
        ("devices", of("devices", "devices_max")),
        ("stored bytes", of("stored_bytes", "stored_max")),
        ("uploads", of("", "uploads_max")),
        ("events today", of("events_today", "events_per_day")),
        ("requests/s", of("", "requests_per_s")),
    ]
    return [f"{found.name}   {found.state}", *fields(pairs)]
