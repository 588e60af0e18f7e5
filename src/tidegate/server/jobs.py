"""Acts on many devices at once: tags, groups, revocation, the end of service. Counted first, confirmed by that count, done piece by piece.

Whom a job is about is fixed when it is made: what is confirmed is what is done. Each device's act and what became of it are written in one transaction, so a
server that dies in the middle goes on behind the last one that was done, and nothing is done twice. Whoever holds the lease goes on with all jobs. An act that
is refused for one device is noted with its code, and the others are done.
"""

import functools
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from tidegate.core.errors import RequestError, TidegateError
from tidegate.rollout import cohort
from tidegate.rollout.query import OF_UPDATE
from tidegate.server import audit, devices, inquiry, snapshot
from tidegate.server.actors import FLEET, Actor
from tidegate.server.groups import Book
from tidegate.server.services import Services
from tidegate.server.store import Connection, admin_log, changes, job_rows, ordering
from tidegate.server.store import admin_devices as rows

Row = dict[str, Any]
Act = Literal["tag", "untag", "move", "revoke", "decommission"]
#: Most devices of one job, and of one transaction.
DEVICES_MAX: Final = 100_000
BATCH: Final = 100
#: Batches of one turn: how much of the writer's time a tick takes.
TURN: Final = 20
LEASE: Final = "jobs"
LEASE_S: Final = 60
#: Devices that a rehearsal names.
NAMED: Final = 10
_WAITING, _DONE, _ALREADY, _FAILED = "waiting", "done", "already", "failed"
_STATES: Final = {"revoke": "revoked", "decommission": "decommissioned"}


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done, with whom: the devices of a `query`, or the ones named. `group` and `out_of` are static groups, for `move`."""

    act: Act
    query: str = ""
    devices: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    group: str = ""
    out_of: str = ""
    reason: str = ""


class JobCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many devices a job would be about, the first of them, and names that are no device's."""

    act: str
    devices: int
    named: tuple[str, ...]
    unknown: tuple[str, ...] = ()


class JobFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A job. `devices` = `left` + `done` + `already` (nothing was to be done) + `failed`. `state` is running, done or cancelled."""

    number: int
    act: str
    state: str
    query: str
    reason: str
    created_at: int
    created_by: str
    ended_at: int | None
    ended_by: str
    devices: int
    left: int
    done: int
    already: int
    failed: int


class JobItem(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one device: `state` waiting, done, already or failed, then with the error's code and detail."""

    device: str
    state: str
    code: str
    detail: str


def count(conn: Connection, order: Order, actor: Actor, now: int) -> JobCount:
    """Say whom an order means; writes nothing.

    Raises:
        RequestError: `request.invalid`, `request.forbidden`, `request.not_found` (a group), `request.too_large`.
    """
    found, unknown = _meant(conn, order, actor, now)
    named = tuple(str(one["id"]) for one in found[:NAMED])
    return JobCount(act=order.act, devices=len(found), named=named, unknown=unknown[:NAMED])


def start(conn: Connection, order: Order, confirm: int | None, actor: Actor, now: int) -> JobFacts:
    """Make a job; it is carried out piece by piece from now on.

    Args:
        conn: the writer's connection.
        order: untrusted.
        confirm: the number of devices that whoever orders was told.
        actor: who orders it.
        now: unix seconds.

    Raises:
        RequestError: as `count`; `request.confirmation_needed`: the number is missing, or it is not the one that would be met now; `request.not_found`: a
            device that is named is none.
    """
    found, unknown = _meant(conn, order, actor, now)
    if unknown:
        raise RequestError(
            "request.not_found", f"no device {unknown[0][:64]} ({len(unknown)} unknown)"
        )
    if confirm != len(found):
        raise RequestError(
            "request.confirmation_needed",
            f"this would {order.act} {len(found)} devices, and {confirm if confirm is not None else 'no number'} was confirmed",
            hint="ask with dry_run=true, look at the number, and send it as `confirm`",
        )
    detail = {"tags": list(order.tags), "group": order.group, "out_of": order.out_of}
    values = {
        "act": order.act,
        "detail": detail,
        "query": order.query,
        "reason": order.reason,
        "state": "running",
        "created_at": now,
        "created_by": actor.name,
    }
    number = job_rows.add(conn, values, [int(one["row"]) for one in found])
    said = {"act": order.act, "devices": len(found), "query": order.query, "reason": order.reason}
    audit.record(conn, now, actor.name, "job.start", str(number), said)
    changes.bump(conn, "job", str(number), now)
    return show(conn, number)


