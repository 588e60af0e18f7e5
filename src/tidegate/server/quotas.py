"""What one tenant may take at most, so that it leaves the others their share. Zero is no bound; who has only one tenant has none.

A bound refuses what would be new and loses nothing: a device that is not let in asks again, events wait in the device, an upload may be sent once there is
room. Outcomes of updates and security events are let in whatever the count is: halts stand on them. Not decided here: what a device or an address may ask
(`limits`).
"""

from collections.abc import Sequence
from typing import Final

from tidegate.core.errors import RequestError
from tidegate.core.protocol import SIGNED_KINDS
from tidegate.server.store import Connection, blob_rows, device_queries, hot
from tidegate.server.store.scope import Quotas, scope_of

#: The counter of a day's events, in the table of daily sums; kept where there is a bound.
COUNTED: Final = "quota.events"
DAY_S: Final = 86_400
#: Kinds of events that are let in whatever the count is.
ALWAYS: Final = SIGNED_KINDS | {"security", "rebooting", "verifying"}


def require_room_for_device(conn: Connection) -> None:
    """Refuse one more device where the tenant has as many as it may have.

    Raises:
        RequestError: `quota.devices`.
    """
    most = _of(conn).devices_max
    if most and device_queries.accepted(conn) >= most:
        raise RequestError("quota.devices", f"this tenant has {most} devices, as many as it may")


def require_within_storage(conn: Connection) -> None:
    """Refuse what was just published where the tenant would store more payloads than it may; the transaction is undone then.

    Raises:
        RequestError: `quota.storage`.
    """
    most = _of(conn).stored_max
    if not most:
        return
    stored = stored_bytes(conn)
    if stored > most:
        raise RequestError(
            "quota.storage", f"with it {stored} bytes of payloads would be stored, of {most}"
        )


def stored_bytes(conn: Connection) -> int:
    """Return how many bytes the payloads have that the database names."""
    return sum(max(0, one) for one in blob_rows.named(conn).values())


def events_today(conn: Connection, now: int) -> int:
    """Return how many events came today (UTC), where they are counted."""
    return hot.daily_sum(conn, now // DAY_S, COUNTED)


def count_events(conn: Connection, kinds: Sequence[str], now: int) -> None:
    """Count events, and refuse all of a request where the day's bound is passed and none of them is one that is always let in.

    Args:
        conn: of a unit of work on the writer.
        kinds: of the events, in any order.
        now: unix seconds.

    Raises:
        RequestError: `quota.events`.
    """
    most = _of(conn).events_per_day
    if not most or not kinds:
        return
    before = events_today(conn, now)
    if before + len(kinds) > most and ALWAYS.isdisjoint(kinds):
        raise RequestError("quota.events", f"this tenant's devices sent {before} events today")
    hot.add_daily(conn, scope_of(conn).tenant, now // DAY_S, "", [(COUNTED, len(kinds))])


def used(conn: Connection, quotas: Quotas, now: int) -> list[tuple[str, int, int]]:
    """Return what is taken of each bound that there is: what it bounds, how much of it, and the bound."""
    found = [
        ("devices", device_queries.accepted, quotas.devices_max),
        ("bytes stored", stored_bytes, quotas.stored_max),
        ("events today", lambda one: events_today(one, now), quotas.events_per_day),
    ]
    return [(name, count(conn), most) for name, count, most in found if most]


def uploads_max(conn: Connection, server: int) -> int:
    """Return how many bytes of files may be on their way: the smaller of the tenant's bound and the server's."""
    return min(server, _of(conn).uploads_max or server)


def _of(conn: Connection) -> Quotas:
    return scope_of(conn).quotas
