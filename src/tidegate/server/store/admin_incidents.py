"""Statements about incidents, what was written into them, and what is left to do. No decision is made here."""

from collections.abc import Collection
from heapq import merge
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import Connection, case, func, insert, or_, select, update

from tidegate.server.store import tables as t
from tidegate.server.store.ordering import NEWEST, Order, by_code_point

Row = dict[str, Any]
_DUE = (
    select(func.coalesce(func.min(t.incident_followup.c.due_at), 0))
    .where(
        t.incident_followup.c.incident_id == t.incident.c.id,
        t.incident_followup.c.done_at.is_(None),
        t.incident_followup.c.due_at > 0,
    )
    .scalar_subquery()
    .label("due_at")
)
_INCIDENT = (
    select(
        t.incident,
        t.rollout.c.name.label("rollout"),
        t.release.c.name.label("release"),
        t.release.c.state.label("release_state"),
        _DUE,
    )
    .outerjoin(t.rollout, t.rollout.c.id == t.incident.c.rollout_id)
    .outerjoin(t.release, t.release.c.id == t.rollout.c.release_id)
)
_BAD = ("reverted", "failed", "lost")


class Outcome(NamedTuple):
    """An update with what its device is, as an incident looks at it."""

    device: str
    variant: str
    ring: str
    state: str
    reason: str | None
    state_at: int
    from_counter: int
    region: str
    site: str
    connectivity: str
    attributes: dict[str, Any]
    permitted_at: int | None = None
    offered_at: int = 0


def add(conn: Connection, row: Row) -> int:
    """Add an incident and return its row number."""
    made = insert(t.incident).values(**row).returning(t.incident.c.id)
    return int(conn.execute(made).scalar_one())


def count_like(conn: Connection, prefix: str) -> int:
    """Return how many incidents have a name that begins so."""
    asked = select(func.count()).select_from(t.incident).where(t.incident.c.name.startswith(prefix))
    return int(conn.execute(asked).scalar_one())


def by_name(conn: Connection, name: str) -> Row | None:
    """Return an incident with its rollout's name."""
    row = conn.execute(_INCIDENT.where(t.incident.c.name == name)).mappings().first()
    return dict(row) if row else None


def names(conn: Connection) -> list[str]:
    """Return names of the newest incidents, to show near misses."""
    asked = select(t.incident.c.name).order_by(t.incident.c.id.desc()).limit(200)
    return [str(name) for name in conn.execute(asked).scalars()]


def listed(
    conn: Connection,
    *,
    state: str = "",
    unclosed: bool = False,
    rollout_id: int | None = None,
    order: Order = NEWEST,
    limit: int = 50,
) -> list[Row]:
    """Return incidents in an order: by `id`."""
    asked = order.of(_INCIDENT, t.incident.c.id, limit)
    if state:
        asked = asked.where(t.incident.c.state == state)
    if unclosed:
        asked = asked.where(t.incident.c.state != "closed")
    if rollout_id is not None:
        asked = asked.where(t.incident.c.rollout_id == rollout_id)
    return [dict(row) for row in conn.execute(asked).mappings()]


def of_release(conn: Connection, release_id: int, limit: int = 200) -> list[Row]:
    """Return the newest incidents about rollouts of a release, closed ones included."""
    asked = _INCIDENT.where(t.rollout.c.release_id == release_id)
    asked = asked.order_by(t.incident.c.id.desc()).limit(limit)
    return [dict(row) for row in conn.execute(asked).mappings()]


def newest(conn: Connection, rollout_id: int, kind: str) -> Row | None:
    """Return the newest incident of a kind of a rollout, or None."""
    mine = (t.incident.c.rollout_id == rollout_id, t.incident.c.kind == kind)
    asked = _INCIDENT.where(*mine).order_by(t.incident.c.id.desc()).limit(1)
    row = conn.execute(asked).mappings().first()
    return dict(row) if row else None


def change(conn: Connection, incident_id: int, values: Row) -> None:
    """Change an incident."""
    conn.execute(update(t.incident).where(t.incident.c.id == incident_id).values(**values))


def add_note(conn: Connection, row: Row) -> None:
    """Write into an incident."""
    conn.execute(insert(t.incident_note).values(**row))


