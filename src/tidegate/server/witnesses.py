"""Devices as witnesses of the operators' log: each is shown the newest signed head, with the proof that it goes on from the one that it saw.

A device that asks also says what it saw. A head that this server's own audit key signed, and that the log here does not contain, is proof that there were two
histories: written down, and told to operators, whatever became of the one that the device saw. A device's bare word (`security.audit_fork`) is told as well.
Both at most once a day, since one device must not fill the log; neither stops updates.
"""

from typing import Any, Final

from tidegate.core.audit import checkpoint as notes
from tidegate.core.audit.checkpoint import Checkpoint
from tidegate.core.errors import PublisherError, RequestError
from tidegate.core.keys import PublicKey
from tidegate.core.protocol import AuditNews
from tidegate.server import audit
from tidegate.server.store import Connection, admin_log, audit_rows, device_queries

FORK: Final = "security.audit_fork"
#: How the log itself names one.
ACTION: Final = "audit.fork"
_ITSELF: Final = "tidegate"
_DAY_S: Final = 86_400


def hear(
    conn: Connection, row: int, seen: str | None, key: PublicKey, now: int
) -> AuditNews | None:
    """Return what a device is to be shown of the log; None where there is nothing that it has not seen.

    Args:
        conn: the writer's connection.
        row: of the device.
        seen: the head that it says it saw (untrusted); None: it saw none, or is an older agent.
        key: the server's own audit key.
        now: unix seconds.
    """
    newest = audit.newest_checkpoint(conn)
    if newest is None or (seen is not None and seen == newest.note):
        return None
    old = _read(seen)
    if old is None or old.size == 0:
        return AuditNews(checkpoint=newest.note)
    if not _contains(conn, old):
        if seen is not None and _signed(seen, key):
            tell(
                conn,
                row,
                f"it holds a signed head of {old.size} rows that is not of this log",
                now,
                note=seen,
            )
        return AuditNews(checkpoint=newest.note)
    if old.size >= newest.size:
        return AuditNews(checkpoint=newest.note)
    try:
        proof = audit.consistency(conn, old.size, newest.size)
    except RequestError:
        return AuditNews(checkpoint=newest.note)
    return AuditNews(checkpoint=newest.note, proof=proof.hashes)


def tell(conn: Connection, row: int, what: str, now: int, *, note: str = "") -> None:
    """Write down that a device saw another history, and owe operators a word; nothing when one was told within a day.

    Args:
        conn: the writer's connection.
        row: of the device.
        what: the device's word, or the server's own finding.
        now: unix seconds.
        note: the signed head that proves it, "" where there is only a word.
    """
    device = device_queries.by_row(conn, row)
    thing = str(device.id) if device is not None else str(row)
    last = next(
        audit_rows.entries(conn, action=ACTION, newest_first=True, limit=1, since=now - _DAY_S),
        None,
    )
    if last is not None and (last.detail.get("note") or not note):
        return
    detail: dict[str, Any] = {"text": what[:300], **({"note": note} if note else {})}
    audit.record(conn, now, _ITSELF, ACTION, thing, detail)
    payload = {
        "event": "audit.forked",
        "device": thing,
        "text": what[:300],
        "at": now,
        "by": _ITSELF,
    }
    admin_log.add_outbox(conn, "event", payload, now)


def _contains(conn: Connection, old: Checkpoint) -> bool:
    """Say whether the log here begins with what a head covers: by the head that was signed here, else by the tree."""
    kept = audit_rows.checkpoint(conn, old.size)
    if kept is not None:
        return str(kept["root"]) == old.root.hex()
    if old.size > audit_rows.head(conn)[0]:
        return False
    try:
        return audit.root_at(conn, old.size) == old.root
    except RequestError:
        return False


def _read(note: str | None) -> Checkpoint | None:
    try:
        return notes.peek(note) if note is not None else None
    except PublisherError:
        return None


def _signed(note: str, key: PublicKey) -> bool:
    try:
        notes.open_note(note, [notes.verifier_of(audit.ORIGIN, key)], audit.ORIGIN)
    except PublisherError:
        return False
    return True
