"""Statements about rollouts, releases, requests for approval and updates, as operators act on them. No decision is made here."""

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from sqlalchemy import Connection, func, insert, or_, select, update

from tidegate.server.store import tables as t
from tidegate.server.store.ordering import NEWEST, Order
from tidegate.server.store.scope import tenant_of

Row = dict[str, Any]
_BEGUN = ("active", "paused", "completed")

_ROLLOUT = select(
    t.rollout,
    t.release.c.name.label("release"),
    t.release.c.release_sha256,
    t.release.c.counter.label("release_counter"),
    t.release.c.version.label("release_version"),
    t.release.c.state.label("release_state"),
    t.release.c.mandate,
).join(t.release, t.release.c.id == t.rollout.c.release_id)


def release(conn: Connection, name: str) -> Row | None:
    """Return a release by name."""
    asked = select(t.release).where(t.release.c.tenant == tenant_of(conn), t.release.c.name == name)
    row = conn.execute(asked).mappings().first()
    return dict(row) if row else None


def release_by_counter(conn: Connection, product: str, counter: int) -> Row | None:
    """Return a product's release by its counter."""
    asked = select(t.release).where(
        t.release.c.tenant == tenant_of(conn),
        t.release.c.product == product,
        t.release.c.counter == counter,
    )
    row = conn.execute(asked).mappings().first()
    return dict(row) if row else None


def releases(
    conn: Connection, *, product: str = "", order: Order = NEWEST, limit: int = 50
) -> list[Row]:
    """Return releases in an order: by `id`, `name`, or, of a product, `counter`."""
    asked = select(t.release)
    if order.by != "id":
        asked = asked.where(t.release.c.tenant == tenant_of(conn))
    if product:
        asked = asked.where(t.release.c.product == product)
    asked = order.of(asked, t.release.c[order.by], limit)
    return [dict(row) for row in conn.execute(asked).mappings()]


def release_names(conn: Connection) -> list[str]:
    """Return names of the newest releases, to show near misses."""
    asked = select(t.release.c.name).order_by(t.release.c.id.desc()).limit(200)
    return [str(name) for name in conn.execute(asked).scalars()]


def artifacts(conn: Connection, release_id: int) -> list[Row]:
    """Return a release's artifacts."""
    asked = (
        select(t.artifact).where(t.artifact.c.release_id == release_id).order_by(t.artifact.c.path)
    )
    return [dict(row) for row in conn.execute(asked).mappings()]


def rollout(conn: Connection, name: str) -> Row | None:
    """Return a rollout with its release's name, digest, counter and state."""
    asked = _ROLLOUT.where(t.rollout.c.tenant == tenant_of(conn), t.rollout.c.name == name)
    row = conn.execute(asked).mappings().first()
    return dict(row) if row else None


def rollout_by_id(conn: Connection, rollout_id: int) -> Row | None:
    """Return a rollout by its row; like `rollout`."""
    row = conn.execute(_ROLLOUT.where(t.rollout.c.id == rollout_id)).mappings().first()
    return dict(row) if row else None


def rollouts(
    conn: Connection, *, states: Collection[str] = (), order: Order = NEWEST, limit: int = 50
) -> list[Row]:
    """Return rollouts in an order: by `id` or `name`."""
    asked = _ROLLOUT
    if order.by != "id":
        asked = asked.where(t.rollout.c.tenant == tenant_of(conn))
    if states:
        asked = asked.where(t.rollout.c.state.in_(sorted(states)))
    asked = order.of(asked, t.rollout.c[order.by], limit)
    return [dict(row) for row in conn.execute(asked).mappings()]


def rollout_names(conn: Connection) -> list[str]:
    """Return names of the newest rollouts, to show near misses."""
    asked = select(t.rollout.c.name).order_by(t.rollout.c.id.desc()).limit(200)
    return [str(name) for name in conn.execute(asked).scalars()]


def begun(conn: Connection, watched_since: int) -> list[int]:
    """Return rows of the rollouts that the planner looks at, oldest first.

    Args:
        conn: any connection.
        watched_since: completed ones are looked at when they ended, or gave a permit, at or after this time.
    """
    permitted = (
        select(t.tally.c.rollout_id)
        .where(t.tally.c.name == "last_permit_at", t.tally.c.value >= watched_since)
        .distinct()
    )
    watched = or_(t.rollout.c.ended_at >= watched_since, t.rollout.c.id.in_(permitted))
    asked = (
        select(t.rollout.c.id)
        .where(t.rollout.c.state.in_(_BEGUN))
        .where(or_(t.rollout.c.state != "completed", watched))
        .order_by(t.rollout.c.id)
    )
    return [int(one) for one in conn.execute(asked).scalars()]


