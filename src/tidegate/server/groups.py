"""Groups of devices, static or by query, and what the query language sees of a device.

A group by query is evaluated over attributes and static groups only; groups by query do not build on one another, so that there is no order to get wrong.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from tidegate.core.errors import RequestError
from tidegate.core.hardware import Hardware
from tidegate.core.nearest import did_you_mean
from tidegate.core.release import Component
from tidegate.rollout import cohort, keeping
from tidegate.rollout.query import confined_to, named
from tidegate.server import audit, snapshot
from tidegate.server.auth import Actor
from tidegate.server.store import Connection, changes
from tidegate.server.store import admin_devices as rows

Row = dict[str, Any]
_MEMBERS_MAX: Final = 100_000


class GroupFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A group, as the API gives it. `members` counts the static ones; a group by query has none of these."""

    name: str
    query: str | None
    members: int
    created_at: int
    created_by: str


class Book:
    """Who is in which group, read once for looking at many devices."""

    def __init__(self, conn: Connection) -> None:
        """Read memberships and queries."""
        self._members: dict[int, set[str]] = {}
        for row, name in rows.memberships(conn):
            self._members.setdefault(row, set()).add(name)
        self._queries = tuple(
            (str(one["name"]), cohort.parse(str(one["query"])))
            for one in rows.groups(conn)
            if one["query"] is not None
        )

    def attributes(self, device: Row, now: int, update: Row | None = None) -> dict[str, Any]:
        """Return what a query sees of a device; `update` is the one that `state`, `reason` and `rollout` speak of."""
        seen = int(device["last_seen"])
        attrs = snapshot.attributes(
            id=device["id"],
            product=device["product"],
            hardware=hardware_of(device),
            channel=device["channel"],
            own=device["attributes"],
            groups=self._members.get(int(device["row"]), ()),
            site=device["site"],
            region=device["region"],
            connectivity=device["connectivity"],
            agent=device["agent"],
            release=device["running_version"],
            counter=device["running_counter"],
            security_floor=device["security_floor"],
            seen_s=max(0, now - seen) if seen else None,
        )
        attrs = snapshot.with_query_groups(attrs, self._queries)
        if update is not None:
            attrs |= {
                "state": update["state"],
                "reason": update["reason"],
                "rollout": update["rollout"],
            }
        return attrs


def hardware_of(device: Row) -> Hardware:
    """Return what a device is."""
    return Hardware(model=device["model"], rev=device["rev"], serial=device["serial"])


def components_of(device: Row) -> dict[str, Component]:
    """Return what a device last said of its other components."""
    return msgspec.convert(device["components"], type=dict[str, Component])


def listed(conn: Connection) -> list[GroupFacts]:
    """Return every group."""
    return [_facts(row) for row in rows.groups(conn)]


def show(conn: Connection, name: str) -> GroupFacts:
    """Return a group.

    Raises:
        RequestError: `request.not_found`.
    """
    _row(conn, name)
    return next(one for one in listed(conn) if one.name == name)


def listed_members(conn: Connection, name: str) -> list[str]:
    """Return the devices of a static group, by their ids; of a group by query none.

    Raises:
        RequestError: `request.not_found`.
    """
    return rows.member_ids(conn, int(_row(conn, name)["id"]))


def members(conn: Connection, name: str, now: int) -> Iterator[Row]:
    """Yield the devices of a group, static or by query.

    Raises:
        RequestError: `request.not_found`.
    """
    _row(conn, name)
    book = Book(conn)
    for device in rows.devices(conn):
        if name in book.attributes(device, now)["group"]:
            yield device


