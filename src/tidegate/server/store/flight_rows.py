"""Statements about devices that are on their way, by the attributes that caps are set on, and about the budget of bytes.

A device is on its way from its permit to its outcome; one that was lost stays noted until it is heard again. Rows are kept for attributes that a cap was
set on once (`flight_attribute`), of every rollout's devices, so that counting looks at those of one value only.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sqlalchemy import Connection

from tidegate.server.store.raw import raw_connection


class Flying(NamedTuple):
    """A device that is on its way; `lost_at` is when it was given up, unix seconds."""

    device: str
    lost_at: int | None


def attributes(conn: Connection, tenant: str) -> frozenset[str]:
    """Return the attributes that are kept count of."""
    found = raw_connection(conn).execute(
        "SELECT attribute FROM flight_attribute WHERE tenant = ?", (tenant,)
    )
    return frozenset(one[0] for one in found)


def add_attribute(conn: Connection, tenant: str, attribute: str) -> None:
    """Keep count of one more."""
    raw_connection(conn).execute(
        "INSERT INTO flight_attribute (tenant, attribute) VALUES (?, ?)", (tenant, attribute)
    )


def under_way(conn: Connection, tenant: str) -> Iterator[tuple[str, int, int | None]]:
    """Return (update, device row, when it was lost) of every update past its permit and without an outcome, lost ones included."""
    return iter(
        raw_connection(conn).execute(
            "SELECT id, device_row, CASE WHEN state = 'lost' THEN state_at END FROM \"update\" "
            "WHERE tenant = ? AND permitted_at IS NOT NULL "
            "AND state IN ('permitted', 'rebooting', 'verifying', 'lost')",
            (tenant,),
        )
    )


def enter(
    conn: Connection,
    tenant: str,
    update_id: str,
    device_row: int,
    values: Iterable[tuple[str, str]],
    lost_at: int | None = None,
) -> None:
    """Note that a device is on its way, under each (attribute, value)."""
    raw_connection(conn).executemany(
        "INSERT INTO flight (tenant, attribute, value, device_row, update_id, lost_at) "
        "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, attribute, value, device_row) "
        "DO UPDATE SET update_id = excluded.update_id, lost_at = excluded.lost_at",
        [(tenant, name, value, device_row, update_id, lost_at) for name, value in values],
    )


def leave(conn: Connection, update_id: str) -> None:
    """Note that the outcome of an update is known, or its permit was returned."""
    raw_connection(conn).execute("DELETE FROM flight WHERE update_id = ?", (update_id,))


def lose(conn: Connection, update_id: str, now: int) -> None:
    """Note that a device on its way was given up."""
    raw_connection(conn).execute(
        "UPDATE flight SET lost_at = ? WHERE update_id = ?", (now, update_id)
    )


def others(
    conn: Connection, tenant: str, attribute: str, value: str, device_row: int, limit: int
) -> list[Flying]:
    """Return other devices with this value that are on their way, or were lost and not heard since; those given up come last.

    Devices that do not belong to the fleet any more do not count.
    """
    found = raw_connection(conn).execute(
        "SELECT device.id, flight.lost_at FROM flight JOIN device ON device.row = flight.device_row "
        "WHERE flight.tenant = ? AND flight.attribute = ? AND flight.value = ? "
        "AND flight.device_row != ? AND device.state = 'accepted' "
        "AND (flight.lost_at IS NULL OR device.last_seen <= flight.lost_at) "
        "ORDER BY flight.lost_at IS NOT NULL, flight.device_row LIMIT ?",
        (tenant, attribute, value, device_row, limit),
    )
    return [Flying(*one) for one in found]


def fullest(conn: Connection, tenant: str, attribute: str, least: int) -> list[tuple[str, int]]:
    """Return (value, devices) of the values of an attribute that have so many devices on their way, or lost and not heard since, or more; the fullest first."""
    found = raw_connection(conn).execute(
        "SELECT flight.value, count(*) AS devices FROM flight "
        "JOIN device ON device.row = flight.device_row "
        "WHERE flight.tenant = ? AND flight.attribute = ? AND device.state = 'accepted' "
        "AND (flight.lost_at IS NULL OR device.last_seen <= flight.lost_at) "
        "GROUP BY flight.value HAVING count(*) >= ? ORDER BY devices DESC, flight.value",
        (tenant, attribute, least),
    )
    return [(str(value), int(count)) for value, count in found]


def spent(conn: Connection, tenant: str, after_ms: int) -> list[str]:
    """Return the sites whose budget of bytes is spent until after that time (unix milliseconds), by name; empty = the server's own."""
    found = raw_connection(conn).execute(
        "SELECT site FROM egress WHERE tenant = ? AND free_at_ms > ? ORDER BY site",
        (tenant, after_ms),
    )
    return [str(one[0]) for one in found]


def free_at_ms(conn: Connection, tenant: str, site: str) -> int:
    """Return from when on the budget of bytes of a site (empty = all) is free again, unix milliseconds; 0 = it always was."""
    found = raw_connection(conn).execute(
        "SELECT free_at_ms FROM egress WHERE tenant = ? AND site = ?", (tenant, site)
    )
    row = found.fetchone()
    return int(row[0]) if row else 0


def largest(conn: Connection, tenant: str) -> int:
    """Return the bytes of the largest payload that was ever published; 0 = there is none."""
    found = raw_connection(conn).execute(
        "SELECT coalesce(max(length), 0) FROM artifact WHERE tenant = ?", (tenant,)
    )
    return int(next(iter(found))[0])


def set_free_at_ms(conn: Connection, tenant: str, site: str, at_ms: int) -> None:
    """Set from when on the budget of a site is free again."""
    raw_connection(conn).execute(
        "INSERT INTO egress (tenant, site, free_at_ms) VALUES (?, ?, ?) "
        "ON CONFLICT (tenant, site) DO UPDATE SET free_at_ms = excluded.free_at_ms",
        (tenant, site, at_ms),
    )
