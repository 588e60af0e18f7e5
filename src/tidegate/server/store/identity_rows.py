"""Statements about who devices are: retired keys, the factory's list, salts of the daily MAC keys. No decision is made here."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from tidegate.server.store import tables as t
from tidegate.server.store.scope import tenant_of

# --- keys ------------------------------------------------------------------------------------------------------------


def retire_key(conn: Connection, key_sha256: str, row: int, reason: str, now: int) -> None:
    """Note that a key never comes back. One that is retired stays as it is."""
    if retired(conn, key_sha256) is None:
        conn.execute(
            insert(t.retired_key).values(
                key_sha256=key_sha256, device_row=row, reason=reason, at=now
            )
        )


def retired(conn: Connection, key_sha256: str) -> str | None:
    """Return why a key was retired, or None when it was not."""
    asked = select(t.retired_key.c.reason).where(t.retired_key.c.key_sha256 == key_sha256)
    found = conn.execute(asked).scalar()
    return None if found is None else str(found)


def holders(conn: Connection, key_sha256: str) -> list[Row[Any]]:
    """Return the devices whose present key this is."""
    return list(conn.execute(select(t.device).where(t.device.c.key_sha256 == key_sha256).limit(8)))


def pending_count(conn: Connection) -> int:
    """Return how many devices wait for a person."""
    asked = select(func.count()).where(
        t.device.c.tenant == tenant_of(conn), t.device.c.state == "pending"
    )
    return int(conn.execute(asked).scalar_one())


def event(conn: Connection, row: int, seq: int) -> Row[Any] | None:
    """Return a device's event by its number, the first where there are several, or None."""
    asked = select(t.event).where(t.event.c.device_row == row, t.event.c.seq == seq)
    return conn.execute(asked.order_by(t.event.c.position).limit(1)).one_or_none()


def has_event(conn: Connection, row: int, seq: int) -> bool:
    """Say whether a device has an event of this number."""
    return event(conn, row, seq) is not None


# --- salts -----------------------------------------------------------------------------------------------------------


def salts(conn: Connection) -> list[tuple[int, bytes]]:
    """Return (unix day, salt) of every daily key."""
    asked = select(t.session_salt.c.day, t.session_salt.c.salt)
    return [(int(day), bytes(salt)) for day, salt in conn.execute(asked)]


def add_salt(conn: Connection, day: int, salt: bytes) -> None:
    """Store a day's salt, unless another replica did."""
    asked = select(t.session_salt.c.day).where(t.session_salt.c.day == day)
    if conn.execute(asked).first() is None:
        conn.execute(insert(t.session_salt).values(day=day, salt=salt))


def drop_salts(conn: Connection, before: int) -> None:
    """Delete the salts of days before `before`."""
    conn.execute(delete(t.session_salt).where(t.session_salt.c.day < before))


# --- the factory's list ----------------------------------------------------------------------------------------------


def listed_key(conn: Connection, key_sha256: str) -> Row[Any] | None:
    """Return the entry of a key, or None."""
    asked = select(t.preauthorized).where(
        t.preauthorized.c.tenant == tenant_of(conn), t.preauthorized.c.key_sha256 == key_sha256
    )
    return conn.execute(asked).one_or_none()


def listed_id(conn: Connection, device_id: str) -> list[Row[Any]]:
    """Return the entries that name a device id."""
    asked = select(t.preauthorized).where(
        t.preauthorized.c.tenant == tenant_of(conn), t.preauthorized.c.device_id == device_id
    )
    return list(conn.execute(asked.limit(8)))


def add_listed(conn: Connection, values: Mapping[str, Any]) -> None:
    """Add an entry."""
    conn.execute(insert(t.preauthorized).values(**values))


def use_listed(conn: Connection, entry: int, now: int) -> None:
    """Note that a device came with an entry's key."""
    conn.execute(update(t.preauthorized).where(t.preauthorized.c.id == entry).values(used_at=now))


def drop_listed(conn: Connection, key_sha256: str) -> bool:
    """Remove an entry that nobody used; say whether there was one."""
    gone = delete(t.preauthorized).where(
        t.preauthorized.c.tenant == tenant_of(conn),
        t.preauthorized.c.key_sha256 == key_sha256,
        t.preauthorized.c.used_at.is_(None),
    )
    return conn.execute(gone).rowcount == 1


def listed(conn: Connection, *, after: int, limit: int) -> list[Row[Any]]:
    """Return entries behind one, in the order in which they came."""
    asked = select(t.preauthorized).where(
        t.preauthorized.c.tenant == tenant_of(conn), t.preauthorized.c.id > after
    )
    return list(conn.execute(asked.order_by(t.preauthorized.c.id).limit(limit)))
