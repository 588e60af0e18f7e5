"""Statements about devices, claims and groups, as operators act on them. No decision is made here."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, delete, exists, func, insert, or_, select, update

from tidegate.server.store import tables as t
from tidegate.server.store.ordering import Order
from tidegate.server.store.scope import tenant_of

Row = dict[str, Any]
_REPORTS = Order(by="position", down=True)


def device(conn: Connection, device_id: str) -> Row | None:
    """Return a device by id."""
    asked = select(t.device).where(t.device.c.tenant == tenant_of(conn), t.device.c.id == device_id)
    row = conn.execute(asked).mappings().first()
    return dict(row) if row else None


def devices(
    conn: Connection,
    *,
    after: int = 0,
    states: Collection[str] = (),
    product: str = "",
    limit: int | None = None,
) -> Iterator[Row]:
    """Yield devices by row number, those behind row `after`."""
    asked = select(t.device).where(t.device.c.row > after).order_by(t.device.c.row)
    if states:
        asked = asked.where(t.device.c.state.in_(sorted(states)))
    if product:
        asked = asked.where(t.device.c.product == product)
    found = conn.execute(asked.limit(limit).execution_options(yield_per=1000))
    for row in found.mappings():
        yield dict(row)


def devices_at(conn: Connection, numbers: Sequence[int]) -> Iterator[Row]:
    """Yield the devices of these rows that belong to the fleet."""
    for start in range(0, len(numbers), 500):
        part = list(numbers[start : start + 500])
        asked = select(t.device).where(t.device.c.row.in_(part), t.device.c.state == "accepted")
        for row in conn.execute(asked).mappings():
            yield dict(row)


def ordered(conn: Connection, order: Order, limit: int, states: Collection[str] = ()) -> list[Row]:
    """Return devices in an order: by `row`, of these states (none = all), or by `id`, of all.

    With a condition on the state, a database would rather sort a million devices than walk through the index of their ids.
    """
    asked = select(t.device)
    if order.by == "id":
        asked = asked.where(t.device.c.tenant == tenant_of(conn))
    elif states:
        asked = asked.where(t.device.c.state.in_(sorted(states)))
    found = conn.execute(order.of(asked, t.device.c[order.by], limit)).mappings()
    return [dict(row) for row in found]


def change_device(conn: Connection, row: int, values: Row) -> None:
    """Change a device."""
    conn.execute(update(t.device).where(t.device.c.row == row).values(**values))


def device_counts(conn: Connection) -> dict[str, int]:
    """Return how many devices there are by state of enrolment."""
    asked = select(t.device.c.state, func.count()).group_by(t.device.c.state)
    return {str(state): int(count) for state, count in conn.execute(asked)}


def seen_since(conn: Connection, since: int) -> int:
    """Return how many accepted devices were heard of since then."""
    asked = (
        select(func.count())
        .select_from(t.device)
        .where(t.device.c.state == "accepted", t.device.c.last_seen >= since)
    )
    return int(conn.execute(asked).scalar_one())


def running(conn: Connection, product: str, counter: int, *, after: int = 0) -> Iterator[Row]:
    """Yield accepted devices that run a release, by row number, those behind row `after`."""
    asked = (
        select(t.device)
        .where(
            t.device.c.row > after,
            t.device.c.state == "accepted",
            t.device.c.product == product,
            t.device.c.running_counter == counter,
        )
        .order_by(t.device.c.row)
    )
    for row in conn.execute(asked.execution_options(yield_per=1000)).mappings():
        yield dict(row)


def variant_counts(conn: Connection, product: str) -> dict[str, int]:
    """Return how many accepted devices of a product there are, by variant; from the counters that are kept with every change, whatever the fleet's size."""
    f = t.firmware.c
    asked = (
        select(f.variant, func.sum(f.devices))
        .where(f.product == product, f.devices > 0)
        .group_by(f.variant)
    )
    return {str(variant): int(count) for variant, count in conn.execute(asked)}


