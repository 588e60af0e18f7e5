"""Statements about logs of devices. What is wanted, and how much of it is kept, is decided in `server.device_logs`."""

from typing import Any

from sqlalchemy import Connection, delete, func, insert, or_, select, update

from tidegate.server.store import tables as t
from tidegate.server.store.log_tables import device_log

Row = dict[str, Any]
_l = device_log.c
#: All but the text.
_HEAD = (
    _l.id, _l.update_id.label("update"), _l.attempt, t.rollout.c.name.label("rollout"), _l.reason,
    _l.wanted_at, _l.received_at, _l.chars,
)  # fmt: skip


def taken(conn: Connection, rollout_id: int, reason: str, since: int) -> int:
    """Return how many logs of a rollout's updates with this reason came, or were wanted since then."""
    asked = select(func.count()).where(
        _l.rollout_id == rollout_id,
        _l.reason == reason,
        or_(_l.received_at.is_not(None), _l.wanted_at >= since),
    )
    return int(conn.execute(asked).scalar_one())


def wanted_since(conn: Connection, tenant: str, since: int) -> int:
    """Return how many logs of a tenant's devices were wanted since then."""
    asked = select(func.count()).where(_l.wanted_at >= since, _l.tenant == tenant)
    return int(conn.execute(asked).scalar_one())


def want(conn: Connection, row: Row) -> None:
    """Note that a log is wanted; once for each attempt of an update."""
    known = select(_l.id).where(_l.update_id == row["update_id"], _l.attempt == row["attempt"])
    if conn.execute(known).scalar() is None:
        conn.execute(insert(device_log).values(**row))


def wish(conn: Connection, device_row: int, since: int) -> tuple[str, int] | None:
    """Return (update, attempt) of the newest log of a device that was wanted since then and did not come, or None."""
    asked = (
        select(_l.update_id, _l.attempt)
        .where(_l.device_row == device_row, _l.received_at.is_(None), _l.wanted_at >= since)
        .order_by(_l.id.desc())
        .limit(1)
    )
    found = conn.execute(asked).one_or_none()
    return None if found is None else (str(found[0]), int(found[1]))


def find(conn: Connection, device_row: int, update_id: str, attempt: int) -> Row | None:
    """Return what is known of one wanted log, without its text, or None."""
    asked = select(_l.id, _l.wanted_at, _l.received_at).where(
        _l.device_row == device_row, _l.update_id == update_id, _l.attempt == attempt
    )
    found = conn.execute(asked).mappings().one_or_none()
    return None if found is None else dict(found)


def put(conn: Connection, number: int, *, body: bytes, chars: int, now: int) -> None:
    """Keep a log that came."""
    values = {"body": body, "chars": chars, "received_at": now}
    conn.execute(update(device_log).where(_l.id == number).values(**values))


def keep_newest(conn: Connection, device_row: int, count: int) -> None:
    """Forget all logs of a device that came, but for the newest."""
    kept = select(_l.id).where(_l.device_row == device_row, _l.received_at.is_not(None))
    ids = list(conn.execute(kept.order_by(_l.id.desc()).offset(count)).scalars())
    if ids:
        conn.execute(delete(device_log).where(_l.id.in_(ids)))


def of_device(conn: Connection, device_row: int) -> list[Row]:
    """Return what is known of a device's logs, newest first, without their texts."""
    asked = (
        select(*_HEAD)
        .join(t.rollout, t.rollout.c.id == _l.rollout_id)
        .where(_l.device_row == device_row)
        .order_by(_l.id.desc())
    )
    return [dict(one) for one in conn.execute(asked).mappings()]


def body(conn: Connection, device_row: int, number: int) -> bytes | None:
    """Return a log of a device as it is stored, or None."""
    asked = select(_l.body).where(_l.device_row == device_row, _l.id == number)
    found = conn.execute(asked).scalar()
    return None if found is None else bytes(found)


def of_rollout(conn: Connection, rollout_id: int, most: int) -> list[tuple[str, bytes]]:
    """Return (device, log as it is stored) of a rollout, in the order of their coming."""
    asked = (
        select(t.device.c.id, _l.body)
        .join(t.device, t.device.c.row == _l.device_row)
        .where(_l.rollout_id == rollout_id, _l.body.is_not(None))
        .order_by(_l.received_at, _l.id)
        .limit(most)
    )
    return [(str(device), bytes(text)) for device, text in conn.execute(asked)]


def drop(conn: Connection, before: int, most: int) -> int:
    """Forget logs that were wanted before then; return how many."""
    old = select(_l.id).where(_l.wanted_at < before).order_by(_l.wanted_at).limit(most)
    ids = list(conn.execute(old).scalars())
    if ids:
        conn.execute(delete(device_log).where(_l.id.in_(ids)))
    return len(ids)