def cancel(conn: Connection, number: int, actor: Actor, reason: str, now: int) -> JobFacts:
    """End a job before its end; what was done stays done. Doing it again changes nothing.

    Raises:
        RequestError: `request.not_found`; `request.conflict`: it is done already.
    """
    row = _row(conn, number)
    if row["state"] == "done":
        raise RequestError("request.conflict", f"job {number} is done")
    if row["state"] == "running":
        job_rows.end(conn, number, "cancelled", actor.name, now)
        audit.record(conn, now, actor.name, "job.cancel", str(number), {"reason": reason})
        changes.bump(conn, "job", str(number), now)
    return show(conn, number)


def show(conn: Connection, number: int) -> JobFacts:
    """Return a job.

    Raises:
        RequestError: `request.not_found`.
    """
    return _facts(conn, _row(conn, number))


def listed(
    conn: Connection, *, state: str = "", order: ordering.Order = ordering.NEWEST, limit: int = 50
) -> tuple[list[JobFacts], ordering.Order | None]:
    """Return jobs in an order (by `id`), and that of the next page."""
    found, more = order.cut(job_rows.listed(conn, state=state, order=order, limit=limit + 1), limit)
    return [_facts(conn, row) for row in found], more


def items(
    conn: Connection, number: int, *, state: str = "", after: int = 0, limit: int = 100
) -> tuple[list[JobItem], int]:
    """Return what became of the devices of a job, in order, and the cursor of the next page.

    Raises:
        RequestError: `request.not_found`.
    """
    _row(conn, number)
    found = job_rows.items(conn, number, state=state, after=after, limit=limit + 1)
    more = int(found[limit - 1]["place"]) if len(found) > limit else 0
    told = [
        JobItem(
            device=str(one["device"] or ""),
            state=one["state"],
            code=one["code"],
            detail=one["detail"],
        )
        for one in found[:limit]
    ]
    return told, more


def step(services: Services, now: int) -> int:
    """Go on with what is under way, a bounded piece of it; return how many devices were looked at. Nothing is done while another process has the lease."""
    store = services.store
    if not store.read(job_rows.running):
        return 0
    holder = services.holder
    looked = 0
    for _ in range(TURN):
        done = store.write(lambda conn: _batch(conn, holder, now)).result()
        looked += done
        if done == 0:
            return looked
    services.wake()
    return looked


def _batch(conn: Connection, holder: str, now: int) -> int:
    """Do the next devices of the oldest job; end it when there are none."""
    numbers = job_rows.running(conn)
    if not numbers or not admin_log.take_lease(conn, LEASE, holder, now, LEASE_S):
        return 0
    row = _row(conn, numbers[0])
    number = int(row["id"])
    waits = job_rows.waiting(conn, number, BATCH)
    act = _ACTS[row["act"]]
    for one in waits:
        state, code, detail = _try(functools.partial(act, conn, row, one, now))
        job_rows.settle(conn, number, int(one["place"]), state, code, detail)
    for name in filter(None, (row["detail"]["group"], row["detail"]["out_of"])):
        changes.bump(conn, "group", name, now)
    if len(waits) < BATCH:
        job_rows.end(conn, number, "done", row["created_by"], now)
        said = {"act": row["act"], **job_rows.counts(conn, number)}
        audit.record(conn, now, row["created_by"], "job.done", str(number), said)
    changes.bump(conn, "job", str(number), now)
    return len(waits)


def _try(act: Callable[[], bool]) -> tuple[str, str, str]:
    """Do one device's act; acts refuse before they write, so what is refused has left nothing."""
    try:
        return (_DONE if act() else _ALREADY), "", ""
    except TidegateError as error:
        return _FAILED, error.code, error.detail[:500]


def _tag(conn: Connection, job: Row, item: Row, now: int, *, on: bool) -> bool:
    device = inquiry.device_row(conn, str(item["device"]))
    before = set(device["attributes"].get(snapshot.TAGS, ()))
    tags = set(job["detail"]["tags"])
    after = before | tags if on else before - tags
    if after == before:
        return False
    if len(after) > _TAGS_MAX:
        raise RequestError("request.invalid", f"a device has at most {_TAGS_MAX} tags")
    devices.set_tags(conn, int(item["device_row"]), sorted(after), now)
    return True


_TAGS_MAX: Final = 64


def _move(conn: Connection, job: Row, item: Row, now: int) -> bool:
    del now
    row = int(item["device_row"])
    inquiry.device_row(conn, str(item["device"]))
    into, out_of = (_group(conn, job["detail"][key]) for key in ("group", "out_of"))
    moved = False
    if into is not None and not rows.is_member(conn, into, row):
        rows.add_member(conn, into, row)
        moved = True
    if out_of is not None and rows.is_member(conn, out_of, row):
        rows.drop_member(conn, out_of, row)
        moved = True
    return moved


