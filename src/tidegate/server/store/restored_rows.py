"""Statements for a database that went back in time (`server.held`)."""

from sqlalchemy import Connection, delete, func, select, update

from tidegate.server.store import tables as t


def newest_trace(conn: Connection) -> int:
    """Return the newest time in the database, unix seconds: of an event, of hearing a device, of what was signed, of an act."""
    asked = (
        func.max(t.event.c.received_at),
        func.max(t.device.c.last_seen),
        func.max(t.repository.c.created_at),
        func.max(t.audit.c.at),
    )
    return max(int(conn.execute(select(one)).scalar() or 0) for one in asked)


def shift_time(conn: Connection, by_s: int) -> None:
    """Move deadlines, and when devices were last heard, by so many seconds."""
    u, d = t.update.c, t.device.c
    conn.execute(
        update(t.update).where(u.deadline_at.is_not(None)).values(deadline_at=u.deadline_at + by_s)
    )
    conn.execute(update(t.device).where(d.last_seen > 0).values(last_seen=d.last_seen + by_s))


def end_sessions(conn: Connection) -> None:
    """End everybody's session."""
    conn.execute(delete(t.login))