def due(conn: Connection, now: int) -> list[Row]:
    """Return scheduled rollouts whose time has come."""
    asked = _ROLLOUT.where(t.rollout.c.state == "scheduled", t.rollout.c.start_at <= now)
    return [dict(row) for row in conn.execute(asked.order_by(t.rollout.c.id)).mappings()]


def children(conn: Connection, parent_id: int) -> list[Row]:
    """Return the fallbacks of a rollout, oldest first."""
    asked = _ROLLOUT.where(t.rollout.c.parent_id == parent_id).order_by(t.rollout.c.id)
    return [dict(row) for row in conn.execute(asked).mappings()]


def older_for_same(conn: Connection, row: Row) -> list[Row]:
    """Return rollouts of older releases for the very same audience that have not ended."""
    asked = _ROLLOUT.where(
        t.rollout.c.product == row["product"],
        t.rollout.c.audience == row["audience"],
        t.rollout.c.kind == "install",
        t.rollout.c.state.in_(("scheduled", "active", "paused", "awaiting_approval")),
        t.release.c.counter < row["release_counter"],
    )
    return [dict(one) for one in conn.execute(asked).mappings()]


def serving(conn: Connection, product: str) -> list[Row]:
    """Return the installs of a product that serve devices, or will when they start."""
    asked = _ROLLOUT.where(
        t.rollout.c.product == product,
        t.rollout.c.kind == "install",
        t.rollout.c.state.in_(("scheduled", "awaiting_approval", "active", "paused", "completed")),
    )
    return [dict(one) for one in conn.execute(asked).mappings()]


def using_release(conn: Connection, release_id: int) -> list[Row]:
    """Return rollouts of a release that have not ended."""
    asked = _ROLLOUT.where(
        t.rollout.c.release_id == release_id,
        t.rollout.c.state.not_in(("cancelled", "superseded", "halted", "falling_back")),
    )
    return [dict(one) for one in conn.execute(asked).mappings()]


def add_rollout(conn: Connection, row: Row) -> int:
    """Add a rollout and return its row number."""
    done = conn.execute(insert(t.rollout).values(**row).returning(t.rollout.c.id))
    return int(done.scalar_one())


def change_rollout(conn: Connection, rollout_id: int, generation: int, values: Row) -> bool:
    """Change a rollout if it still stands at that generation, and raise it; say whether it did."""
    where = (t.rollout.c.id == rollout_id, t.rollout.c.generation == generation)
    done = conn.execute(update(t.rollout).where(*where).values(generation=generation + 1, **values))
    return done.rowcount == 1


def note_plan(conn: Connection, rollout_id: int, generation: int, values: Row) -> bool:
    """Store what a plan found without changing the rollout, if it still stands at that generation."""
    where = (t.rollout.c.id == rollout_id, t.rollout.c.generation == generation)
    return conn.execute(update(t.rollout).where(*where).values(**values)).rowcount == 1


def set_room(conn: Connection, rollout_id: int, room: int | None) -> None:
    """Set how many more permits may be out."""
    conn.execute(update(t.rollout).where(t.rollout.c.id == rollout_id).values(room=room))


def rollouts_by_state(conn: Connection) -> dict[str, int]:
    """Return how many rollouts there are by state."""
    asked = select(t.rollout.c.state, func.count()).group_by(t.rollout.c.state)
    return {str(state): int(count) for state, count in conn.execute(asked)}


# --- updates ---------------------------------------------------------------------------------------------------------


def updates_in(
    conn: Connection,
    rollout_id: int,
    states: Collection[str],
    *,
    variant: str = "",
    limit: int = 10_000,
) -> list[Row]:
    """Return updates of a rollout in any of these states, with their devices' ids."""
    asked = (
        select(t.update, t.device.c.id.label("device"))
        .join(t.device, t.device.c.row == t.update.c.device_row)
        .where(t.update.c.rollout_id == rollout_id, t.update.c.state.in_(sorted(states)))
        .order_by(t.update.c.state_at, t.update.c.id)
        .limit(limit)
    )
    if variant:
        asked = asked.where(t.update.c.variant == variant)
    return [dict(row) for row in conn.execute(asked).mappings()]


def updates_page(
    conn: Connection, rollout_id: int, states: Collection[str], *, after: int, limit: int
) -> list[Row]:
    """Return updates of a rollout with their devices' id, site and last word, by the devices' rows, those behind row `after`."""
    asked = (
        select(
            t.update,
            t.device.c.id.label("device"),
            t.device.c.site,
            t.device.c.last_seen,
        )
        .join(t.device, t.device.c.row == t.update.c.device_row)
        .where(
            t.update.c.rollout_id == rollout_id,
            t.update.c.state.in_(sorted(states)),
            t.update.c.device_row > after,
        )
        .order_by(t.update.c.device_row)
        .limit(limit)
    )
    return [dict(row) for row in conn.execute(asked).mappings()]


