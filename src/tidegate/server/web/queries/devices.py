"""The list of devices, found by a query or by words, and those that ask to enrol."""

from collections.abc import Callable
from typing import Any, Final

from tidegate.core.errors import TidegateError
from tidegate.core.words import key_words
from tidegate.rollout import cohort
from tidegate.rollout.cohort import Query
from tidegate.rollout.query import OF_UPDATE
from tidegate.server.actors import Sight
from tidegate.server.groups import Book
from tidegate.server.outcomes import OPEN
from tidegate.server.store import Connection, web_queries
from tidegate.server.store import web_devices as rows
from tidegate.server.web import words
from tidegate.server.web.views import DeviceRow, DevicesPage, GroupRow, PendingRow

Row = dict[str, Any]
PAGE: Final = 50
#: Counts devices heard of within a day, of these products; None = of all.
Seen = Callable[[Connection, int, frozenset[str] | None], int]
#: Most devices that one look at a query goes through; the next page goes on from there.
SCAN: Final = 10_000
_BATCH: Final = 2_000
_PENDING: Final = 10
DAY_S: Final = 86_400
EVERYBODY: Final = Query()
#: A query has one of these; anything else is a word to look for.
_OPERATORS: Final = ("=", "<", ">", "~", ":", "(", " in ")


def page(conn: Connection, query: str, cursor: str, seen: Seen, now: int) -> DevicesPage:
    """Return one page of the devices that match (query and cursor are untrusted); `seen` counts those heard of within a day."""
    after = int(cursor) if cursor.isascii() and cursor.isdigit() and len(cursor) < 12 else 0
    text = query.strip()
    states = web_queries.device_states(conn)
    total = sum(count for state, count in states.items() if state != "pending")
    problem, more, exact = "", 0, True
    found: list[Row] = []
    try:
        if any(mark in text for mark in _OPERATORS):
            found, more, exact = _scan(conn, cohort.parse(text), after, now)
        else:
            found = rows.after(conn, after, PAGE + 1, text)
            more = int(found[PAGE - 1]["row"]) if len(found) > PAGE else 0
            found = found[:PAGE]
    except TidegateError as error:
        problem = error.detail
    count = total if not text else len(found)
    return DevicesPage(
        now=now,
        query=query,
        total=total,
        seen_24h=seen(conn, now, None),
        found=count,
        found_is_exact=exact and (not text or not more),
        rows=_rows(conn, found, now),
        next_cursor=str(more) if more else "",
        pending=tuple(_pending(row) for row in rows.pending(conn, _PENDING)),
        pending_total=states.get("pending", 0),
        groups=tuple(
            GroupRow(row["name"], row["query"] or "", None if row["query"] else row["members"])
            for row in rows.groups(conn)
        ),
        variants=tuple(web_queries.variants(conn)[:8]),
        problem=problem,
    )


def narrowed(conn: Connection, query: str, cursor: str, now: int, sight: Sight) -> DevicesPage:
    """Return one page of the devices in `sight` that match (query and cursor are untrusted), without a word on the others."""
    after = int(cursor) if cursor.isascii() and cursor.isdigit() and len(cursor) < 12 else 0
    problem, more, exact = "", 0, True
    found: list[Row] = []
    try:
        wanted = _asked(query.strip())
        found, more, exact = _scan(conn, wanted, after, now, cohort.parse(sight.query))
    except TidegateError as error:
        problem = error.detail
    return DevicesPage(
        now=now,
        query=query,
        total=len(found),
        seen_24h=sum(now - int(one["last_seen"]) < DAY_S for one in found),
        found=len(found),
        found_is_exact=exact and not more,
        rows=_rows(conn, found, now),
        next_cursor=str(more) if more else "",
        pending=tuple(_pending(row) for row in found if row["state"] == "pending"),
        pending_total=sum(row["state"] == "pending" for row in found),
        groups=tuple(
            GroupRow(row["name"], row["query"] or "", None if row["query"] else row["members"])
            for row in rows.groups(conn)
            if row["name"] in sight.groups
        ),
        variants=(),
        problem=problem,
    )


def _asked(text: str) -> Query:
    """Read a query, or a word to look for in a device's name, serial number and site."""
    if not text or any(mark in text for mark in _OPERATORS):
        return cohort.parse(text)
    word = text.replace("\\", "\\\\").replace('"', '\\"')
    return cohort.parse(" or ".join(f'{name} ~ "*{word}*"' for name in ("id", "serial", "site")))


def _scan(
    conn: Connection, query: Query, after: int, now: int, shown: Query = EVERYBODY
) -> tuple[list[Row], int, bool]:
    """Go through devices behind row `after` until a page is full; return them, where to go on (0 = the end), and whether the end was reached."""
    book = Book(conn)
    found: list[Row] = []
    seen = 0
    by_update = bool(query.names & OF_UPDATE)
    while seen < SCAN:
        batch = rows.after(conn, after, _BATCH)
        wanted = [int(one["row"]) for one in batch] if by_update else []
        updates = rows.newest_updates(conn, wanted)
        for device in batch:
            after = int(device["row"])
            told = book.attributes(device, now, updates.get(after))
            if shown.matches(told) and query.matches(told):
                found.append(device)
                if len(found) == PAGE:
                    return found, after, False
        seen += len(batch)
        if len(batch) < _BATCH:
            return found, 0, True
    return found, after, False


def _rows(conn: Connection, found: list[Row], now: int) -> tuple[DeviceRow, ...]:
    updates = rows.newest_updates(conn, [int(one["row"]) for one in found]) if found else {}
    return tuple(_row(device, updates.get(int(device["row"])), now) for device in found)


def _row(device: Row, update: Row | None, now: int) -> DeviceRow:
    state, why = state_of(device, update, now)
    return DeviceRow(
        id=str(device["id"]),
        variant=str(device["variant"]),
        site=str(device["site"]),
        runs=str(device["running_version"]) or "factory image",
        state=state,
        why=why,
        seen_at=int(device["last_seen"]),
    )


def state_of(device: Row, update: Row | None, now: int) -> tuple[str, str]:
    """Return a device's state in one word, and why in a few."""
    if device["state"] != "accepted":
        said = "two devices sign with its key" if device["state"] == "quarantined" else ""
        return str(device["state"]), said
    silent = now - int(device["last_seen"]) > DAY_S
    if update is not None and update["state"] in OPEN:
        if silent:
            return "silent", f"last word: {update['state']}, {update['rollout']}"
        return str(update["state"]), _under_way(device, update)
    if device["held"]:
        return "held", f"by {device['held_by']}" if device["held_by"] else ""
    if silent:
        return "silent", "not heard for a day"
    return _ended(device, update)


def _under_way(device: Row, update: Row) -> str:
    if update["variant"] in update["isolated"]:
        return f"{update['variant']} isolated in {update['rollout']}"
    waiting = str(device["waiting"])
    return words.reason(waiting) if waiting else str(update["rollout"])


def _ended(device: Row, update: Row | None) -> tuple[str, str]:
    if update is None or update["release_counter"] == device["running_counter"]:
        return "idle", str(update["rollout"]) if update is not None else ""
    state = str(update["state"])
    if state in {"cancelled", "superseded"}:
        return "idle", f"{update['rollout']} {state}"
    return state, f"{update['reason'] or ''} {update['rollout']}".strip()


def _pending(row: Row) -> PendingRow:
    return PendingRow(
        id=str(row["id"]),
        product=str(row["product"]),
        variant=str(row["variant"]),
        serial=str(row["serial"]),
        at=int(row["enrolled_at"]),
        key=key_words(str(row["key_sha256"])),
    )
