"""What happened since a place: changes and, where wanted, what devices reported, in their order, so that whoever was away goes on where he stopped.

The two logs are read, not a queue in memory: nothing is lost by a slow reader or a server that starts again. Changes are kept for a bounded time; who was away
for longer is told to look at everything anew.
"""

from typing import Final

import msgspec

from tidegate.core.codec import INTEGER_MAX
from tidegate.core.errors import RequestError
from tidegate.server import inquiry
from tidegate.server.facts import EventFacts
from tidegate.server.store import Connection, admin_log

#: Kinds of changes that are told, and whether `key` is a name: of devices it is their number in the database, of the gate its epoch.
KINDS: Final = frozenset({"rollout", "release", "device", "group", "incident", "gate", "job"})
BATCH: Final = 500


class Place(msgspec.Struct, frozen=True):
    """Where somebody stands in both logs: the last change and the last report that he has."""

    change: int = 0
    event: int = 0

    def __str__(self) -> str:
        """Return it as it travels."""
        return f"{self.change}.{self.event}"


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """Something is not what it was: look at it again. `key` names it."""

    kind: str
    key: str
    at: int


class Resync(msgspec.Struct, frozen=True, kw_only=True):
    """What happened meanwhile is not kept any more: look at everything anew."""

    why: str


Told = Changed | EventFacts | Resync


def place_of(text: str) -> Place:
    """Return the place of a `Last-Event-ID` (untrusted).

    Raises:
        RequestError: `request.invalid`.
    """
    change, dot, event = text.strip().partition(".")
    parts = (change, event)
    if not dot or not all(one.isascii() and one.isdigit() and len(one) < 17 for one in parts):
        raise RequestError("request.invalid", "Last-Event-ID: the id of an event of this stream")
    return Place(min(int(change), INTEGER_MAX), min(int(event), INTEGER_MAX))


def here(conn: Connection) -> Place:
    """Return the place of somebody who has everything."""
    return Place(admin_log.position(conn), admin_log.last_event(conn))


def since(
    conn: Connection, place: Place, kinds: frozenset[str], *, reports: bool
) -> tuple[list[tuple[Place, Told]], Place, bool]:
    """Return what happened since a place, each with the place behind it; where to go on; and whether there is more at once."""
    now = here(conn)
    oldest = admin_log.oldest_change(conn)
    lost = place.change + 1 < oldest
    if lost or place.change > now.change or place.event > now.event:
        why = "it is too long ago" if lost else "the server was set back to an earlier state"
        return [(now, Resync(why=why))], now, False
    found: list[tuple[Place, Told]] = []
    changes = admin_log.changes_after(conn, place.change, BATCH)
    for row in changes:
        place = Place(int(row["seq"]), place.event)
        if row["kind"] in kinds:
            told = Changed(kind=row["kind"], key=row["key"], at=int(row["at"]))
            found.append((place, told))
    if not reports:
        return found, Place(place.change, now.event), len(changes) == BATCH
    events, _ = inquiry.events(conn, after=place.event, limit=BATCH)
    for one in events:
        place = Place(place.change, one.position)
        found.append((place, one))
    return found, place, BATCH in (len(changes), len(events))
