"""Statements behind the web pages: counters and short lists, never a row per device of the fleet. No decision is made here."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, case, func, or_, select

from tidegate.server.store import tables as t
from tidegate.server.store.scope import tenant_of

Row = dict[str, Any]
#: States of a rollout that somebody still looks at, the most urgent first.
LOOKED_AT = ("halted", "falling_back", "active", "paused", "awaiting_approval", "scheduled")

_ROLLOUT = select(
    t.rollout,
    t.release.c.name.label("release"),
    t.release.c.version.label("release_version"),
    t.release.c.counter.label("release_counter"),
    t.release.c.release_sha256,
    t.release.c.state.label("release_state"),
    t.release.c.mandate,
).join(t.release, t.release.c.id == t.rollout.c.release_id)


def _rows(conn: Connection, asked: Select[Any]) -> list[Row]:
    return [dict(row) for row in conn.execute(asked).mappings()]


def _one(conn: Connection, asked: Select[Any]) -> Row | None:
    row = conn.execute(asked).mappings().first()
    return dict(row) if row else None


def _count(conn: Connection, asked: Select[Any]) -> int:
    return int(conn.execute(asked).scalar() or 0)


# --- the top bar ------------------------------------------------------------------------------------------------------


def position(conn: Connection) -> int:
    """Return how far the event log and the list of changes have come, as one number."""
    events = _count(conn, select(func.max(t.event.c.position)))
    return events + _count(conn, select(func.max(t.change.c.seq)))


def running(conn: Connection) -> list[Row]:
    """Return rollouts that can be halted now and still move."""
    states = ("active", "paused", "falling_back")
    return _rows(
        conn,
        _ROLLOUT.where(t.rollout.c.state.in_(states)).order_by(t.rollout.c.id.desc()).limit(20),
    )


def pending_count(conn: Connection) -> int:
    """Return how many devices ask to be enrolled."""
    asked = select(func.count()).select_from(t.device)
    return _count(
        conn, asked.where(t.device.c.tenant == tenant_of(conn), t.device.c.state == "pending")
    )


def open_incident_count(conn: Connection) -> int:
    """Return how many incidents are not closed."""
    return _count(
        conn, select(func.count()).select_from(t.incident).where(t.incident.c.state != "closed")
    )


# --- fleet ------------------------------------------------------------------------------------------------------------


def device_states(conn: Connection) -> dict[str, int]:
    """Return how many devices there are by state of enrolment."""
    asked = select(t.device.c.state, func.count()).group_by(t.device.c.state)
    return {str(state): int(count) for state, count in conn.execute(asked)}


#: Products that are looked at; None = all of them.
Products = Collection[str] | None


def _of(asked: Select[Any], product: ColumnElement[Any], products: Products) -> Select[Any]:
    return asked if products is None else asked.where(product.in_(sorted(products)))


def seen_since(conn: Connection, since: int, products: Products = None) -> int:
    """Return how many accepted devices were heard of since then."""
    asked = select(func.count()).select_from(t.device)
    heard = asked.where(t.device.c.state == "accepted", t.device.c.last_seen >= since)
    return _count(conn, _of(heard, t.device.c.product, products))


def variants(conn: Connection, product: str = "") -> list[tuple[str, int]]:
    """Return accepted devices by variant from the stored counters, most first."""
    devices = func.sum(t.firmware.c.devices)
    asked = select(t.firmware.c.variant, devices).group_by(t.firmware.c.variant)
    if product:
        asked = asked.where(t.firmware.c.product == product)
    found = [(str(name), int(count)) for name, count in conn.execute(asked) if count > 0]
    return sorted(found, key=lambda one: (-one[1], one[0]))


def firmware(conn: Connection, products: Products = None) -> list[Row]:
    """Return accepted devices by product and release, newest release first."""
    asked = (
        select(
            t.firmware.c.product,
            t.firmware.c.counter,
            func.max(t.firmware.c.version).label("version"),
            func.sum(t.firmware.c.devices).label("devices"),
        )
        .group_by(t.firmware.c.product, t.firmware.c.counter)
        .order_by(t.firmware.c.product, t.firmware.c.counter.desc())
    )
    found = _rows(conn, _of(asked, t.firmware.c.product, products))
    return [row for row in found if row["devices"] > 0]


def firmware_variants(conn: Connection, product: str, counter: int) -> dict[str, int]:
    """Return how many devices run a release, by variant."""
    asked = select(t.firmware.c.variant, t.firmware.c.devices).where(
        t.firmware.c.product == product, t.firmware.c.counter == counter
    )
    return {str(variant): int(count) for variant, count in conn.execute(asked)}


def sample_times(conn: Connection, since: int) -> list[int]:
    """Return when the firmware counters were sampled, oldest first."""
    at = t.firmware_sample.c.at
    asked = select(at).distinct().where(at >= since).order_by(at)
    return [int(one) for one in conn.execute(asked).scalars()]


def samples(conn: Connection, times: Collection[int], products: Products = None) -> list[Row]:
    """Return the samples of these times."""
    sample = t.firmware_sample
    asked = select(
        sample.c.at, sample.c.product, sample.c.counter, sample.c.version, sample.c.devices
    )
    then = asked.where(sample.c.at.in_(sorted(times))).order_by(sample.c.at)
    return _rows(conn, _of(then, sample.c.product, products))


def daily(conn: Connection, since_day: int, products: Products = None) -> list[Row]:
    """Return the counters of each unix day since then, summed over products."""
    asked = (
        select(t.daily.c.day, t.daily.c.name, func.sum(t.daily.c.value).label("value"))
        .where(t.daily.c.day >= since_day)
        .group_by(t.daily.c.day, t.daily.c.name)
    )
    return _rows(conn, _of(asked, t.daily.c.product, products))


def security_events(
    conn: Connection, since: int, limit: int, products: Products = None
) -> list[Row]:
    """Return what devices refused or noticed, newest first."""
    reason = t.event.c.reason
    asked = (
        select(t.event.c.received_at, t.event.c.kind, reason, t.device.c.id.label("device"))
        .join(t.device, t.device.c.row == t.event.c.device_row)
        .where(
            t.event.c.kind.in_(("security", "failed", "declined")),
            t.event.c.received_at >= since,
            or_(
                reason.like("sig.%"),
                reason.like("security.%"),
                reason.like("compat.%"),
                reason == "download.hash",
            ),
        )
        .order_by(t.event.c.position.desc())
        .limit(limit)
    )
    return _rows(conn, _of(asked, t.device.c.product, products))


def quarantined(conn: Connection, limit: int, products: Products = None) -> list[Row]:
    """Return devices in quarantine."""
    asked = select(t.device.c.id, t.device.c.last_seen).where(
        t.device.c.tenant == tenant_of(conn), t.device.c.state == "quarantined"
    )
    return _rows(conn, _of(asked, t.device.c.product, products).limit(limit))


# --- rollouts ---------------------------------------------------------------------------------------------------------


def rollout(conn: Connection, name: str) -> Row | None:
    """Return a rollout with its release."""
    return _one(
        conn, _ROLLOUT.where(t.rollout.c.tenant == tenant_of(conn), t.rollout.c.name == name)
    )


def rollouts_looked_at(conn: Connection, limit: int) -> list[Row]:
    """Return rollouts that are not over, the most urgent first."""
    order = case({state: n for n, state in enumerate(LOOKED_AT)}, value=t.rollout.c.state)
    asked = _ROLLOUT.where(t.rollout.c.state.in_(LOOKED_AT)).order_by(order, t.rollout.c.id.desc())
    return _rows(conn, asked.limit(limit))


def rollouts(conn: Connection, before: int, limit: int, release_id: int = 0) -> list[Row]:
    """Return rollouts, newest first, those before row `before` (0 = from the newest)."""
    asked = _ROLLOUT.order_by(t.rollout.c.id.desc()).limit(limit)
    if before:
        asked = asked.where(t.rollout.c.id < before)
    if release_id:
        asked = asked.where(t.rollout.c.release_id == release_id)
    return _rows(conn, asked)


def rollout_count(conn: Connection) -> int:
    """Return how many rollouts there are."""
    return _count(conn, select(func.count()).select_from(t.rollout))


def rollout_marks(conn: Connection, since: int) -> list[Row]:
    """Return when rollouts started and were halted since then, oldest first."""
    asked = _ROLLOUT.where(
        or_(t.rollout.c.started_at >= since, t.rollout.c.halted_at >= since)
    ).order_by(t.rollout.c.id)
    return _rows(conn, asked)


def parent_and_children(conn: Connection, row: Row) -> tuple[str, tuple[str, ...]]:
    """Return the name of the rollout that this one is the way back of, and of its own ways back."""
    name = t.rollout.c.name
    parent = conn.execute(select(name).where(t.rollout.c.id == row["parent_id"])).scalar()
    children = conn.execute(
        select(name).where(t.rollout.c.parent_id == row["id"]).order_by(t.rollout.c.id)
    ).scalars()
    return str(parent or ""), tuple(str(one) for one in children)


def plan_log(conn: Connection, rollout_id: int, limit: int) -> list[Row]:
    """Return what was decided about a rollout, newest first."""
    asked = select(t.plan_log).where(t.plan_log.c.rollout_id == rollout_id)
    return _rows(conn, asked.order_by(t.plan_log.c.id.desc()).limit(limit))


def requests(conn: Connection, rollout_id: int | None = None) -> list[Row]:
    """Return open requests for approval, oldest first."""
    asked = (
        select(t.approval_request, t.rollout.c.name.label("rollout"))
        .join(t.rollout, t.rollout.c.id == t.approval_request.c.rollout_id)
        .where(t.approval_request.c.state == "open")
        .order_by(t.approval_request.c.id)
        .limit(50)
    )
    if rollout_id is not None:
        asked = asked.where(t.approval_request.c.rollout_id == rollout_id)
    return _rows(conn, asked)


def exposure(conn: Connection, rollout_id: int, start: int, step: int) -> list[tuple[int, int]]:
    """Return how many permits fell into each step of time since `start`, in order."""
    bucket = (t.update.c.permitted_at - start) // step
    asked = (
        select(bucket, func.count())
        .where(t.update.c.rollout_id == rollout_id, t.update.c.permitted_at.is_not(None))
        .group_by(bucket)
        .order_by(bucket)
    )
    return [(max(0, int(n)), int(count)) for n, count in conn.execute(asked)]


def owed(conn: Connection, rollout_id: int, states: Collection[str], limit: int) -> list[Row]:
    """Return updates past the point of no return, those that have been silent longest first."""
    asked = (
        select(
            t.device.c.id.label("device"), t.update.c.variant, t.update.c.state, t.update.c.state_at
        )
        .join(t.device, t.device.c.row == t.update.c.device_row)
        .where(t.update.c.rollout_id == rollout_id, t.update.c.state.in_(sorted(states)))
        .order_by(t.update.c.state_at)
        .limit(limit)
    )
    return _rows(conn, asked)


def incident_of(conn: Connection, rollout_id: int, kind: str = "") -> str:
    """Return the name of a rollout's newest incident, or nothing."""
    asked = select(t.incident.c.name).where(t.incident.c.rollout_id == rollout_id)
    if kind:
        asked = asked.where(t.incident.c.kind == kind)
    return str(conn.execute(asked.order_by(t.incident.c.id.desc()).limit(1)).scalar() or "")


