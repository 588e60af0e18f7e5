"""Statements about incidents and what was written into them. No decision is made here."""

from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from tidegate.server.store import tables as t

Row = dict[str, Any]
_TENANT = "default"
_INCIDENT = select(t.incident, t.rollout.c.name.label("rollout")).outerjoin(
    t.rollout, t.rollout.c.id == t.incident.c.rollout_id
)


def add(conn: Connection, row: Row) -> int:
    """Add an incident and return its row number."""
    made = insert(t.incident).values(tenant=_TENANT, **row).returning(t.incident.c.id)
    return int(conn.execute(made).scalar_one())


def count_like(conn: Connection, prefix: str) -> int:
    """Return how many incidents have a name that begins so."""
    asked = select(func.count()).select_from(t.incident).where(t.incident.c.name.startswith(prefix))
    return int(conn.execute(asked).scalar_one())


def by_name(conn: Connection, name: str) -> Row | None:
    """Return an incident with its rollout's name."""
    row = conn.execute(_INCIDENT.where(t.incident.c.name == name)).mappings().first()
    return dict(row) if row else None


def names(conn: Connection) -> list[str]:
    """Return names of the newest incidents, to show near misses."""
    asked = select(t.incident.c.name).order_by(t.incident.c.id.desc()).limit(200)
    return [str(name) for name in conn.execute(asked).scalars()]


def listed(
    conn: Connection,
    *,
    state: str = "",
    rollout_id: int | None = None,
    before: int = 0,
    limit: int = 50,
) -> list[Row]:
    """Return incidents, newest first, those before row `before` (0 = from the newest)."""
    asked = _INCIDENT.order_by(t.incident.c.id.desc()).limit(limit)
    if state:
        asked = asked.where(t.incident.c.state == state)
    if rollout_id is not None:
        asked = asked.where(t.incident.c.rollout_id == rollout_id)
    if before:
        asked = asked.where(t.incident.c.id < before)
    return [dict(row) for row in conn.execute(asked).mappings()]


def change(conn: Connection, incident_id: int, values: Row) -> None:
    """Change an incident."""
    conn.execute(update(t.incident).where(t.incident.c.id == incident_id).values(**values))


def add_note(conn: Connection, row: Row) -> None:
    """Write into an incident."""
    conn.execute(insert(t.incident_note).values(tenant=_TENANT, **row))


def notes(conn: Connection, incident_id: int) -> list[Row]:
    """Return what was written into an incident, in order."""
    asked = (
        select(t.incident_note)
        .where(t.incident_note.c.incident_id == incident_id)
        .order_by(t.incident_note.c.id)
    )
    return [dict(row) for row in conn.execute(asked).mappings()]


def outcomes(conn: Connection, rollout_id: int, limit: int = 1000) -> list[Row]:
    """Return ended or exposed updates of a rollout with their devices, in order of their last change: what a timeline is made of."""
    asked = (
        select(t.update, t.device.c.id.label("device"))
        .join(t.device, t.device.c.row == t.update.c.device_row)
        .where(t.update.c.rollout_id == rollout_id)
        .where(t.update.c.state.in_(("reverted", "failed", "lost")))
        .order_by(t.update.c.state_at, t.update.c.id)
        .limit(limit)
    )
    return [dict(row) for row in conn.execute(asked).mappings()]