def notes(conn: Connection, incident_id: int) -> list[Row]:
    """Return what was written into an incident, in order."""
    asked = (
        select(t.incident_note)
        .where(t.incident_note.c.incident_id == incident_id)
        .order_by(t.incident_note.c.id)
    )
    return [dict(row) for row in conn.execute(asked).mappings()]


# --- follow-ups -------------------------------------------------------------------------------------------------------


def add_followup(conn: Connection, incident_id: int, row: Row) -> int:
    """Add a follow-up and return its number."""
    table = t.incident_followup
    newest = select(func.max(table.c.number)).where(table.c.incident_id == incident_id)
    number = int(conn.execute(newest).scalar() or 0) + 1
    values = {"incident_id": incident_id, "number": number, **row}
    conn.execute(insert(table).values(**values))
    return number


def followups(conn: Connection, incident_id: int) -> list[Row]:
    """Return an incident's follow-ups, in order."""
    table = t.incident_followup
    asked = select(table).where(table.c.incident_id == incident_id).order_by(table.c.number)
    return [dict(row) for row in conn.execute(asked).mappings()]


def change_followup(conn: Connection, incident_id: int, number: int, values: Row) -> None:
    """Change a follow-up."""
    table = t.incident_followup
    mine = (table.c.incident_id == incident_id) & (table.c.number == number)
    conn.execute(update(table).where(mine).values(**values))


def settle_followup(conn: Connection, incident_id: int, number: int, by: str, now: int) -> bool:
    """Note that a follow-up was done; False where there is no open one of that number."""
    table = t.incident_followup
    mine = (table.c.incident_id == incident_id) & (table.c.number == number)
    done = conn.execute(
        update(table).where(mine, table.c.done_at.is_(None)).values(done_at=now, done_by=by)
    )
    return done.rowcount > 0


# --- the cohort -------------------------------------------------------------------------------------------------------


def outcomes(
    conn: Connection,
    rollout_id: int,
    *,
    states: Collection[str],
    variant: str = "",
    acted: bool = False,
    after: tuple[int, str] = (0, ""),
    newest_first: bool = False,
    limit: int = 1000,
) -> list[Outcome]:
    """Return updates of a rollout in any of these states with their devices, in order of their last change (or against it), then of the device.

    `acted`: only devices that had leave to activate, or failed to install. `after`: (state_at, device) of the row before the first.
    """
    u, d = t.update.c, t.device.c
    name = by_code_point(conn, d.id)
    asked = (
        select(
            d.id, u.variant, u.ring, u.state, u.reason, u.state_at, u.from_counter,
            d.region, d.site, d.connectivity, d.attributes, u.permitted_at, u.offered_at,
        )
        .join(t.device, d.row == u.device_row)
        .where(u.rollout_id == rollout_id)
        .order_by(u.state_at.desc() if newest_first else u.state_at, name)
        .limit(limit)
    )  # fmt: skip
    if variant:
        asked = asked.where(u.variant == variant)
    if acted:
        asked = asked.where(or_(u.permitted_at.is_not(None), u.reason.startswith("install.")))
    if after != (0, ""):
        later = (u.state_at > after[0]) | ((u.state_at == after[0]) & (name > after[1]))
        asked = asked.where(later)
    # State by state the index gives them in order, and the rest is never looked at; all states at once would have to be sorted first.
    each = [
        [Outcome(*row) for row in conn.execute(asked.where(u.state == state))]
        for state in sorted(states)
    ]
    sign = -1 if newest_first else 1
    found = merge(*each, key=lambda one: (sign * one.state_at, one.device))
    return list(islice(found, limit))


def staged(conn: Connection, rollout_id: int, devices: Collection[str]) -> dict[str, int]:
    """Return when the server heard of these devices that they hold the image of their present attempt; those of whom it did not are left out."""
    e, u, d = t.event.c, t.update.c, t.device.c
    asked = (
        select(d.id, func.min(e.received_at))
        .select_from(t.update)
        .join(t.device, d.row == u.device_row)
        .join(t.event, e.update_id == u.id)
        .where(u.rollout_id == rollout_id, e.kind == "staged", e.attempt == u.attempt)
        .group_by(d.id)
    )
    found: dict[str, int] = {}
    names = sorted(devices)
    for start in range(0, len(names), 500):
        some = conn.execute(asked.where(d.id.in_(names[start : start + 500])))
        found.update((str(device), int(at)) for device, at in some)
    return found


