"""Statements about what was done: plan log, calls owed, answers kept, the lease, the gate epoch. No decision is made here."""

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, update

from tidegate.server.store import changes
from tidegate.server.store import tables as t
from tidegate.server.store.ordering import OLDEST, Order
from tidegate.server.store.scope import tenant_of

Row = dict[str, Any]


def add_plan_log(conn: Connection, row: Row) -> None:
    """Append a line to a rollout's story."""
    conn.execute(insert(t.plan_log).values(**row))


def plan_log(
    conn: Connection, rollout_id: int, *, order: Order = OLDEST, limit: int = 500
) -> list[Row]:
    """Return a rollout's story in an order: by `id`."""
    asked = select(t.plan_log).where(t.plan_log.c.rollout_id == rollout_id)
    asked = order.of(asked, t.plan_log.c.id, limit)
    return [dict(row) for row in conn.execute(asked).mappings()]


def planned_at(conn: Connection, rollout_id: int) -> int:
    """Return when a rollout last moved; 0 = never."""
    asked = select(func.max(t.plan_log.c.at)).where(t.plan_log.c.rollout_id == rollout_id)
    return int(conn.execute(asked).scalar() or 0)


def gate_epoch(conn: Connection) -> int:
    """Return the gate epoch."""
    found = conn.execute(select(t.gate.c.epoch).where(t.gate.c.tenant == tenant_of(conn))).scalar()
    return int(found or 0)


def raise_epoch(conn: Connection, now: int, by: int = 1) -> int:
    """Raise the gate epoch and return it. Everything granted under an older one is seen to be so."""
    raised = conn.execute(
        update(t.gate).where(t.gate.c.tenant == tenant_of(conn)).values(epoch=t.gate.c.epoch + by)
    )
    if raised.rowcount == 0:
        conn.execute(insert(t.gate).values(epoch=by))
    epoch = gate_epoch(conn)
    changes.bump(conn, "gate", str(epoch), now)
    return epoch


def add_outbox(conn: Connection, kind: str, payload: Row, now: int) -> None:
    """Owe the world a call, in the transaction of what causes it."""
    conn.execute(insert(t.outbox).values(kind=kind, payload=payload, created_at=now, next_at=now))


#: The longest pause before a call is tried again, in seconds.
PAUSE_MAX_S: Final = 7_200


def _is_due(now: int) -> ColumnElement[bool]:
    """What is put off for longer than any pause was so by a clock that was set back since, and is due."""
    open_, at = t.outbox.c.done_at.is_(None), t.outbox.c.next_at
    return open_ & ((at <= now) | (at > now + PAUSE_MAX_S))


def due_outbox(conn: Connection, kinds: Collection[str], now: int, limit: int = 50) -> list[Row]:
    """Return the calls of these kinds that are due."""
    asked = (
        select(t.outbox)
        .where(_is_due(now), t.outbox.c.kind.in_(kinds))
        .order_by(t.outbox.c.next_at, t.outbox.c.id)
        .limit(limit)
    )
    return [dict(row) for row in conn.execute(asked).mappings()]


def owed(conn: Connection, now: int) -> bool:
    """Say whether any call is due."""
    return conn.execute(select(t.outbox.c.id).where(_is_due(now)).limit(1)).first() is not None


def outbox(
    conn: Connection, kinds: Collection[str], *, state: str, order: Order, limit: int
) -> list[Row]:
    """Return calls of these kinds in an order: by `id`."""
    c = t.outbox.c
    states = {
        "waiting": c.done_at.is_(None) & (c.tries == 0),
        "retrying": c.done_at.is_(None) & (c.tries > 0),
        "delivered": c.done_at.is_not(None) & c.error.is_(None),
        "dead": c.done_at.is_not(None) & c.error.is_not(None),
    }
    asked = order.of(select(t.outbox).where(c.kind.in_(kinds)), c.id, limit)
    if state:
        asked = asked.where(states[state])
    return [dict(row) for row in conn.execute(asked).mappings()]


def newest_to(conn: Connection, kinds: Collection[str], channel: str) -> Row | None:
    """Return the newest call of these kinds to a channel."""
    c = t.outbox.c
    to = c.payload["channel"].as_string()
    asked = select(t.outbox).where(c.kind.in_(kinds), to == channel).order_by(c.id.desc()).limit(1)
    row = conn.execute(asked).mappings().first()
    return None if row is None else dict(row)


