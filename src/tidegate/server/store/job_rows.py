"""Statements about acts on many devices. No decision is made here."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, func, insert, select, update

from tidegate.server.store import tables as t
from tidegate.server.store.job_tables import job, job_item
from tidegate.server.store.ordering import Order

Row = dict[str, Any]
_PIECE: Final = 1_000


def add(conn: Connection, values: Row, rows: Sequence[int]) -> int:
    """Add a job about these rows of devices, in their order; return its number."""
    made = conn.execute(insert(job).values(devices=len(rows), **values).returning(job.c.id))
    number = int(made.scalar_one())
    for start in range(0, len(rows), _PIECE):
        conn.execute(
            insert(job_item),
            [
                {
                    "job_id": number,
                    "place": start + count + 1,
                    "device_row": row,
                    "state": "waiting",
                    "code": "",
                    "detail": "",
                }
                for count, row in enumerate(rows[start : start + _PIECE])
            ],
        )
    return number


def one(conn: Connection, number: int) -> Row | None:
    """Return a job."""
    row = conn.execute(select(job).where(job.c.id == number)).mappings().first()
    return dict(row) if row else None


def listed(conn: Connection, *, state: str, order: Order, limit: int) -> list[Row]:
    """Return jobs in an order: by `id`."""
    asked = order.of(select(job), job.c.id, limit)
    if state:
        asked = asked.where(job.c.state == state)
    return [dict(row) for row in conn.execute(asked).mappings()]


def counts(conn: Connection, number: int) -> dict[str, int]:
    """Return how many devices of a job are in which state."""
    asked = (
        select(job_item.c.state, func.count())
        .where(job_item.c.job_id == number)
        .group_by(job_item.c.state)
    )
    return {str(state): int(count) for state, count in conn.execute(asked)}


def running(conn: Connection) -> list[int]:
    """Return the numbers of jobs that are under way, oldest first."""
    asked = select(job.c.id).where(job.c.state == "running").order_by(job.c.id)
    return [int(one) for one in conn.execute(asked).scalars()]


def waiting(conn: Connection, number: int, limit: int) -> list[Row]:
    """Return the next devices of a job that nothing was done with yet, with their ids."""
    asked = (
        select(job_item, t.device.c.id.label("device"))
        .outerjoin(t.device, t.device.c.row == job_item.c.device_row)
        .where(job_item.c.job_id == number, job_item.c.state == "waiting")
        .order_by(job_item.c.place)
        .limit(limit)
    )
    return [dict(row) for row in conn.execute(asked).mappings()]


def items(conn: Connection, number: int, *, state: str, after: int, limit: int) -> list[Row]:
    """Return devices of a job behind a place, with their ids."""
    asked = (
        select(job_item, t.device.c.id.label("device"))
        .outerjoin(t.device, t.device.c.row == job_item.c.device_row)
        .where(job_item.c.job_id == number, job_item.c.place > after)
        .order_by(job_item.c.place)
        .limit(limit)
    )
    if state:
        asked = asked.where(job_item.c.state == state)
    return [dict(row) for row in conn.execute(asked).mappings()]


def settle(conn: Connection, number: int, place: int, state: str, code: str, detail: str) -> None:
    """Note what became of a device of a job."""
    conn.execute(
        update(job_item)
        .where(job_item.c.job_id == number, job_item.c.place == place)
        .values(state=state, code=code, detail=detail)
    )


def end(conn: Connection, number: int, state: str, by: str, now: int) -> None:
    """End a job."""
    conn.execute(
        update(job).where(job.c.id == number).values(state=state, ended_by=by, ended_at=now)
    )
