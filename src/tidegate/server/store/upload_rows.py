"""Statements about files on their way here. How far one came is asked of the place that keeps its parts, not of these rows."""

from typing import Any

from sqlalchemy import Connection, delete, func, insert, or_, select, update

from tidegate.server.store.scope import tenant_of
from tidegate.server.store.upload_tables import upload

Row = dict[str, Any]


def add(conn: Connection, row: Row) -> None:
    """Note a new file."""
    conn.execute(insert(upload).values(**row))


def find(conn: Connection, name: str) -> Row | None:
    """Return a file's row, or None."""
    asked = select(upload).where(upload.c.tenant == tenant_of(conn), upload.c.id == name)
    found = conn.execute(asked).mappings().first()
    return dict(found) if found is not None else None


def underway(conn: Connection, sha256: str, length: int, by: str) -> Row | None:
    """Return the row of a file of this digest and length that somebody began and nobody refused, the newest; or None."""
    asked = (
        select(upload)
        .where(
            upload.c.tenant == tenant_of(conn),
            upload.c.sha256 == sha256,
            upload.c.length == length,
            upload.c.created_by == by,
            upload.c.state.in_(("open", "checking")),
        )
        .order_by(upload.c.created_at.desc(), upload.c.id)
        .limit(1)
    )
    found = conn.execute(asked).mappings().first()
    return dict(found) if found is not None else None


def listed(conn: Connection, limit: int) -> list[Row]:
    """Return the newest rows."""
    asked = select(upload).where(upload.c.tenant == tenant_of(conn))
    asked = asked.order_by(upload.c.created_at.desc(), upload.c.id).limit(limit)
    return [dict(row) for row in conn.execute(asked).mappings()]


def promised_bytes(conn: Connection) -> int:
    """Return how many bytes the files under way have, those that are still to come included."""
    asked = select(func.coalesce(func.sum(upload.c.length), 0)).where(
        upload.c.tenant == tenant_of(conn), upload.c.state.in_(("open", "checking"))
    )
    return int(conn.execute(asked).scalar_one())


def put(conn: Connection, name: str, values: Row) -> None:
    """Change a row."""
    conn.execute(
        update(upload)
        .where(upload.c.tenant == tenant_of(conn), upload.c.id == name)
        .values(**values)
    )


def take(conn: Connection, name: str, holder: str, now: int, until: int) -> bool:
    """Begin to look at a file, or go on where another process stopped; False when one is at it, or it is over."""
    done = conn.execute(
        update(upload)
        .where(
            upload.c.tenant == tenant_of(conn),
            upload.c.id == name,
            or_(
                upload.c.state == "open",
                (upload.c.state == "checking") & (upload.c.held_until < now),
            ),
        )
        .values(state="checking", holder=holder, held_until=until, code="", detail="")
    )
    return done.rowcount == 1


def lapsed(conn: Connection, now: int) -> list[Row]:
    """Return the rows that nobody goes on with, of every tenant."""
    asked = select(upload).where(upload.c.expires_at <= now, upload.c.held_until < now)
    return [dict(row) for row in conn.execute(asked).mappings()]


def remove(conn: Connection, name: str) -> None:
    """Forget a row."""
    conn.execute(delete(upload).where(upload.c.id == name))
