"""Statements about rollouts, releases and permits that the device side needs inside its transactions."""

import json
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from tidegate.server.store.raw import raw_connection
from tidegate.server.store.scope import tenant_of


class LiveRow(NamedTuple):
    """A rollout with its release, as the device side looks at it. JSON columns are text."""

    id: int
    tenant: str
    name: str
    kind: str
    parent_id: int | None
    release_id: int
    product: str
    audience: str
    state: str
    generation: int
    policy: str
    rings: str
    isolated: str
    approvals: str
    delivery: str
    room: int | None
    started_at: int | None
    release_sha256: str
    counter: int
    release_state: str
    channels: str
    parent_counter: int | None
    mandate: str | None
    fallen_back: int
    grant_id: int | None
    fixed: str | None
    released_at: int | None


_COLUMNS: Final = (
    "rollout.id, rollout.tenant, rollout.name, rollout.kind, rollout.parent_id, rollout.release_id, "
    "rollout.product, rollout.audience, rollout.state, rollout.generation, rollout.policy, rollout.rings, "
    "rollout.isolated, rollout.approvals, rollout.delivery, rollout.room, rollout.started_at, "
    "release.release_sha256, release.counter, release.state, release.channels, parent_release.counter, "
    "release.mandate, "
    "EXISTS (SELECT 1 FROM rollout AS child WHERE child.parent_id = rollout.id AND child.kind = 'fallback'), "
    "rollout.grant_id, rollout.fixed, rollout.released_at"
)
_LIVE: Final = (
    f"SELECT {_COLUMNS} FROM rollout JOIN release ON release.id = rollout.release_id "  # noqa: S608 - names of ours
    "LEFT JOIN rollout AS parent ON parent.id = rollout.parent_id "
    "LEFT JOIN release AS parent_release ON parent_release.id = parent.release_id "
    "WHERE rollout.state IN ('active', 'paused', 'halted', 'falling_back', 'completed') "
)


def live(conn: Connection, product: str | None = None) -> list[LiveRow]:
    """Return the rollouts that devices may have to do with: ways back first, then the newest release first."""
    where, values = "AND rollout.tenant = ?", [tenant_of(conn)]
    if product is not None:
        where, values = where + " AND rollout.product = ?", [tenant_of(conn), product]
    order = " ORDER BY rollout.kind = 'fallback' DESC, release.counter DESC, rollout.id DESC"
    return [LiveRow(*one) for one in raw_connection(conn).execute(_LIVE + where + order, values)]


def live_one(conn: Connection, rollout_id: int) -> LiveRow | None:
    """Return one rollout in whatever live state, or None."""
    found = raw_connection(conn).execute(_LIVE + "AND rollout.id = ?", (rollout_id,)).fetchone()
    return LiveRow(*found) if found else None


def policy(conn: Connection, rollout_id: int) -> Any:
    """Return a rollout's policy as plain values, or None."""
    found = raw_connection(conn).execute("SELECT policy FROM rollout WHERE id = ?", (rollout_id,))
    row = found.fetchone()
    return json.loads(row[0]) if row else None


def state(conn: Connection, rollout_id: int) -> str:
    """Return a rollout's state; empty where there is none."""
    found = raw_connection(conn).execute("SELECT state FROM rollout WHERE id = ?", (rollout_id,))
    row = found.fetchone()
    return str(row[0]) if row else ""


def is_way_back(conn: Connection, rollout_id: int) -> bool:
    """Say whether a rollout brings devices back."""
    asked = "SELECT kind FROM rollout WHERE id = ?"
    row = raw_connection(conn).execute(asked, (rollout_id,)).fetchone()
    return row is not None and row[0] == "fallback"


def product(conn: Connection, rollout_id: int) -> tuple[str, str] | None:
    """Return (tenant, product) of a rollout, or None."""
    found = raw_connection(conn).execute(
        "SELECT tenant, product FROM rollout WHERE id = ?", (rollout_id,)
    )
    row = found.fetchone()
    return (row[0], row[1]) if row else None


