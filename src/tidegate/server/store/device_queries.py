"""Statements about devices, claims and groups. The rarer ones, through SQLAlchemy; what every event needs is in `hot`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, or_, select, update

from tidegate.server.store import tables
from tidegate.server.store.raw import raw_connection
from tidegate.server.store.scope import tenant_of

device = tables.device
_BY_ROW = select(device).where(device.c.row == bindparam("wanted"))
_BY_ID = select(device).where(
    device.c.tenant == bindparam("of"), device.c.id == bindparam("wanted")
)
_STATIC_GROUPS = (
    select(tables.device_group.c.name)
    .join(tables.group_member, tables.group_member.c.group_id == tables.device_group.c.id)
    .where(tables.group_member.c.device_row == bindparam("wanted"))
)
_QUERY_GROUPS = select(tables.device_group.c.name, tables.device_group.c.query).where(
    tables.device_group.c.tenant == bindparam("of"), tables.device_group.c.query.is_not(None)
)


def by_row(conn: Connection, row: int) -> Row[Any] | None:
    """Return a device by its row number, or None."""
    return conn.execute(_BY_ROW, {"wanted": row}).one_or_none()


def by_id(conn: Connection, device_id: str) -> Row[Any] | None:
    """Return a device by its id (untrusted text), or None."""
    return conn.execute(_BY_ID, {"wanted": device_id, "of": tenant_of(conn)}).one_or_none()


def is_held(conn: Connection, row: int) -> bool:
    """Say whether a device is held."""
    found = raw_connection(conn).execute("SELECT held FROM device WHERE row = ?", (row,)).fetchone()
    return bool(found and found[0])


def add_many(conn: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add devices in bulk, all columns given; nobody is told of them."""
    conn.execute(insert(tables.device), list(rows))


def rows_by_id(conn: Connection) -> list[int]:
    """Return the row number of every device, in the order of their names."""
    return list(conn.execute(select(tables.device.c.row).order_by(tables.device.c.id)).scalars())


def add(conn: Connection, values: Mapping[str, Any]) -> int:
    """Add a device and return its row number."""
    made = conn.execute(insert(device).values(**values)).inserted_primary_key
    assert made is not None  # noqa: S101 - one row was inserted
    return int(made[0])


def change(conn: Connection, row: int, values: Mapping[str, Any]) -> None:
    """Change columns of a device."""
    conn.execute(update(device).where(device.c.row == row).values(**values))


def claim_by_token(conn: Connection, token_sha256: str) -> Row[Any] | None:
    """Return a claim by the digest of its token, or None."""
    statement = select(tables.claim).where(tables.claim.c.token_sha256 == token_sha256)
    return conn.execute(statement).one_or_none()


def use_claim(conn: Connection, claim_id: int) -> bool:
    """Count one use of a claim; False when it was used up."""
    claim = tables.claim
    statement = (
        update(claim)
        .where(claim.c.id == claim_id, claim.c.used < claim.c.max_count)
        .values(used=claim.c.used + 1)
    )
    return conn.execute(statement).rowcount == 1


def join_group(conn: Connection, name: str, row: int, now: int) -> None:
    """Put a device into a static group, made where it is missing."""
    group = tables.device_group
    where = (group.c.tenant == tenant_of(conn), group.c.name == name)
    group_id = conn.execute(select(group.c.id).where(*where)).scalar()
    if group_id is None:
        values = {"name": name, "created_at": now, "created_by": "claim"}
        made = conn.execute(insert(group).values(**values)).inserted_primary_key
        group_id = made[0] if made is not None else None
    member = tables.group_member
    there = select(member.c.group_id).where(
        member.c.group_id == group_id, member.c.device_row == row
    )
    if conn.execute(there).first() is None:
        conn.execute(insert(member).values(group_id=group_id, device_row=row))


def static_groups(conn: Connection, row: int) -> frozenset[str]:
    """Return the names of the static groups that a device is in."""
    return frozenset(conn.execute(_STATIC_GROUPS, {"wanted": row}).scalars())


