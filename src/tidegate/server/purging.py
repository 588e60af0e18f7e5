"""Destroying what a tenant left that was removed: its payloads, its database, its keys. None of it can be had back, so it is foreseen, and confirmed by that.

The row that names the tenant goes last, so that a purge that broke off is begun again. What stays is the proof of its log: how many rows there were, the hash
of the last, the newest signed head and the key to check it with, in the audit log of the default tenant. Whoever kept an export can still show that it is all
that there was. Backups, and folders on other machines, are not reached from here.
"""

import hashlib
import json
import shutil
from pathlib import Path

import msgspec

from tidegate.core.audit import checkpoint as notes
from tidegate.core.errors import ConfigError, PublisherError, RequestError
from tidegate.core.keys import public_key_from
from tidegate.server import audit, online, quotas, tenants
from tidegate.server.blobs import open_blobs
from tidegate.server.cells import data_left, settings_of
from tidegate.server.config import Settings
from tidegate.server.store import (
    Connection,
    changes,
    device_queries,
    opening,
    purge_rows,
    tenant_rows,
)
from tidegate.server.tenants import Tenant


class PurgePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a purge destroys, and what it leaves.

    Attributes:
        tenant, number: which one.
        removed_at: since when nobody is served there, unix seconds.
        devices, accounts, releases, rollouts, events: so many are lost.
        payload_bytes: of its artifacts, as far as its database says.
        places: where the data lies that goes, for people.
        audit_rows, audit_head: its log's rows, and the hash (hex) of the last; both are kept.
        audit_intact: whether the log holds; a purge of one that does not destroys the evidence.
        checkpoint: its newest signed head, and the `verifier` key that goes with it; empty = there is none. Kept.
        plan_sha256: what `confirm` takes.
    """

    tenant: str
    number: int
    removed_at: int
    devices: int
    accounts: int
    releases: int
    rollouts: int
    events: int
    payload_bytes: int
    places: tuple[str, ...]
    audit_rows: int
    audit_head: str
    audit_intact: bool
    checkpoint: str
    verifier: str
    plan_sha256: str


def foresee(server: Settings, tenant: Tenant) -> PurgePlan:
    """Say what would be lost. Reads the whole log of the tenant.

    Raises:
        RequestError: `request.conflict`: it is not removed. BusyError, ConfigError: `data.*`.
    """
    if tenant.removed_at is None:
        raise RequestError(
            "request.conflict",
            f"{tenant.name} is not removed",
            hint=f"tidegate tenant suspend {tenant.name}, then remove: what is purged cannot be had back",
        )
    settings = settings_of(server, tenant.name, tenant.number)
    found = PurgePlan(
        tenant=tenant.name,
        number=tenant.number,
        removed_at=tenant.removed_at,
        devices=0,
        accounts=0,
        releases=0,
        rollouts=0,
        events=0,
        payload_bytes=0,
        places=_places(settings),
        audit_rows=0,
        audit_head="",
        audit_intact=True,
        checkpoint="",
        verifier=_verifier(Path(settings.data_dir)),
        plan_sha256="",
    )
    folder, url = Path(settings.data_dir), settings.database_address
    if opening.schema(folder, url, tenant.name) is not None:
        with opening.looking(folder, url, tenant.name) as conn:
            found = _counted(conn, found)
    body = json.dumps(msgspec.to_builtins(found), sort_keys=True).encode()
    digest = hashlib.sha256(body).hexdigest()
    return msgspec.structs.replace(found, plan_sha256=digest)


def _counted(conn: Connection, plan: PurgePlan) -> PurgePlan:
    verdict, signed = audit.verify(conn), audit.newest_checkpoint(conn)
    return msgspec.structs.replace(
        plan,
        devices=device_queries.accepted(conn),
        payload_bytes=quotas.stored_bytes(conn),
        audit_rows=verdict.rows,
        audit_head=verdict.head,
        audit_intact=verdict.ok,
        checkpoint=signed.note if signed is not None else "",
        **purge_rows.counts(conn),
    )


def require_confirmed(plan: PurgePlan, confirm: str) -> None:
    """Insist that whoever asks saw what will be lost.

    Raises:
        RequestError: `request.confirmation_needed`; `request.conflict`: it is not what they saw.
    """
    if not confirm:
        raise RequestError(
            "request.confirmation_needed",
            f"{plan.devices} devices and everything else of {plan.tenant} would be destroyed",
            hint="ask with dry_run=true, and send its plan_sha256 as confirm",
        )
    if confirm != plan.plan_sha256:
        raise RequestError("request.conflict", "confirm is of another plan: look at it again")


def begin(conn: Connection, plan: PurgePlan, by: str, reason: str, now: int) -> None:
    """Write down what is destroyed, and the proof that stays, before anything is."""
    kept = msgspec.to_builtins(plan)
    detail = {name: kept[name] for name in kept if name not in {"places", "plan_sha256"}}
    detail["places"] = ", ".join(plan.places)
    detail["audit_intact"] = int(plan.audit_intact)
    detail["reason"] = reason
    audit.record(
        conn, now, by, "tenant.purge", plan.tenant, detail, plan=plan.plan_sha256, before=plan
    )


def destroy(server: Settings, tenant: Tenant) -> None:
    """Destroy everything of a tenant that this process reaches. Safe to repeat.

    Raises:
        BusyError, ConfigError: `blobs.*`, `data.*`: some of it is still there; do it again.
    """
    settings = settings_of(server, tenant.name, tenant.number)
    folder, url = Path(settings.data_dir), settings.database_address
    if settings.blobs_url:
        open_blobs(settings.blobs, folder / "blobs").empty()
    if url:
        opening.drop(url, tenant.name)
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise ConfigError("data.read_only", f"{folder}: {error.strerror}") from error
    if data_left(server, tenant.name):
        raise ConfigError("data.read_only", f"{folder}: something is still there")


def finish(conn: Connection, tenant: Tenant, by: str, now: int) -> None:
    """Forget a tenant whose data is gone. Its number is not given to another; its name may be."""
    tenant_rows.drop(conn, tenant.name)
    audit.record(conn, now, by, "tenant.purged", tenant.name, {"number": tenant.number})
    changes.bump(conn, tenants.CHANGED, tenant.name, now)


def _places(settings: Settings) -> tuple[str, ...]:
    found = [f"folder {tenants.FOLDER}/{settings.tenant}"]
    if settings.database_url:
        found.append(f"schema {opening.schema_name(settings.tenant)}")
    if settings.blobs_url:
        found.append(settings.blobs_url)
    return tuple(found)


def _verifier(folder: Path) -> str:
    """Return the key of a tenant's log on one line; empty where its folder is not on this machine."""
    try:
        plain = json.loads((folder / online.PUBLIC_NAME).read_text())["audit"]
        key = public_key_from(plain)
    except (OSError, ValueError, KeyError, TypeError, PublisherError):
        return ""
    return notes.verifier_of(audit.ORIGIN, key).text
