"""The operators' log: one row an act, each bound to the one before it by a hash, so that nothing can be taken out or changed unseen.

The chain proves order and completeness up to its newest row, not that the newest rows are all there; signed checkpoints do that and come later.
"""

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from tidegate.core.codec import canonical
from tidegate.server.store import Connection
from tidegate.server.store import admin_log as rows


class AuditRow(msgspec.Struct, frozen=True, kw_only=True):
    """One act, as the API gives it."""

    seq: int
    at: int
    actor: str
    action: str
    object: str
    detail: dict[str, Any]
    hash: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the chain holds. `broken_at` is the first row that does not follow from the one before it."""

    ok: bool
    rows: int
    head: str
    broken_at: int | None = None


def record(
    conn: Connection,
    now: int,
    actor: str,
    action: str,
    thing: str,
    detail: dict[str, Any] | None = None,
) -> str:
    """Append an act in the transaction that performs it; return the row's hash.

    Args:
        conn: the writer's connection.
        now: unix seconds.
        actor: who did it.
        action: noun and verb, `rollout.halt`.
        thing: what it was done to.
        detail: plain JSON, integers and text only.
    """
    seq, before = rows.audit_head(conn)
    row: dict[str, Any] = {
        "seq": seq + 1,
        "at": now,
        "actor": actor[:128],
        "action": action[:64],
        "object": thing[:200],
        "detail": detail or {},
    }
    row["hash"] = link(before, row)
    rows.add_audit(conn, row)
    return str(row["hash"])


def link(before: str, row: dict[str, Any]) -> str:
    """Return the hash of a row: SHA-256 over the previous row's hash and this row's canonical JSON."""
    body = {key: row[key] for key in ("seq", "at", "actor", "action", "object", "detail")}
    return hashlib.sha256(before.encode() + b"\n" + canonical(body)).hexdigest()


def check(found: Iterable[dict[str, Any]], before: str = "", seq: int = 0) -> Verdict:
    """Follow the chain over rows in order (untrusted), from the hash and number before the first of them."""
    count = 0
    for row in found:
        if row["seq"] != seq + 1 or row["hash"] != link(before, row):
            return Verdict(ok=False, rows=count, head=before, broken_at=int(row["seq"]))
        before, seq, count = str(row["hash"]), int(row["seq"]), count + 1
    return Verdict(ok=True, rows=count, head=before)


def verify(conn: Connection) -> Verdict:
    """Follow the whole chain in the database."""
    return check(rows.audit_rows(conn))


def newest(conn: Connection, *, before: int = 0, limit: int = 50) -> list[AuditRow]:
    """Return acts, newest first, those before number `before` (0 = from the newest)."""
    return [_row(one) for one in rows.newest_audit_rows(conn, before=before, limit=limit)]


def export(conn: Connection, *, after: int = 0, limit: int = 10_000) -> list[AuditRow]:
    """Return acts in order, those behind number `after`."""
    return [_row(one) for one in rows.audit_rows(conn, after=after, limit=limit)]


def _row(row: dict[str, Any]) -> AuditRow:
    return AuditRow(**{name: row[name] for name in AuditRow.__struct_fields__})