def told(
    conn: Connection, kinds: Collection[str], incident: str, since: int, limit: int
) -> list[Row]:
    """Return calls of these kinds about an incident, owed at that moment or later, in order."""
    about = t.outbox.c.payload["body"]["incident"].as_string()
    asked = (
        select(t.outbox)
        .where(t.outbox.c.created_at >= since, t.outbox.c.kind.in_(kinds), about == incident)
        .order_by(t.outbox.c.id)
        .limit(limit)
    )
    return [dict(row) for row in conn.execute(asked).mappings()]


def outbox_row(conn: Connection, row_id: int, kinds: Collection[str]) -> Row | None:
    """Return one call of these kinds, or None."""
    asked = select(t.outbox).where(t.outbox.c.id == row_id, t.outbox.c.kind.in_(kinds))
    row = conn.execute(asked).mappings().first()
    return dict(row) if row else None


def settle_outbox(conn: Connection, row_id: int, values: Row) -> None:
    """Note how a call went."""
    conn.execute(update(t.outbox).where(t.outbox.c.id == row_id).values(**values))


def kept_answer(conn: Connection, key: str) -> Row | None:
    """Return the answer kept under an idempotency key."""
    row = conn.execute(select(t.idempotency).where(t.idempotency.c.key == key)).mappings().first()
    return dict(row) if row else None


def keep_answer(conn: Connection, row: Row) -> None:
    """Keep an answer under its idempotency key, in place of an older one."""
    conn.execute(delete(t.idempotency).where(t.idempotency.c.key == row["key"]))
    conn.execute(insert(t.idempotency).values(**row))


def forget_answers(conn: Connection, before: int) -> None:
    """Drop answers kept before then."""
    conn.execute(delete(t.idempotency).where(t.idempotency.c.at < before))


def leased(conn: Connection, name: str, holder: str, now: int, lease_s: int) -> bool:
    """Say whether somebody else has a lease; one that would end later than any that is given now was taken before the clock stepped back, and is none."""
    asked = select(t.lease.c.name).where(
        t.lease.c.name == name,
        t.lease.c.holder != holder,
        t.lease.c.expires_at.between(now, now + lease_s),
    )
    return conn.execute(asked).first() is not None


def take_lease(conn: Connection, name: str, holder: str, now: int, lease_s: int) -> bool:
    """Take or renew a lease, until `lease_s` seconds from now; say whether it is ours now."""
    if leased(conn, name, holder, now, lease_s):
        return False
    values = {"holder": holder, "expires_at": now + lease_s}
    if conn.execute(update(t.lease).where(t.lease.c.name == name).values(**values)).rowcount == 0:
        conn.execute(insert(t.lease).values(name=name, **values))
    return True


#: The names under which `mark_written` and `believe` write; leases of nobody.
WRITTEN: Final = "written"
BELIEVED: Final = "retention"


def mark_written(conn: Connection, holder: str, now: int) -> None:
    """Write one row, always the same: to see whether the database takes it."""
    _note(conn, WRITTEN, holder, now)


def believed(conn: Connection) -> int:
    """Return the time up to which `retention.Belief` believed a clock, unix seconds; 0 = it never did."""
    asked = select(t.lease.c.expires_at).where(t.lease.c.name == BELIEVED)
    return int(conn.execute(asked).scalar() or 0)


def believe(conn: Connection, now: int) -> None:
    """Note that the clock is believed up to now."""
    _note(conn, BELIEVED, "", now)


def _note(conn: Connection, name: str, holder: str, now: int) -> None:
    values = {"holder": holder, "expires_at": now}
    if conn.execute(update(t.lease).where(t.lease.c.name == name).values(**values)).rowcount:
        return
    conn.execute(insert(t.lease).values(name=name, **values))


def position(conn: Connection) -> int:
    """Return the number of the newest change, which grows with every one."""
    return int(conn.execute(select(func.max(t.change.c.seq))).scalar() or 0)


def oldest_change(conn: Connection) -> int:
    """Return the number of the oldest change that is kept; 0 = none is."""
    return int(conn.execute(select(func.min(t.change.c.seq))).scalar() or 0)


def changes_after(conn: Connection, after: int, limit: int) -> list[Row]:
    """Return changes in their order, behind a number."""
    asked = select(t.change).where(t.change.c.seq > after).order_by(t.change.c.seq).limit(limit)
    return [dict(row) for row in conn.execute(asked).mappings()]


def last_event(conn: Connection) -> int:
    """Return the position of the newest event; 0 = there is none."""
    return int(conn.execute(select(func.max(t.event.c.position))).scalar() or 0)