def running_versions(conn: Connection, product: str, variants: Collection[str]) -> dict[str, int]:
    """Return how many accepted devices of these variants run which version; from the counters, as `variant_counts`."""
    f = t.firmware.c
    asked = (
        select(f.version, func.sum(f.devices))
        .where(f.product == product, f.variant.in_(sorted(variants)), f.devices > 0)
        .group_by(f.version)
    )
    return {str(version): int(count) for version, count in conn.execute(asked)}


def running_reached(conn: Connection, rollout_id: int, variants: Collection[str]) -> dict[str, int]:
    """Return how many accepted devices of these variants that a rollout reached run which version now. Looks at each of them."""
    d = t.device.c
    asked = (
        select(d.running_version, func.count())
        .select_from(t.update)
        .join(t.device, d.row == t.update.c.device_row)
        .where(
            t.update.c.rollout_id == rollout_id,
            d.state == "accepted",
            d.variant.in_(sorted(variants)),
        )
        .group_by(d.running_version)
    )
    return {str(version): int(count) for version, count in conn.execute(asked)}


def enrolled_since(
    conn: Connection,
    product: str,
    at: int,
    variants: Collection[str],
    *,
    reached_by: int = 0,
) -> dict[str, int]:
    """Return how many accepted devices of these variants of a product were enrolled after a moment.

    Each variant is counted by itself: then the index gives just those that came after, and nothing else of the fleet is touched.
    `reached_by`: only those that this rollout reached.
    """
    d = t.device.c
    asked = (
        select(func.count())
        .select_from(t.device)
        .where(
            d.tenant == tenant_of(conn),  # the index begins with it
            d.product == product,
            d.state == "accepted",
            d.enrolled_at > at,
        )
    )
    if reached_by:
        u = t.update.c
        asked = asked.where(exists().where(u.device_row == d.row, u.rollout_id == reached_by))
    return {one: int(conn.execute(asked.where(d.variant == one)).scalar_one()) for one in variants}


def running_count(conn: Connection, product: str, counter: int) -> int:
    """Return how many accepted devices run a release; from the counters, as `variant_counts`."""
    f = t.firmware.c
    asked = select(func.coalesce(func.sum(f.devices), 0)).where(
        f.product == product, f.counter == counter
    )
    return int(conn.execute(asked).scalar_one())


def newest_updates(conn: Connection, rows: Collection[int]) -> dict[int, Row]:
    """Return the newest update of each of these devices, with its rollout's name."""
    newest = (
        select(t.update.c.device_row, func.max(t.update.c.offered_at).label("at"))
        .where(t.update.c.device_row.in_(sorted(rows)))
        .group_by(t.update.c.device_row)
        .subquery()
    )
    asked = (
        select(t.update, t.rollout.c.name.label("rollout"))
        .join(t.rollout, t.rollout.c.id == t.update.c.rollout_id)
        .join(
            newest,
            (newest.c.device_row == t.update.c.device_row) & (newest.c.at == t.update.c.offered_at),
        )
        .order_by(t.update.c.rollout_id)
    )
    return {int(row["device_row"]): dict(row) for row in conn.execute(asked).mappings()}


def updates_of(conn: Connection, row: int) -> list[Row]:
    """Return every update of a device with its rollout's name, newest first."""
    asked = (
        select(t.update, t.rollout.c.name.label("rollout"))
        .join(t.rollout, t.rollout.c.id == t.update.c.rollout_id)
        .where(t.update.c.device_row == row)
        .order_by(t.update.c.rollout_id.desc())
    )
    return [dict(one) for one in conn.execute(asked).mappings()]


def events_of(
    conn: Connection, row: int, *, order: Order = _REPORTS, limit: int = 100
) -> list[Row]:
    """Return what a device reported in an order: by `position`."""
    asked = select(t.event).where(t.event.c.device_row == row)
    asked = order.of(asked, t.event.c.position, limit)
    return [dict(one) for one in conn.execute(asked).mappings()]