def _set_state(conn: Connection, job: Row, item: Row, now: int) -> bool:
    state = _STATES[job["act"]]
    name = str(item["device"])
    if inquiry.device_row(conn, name)["state"] == state:
        return False
    devices.set_state(conn, int(item["device_row"]), state, now)
    detail = {"reason": job["reason"], "job": int(job["id"])}
    audit.record(conn, now, job["created_by"], f"device.{job['act']}", name, detail)
    return True


_ACTS: Final[dict[str, Callable[[Connection, Row, Row, int], bool]]] = {
    "tag": functools.partial(_tag, on=True),
    "untag": functools.partial(_tag, on=False),
    "move": _move,
    "revoke": _set_state,
    "decommission": _set_state,
}


def _meant(
    conn: Connection, order: Order, actor: Actor, now: int
) -> tuple[list[Row], tuple[str, ...]]:
    """Check an order, and return the devices that it means, in the order of their rows, and names that are none."""
    actor.require("device.manage", FLEET)
    if order.act == "move":
        actor.require("group.manage", FLEET)
    _require_sense(conn, order)
    if not order.devices:
        return _matching(conn, order.query, now), ()
    known: dict[str, int] = {}
    names = list(dict.fromkeys(order.devices))
    for begin in range(0, len(names), _BATCH_OF_NAMES):
        known |= rows.rows_of(conn, names[begin : begin + _BATCH_OF_NAMES])
    found = [{"id": name, "row": row} for name, row in known.items()]
    unknown = tuple(name for name in names if name not in known)
    return sorted(found, key=lambda one: int(one["row"])), unknown


#: Names in one statement: databases bound the number of its values.
_BATCH_OF_NAMES: Final = 500


def _matching(conn: Connection, query: str, now: int) -> list[Row]:
    wanted = cohort.parse(query)
    by_update = bool(wanted.names & OF_UPDATE)
    book = Book(conn)
    found: list[Row] = []
    after = 0
    while batch := list(rows.devices(conn, after=after, limit=_BATCH_OF_NAMES)):
        after = int(batch[-1]["row"])
        asked = [int(one["row"]) for one in batch] if by_update else []
        updates = rows.newest_updates(conn, asked)
        found += [
            {"id": one["id"], "row": one["row"]}
            for one in batch
            if wanted.matches(book.attributes(one, now, updates.get(int(one["row"]))))
        ]
        if len(found) > DEVICES_MAX:
            raise RequestError("request.too_large", f"one job takes at most {DEVICES_MAX} devices")
    return found


def _require_sense(conn: Connection, order: Order) -> None:
    if bool(order.query.strip()) == bool(order.devices):
        raise RequestError(
            "request.invalid",
            "say whom: a query or a list of devices, and one of them only",
        )
    if order.act in {"tag", "untag"} and not order.tags:
        raise RequestError("request.invalid", "tags: say which")
    if order.act == "move":
        if not order.group and not order.out_of:
            raise RequestError("request.invalid", "group: say where to, or out_of which one")
        for name in (order.group, order.out_of):
            _group(conn, name)
    if order.act in _STATES and not order.reason.strip():
        raise RequestError("request.invalid", f"reason: say why, for an act such as {order.act}")


def _group(conn: Connection, name: str) -> int | None:
    """Return the row of a static group; None for no name.

    Raises:
        RequestError: `request.not_found`; `request.invalid`: it has a query.
    """
    if not name:
        return None
    found = rows.group(conn, name)
    if found is None:
        raise RequestError("request.not_found", f'no group "{name[:64]}"')
    if found["query"] is not None:
        raise RequestError(
            "request.invalid", f"{name} has a query: who is in it follows from attributes"
        )
    return int(found["id"])


def _row(conn: Connection, number: int) -> Row:
    found = job_rows.one(conn, number)
    if found is None:
        raise RequestError("request.not_found", f"no job {number}")
    return found


def _facts(conn: Connection, row: Row) -> JobFacts:
    counts = job_rows.counts(conn, int(row["id"]))
    return JobFacts(
        number=int(row["id"]),
        act=row["act"],
        state=row["state"],
        query=row["query"],
        reason=row["reason"],
        created_at=row["created_at"],
        created_by=row["created_by"],
        ended_at=row["ended_at"],
        ended_by=row["ended_by"],
        devices=row["devices"],
        left=counts.get(_WAITING, 0),
        done=counts.get(_DONE, 0),
        already=counts.get(_ALREADY, 0),
        failed=counts.get(_FAILED, 0),
    )
