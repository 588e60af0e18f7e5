"""The devices of a rollout, listed page by page: its updates by state, and who has not gone back of those that were ordered to."""

from typing import Any

import msgspec

from tidegate.core.errors import RequestError
from tidegate.core.nearest import did_you_mean
from tidegate.rollout import cohort
from tidegate.server import acts, fallbacks, outcomes, reach, why
from tidegate.server.groups import Book
from tidegate.server.store import Connection, hot
from tidegate.server.store import admin_devices as device_rows
from tidegate.server.store import admin_rollouts as rows

Row = dict[str, Any]
#: Words for several states at once, besides the states themselves.
_SETS = {
    "waiting": outcomes.BEFORE,
    "past": outcomes.AFTER,
    "open": outcomes.OPEN,
    "": outcomes.OPEN | outcomes.ENDED,
}


class Participant(msgspec.Struct, frozen=True, kw_only=True):
    """One device in a rollout. Times are unix seconds; `last_seen` 0 = never."""

    device: str
    variant: str
    site: str
    ring: str
    state: str
    reason: str | None
    attempt: int
    permitted_at: int | None
    since: int
    last_seen: int


class Straggler(msgspec.Struct, frozen=True, kw_only=True):
    """A device that was ordered back and still runs what it is to leave: where its update stands (empty = it has none yet), and why."""

    device: str
    variant: str
    site: str
    state: str
    last_seen: int
    why: str


def updates(
    conn: Connection, name: str, state: str, *, after: int = 0, limit: int = 200
) -> tuple[list[Participant], int]:
    """Return updates of a rollout in the order of their devices, and the cursor of the next page (0 = none).

    Args:
        conn: any connection.
        name: of the rollout; untrusted.
        state: of the updates, several separated by commas; `waiting` = without leave yet, `past` = beyond the point of no return, `open` = both; untrusted.
        after: cursor.
        limit: most of them.

    Raises:
        RequestError: `request.not_found`; `request.invalid`: no such state.
    """
    row = acts.row_of(conn, name)
    wanted: frozenset[str] = frozenset()
    for one in state.split(","):
        word = one.strip()
        if word not in _SETS and word not in _SETS[""]:
            near = did_you_mean(word, [*_SETS[""], *filter(None, _SETS)])
            raise RequestError("request.invalid", f'no state "{word[:40]}"{near}')
        wanted |= _SETS.get(word, frozenset({word}))
    found = rows.updates_page(conn, int(row["id"]), wanted, after=after, limit=limit + 1)
    facts = [
        Participant(
            device=one["device"],
            variant=one["variant"],
            site=one["site"],
            ring=one["ring"],
            state=one["state"],
            reason=one["reason"],
            attempt=one["attempt"],
            permitted_at=one["permitted_at"],
            since=one["state_at"],
            last_seen=one["last_seen"],
        )
        for one in found[:limit]
    ]
    more = int(found[limit - 1]["device_row"]) if len(found) > limit else 0
    return facts, more


def stragglers(
    conn: Connection,
    name: str,
    now: int,
    bounds: why.Bounds = why.NO_BOUNDS,
    *,
    after: int = 0,
    limit: int = 200,
) -> tuple[list[Straggler], int]:
    """Return devices that still run what a way back leads away from, and the cursor of the next page (0 = none).

    Args:
        conn: any connection; reads devices of the product until a page is full.
        name: of a way back, or of the rollout that is brought back: then its newest one; untrusted.
        now: unix seconds.
        bounds: of the server.
        after: cursor.
        limit: most of them.

    Raises:
        RequestError: `request.not_found`; `request.conflict`: nothing was ordered back.
    """
    child = _way_back(conn, name)
    parent = rows.rollout_by_id(conn, int(child["parent_id"]))
    assert parent is not None  # noqa: S101 - a way back has what it leads away from
    matches = cohort.parse(str(child["audience"])).matches
    book = Book(conn)
    reasons = _Reasons(conn, child, now, bounds)
    found: list[Straggler] = []
    last = 0
    for device in device_rows.running(
        conn, str(child["product"]), int(parent["release_counter"]), after=after
    ):
        if not matches(book.attributes(device, now)):
            continue
        if len(found) == limit:
            return found, last
        last = int(device["row"])
        update = next((u for u in hot.updates_of(conn, last) if u.rollout_id == child["id"]), None)
        found.append(
            Straggler(
                device=str(device["id"]),
                variant=str(device["variant"]),
                site=str(device["site"]),
                state=update.state if update is not None else "",
                last_seen=int(device["last_seen"]),
                why=reasons.of(device),
            )
        )
    return found, 0


class _Reasons:
    """Why devices have not gone back, asked of many."""

    def __init__(self, conn: Connection, child: Row, now: int, bounds: why.Bounds) -> None:
        self._conn = conn
        self._now = now
        self._bounds = bounds
        self._to = str(child["release"])
        self._by_grant = child["grant_id"] is not None
        self._digests = {one.install.sha256 for one in reach.targets(conn, child["release_id"])}
        release = acts.release_of(conn, self._to)
        self._security_version = int(release["security_version"])

    def of(self, device: Row) -> str:
        where = fallbacks.standing(device, self._digests, self._security_version)
        if where == "refused":
            return f"its security floor is above {self._to}"
        if where == "elsewhere" and not self._by_grant:
            return f"does not hold {self._to} in its other slot"
        return why.tell(self._conn, str(device["id"]), self._now, self._bounds).verdict


def _way_back(conn: Connection, name: str) -> Row:
    row = acts.row_of(conn, name)
    if row["kind"] == "fallback":
        return row
    children = rows.children(conn, int(row["id"]))
    if not children:
        raise RequestError("request.conflict", f"no device of {name} was ordered back")
    return children[-1]