def updates_with_devices(conn: Connection, rollout_id: int, *, marked: bool) -> Iterator[Row]:
    """Yield devices with an update in a rollout, each with `update_id` and what it is `counted_as`; `marked`: only those that are not by their variant."""
    asked = (
        select(t.device, t.update.c.id.label("update_id"), t.update.c.variant.label("counted_as"))
        .join(t.update, t.device.c.row == t.update.c.device_row)
        .where(t.update.c.rollout_id == rollout_id)
    )
    if marked:
        asked = asked.where(t.update.c.variant != t.device.c.variant)
    for row in conn.execute(asked).mappings():
        yield dict(row)


def count_updates(
    conn: Connection, rollout_id: int, states: Collection[str], *, variant: str = ""
) -> int:
    """Return how many updates of a rollout are in any of these states."""
    asked = (
        select(func.count())
        .select_from(t.update)
        .where(t.update.c.rollout_id == rollout_id, t.update.c.state.in_(sorted(states)))
    )
    if variant:
        asked = asked.where(t.update.c.variant == variant)
    return int(conn.execute(asked).scalar_one())


def update_states(conn: Connection, rollout_id: int) -> dict[str, int]:
    """Return how many updates of a rollout are in which state."""
    asked = (
        select(t.update.c.state, func.count())
        .where(t.update.c.rollout_id == rollout_id)
        .group_by(t.update.c.state)
    )
    return {str(state): int(count) for state, count in conn.execute(asked)}


def admitted(conn: Connection, rollout_id: int) -> set[int]:
    """Return rows of devices that have an update in a rollout."""
    asked = select(t.update.c.device_row).where(t.update.c.rollout_id == rollout_id)
    return {int(one) for one in conn.execute(asked).scalars()}


def tallies(conn: Connection, rollout_id: int) -> list[Row]:
    """Return a rollout's counters."""
    asked = select(t.tally).where(t.tally.c.rollout_id == rollout_id)
    return [dict(row) for row in conn.execute(asked).mappings()]


# --- requests for approval -------------------------------------------------------------------------------------------

_REQUEST = select(t.approval_request, t.rollout.c.name.label("rollout")).join(
    t.rollout, t.rollout.c.id == t.approval_request.c.rollout_id
)


def add_request(conn: Connection, row: Row) -> int:
    """Add a request for approval and return its row number."""
    made = insert(t.approval_request).values(**row).returning(t.approval_request.c.id)
    return int(conn.execute(made).scalar_one())


def request(conn: Connection, request_id: int) -> Row | None:
    """Return a request for approval with its rollout's name."""
    row = conn.execute(_REQUEST.where(t.approval_request.c.id == request_id)).mappings().first()
    return dict(row) if row else None


def requests(
    conn: Connection, *, state: str = "", rollout_id: int | None = None, limit: int = 200
) -> list[Row]:
    """Return requests for approval, newest first."""
    asked = _REQUEST.order_by(t.approval_request.c.id.desc()).limit(limit)
    if state:
        asked = asked.where(t.approval_request.c.state == state)
    if rollout_id is not None:
        asked = asked.where(t.approval_request.c.rollout_id == rollout_id)
    return [dict(row) for row in conn.execute(asked).mappings()]


def lapsed_requests(conn: Connection, now: int) -> list[Row]:
    """Return open requests whose time is up."""
    asked = _REQUEST.where(
        t.approval_request.c.state == "open", t.approval_request.c.expires_at <= now
    )
    return [dict(row) for row in conn.execute(asked).mappings()]


def settle_request(conn: Connection, request_id: int, state: str, by: str, now: int) -> bool:
    """Settle an open request; False when it is not open any more."""
    where = (t.approval_request.c.id == request_id, t.approval_request.c.state == "open")
    values: Row = {"state": state, "decided_at": now, "decided_by": by}
    return conn.execute(update(t.approval_request).where(*where).values(**values)).rowcount == 1


def settle_requests_of(
    conn: Connection, rollout_id: int, state: str, by: str, now: int, actions: Iterable[str] = ()
) -> int:
    """Settle every open request of a rollout (only those for `actions`, when given); return how many."""
    asked = update(t.approval_request).where(
        t.approval_request.c.rollout_id == rollout_id, t.approval_request.c.state == "open"
    )
    wanted = tuple(actions)
    if wanted:
        asked = asked.where(t.approval_request.c.action.in_(wanted))
    return int(conn.execute(asked.values(state=state, decided_at=now, decided_by=by)).rowcount)
