"""Statements that take away what is old, a bounded number of rows at a time. No decision is made here, but for one: a row that stays is never touched.

Rows of `event` and `change` are numbered as they come, so the border between old and young is found by halving, without an index over times and without
looking at rows that stay.
"""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Column, Connection, Select, Table, and_, delete, func, or_, select, update

from tidegate.server.store import hot
from tidegate.server.store import tables as t
from tidegate.server.store.partitions import Piece


def closed(conn: Connection, kept: Collection[int], before: int) -> list[int]:
    """Return rollouts that ended before then, and are neither among `kept` nor the subject of an incident that is not closed."""
    r, i = t.rollout.c, t.incident.c
    ended = func.coalesce(r.ended_at, r.halted_at, r.created_at)
    pending = select(i.rollout_id).where(i.state != "closed", i.rollout_id.is_not(None))
    asked = (
        select(r.id)
        .where(
            r.state.in_(("completed", "cancelled", "superseded")),
            ended < before,
            r.id.not_in(sorted(kept)),
            r.id.not_in(pending),
        )
        .order_by(r.id)
    )
    return [int(one) for one in conn.execute(asked).scalars()]


def border(conn: Connection, table: Table, number: str, at: str, before: int) -> int:
    """Return the number below which all rows were written before then, but for those of a clock that stepped back; 0 = there is none."""
    key, when = table.c[number], table.c[at]
    low, high = conn.execute(select(func.min(key), func.max(key))).one()
    if low is None:
        return 0
    lower, upper = int(low), int(high) + 1
    while lower < upper:
        middle = (lower + upper) // 2
        found = conn.execute(select(when).where(key >= middle).order_by(key).limit(1)).scalar()
        if found is not None and int(found) < before:
            lower = middle + 1
        else:
            upper = middle
    return lower if lower > int(low) else 0


def drop_events(
    conn: Connection, below: int, before: int, rollouts: Collection[int], most: int
) -> int:
    """Remove events with a number below, received before then, that belong to no update or to one of these rollouts; return how many."""
    e, u = t.event.c, t.update.c
    asked = (
        select(e.position)
        .outerjoin_from(t.event, t.update, u.id == e.update_id)
        .where(e.position < below, e.received_at < before)
        .where(u.rollout_id.is_(None) | u.rollout_id.in_(sorted(rollouts)))
        .order_by(e.position)
        .limit(most)
    )
    return _drop(conn, t.event, e.position, asked)


def lasting_events(
    conn: Connection, piece: Piece, before: int, rollouts: Collection[int], most: int
) -> list[int] | None:
    """Return the positions in a piece of the log that `drop_events` would not remove; None = more than `most`."""
    e, u = t.event.c, t.update.c
    asked = (
        select(e.position)
        .outerjoin_from(t.event, t.update, u.id == e.update_id)
        .where(e.position >= piece.low, e.position < piece.high)
        .where(
            or_(
                e.received_at >= before,
                and_(u.rollout_id.is_not(None), u.rollout_id.not_in(sorted(rollouts))),
            )
        )
        .limit(most + 1)
    )
    found = [int(one) for one in conn.execute(asked).scalars()]
    return None if len(found) > most else found


def drop_changes(conn: Connection, below: int, kept: int, most: int) -> int:
    """Remove changes with a number below, but for the newest `kept`; return how many."""
    c = t.change.c
    newest = int(conn.execute(select(func.max(c.seq))).scalar() or 0)
    old = select(c.seq).where(c.seq < below, c.seq <= newest - kept).order_by(c.seq).limit(most)
    return _drop(conn, t.change, c.seq, old)


def drop_messages(conn: Connection, before: int, most: int) -> int:
    """Remove messages to the world that were settled before then; return how many."""
    o = t.outbox.c
    old = select(o.id).where(o.done_at < before).order_by(o.done_at).limit(most)
    return _drop(conn, t.outbox, o.id, old)


def thin_samples(conn: Connection, before: int, every_s: int, most: int) -> int:
    """Keep of the samples of the firmware chart before then one in `every_s` seconds; return how many rows went."""
    s = t.firmware_sample.c
    old = select(s.at).where(s.at < before, s.at % every_s != 0).order_by(s.at).limit(most)
    times = sorted({int(one) for one in conn.execute(old).scalars()})
    if not times:
        return 0
    return int(conn.execute(delete(t.firmware_sample).where(s.at.in_(times))).rowcount)


def thin_hours(conn: Connection, before: int, most: int) -> int:
    """Put a rollout's hours before then (a unix hour) together by days of UTC, their sums unchanged; return how many rows went."""
    h = t.rollout_hour.c
    fine = (
        select(t.rollout_hour)
        .where(h.hour < before - before % 24, h.hour % 24 != 0)
        .order_by(h.hour)
        .limit(most)
    )
    rows = conn.execute(fine).all()
    for row in rows:
        day = row.hour - row.hour % 24
        hot.add_hour(conn, row.tenant, row.rollout_id, day, [(row.name, row.value)])
        same = (h.rollout_id == row.rollout_id, h.hour == row.hour, h.name == row.name)
        conn.execute(delete(t.rollout_hour).where(*same))
    return len(rows)


def drop_details(conn: Connection, rollout_id: int, most: int) -> int:
    """Forget what single devices said in words of a rollout's updates, and its permits; return how many rows that were."""
    u, p = t.update.c, t.permit.c
    worded = select(u.id).where(u.rollout_id == rollout_id, u.detail != "").limit(most)
    ids = list(conn.execute(worded).scalars())
    if ids:
        conn.execute(update(t.update).where(u.id.in_(ids)).values(detail=""))
        return len(ids)
    of = select(p.id).join(t.update, u.id == p.update_id).where(u.rollout_id == rollout_id)
    return _drop(conn, t.permit, p.id, of.limit(most))


def _drop(conn: Connection, table: Table, key: Column[Any], asked: Select[Any]) -> int:
    ids = list(conn.execute(asked).scalars())
    if ids:
        conn.execute(delete(table).where(key.in_(ids)))
    return len(ids)
