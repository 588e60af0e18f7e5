"""Statements about grants of a way back. No decision is made here."""

from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from tidegate.server.store import tables as t
from tidegate.server.store.scope import tenant_of

Row = dict[str, Any]
_GRANT = (
    select(
        t.fallback_grant,
        t.incident.c.name.label("incident"),
        t.rollout.c.name.label("rollout"),
        t.release.c.name.label("release"),
    )
    .join(t.incident, t.incident.c.id == t.fallback_grant.c.incident_id)
    .join(t.rollout, t.rollout.c.id == t.fallback_grant.c.rollout_id)
    .join(t.release, t.release.c.id == t.fallback_grant.c.release_id)
)


def add(conn: Connection, row: Row) -> int:
    """Add a draft and return its row number."""
    made = insert(t.fallback_grant).values(**row).returning(t.fallback_grant.c.id)
    return int(conn.execute(made).scalar_one())


def last_serial(conn: Connection, product: str, epoch: int) -> int:
    """Return the highest serial given out for a product in an epoch; 0 for none."""
    g = t.fallback_grant.c
    asked = select(func.max(g.serial)).where(
        g.tenant == tenant_of(conn), g.product == product, g.epoch == epoch
    )
    return int(conn.execute(asked).scalar_one() or 0)


def by_id(conn: Connection, grant_id: int) -> Row | None:
    """Return a grant with the names of its incident, rollout and release."""
    row = conn.execute(_GRANT.where(t.fallback_grant.c.id == grant_id)).mappings().first()
    return dict(row) if row else None


def by_payload(conn: Connection, payload_sha256: str) -> Row | None:
    """Return the grant with this content; like `by_id`."""
    asked = _GRANT.where(t.fallback_grant.c.payload_sha256 == payload_sha256)
    row = conn.execute(asked).mappings().first()
    return dict(row) if row else None


def of_incident(conn: Connection, incident_id: int, limit: int = 100) -> list[Row]:
    """Return an incident's grants, newest first."""
    asked = _GRANT.where(t.fallback_grant.c.incident_id == incident_id)
    asked = asked.order_by(t.fallback_grant.c.id.desc()).limit(limit)
    return [dict(row) for row in conn.execute(asked).mappings()]


def in_force(conn: Connection, now: int) -> list[tuple[str, int, int]]:
    """Return the accepted grants that have not ended at `now`: product, serial, and when they end (unix seconds)."""
    g = t.fallback_grant.c
    asked = select(g.product, g.serial, g.expires_at).where(
        g.tenant == tenant_of(conn), g.state == "accepted", g.expires_at > now
    )
    return [(str(row[0]), int(row[1]), int(row[2])) for row in conn.execute(asked)]


def change(conn: Connection, grant_id: int, values: Row) -> None:
    """Change a grant."""
    where = t.fallback_grant.c.id == grant_id
    conn.execute(update(t.fallback_grant).where(where).values(**values))


def child_of(conn: Connection, grant_id: int) -> str:
    """Return the name of the rollout that carries a grant out; empty where none does yet."""
    asked = select(t.rollout.c.name).where(t.rollout.c.grant_id == grant_id)
    return str(conn.execute(asked.order_by(t.rollout.c.id.desc()).limit(1)).scalar() or "")


def past_return(conn: Connection, rollout_id: int, states: tuple[str, ...]) -> set[int]:
    """Return the devices (rows) whose update of a rollout is in one of these states."""
    asked = select(t.update.c.device_row).where(
        t.update.c.rollout_id == rollout_id, t.update.c.state.in_(states)
    )
    return {int(row) for row in conn.execute(asked).scalars()}
