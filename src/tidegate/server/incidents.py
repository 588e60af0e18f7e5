"""Incidents: opened by a halt, an isolation or a fallback; told from what the database knows; closed by a person who says what was done about it."""

import datetime as dt
from typing import Any, Literal

import msgspec

from tidegate.core.errors import RequestError
from tidegate.core.nearest import did_you_mean
from tidegate.rollout.model import Finding
from tidegate.server import audit
from tidegate.server.auth import Actor
from tidegate.server.store import Connection, admin_log, changes
from tidegate.server.store import admin_incidents as rows

Row = dict[str, Any]
Kind = Literal["halt", "isolation", "fallback"]


class IncidentFacts(msgspec.Struct, frozen=True, kw_only=True):
    """An incident, as lists show it."""

    name: str
    kind: str
    state: str
    rollout: str | None
    summary: str
    subject: str
    opened_at: int
    opened_by: str
    closed_at: int | None
    published_at: int | None


class NoteFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wrote into an incident: a note, a corrective action, or an event that the server noted."""

    at: int
    by: str
    kind: str
    text: str


def open_one(
    conn: Connection,
    *,
    kind: Kind,
    rollout: Row,
    summary: str,
    because: list[Any],
    by: str,
    now: int,
    subject: str = "",
) -> str:
    """Open an incident in the transaction of what caused it, and return its name, `INC-2026-014`.

    Args:
        conn: the writer's connection.
        kind: what was done.
        rollout: its row.
        summary: one sentence.
        because: the findings that led to it, as plain values.
        by: `planner`, or who did it.
        now: unix seconds.
        subject: the variant of an isolation.
    """
    prefix = f"INC-{dt.datetime.fromtimestamp(now, dt.UTC).year:04d}-"
    name = f"{prefix}{rows.count_like(conn, prefix) + 1:03d}"
    row = {
        "name": name,
        "rollout_id": rollout["id"],
        "kind": kind,
        "state": "open",
        "summary": summary[:500],
        "subject": subject,
        "because": because,
        "opened_at": now,
        "opened_by": by,
    }
    rows.add(conn, row)
    audit.record(conn, now, by, "incident.open", name, {"kind": kind, "rollout": rollout["name"]})
    changes.bump(conn, "incident", name, now)
    payload = {
        "event": "incident.opened",
        "incident": name,
        "kind": kind,
        "rollout": rollout["name"],
        "release": rollout["release"],
        "summary": summary[:500],
        "subject": subject,
        "at": now,
        "by": by,
    }
    admin_log.add_outbox(conn, "event", payload, now)
    return name


def of_rollout(conn: Connection, rollout_id: int, state: str = "") -> list[IncidentFacts]:
    """Return a rollout's incidents, newest first."""
    return [_facts(row) for row in rows.listed(conn, rollout_id=rollout_id, state=state)]


def listed(
    conn: Connection, *, state: str = "", before: int = 0, limit: int = 50
) -> tuple[list[IncidentFacts], int]:
    """Return incidents, newest first, and the cursor of the next page (0 = there is none)."""
    found = rows.listed(conn, state=state, before=before, limit=limit + 1)
    more = int(found[limit - 1]["id"]) if len(found) > limit else 0
    return [_facts(row) for row in found[:limit]], more


def row_of(conn: Connection, name: str) -> Row:
    """Return an incident's row.

    Raises:
        RequestError: `request.not_found`.
    """
    found = rows.by_name(conn, name)
    if found is None:
        near = did_you_mean(name, rows.names(conn))
        raise RequestError("request.not_found", f'no incident "{name[:40]}"{near}')
    return found


def show(conn: Connection, name: str) -> IncidentFacts:
    """Return an incident.

    Raises:
        RequestError: `request.not_found`.
    """
    return _facts(row_of(conn, name))


def notes(conn: Connection, name: str) -> list[NoteFacts]:
    """Return what was written into an incident.

    Raises:
        RequestError: `request.not_found`.
    """
    found = rows.notes(conn, int(row_of(conn, name)["id"]))
    return [
        NoteFacts(at=one["at"], by=one["by"], kind=one["kind"], text=one["text"]) for one in found
    ]


def note(conn: Connection, name: str, kind: str, text: str, actor: Actor, now: int) -> None:
    """Write a note or a corrective `action` into an incident.

    Raises:
        RequestError: `request.not_found`, `request.invalid`.
    """
    found = row_of(conn, name)
    if kind not in {"note", "action"}:
        raise RequestError("request.invalid", "kind is note or action")
    if not text.strip() or len(text) > 10_000:
        raise RequestError("request.invalid", "a note has 1 to 10,000 characters")
    _write(conn, found, kind, text.strip(), actor.name, now)
    audit.record(conn, now, actor.name, "incident.note", name, {"kind": kind})


def happened(conn: Connection, rollout_id: int, text: str, by: str, now: int) -> None:
    """Write what was done to a rollout into its open incidents."""
    for found in rows.listed(conn, state="open", rollout_id=rollout_id):
        _write(conn, found, "event", text, by, now)


def write_event(conn: Connection, name: str, text: str, by: str, now: int) -> None:
    """Write what was done about an incident into it.

    Raises:
        RequestError: `request.not_found`.
    """
    _write(conn, row_of(conn, name), "event", text, by, now)


def close(conn: Connection, name: str, actor: Actor, reason: str, now: int) -> IncidentFacts:
    """Close an incident. Closing what is closed changes nothing.

    Raises:
        RequestError: `request.not_found`; `request.conflict`: no corrective action was written down.
    """
    found = row_of(conn, name)
    if found["state"] == "closed":
        return _facts(found)
    if reason.strip():
        _write(conn, found, "note", f"Closed: {reason.strip()[:5000]}", actor.name, now)
    if not any(one["kind"] == "action" for one in rows.notes(conn, int(found["id"]))):
        raise RequestError(
            "request.conflict", f"{name} has no corrective action: add one, then close it"
        )
    rows.change(conn, int(found["id"]), {"state": "closed", "closed_at": now})
    audit.record(conn, now, actor.name, "incident.close", name, {"reason": reason[:500]})
    changes.bump(conn, "incident", name, now)
    return show(conn, name)


def publish(conn: Connection, name: str, actor: Actor, now: int) -> IncidentFacts:
    """Mark an incident's report as published. Safe to repeat.

    Raises:
        RequestError: `request.not_found`.
    """
    found = row_of(conn, name)
    if found["published_at"] is None:
        rows.change(conn, int(found["id"]), {"published_at": now})
        audit.record(conn, now, actor.name, "incident.publish", name)
        changes.bump(conn, "incident", name, now)
    return show(conn, name)


def findings_of(row: Row) -> tuple[Finding, ...]:
    """Return the findings that led to an incident."""
    return tuple(msgspec.convert(one, type=Finding) for one in row["because"])


def _write(conn: Connection, found: Row, kind: str, text: str, by: str, now: int) -> None:
    row = {"incident_id": found["id"], "at": now, "by": by, "kind": kind, "text": text}
    rows.add_note(conn, row)
    changes.bump(conn, "incident", str(found["name"]), now)


def _facts(row: Row) -> IncidentFacts:
    return IncidentFacts(**{name: row[name] for name in IncidentFacts.__struct_fields__})
