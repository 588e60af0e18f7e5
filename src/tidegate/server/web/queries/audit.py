"""The operators' log for the web: the same functions as the API's. Who may read it of a part of the fleet is shown what was done there, and nothing else."""

from collections.abc import Callable
from typing import Any, Final

from tidegate.core.audit.entry import AuditRow
from tidegate.server import audit
from tidegate.server.actors import FLEET, Actor
from tidegate.server.scopes import PLACES
from tidegate.server.store import Connection, audit_rows
from tidegate.server.web.views import AuditPage

_ROWS: Final = 50
_READ: Final = "audit.read"
#: Entries that are looked at for one page of who sees a part, and how many at a time.
_SCAN: Final = 4_000
_BATCH: Final = 500
#: First word of an action → what kind of thing its object is.
_ABOUT: Final = {
    "rollout": "rollout",
    "approval": "rollout",
    "release": "release",
    "device": "device",
    "incident": "incident",
}


def page(
    conn: Connection,
    actor: str,
    action: str,
    thing: str,
    cursor: str,
    now: int,
    reader: Actor | None,
    *,
    check: bool,
) -> AuditPage:
    """Return one page of the log as `reader` may read it (None: all of it); everything asked for is untrusted. `check` reads the whole log."""
    actor, action, thing = (one.strip()[:200] for one in (actor, action, thing))
    before = int(cursor) if cursor.isascii() and cursor.isdigit() and len(cursor) < 16 else 0
    like = {"actor": actor, "action": action, "thing": thing}
    if reader is not None and not reader.allows(_READ, FLEET):
        found, more = _of(conn, reader, before, now, like)
        return AuditPage(
            now, tuple(found), actor, action, thing,
            narrowed=True, next_cursor=str(more) if more else "",
        )  # fmt: skip
    found = audit.newest(conn, before=before, limit=_ROWS + 1, **like)
    return AuditPage(
        now,
        tuple(found[:_ROWS]),
        actor,
        action,
        thing,
        size=audit_rows.newest_seq(conn),
        signed=audit.newest_checkpoint(conn),
        verdict=audit.verify(conn) if check else None,
        next_cursor=str(found[_ROWS - 1].seq) if len(found) > _ROWS else "",
    )


def _of(
    conn: Connection, reader: Actor, before: int, now: int, like: dict[str, Any]
) -> tuple[list[AuditRow], int]:
    """Return entries that a reader may read, and where to go on (0 = the end): behind the last that was looked at."""
    may_read = _reading(conn, reader, now)
    found: list[AuditRow] = []
    for _ in range(_SCAN // _BATCH):
        batch = audit.newest(conn, before=before, limit=_BATCH, **like)
        for row in batch:
            before = row.seq
            if may_read(row):
                found.append(row)
                if len(found) == _ROWS:
                    return found, before
        if len(batch) < _BATCH:
            return found, 0
    return found, before


def _reading(conn: Connection, reader: Actor, now: int) -> Callable[[AuditRow], bool]:
    """Return what tells whether an entry may be read: it is about a thing that stands where the reader reads the log. What is gone stands nowhere."""
    known: dict[tuple[str, str], bool] = {}

    def may_read(row: AuditRow) -> bool:
        about = _ABOUT.get(row.action.partition(".")[0], "")
        key = (about, row.object)
        if about and key not in known:
            place = PLACES[about](conn, row.object, reader.sight, now)
            known[key] = place is not None and reader.allows(_READ, place)
        return known.get(key, False)

    return may_read