# --- releases ---------------------------------------------------------------------------------------------------------


def releases(conn: Connection, limit: int) -> list[Row]:
    """Return releases, newest first."""
    return _rows(conn, select(t.release).order_by(t.release.c.id.desc()).limit(limit))


def release_count(conn: Connection) -> int:
    """Return how many releases there are."""
    return _count(conn, select(func.count()).select_from(t.release))


def release(conn: Connection, name: str) -> Row | None:
    """Return a release by name."""
    return _one(
        conn,
        select(t.release).where(t.release.c.tenant == tenant_of(conn), t.release.c.name == name),
    )


def release_by_counter(conn: Connection, product: str, counter: int) -> Row | None:
    """Return a release by its counter."""
    asked = select(t.release).where(t.release.c.product == product, t.release.c.counter == counter)
    return _one(conn, asked)


def artifacts(conn: Connection, release_id: int) -> list[Row]:
    """Return a release's artifacts."""
    asked = select(t.artifact).where(t.artifact.c.release_id == release_id)
    return _rows(conn, asked.order_by(t.artifact.c.component, t.artifact.c.path))


def harmed_by_release(conn: Connection, release_id: int) -> dict[tuple[str, str], int]:
    """Return reverted and lost devices of all rollouts of a release, by (variant, name)."""
    asked = (
        select(t.tally.c.variant, t.tally.c.name, func.sum(t.tally.c.value))
        .join(t.rollout, t.rollout.c.id == t.tally.c.rollout_id)
        .where(
            t.rollout.c.release_id == release_id,
            t.rollout.c.kind == "install",
            t.tally.c.name.in_(("reverted", "lost")),
        )
        .group_by(t.tally.c.variant, t.tally.c.name)
    )
    return {(str(variant), str(name)): int(count) for variant, name, count in conn.execute(asked)}