def events(conn: Connection, *, after: int = 0, limit: int = 100) -> list[Row]:
    """Return the event log in order, behind a position, with the devices' ids."""
    asked = (
        select(t.event, t.device.c.id.label("device"))
        .join(t.device, t.device.c.row == t.event.c.device_row)
        .where(t.event.c.position > after)
        .order_by(t.event.c.position)
        .limit(limit)
    )
    return [dict(one) for one in conn.execute(asked).mappings()]


# --- claims ----------------------------------------------------------------------------------------------------------


def add_claim(conn: Connection, row: Row) -> int:
    """Add a claim and return its row number."""
    made = insert(t.claim).values(**row).returning(t.claim.c.id)
    return int(conn.execute(made).scalar_one())


def claim(conn: Connection, name: str) -> Row | None:
    """Return the newest claim of that name."""
    asked = select(t.claim).where(t.claim.c.name == name).order_by(t.claim.c.id.desc()).limit(1)
    row = conn.execute(asked).mappings().first()
    return dict(row) if row else None


def claims(conn: Connection) -> list[Row]:
    """Return every claim, newest first."""
    return [
        dict(row) for row in conn.execute(select(t.claim).order_by(t.claim.c.id.desc())).mappings()
    ]


def change_claim(conn: Connection, claim_id: int, values: Row) -> None:
    """Change a claim."""
    conn.execute(update(t.claim).where(t.claim.c.id == claim_id).values(**values))


# --- groups ----------------------------------------------------------------------------------------------------------


def groups(conn: Connection) -> list[Row]:
    """Return every group with its number of static members, by name."""
    count = func.count(t.group_member.c.device_row).label("members")
    asked = (
        select(t.device_group, count)
        .outerjoin(t.group_member, t.group_member.c.group_id == t.device_group.c.id)
        .group_by(t.device_group.c.id)
        .order_by(t.device_group.c.name)
    )
    return [dict(row) for row in conn.execute(asked).mappings()]


def group(conn: Connection, name: str) -> Row | None:
    """Return a group by name."""
    asked = select(t.device_group).where(
        t.device_group.c.tenant == tenant_of(conn), t.device_group.c.name == name
    )
    row = conn.execute(asked).mappings().first()
    return dict(row) if row else None


def add_group(conn: Connection, row: Row) -> int:
    """Add a group and return its row number."""
    made = insert(t.device_group).values(**row).returning(t.device_group.c.id)
    return int(conn.execute(made).scalar_one())


def change_group(conn: Connection, group_id: int, values: Row) -> None:
    """Change a group."""
    conn.execute(update(t.device_group).where(t.device_group.c.id == group_id).values(**values))


def drop_group(conn: Connection, group_id: int) -> None:
    """Remove a group and its memberships."""
    conn.execute(delete(t.group_member).where(t.group_member.c.group_id == group_id))
    conn.execute(delete(t.device_group).where(t.device_group.c.id == group_id))


def set_members(conn: Connection, group_id: int, rows: Collection[int]) -> None:
    """Replace the static members of a group."""
    conn.execute(delete(t.group_member).where(t.group_member.c.group_id == group_id))
    for row in sorted(rows):
        add_member(conn, group_id, row)


def member_ids(conn: Connection, group_id: int) -> list[str]:
    """Return the ids of the static members of a group, in order."""
    asked = (
        select(t.device.c.id)
        .join(t.group_member, t.group_member.c.device_row == t.device.c.row)
        .where(t.group_member.c.group_id == group_id)
        .order_by(t.device.c.id)
    )
    return [str(one) for one in conn.execute(asked).scalars()]


def add_member(conn: Connection, group_id: int, row: int) -> None:
    """Put a device into a group; nothing happens when it is in it."""
    if not is_member(conn, group_id, row):
        conn.execute(insert(t.group_member).values(group_id=group_id, device_row=row))


def is_member(conn: Connection, group_id: int, row: int) -> bool:
    """Say whether a device is in a static group."""
    member = (t.group_member.c.group_id == group_id, t.group_member.c.device_row == row)
    return conn.execute(select(t.group_member.c.group_id).where(*member)).first() is not None