def artifacts(conn: Connection, release_id: int) -> list[tuple[str, int, str, str]]:
    """Return (path, length, sha256, target as JSON text) of a release's artifacts."""
    found = raw_connection(conn).execute(
        "SELECT path, length, sha256, target FROM artifact WHERE release_id = ? ORDER BY path",
        (release_id,),
    )
    return list(found)


def targets_of_counter(conn: Connection, tenant: str, product_name: str, counter: int) -> list[str]:
    """Return the targets (JSON text) of a product's release by its counter."""
    found = raw_connection(conn).execute(
        "SELECT artifact.target FROM artifact JOIN release ON release.id = artifact.release_id "
        "WHERE release.tenant = ? AND release.product = ? AND release.counter = ?",
        (tenant, product_name, counter),
    )
    return [one[0] for one in found]


def audience(conn: Connection, sha256: str) -> tuple[int, bytes] | None:
    """Return a fixed audience by its digest, (size when unpacked, packed), or None."""
    found = raw_connection(conn).execute(
        "SELECT size, rings FROM fixed_audience WHERE sha256 = ? AND tenant = ?",
        (sha256, tenant_of(conn)),
    )
    row = found.fetchone()
    return (row[0], row[1]) if row else None


def put_audience(conn: Connection, sha256: str, size: int, packed: bytes) -> None:
    """Keep a fixed audience; one that is kept already stays."""
    raw_connection(conn).execute(
        "INSERT INTO fixed_audience (sha256, tenant, size, rings) VALUES (?, ?, ?, ?) "
        "ON CONFLICT DO NOTHING",
        (sha256, tenant_of(conn), size, packed),
    )


def take_room(conn: Connection, rollout_id: int) -> bool:
    """Take one permit from what the plan leaves room for; False when there is none."""
    done = raw_connection(conn).execute(
        "UPDATE rollout SET room = room - 1 WHERE id = ? AND (room IS NULL OR room > 0)",
        (rollout_id,),
    )
    return done.rowcount == 1


def give_room(conn: Connection, rollout_id: int) -> None:
    """Give one permit back to what the plan leaves room for."""
    raw_connection(conn).execute(
        "UPDATE rollout SET room = room + 1 WHERE id = ? AND room IS NOT NULL", (rollout_id,)
    )


def return_permits(conn: Connection, update_id: str, nonce: str | None) -> bool:
    """Take back the permit of one question, or (None) all of an update's; say whether that left the update without one."""
    raw = raw_connection(conn)
    where = "update_id = ?1 AND state = 'granted'"
    done = raw.execute(
        f"UPDATE permit SET state = 'returned' WHERE {where} AND (CAST(?2 AS TEXT) IS NULL OR nonce = ?2)",  # noqa: S608
        (update_id, nonce),
    )
    left = raw.execute(f"SELECT count(*) FROM permit WHERE {where}", (update_id,))  # noqa: S608
    return done.rowcount > 0 and left.fetchone()[0] == 0


def end_permits(conn: Connection, update_id: str) -> None:
    """Note that the outcome of an update's permits is known."""
    raw_connection(conn).execute(
        "UPDATE permit SET state = 'ended' WHERE update_id = ? AND state = 'granted'", (update_id,)
    )


class PermitRow(NamedTuple):
    """A row of the table `permit`."""

    id: str
    tenant: str
    update_id: str
    attempt: int
    nonce: str
    slot_sha256: str
    gate_epoch: int
    granted_at: int
    valid_s: int
    state: str


def permit_for(conn: Connection, update_id: str, attempt: int, nonce: str) -> PermitRow | None:
    """Return the permit that was granted for a question, or None."""
    found = raw_connection(conn).execute(
        f"SELECT {', '.join(PermitRow._fields)} FROM permit "  # noqa: S608 - names of ours
        "WHERE update_id = ? AND attempt = ? AND nonce = ?",
        (update_id, attempt, nonce),
    )
    row = found.fetchone()
    return PermitRow(*row) if row else None


def put_permit(conn: Connection, permit: PermitRow) -> None:
    """Write a new permit."""
    marks = ", ".join("?" * len(PermitRow._fields))
    raw_connection(conn).execute(
        f"INSERT INTO permit ({', '.join(PermitRow._fields)}) VALUES ({marks})",  # noqa: S608
        permit,
    )