def root_version(conn: Connection) -> int:
    """Return the newest version of the root of trust; 0 = there is none."""
    asked = select(func.max(t.repository.c.version)).where(t.repository.c.role == "root")
    return _count(conn, asked)


# --- incidents --------------------------------------------------------------------------------------------------------

_INCIDENT = select(t.incident, t.rollout.c.name.label("rollout")).outerjoin(
    t.rollout, t.rollout.c.id == t.incident.c.rollout_id
)


def incidents(conn: Connection, limit: int) -> list[Row]:
    """Return incidents that are not closed, then the newest."""
    order = case((t.incident.c.state == "closed", 1), else_=0)
    return _rows(conn, _INCIDENT.order_by(order, t.incident.c.id.desc()).limit(limit))


def incident_count(conn: Connection) -> int:
    """Return how many incidents there are."""
    return _count(conn, select(func.count()).select_from(t.incident))


def incident(conn: Connection, name: str) -> Row | None:
    """Return an incident by name."""
    return _one(
        conn, _INCIDENT.where(t.incident.c.tenant == tenant_of(conn), t.incident.c.name == name)
    )


def first_due(conn: Connection, incident_ids: Collection[int]) -> dict[int, int]:
    """Return when the first follow-up of each of these incidents is due; those are left out that have none with a date to do."""
    due = t.incident_followup
    asked = (
        select(due.c.incident_id, func.min(due.c.due_at))
        .where(
            due.c.incident_id.in_(sorted(incident_ids)), due.c.done_at.is_(None), due.c.due_at > 0
        )
        .group_by(due.c.incident_id)
    )
    return {int(one): int(at) for one, at in conn.execute(asked)}


def action_counts(conn: Connection, incident_ids: Collection[int]) -> dict[int, int]:
    """Return how many corrective actions each of these incidents has."""
    note = t.incident_note
    asked = (
        select(note.c.incident_id, func.count())
        .where(note.c.kind == "action", note.c.incident_id.in_(sorted(incident_ids)))
        .group_by(note.c.incident_id)
    )
    return {int(one): int(count) for one, count in conn.execute(asked)}