def drop_member(conn: Connection, group_id: int, row: int) -> None:
    """Take a device out of a group."""
    member = (t.group_member.c.group_id == group_id, t.group_member.c.device_row == row)
    conn.execute(delete(t.group_member).where(*member))


def memberships(conn: Connection) -> list[tuple[int, str]]:
    """Return (device row, group name) of every static membership."""
    asked = select(t.group_member.c.device_row, t.device_group.c.name).join(
        t.device_group, t.device_group.c.id == t.group_member.c.group_id
    )
    return [(int(row), str(name)) for row, name in conn.execute(asked)]


def rows_of(conn: Connection, ids: Collection[str]) -> dict[str, int]:
    """Return the row numbers of devices by id; unknown ones are left out."""
    asked = select(t.device.c.id, t.device.c.row).where(t.device.c.id.in_(sorted(ids)))
    return {str(name): int(row) for name, row in conn.execute(asked)}


# --- the fleet -------------------------------------------------------------------------------------------------------


def firmware(conn: Connection) -> list[Row]:
    """Return how many devices run which release, by product, variant and counter."""
    asked = select(t.firmware).where(t.firmware.c.devices != 0)
    return [dict(row) for row in conn.execute(asked).mappings()]


def sample_firmware(conn: Connection, at: int) -> None:
    """Store a sample of the distribution, unless there is one of that time."""
    if conn.execute(select(t.firmware_sample.c.at).where(t.firmware_sample.c.at == at)).first():
        return
    sums: dict[tuple[str, int], list[Any]] = {}
    for row in firmware(conn):
        entry = sums.setdefault((row["product"], row["counter"]), ["", 0])
        entry[0] = entry[0] or row["version"]
        entry[1] += row["devices"]
    for (product, counter), (version, devices) in sorted(sums.items()):
        conn.execute(
            insert(t.firmware_sample).values(
                at=at,
                product=product,
                counter=counter,
                version=version,
                devices=devices,
            )
        )


def is_sampled(conn: Connection, at: int) -> bool:
    """Say whether there is a sample of the distribution of that time. What is of a later one is of a clock that was ahead."""
    asked = select(t.firmware_sample.c.at).where(t.firmware_sample.c.at == at).limit(1)
    return conn.execute(asked).first() is not None


def daily(conn: Connection, since_day: int) -> list[Row]:
    """Return fleet-wide counters since a unix day."""
    asked = select(t.daily).where(t.daily.c.day >= since_day)
    return [dict(row) for row in conn.execute(asked).mappings()]


def counted_by_name(conn: Connection, prefix: str) -> dict[str, int]:
    """Return the sums of all fleet-wide counters whose name begins so, by the rest of the name."""
    name = t.daily.c.name
    asked = (
        select(name, func.sum(t.daily.c.value))
        .where(name.startswith(prefix, autoescape=True))
        .group_by(name)
    )
    return {str(one).removeprefix(prefix): int(value) for one, value in conn.execute(asked)}


def update_counts(conn: Connection) -> list[tuple[str, str, int]]:
    """Return how many updates there are by (state, reason); the reason is empty where there is none."""
    reason = func.coalesce(t.update.c.reason, "")
    asked = select(t.update.c.state, reason, func.count()).group_by(t.update.c.state, reason)
    return [(str(state), str(why), int(count)) for state, why, count in conn.execute(asked)]


def matching_text(conn: Connection, text: str, limit: int = 20) -> list[str]:
    """Return ids of devices whose id or serial contains a text (untrusted), for suggestions."""
    asked = (
        select(t.device.c.id)
        .where(
            or_(
                t.device.c.id.icontains(text, autoescape=True),
                t.device.c.serial.icontains(text, autoescape=True),
            )
        )
        .order_by(t.device.c.id)
        .limit(limit)
    )
    return [str(one) for one in conn.execute(asked).scalars()]