def versions(conn: Connection, product: str, counters: Collection[int]) -> dict[int, str]:
    """Return the versions of a product's releases by counter."""
    asked = select(t.release.c.counter, t.release.c.version).where(
        t.release.c.product == product, t.release.c.counter.in_(sorted(counters))
    )
    return {int(counter): str(version) for counter, version in conn.execute(asked)}


def reported(
    conn: Connection, rollout_id: int, *, variant: str = "", each: int = 20
) -> list[tuple[str, str, int, str]]:
    """Return (device, variant, when it came, body as JSON text) of signed bad outcomes of a rollout: the first `each` of every reason, in order."""
    e, u, d = t.event.c, t.update.c, t.device.c
    rank = func.row_number().over(partition_by=e.reason, order_by=e.position)
    inner = (
        select(d.id, u.variant, e.received_at, e.body, e.position, rank.label("rank"))
        .join(t.update, u.id == e.update_id)
        .join(t.device, d.row == u.device_row)
        .where(u.rollout_id == rollout_id, u.state.in_(_BAD), e.kind.in_(("reverted", "failed")))
        .where(e.envelope.is_not(None), e.attempt == u.attempt)
    )
    if variant:
        inner = inner.where(u.variant == variant)
    ranked = inner.subquery()
    asked = (
        select(ranked.c.id, ranked.c.variant, ranked.c.received_at, ranked.c.body)
        .where(ranked.c.rank <= each)
        .order_by(ranked.c.position)
        .limit(20 * each)
    )
    return [
        (str(device), str(of), int(at), str(body)) for device, of, at, body in conn.execute(asked)
    ]


def known_devices(conn: Connection, ids: Collection[str]) -> list[str]:
    """Return those of these texts that are the name or the serial number of a device, whatever their case."""
    wanted = sorted({one.lower() for one in ids if one})
    found: set[str] = set()
    for start in range(0, len(wanted), 500):
        some = wanted[start : start + 500]
        named = case((func.lower(t.device.c.id).in_(some), t.device.c.id), else_=t.device.c.serial)
        asked = select(named).where(
            or_(func.lower(t.device.c.id).in_(some), func.lower(t.device.c.serial).in_(some))
        )
        found.update(str(one) for one in conn.execute(asked).scalars())
    return sorted(found)


# --- the status page --------------------------------------------------------------------------------------------------


def publication(conn: Connection, incident_id: int) -> Row | None:
    """Return what the status page says of an incident, withdrawn or not."""
    asked = select(t.publication).where(t.publication.c.incident_id == incident_id)
    row = conn.execute(asked).mappings().first()
    return dict(row) if row else None


def put_publication(conn: Connection, incident_id: int, row: Row) -> None:
    """Write what the status page says of an incident, in place of what it said."""
    mine = t.publication.c.incident_id == incident_id
    if conn.execute(update(t.publication).where(mine).values(**row)).rowcount == 0:
        values = {"incident_id": incident_id, **row}
        conn.execute(insert(t.publication).values(**values))


def publications(conn: Connection, limit: int) -> list[Row]:
    """Return what is published, newest incidents first."""
    asked = (
        select(t.publication, t.incident.c.name, t.incident.c.state, t.incident.c.severity)
        .join(t.incident, t.incident.c.id == t.publication.c.incident_id)
        .where(t.publication.c.withdrawn_at.is_(None))
        .order_by(t.publication.c.published_at.desc(), t.publication.c.incident_id.desc())
        .limit(limit)
    )
    return [dict(row) for row in conn.execute(asked).mappings()]


def add_publication_update(conn: Connection, row: Row) -> None:
    """Add a line below what the status page says of an incident."""
    conn.execute(insert(t.publication_update).values(**row))


def publication_updates(conn: Connection, incident_ids: Collection[int]) -> dict[int, list[Row]]:
    """Return the lines below each publication, oldest first."""
    table = t.publication_update
    asked = select(table).where(table.c.incident_id.in_(sorted(incident_ids))).order_by(table.c.id)
    found: dict[int, list[Row]] = {}
    for row in conn.execute(asked).mappings():
        found.setdefault(int(row["incident_id"]), []).append(dict(row))
    return found
