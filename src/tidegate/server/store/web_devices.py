"""Statements behind the pages about devices. No decision is made here."""

from typing import Any

from sqlalchemy import Connection, func, or_, select

from tidegate.server.store import tables as t
from tidegate.server.store.scope import tenant_of

Row = dict[str, Any]


def device(conn: Connection, device_id: str) -> Row | None:
    """Return a device by id (untrusted)."""
    asked = select(t.device).where(t.device.c.tenant == tenant_of(conn), t.device.c.id == device_id)
    row = conn.execute(asked).mappings().first()
    return dict(row) if row else None


def after(conn: Connection, row: int, limit: int, text: str = "") -> list[Row]:
    """Return devices behind row `row`, those that ask to enrol left out.

    Args:
        conn: any connection.
        row: 0 = from the first.
        limit: most rows.
        text: found in id, serial or site (untrusted); empty = all.
    """
    asked = select(t.device).where(t.device.c.row > row, t.device.c.state != "pending")
    if text:
        like = "%" + text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        columns = (t.device.c.id, t.device.c.serial, t.device.c.site)
        asked = asked.where(or_(*(column.ilike(like, escape="\\") for column in columns)))
    found = conn.execute(asked.order_by(t.device.c.row).limit(limit)).mappings()
    return [dict(one) for one in found]


def pending(conn: Connection, limit: int) -> list[Row]:
    """Return devices that ask to be enrolled, oldest first."""
    asked = (
        select(t.device)
        .where(t.device.c.tenant == tenant_of(conn), t.device.c.state == "pending")
        .order_by(t.device.c.enrolled_at, t.device.c.row)
        .limit(limit)
    )
    return [dict(one) for one in conn.execute(asked).mappings()]


def newest_updates(conn: Connection, rows: list[int]) -> dict[int, Row]:
    """Return the newest update of each of these devices with its rollout's name and state."""
    asked = (
        select(t.update, t.rollout.c.name.label("rollout"), t.rollout.c.isolated)
        .join(t.rollout, t.rollout.c.id == t.update.c.rollout_id)
        .where(t.update.c.device_row.in_(rows))
        .order_by(t.update.c.offered_at, t.update.c.rollout_id)
    )
    return {int(one["device_row"]): dict(one) for one in conn.execute(asked).mappings()}


def updates(conn: Connection, row: int, limit: int) -> list[Row]:
    """Return a device's updates, newest first, with rollout and release."""
    asked = (
        select(
            t.update,
            t.rollout.c.name.label("rollout"),
            t.rollout.c.kind.label("rollout_kind"),
            t.release.c.version.label("version"),
        )
        .join(t.rollout, t.rollout.c.id == t.update.c.rollout_id)
        .join(t.release, t.release.c.id == t.rollout.c.release_id)
        .where(t.update.c.device_row == row)
        .order_by(t.update.c.offered_at.desc(), t.update.c.rollout_id.desc())
        .limit(limit)
    )
    return [dict(one) for one in conn.execute(asked).mappings()]


def update_count(conn: Connection, row: int) -> int:
    """Return how many updates a device had."""
    asked = select(func.count()).select_from(t.update).where(t.update.c.device_row == row)
    return int(conn.execute(asked).scalar() or 0)


def events(conn: Connection, row: int, limit: int) -> list[Row]:
    """Return what a device reported, newest first; of heartbeats only those that tell of a restart."""
    told = or_(t.event.c.kind != "heartbeat", t.event.c.body.contains('"restart":{"boot_id"'))
    asked = (
        select(t.event)
        .where(t.event.c.device_row == row, told)
        .order_by(t.event.c.position.desc())
        .limit(limit)
    )
    return [dict(one) for one in conn.execute(asked).mappings()]


def versions(conn: Connection, product: str) -> dict[int, str]:
    """Return the versions of a product's releases by counter."""
    asked = select(t.release.c.counter, t.release.c.version).where(t.release.c.product == product)
    return {int(counter): str(version) for counter, version in conn.execute(asked)}


def groups(conn: Connection) -> list[Row]:
    """Return every group with its number of static members, by name."""
    members = func.count(t.group_member.c.device_row).label("members")
    asked = (
        select(t.device_group.c.name, t.device_group.c.query, members)
        .outerjoin(t.group_member, t.group_member.c.group_id == t.device_group.c.id)
        .group_by(t.device_group.c.id)
        .order_by(t.device_group.c.name)
        .limit(100)
    )
    return [dict(one) for one in conn.execute(asked).mappings()]