def create(
    conn: Connection, name: str, query: str | None, devices: list[str], actor: Actor, now: int
) -> GroupFacts:
    """Make a group by query, or a static one of these devices.

    Raises:
        RequestError: `request.invalid`, `request.conflict`, `request.not_found` (a device).
    """
    if (
        not name
        or len(name) > 64
        or not name.replace("-", "").replace("_", "").replace(".", "").isalnum()
    ):
        raise RequestError("request.invalid", "a group's name is 1 to 64 letters, digits and . _ -")
    if query is not None and devices:
        raise RequestError("request.invalid", "a group has a query or a list of devices, not both")
    if query is not None:
        cohort.parse_lasting(query)
    if rows.group(conn, name) is not None:
        raise RequestError("request.conflict", f"there is a group {name} already")
    row = {"name": name, "query": query, "created_at": now, "created_by": actor.name}
    group_id = rows.add_group(conn, row)
    if query is None:
        rows.set_members(conn, group_id, _rows_of(conn, devices))
    _noted(conn, "group.create", name, actor, now, {"query": query or "", "devices": len(devices)})
    return show(conn, name)


def edit(
    conn: Connection,
    name: str,
    actor: Actor,
    now: int,
    *,
    query: str | None = None,
    devices: list[str] | None = None,
) -> GroupFacts:
    """Replace a group's query or its list of devices.

    Raises:
        RequestError: `request.invalid`, `request.not_found`.
    """
    found = _row(conn, name)
    if (query is None) == (found["query"] is not None):
        raise RequestError("request.invalid", "a group keeps its kind: by query, or static")
    if query is not None:
        cohort.parse_lasting(query)
        rows.change_group(conn, int(found["id"]), {"query": query})
    else:
        rows.set_members(conn, int(found["id"]), _rows_of(conn, devices or []))
    detail = {"query": query or "", "devices": len(devices or [])}
    was, now_is = (
        (found["query"], query) if query is not None else (None, sorted(set(devices or [])))
    )
    _noted(conn, "group.edit", name, actor, now, detail, before=was, after=now_is)
    return show(conn, name)


def remove(conn: Connection, name: str, actor: Actor, now: int) -> None:
    """Remove a group. Audiences that name it then match nobody by it.

    Raises:
        RequestError: `request.not_found`; `request.conflict`: a rollout keeps devices out by it, and they would be let in unasked.
    """
    found = _row(conn, name)
    _require_not_needed(conn, name)
    rows.drop_group(conn, int(found["id"]))
    _noted(conn, "group.remove", name, actor, now, {})


def _require_not_needed(conn: Connection, name: str) -> None:
    """Insist that no rollout keeps devices out by a group: letting them in is a person's act, not what follows from tidying up."""
    for live in snapshot.load_live(conn):
        entries = keeping.queries(live.rollout.isolated)
        asked = [cohort.parse(keeping.query_of(one)) for one in entries]
        out = any(name in named(one, "group") for one in asked)
        if live.fixed is None and live.row.state != "completed":
            audiences = [cohort.parse(ring.audience) for ring in live.rollout.policy.rings]
            out |= any(name in named(one, "group") - confined_to(one, "group") for one in audiences)
        if out:
            raise RequestError(
                "request.conflict",
                f"{live.row.name} keeps devices out by group {name}: without it they would be let in",
                hint="edit its audience, or let them in again (tidegate rollout readmit), then remove the group",
            )


def _noted(
    conn: Connection,
    action: str,
    name: str,
    actor: Actor,
    now: int,
    detail: Row,
    *,
    before: object = None,
    after: object = None,
) -> None:
    audit.record(conn, now, actor.name, action, name, detail, before=before, after=after)
    changes.bump(conn, "group", name, now)


def _rows_of(conn: Connection, ids: list[str]) -> set[int]:
    if len(ids) > _MEMBERS_MAX:
        raise RequestError("request.too_large", f"at most {_MEMBERS_MAX} devices; use a query")
    found = rows.rows_of(conn, ids)
    unknown = sorted(set(ids) - set(found))
    if unknown:
        raise RequestError(
            "request.not_found", f"no device {unknown[0][:64]} ({len(unknown)} unknown)"
        )
    return set(found.values())


def _row(conn: Connection, name: str) -> Row:
    found = rows.group(conn, name)
    if found is None:
        near = did_you_mean(name, [str(one["name"]) for one in rows.groups(conn)])
        raise RequestError("request.not_found", f'no group "{name[:64]}"{near}')
    return found


def _facts(row: Row) -> GroupFacts:
    return GroupFacts(**{name: row[name] for name in GroupFacts.__struct_fields__})
