"""Statements for metrics alone: sums over what is kept as counters anyway. What reads every update is asked for seldom (`server.metrics`)."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, case, func, select

from tidegate.server.store import tables as t
from tidegate.server.store.admin_log import BELIEVED, WRITTEN

Row = dict[str, Any]
_MOVING = ("active", "paused", "halted", "falling_back")


def shown_rollouts(conn: Connection, limit: int) -> list[Row]:
    """Return (id, name, state, policy, rings, room) of those that matter most: those on their way or halted first, then the newest."""
    r = t.rollout.c
    moving = case((r.state.in_(_MOVING), 0), else_=1)
    asked = (
        select(r.id, r.name, r.state, r.policy, r.rings, r.room)
        .order_by(moving, r.id.desc())
        .limit(limit)
    )
    return [dict(row) for row in conn.execute(asked).mappings()]


def tally_sums(conn: Connection, rollouts: Collection[int]) -> list[tuple[int, str, str, int]]:
    """Return (rollout, ring, name, value) of what is counted in these rollouts, over all variants; times are left out."""
    c = t.tally.c
    asked = (
        select(c.rollout_id, c.ring, c.name, func.sum(c.value))
        .where(c.rollout_id.in_(sorted(rollouts)), c.name.not_like(r"last\_%", escape="\\"))
        .group_by(c.rollout_id, c.ring, c.name)
    )
    return [(int(a), str(b), str(name), int(n)) for a, b, name, n in conn.execute(asked)]


def bytes_of(conn: Connection, rollouts: Collection[int]) -> dict[int, int]:
    """Return how many bytes the devices of these rollouts told of. Reads all of their updates."""
    u = t.update.c
    asked = (
        select(u.rollout_id, func.sum(u.bytes))
        .where(u.rollout_id.in_(sorted(rollouts)))
        .group_by(u.rollout_id)
    )
    return {int(one): int(count) for one, count in conn.execute(asked)}


def decided_at(conn: Connection, rollouts: Collection[int]) -> dict[int, int]:
    """Return when the evidence of these rollouts was last weighed, unix seconds; those without an evidence gate are left out."""
    g = t.gate_tables.gate_state.c
    asked = select(g.rollout_id, g.decided_at).where(g.rollout_id.in_(sorted(rollouts)))
    return {int(one): int(at) for one, at in conn.execute(asked)}


def incidents_by_kind(conn: Connection) -> dict[str, int]:
    """Return how many incidents there ever were, by kind."""
    asked = select(t.incident.c.kind, func.count()).group_by(t.incident.c.kind)
    return {str(kind): int(count) for kind, count in conn.execute(asked)}


def owed(conn: Connection, kinds: Collection[str]) -> tuple[dict[tuple[str, str], int], int]:
    """Return how many messages of these kinds are not delivered by (kind, state), and when the oldest that still waits was made; 0 = none does."""
    c = t.outbox.c
    state = case(
        (c.done_at.is_(None) & (c.tries == 0), "waiting"),
        (c.done_at.is_(None), "retrying"),
        else_="dead",
    )
    undelivered = c.done_at.is_(None) | c.error.is_not(None)
    asked = (
        select(c.kind, state, func.count())
        .where(c.kind.in_(sorted(kinds)), undelivered)
        .group_by(c.kind, state)
    )
    oldest = select(func.min(c.created_at)).where(c.kind.in_(sorted(kinds)), c.done_at.is_(None))
    counts = {(str(kind), str(name)): int(count) for kind, name, count in conn.execute(asked)}
    return counts, int(conn.execute(oldest).scalar() or 0)


def leases(conn: Connection) -> dict[str, int]:
    """Return until when each lease is held, unix seconds."""
    asked = select(t.lease.c.name, t.lease.c.expires_at).where(
        t.lease.c.name.not_in([WRITTEN, BELIEVED])
    )
    return {str(name): int(at) for name, at in conn.execute(asked)}
