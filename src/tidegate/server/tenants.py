"""Which tenants a server has beside the default one: made, changed, suspended, removed. Their rows stand in the default tenant's database.

A tenant is a cell: its own database, keys and people (docs/decisions/0034). What is decided here is only that there is one, at which host, and what it may
take. Opening cells is `cells`; who may do this is `scopes`: whoever holds `tenant.manage`, in the default tenant.
"""

import re
from pathlib import Path
from typing import Any, Final

import msgspec

from tidegate.core.errors import RequestError
from tidegate.server import audit
from tidegate.server.config import Settings
from tidegate.server.store import Connection, changes, tenant_rows
from tidegate.server.store.scope import DEFAULT, Quotas

#: The folder of tenants, in the data directory of the server.
FOLDER: Final = "tenants"
#: The kind of change that tells other processes to look.
CHANGED: Final = "tenant"
#: A name is part of a folder's, of a schema's and of an object's name.
NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*", re.ASCII)
NAME_MAX: Final = 32
_HOST: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant beside the default one.

    Attributes:
        number: stands in its devices' tokens; never used twice.
        name: lower case letters, digits and single hyphens.
        host: the name under which devices and people ask for it.
        created_at: unix seconds.
        created_by: who made it.
        suspended_at: unix seconds since which nobody is let in, None = it is served.
        removed_at: unix seconds; its data is kept until it is purged.
        quotas: what it may take.
    """

    number: int
    name: str
    host: str
    created_at: int
    created_by: str
    suspended_at: int | None
    removed_at: int | None
    quotas: Quotas

    @property
    def is_open(self) -> bool:
        """Say whether it is served."""
        return self.suspended_at is None and self.removed_at is None


def listed(conn: Connection) -> list[Tenant]:
    """Return every tenant, removed ones too, by name."""
    return [_tenant(row) for row in tenant_rows.listed(conn)]


def of_name(conn: Connection, name: str) -> Tenant:
    """Return a tenant.

    Raises:
        RequestError: `request.not_found`.
    """
    row = tenant_rows.named(conn, name)
    if row is None:
        raise RequestError("request.not_found", f'no tenant "{name[:64]}"')
    return _tenant(row)


def folder_of(data_dir: Path, name: str) -> Path:
    """Return the folder of a tenant in the data directory of a server."""
    return data_dir if name == DEFAULT else data_dir / FOLDER / name


def check_name(name: str) -> str:
    """Return the name of a tenant (untrusted) when it may be one.

    Raises:
        RequestError: `request.invalid`.
    """
    if len(name) > NAME_MAX or not NAME.fullmatch(name):
        text = f"a tenant's name is 1 to {NAME_MAX} lower case letters, digits and hyphens"
        raise RequestError("request.invalid", text)
    return name


def check_host(host: str, own: str = "") -> str:
    """Return a host (untrusted) in lower case when it may be a tenant's; `own` is the server's own.

    Raises:
        RequestError: `request.invalid`.
    """
    found = host.lower().rstrip(".")
    if not _HOST.fullmatch(found) or ".." in found:
        raise RequestError("request.invalid", "host: a name such as acme.ota.example.com")
    if found == own:
        raise RequestError("request.invalid", f"host: {found} is the server's own")
    return found


def add(
    conn: Connection, name: str, host: str, quotas: Quotas, by: str, settings: Settings, now: int
) -> Tenant:
    """Note a new tenant, whose database is there already.

    Raises:
        RequestError: `request.invalid`; `request.conflict`: there is one of this name, or at this host.
    """
    require_new(conn, name, host)
    values = {
        "name": check_name(name),
        "host": check_host(host, own_host(settings)),
        "created_at": now,
        "created_by": by[:128],
        **msgspec.to_builtins(quotas),
    }
    tenant_rows.add(conn, values)
    return _changed(conn, name, "add", by, now)


def require_new(conn: Connection, name: str, host: str) -> None:
    """Refuse a name that a tenant has, or a host (untrusted), however it is written.

    Raises:
        RequestError: `request.invalid`, `request.conflict`.
    """
    if name == DEFAULT or tenant_rows.named(conn, name) is not None:
        raise RequestError("request.conflict", f"there is a tenant {name} already")
    other = tenant_rows.at_host(conn, check_host(host))
    if other is not None:
        raise RequestError("request.conflict", f"{host} is the host of {other['name']}")


def edit(
    conn: Connection, name: str, changed: dict[str, Any], by: str, settings: Settings, now: int
) -> Tenant:
    """Give a tenant another host, or other quotas: `host`, or fields of `Quotas`; what is not named stays.

    Raises:
        RequestError: `request.not_found`, `request.invalid`, `request.conflict`.
    """
    before = _present(conn, name)
    values = {key: value for key, value in changed.items() if value is not None}
    if not values:
        raise RequestError("request.invalid", "say what is to change: host, or a quota")
    if "host" in values:
        values["host"] = check_host(str(values["host"]), own_host(settings))
        other = tenant_rows.at_host(conn, values["host"])
        if other is not None and other["name"] != name:
            raise RequestError(
                "request.conflict", f"{values['host']} is the host of {other['name']}"
            )
    tenant_rows.change(conn, name, values)
    return _changed(conn, name, "edit", by, now, before)


def suspend(conn: Connection, name: str, by: str, now: int) -> Tenant:
    """Let nobody in any more: devices wait, people are refused, nothing is lost. Safe to repeat.

    Raises:
        RequestError: `request.not_found`.
    """
    before = _present(conn, name)
    if before.suspended_at is not None:
        return before
    tenant_rows.change(conn, name, {"suspended_at": now})
    return _changed(conn, name, "suspend", by, now, before)


def resume(conn: Connection, name: str, by: str, now: int) -> Tenant:
    """Serve a tenant again. Safe to repeat.

    Raises:
        RequestError: `request.not_found`.
    """
    before = _present(conn, name)
    if before.suspended_at is None:
        return before
    tenant_rows.change(conn, name, {"suspended_at": None})
    return _changed(conn, name, "resume", by, now, before)


def remove(conn: Connection, name: str, by: str, now: int) -> Tenant:
    """Serve a tenant no more. Its data stays where it is; `restore` brings it back. Safe to repeat.

    Raises:
        RequestError: `request.not_found`; `request.conflict`: it is not suspended.
    """
    before = of_name(conn, name)
    if before.removed_at is not None:
        return before
    if before.suspended_at is None:
        raise RequestError("request.conflict", f"{name} is served: suspend it first")
    tenant_rows.change(conn, name, {"removed_at": now})
    return _changed(conn, name, "remove", by, now, before)


def restore(conn: Connection, name: str, by: str, now: int) -> Tenant:
    """Have a tenant that was removed back, suspended as it was. Safe to repeat.

    Raises:
        RequestError: `request.not_found`.
    """
    before = of_name(conn, name)
    if before.removed_at is None:
        return before
    tenant_rows.change(conn, name, {"removed_at": None})
    return _changed(conn, name, "restore", by, now, before)


def own_host(settings: Settings) -> str:
    """Return the name of the server's own host, as far as its settings say it; empty = they do not."""
    return host_of(settings.external_url.partition("//")[2].partition("/")[0])


def host_of(text: str) -> str:
    """Return the host of `HOST` or `HOST:PORT` (untrusted), in lower case and without a last dot."""
    if text.startswith("["):
        return text.partition("]")[0][1:].lower()
    return text.partition(":")[0].lower().rstrip(".")


def _present(conn: Connection, name: str) -> Tenant:
    found = of_name(conn, name)
    if found.removed_at is not None:
        raise RequestError("request.conflict", f"{name} was removed")
    return found


def _changed(
    conn: Connection, name: str, verb: str, by: str, now: int, before: Tenant | None = None
) -> Tenant:
    """Write down an act, and have every process look."""
    after = of_name(conn, name)
    plain = {"host": after.host, **msgspec.to_builtins(after.quotas)}
    audit.record(conn, now, by, f"tenant.{verb}", name, plain, before=before, after=after)
    changes.bump(conn, CHANGED, name, now)
    return after


def _tenant(row: dict[str, Any]) -> Tenant:
    quotas = {name: int(row[name]) for name in Quotas.__struct_fields__}
    plain = {name: row[name] for name in Tenant.__struct_fields__ if name != "quotas"}
    return Tenant(**plain, quotas=Quotas(**quotas))