def not_accepted(conn: Connection) -> Iterator[int]:
    """Yield rows of the devices that are not, or no longer, part of the fleet."""
    found = raw_connection(conn).execute(
        "SELECT row FROM device WHERE tenant = ? AND state IN "
        "('pending', 'rejected', 'revoked', 'quarantined', 'decommissioned')",
        (tenant_of(conn),),
    )
    return (int(row) for (row,) in found)


def serials(conn: Connection) -> dict[int, str]:
    """Return the serial number of every device that has one, by row."""
    found = raw_connection(conn).execute("SELECT row, serial FROM device WHERE serial != ''")
    return dict(found.fetchall())


def query_groups(conn: Connection) -> list[tuple[str, str]]:
    """Return (name, query) of the groups that are defined by a query."""
    return [
        (str(one[0]), str(one[1])) for one in conn.execute(_QUERY_GROUPS, {"of": tenant_of(conn)})
    ]


def static_members(conn: Connection) -> Iterator[tuple[int, str]]:
    """Return (device row, group name) of every static membership."""
    statement = (
        "SELECT group_member.device_row, device_group.name FROM group_member "
        "JOIN device_group ON device_group.id = group_member.group_id"
    )
    return iter(raw_connection(conn).execute(statement))


#: Columns of `everything`, in order. Held counts when an operator said so: a device that holds itself has to be asked again, for only it knows when that ended.
FLEET_COLUMNS = (
    "row", "id", "state", "key_gen", "product", "model", "rev", "variant", "channel", "region",
    "site", "connectivity", "agent", "serial", "attributes", "running_counter", "running_version",
    "security_floor", "held <> 0 AND held_by <> 'device'", "last_seen", "session_at",
)  # fmt: skip


def everything(conn: Connection, row: int | None = None) -> Iterator[tuple[Any, ...]]:
    """Return `FLEET_COLUMNS` of every device, or of one: what the snapshot in memory is made of. `attributes` is JSON text."""
    statement = f"SELECT {', '.join(FLEET_COLUMNS)} FROM device"  # noqa: S608 - names of ours
    if row is None:
        return iter(raw_connection(conn).execute(statement + " ORDER BY row"))
    return iter(raw_connection(conn).execute(statement + " WHERE row = ?", (row,)))


def variants(conn: Connection, tenant: str, product: str) -> dict[str, int]:
    """Return how many accepted devices of a product there are, by variant; from what is kept with the devices, so that nobody counts a million rows."""
    found = raw_connection(conn).execute(
        "SELECT variant, sum(devices) FROM firmware WHERE tenant = ? AND product = ? GROUP BY variant",
        (tenant, product),
    )
    return dict(found)


def accepted(conn: Connection) -> int:
    """Return how many accepted devices there are; as `variants`."""
    found = raw_connection(conn).execute(
        "SELECT coalesce(sum(devices), 0) FROM firmware WHERE tenant = ?", (tenant_of(conn),)
    )
    return int(found.fetchone()[0])


def open_updates(conn: Connection) -> Iterator[tuple[int]]:
    """Return the rows of devices that have an update under way."""
    return iter(
        raw_connection(conn).execute(
            'SELECT DISTINCT device_row FROM "update" WHERE state IN '
            "('offered', 'downloading', 'staged', 'permitted', 'rebooting', 'verifying')"
        )
    )


def matching(conn: Connection, text: str) -> list[Row[Any]]:
    """Return devices whose id or serial number begins with `text` (untrusted)."""
    pattern = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    statement = (
        select(device)
        .where(device.c.tenant == tenant_of(conn))
        .where(
            or_(
                device.c.id.ilike(pattern, escape="\\"), device.c.serial.ilike(pattern, escape="\\")
            )
        )
        .limit(100)
    )
    return list(conn.execute(statement))


#: What a rehearsal has to know of a device; `slots` is JSON text.
DRILL_COLUMNS = (
    "id", "product", "model", "rev", "channel", "agent", "running_counter", "running_version",
    "running_sha256", "security_floor", "slots",
)  # fmt: skip


def in_the_field(conn: Connection) -> Iterator[tuple[Any, ...]]:
    """Return `DRILL_COLUMNS` of every accepted device."""
    statement = f"SELECT {', '.join(DRILL_COLUMNS)} FROM device WHERE state = 'accepted'"  # noqa: S608 - names of ours
    return iter(raw_connection(conn).execute(statement))
