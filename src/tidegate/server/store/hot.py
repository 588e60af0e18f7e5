"""Hand-written statements for what happens with every event, permit and assignment. SQLAlchemy costs ten times as much.

Both databases take them (`raw`); two stand twice. Each function runs inside the caller's transaction.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from tidegate.server.store import tables
from tidegate.server.store.raw import Numbers, Texts, is_postgres, raw_connection
from tidegate.server.store.scope import tenant_of


class UpdateRow(NamedTuple):
    """A row of the table `update`."""

    id: str
    tenant: str
    rollout_id: int
    device_row: int
    attempt: int
    state: str
    reason: str | None
    detail: str
    ring: str
    variant: str
    from_counter: int
    from_sha256: str | None
    release_counter: int
    offered_at: int
    state_at: int
    permitted_at: int | None
    deadline_at: int | None
    ended_at: int | None
    bytes: int
    resumes: int


class DeviceRow(NamedTuple):
    """What events need of a device."""

    row: int
    id: str
    tenant: str
    state: str
    product: str
    variant: str
    running_counter: int
    running_sha256: str | None
    running_version: str
    confirmed_at: int
    acked_seq: int
    boot_id: str
    enrolled_at: int
    measured_until: int


class EventRow(NamedTuple):
    """A row of the table `event`, without its position."""

    tenant: str
    device_row: int
    seq: int
    received_at: int
    at: int
    kind: str
    update_id: str | None
    attempt: int
    reason: str | None
    body: str
    envelope: str | None


assert tuple(tables.update.c.keys()) == UpdateRow._fields  # noqa: S101 - the two are one list
_UPDATE_COLUMNS: Final = ", ".join(UpdateRow._fields)
_UPDATE: Final = f'SELECT {_UPDATE_COLUMNS} FROM "update" WHERE '  # noqa: S608 - column names of ours
_PUT_UPDATE: Final = (
    f'INSERT INTO "update" ({_UPDATE_COLUMNS}) VALUES ({", ".join("?" * len(UpdateRow._fields))}) '  # noqa: S608
    "ON CONFLICT (id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in UpdateRow._fields[4:])
)
_DEVICE: Final = f"SELECT {', '.join(DeviceRow._fields)} FROM device WHERE row = ?"  # noqa: S608
_PUT_EVENT: Final = (
    f"INSERT INTO event ({', '.join(EventRow._fields)}) "  # noqa: S608
    f"VALUES ({', '.join('?' * len(EventRow._fields))}) ON CONFLICT DO NOTHING"
)
#: The same for PostgreSQL, as one statement for all: many times as fast there.
_PUT_EVENTS: Final = (
    f"INSERT INTO event ({', '.join(EventRow._fields)}) SELECT * FROM unnest("  # noqa: S608
    "?::text[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::text[], "
    "?::text[], ?::bigint[], ?::text[], ?::text[], ?::text[]) ON CONFLICT DO NOTHING"
)
#: What the columns of an event hold, in their order.
_EVENT_COLUMNS: Final = (
    Texts, Numbers, Numbers, Numbers, Numbers, Texts, Texts, Numbers, Texts, Texts, Texts,
)  # fmt: skip
_PUT_SEEN: Final = (
    "UPDATE device SET last_seen = seen.at "
    "FROM unnest(?::bigint[], ?::bigint[]) AS seen (at, number) "
    "WHERE device.row = seen.number AND (device.last_seen < seen.at OR device.last_seen > seen.at + 3600)"
)
_ADD_TALLY: Final = (
    "INSERT INTO tally (tenant, rollout_id, ring, variant, name, value) VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (rollout_id, ring, variant, name) DO UPDATE SET value = tally.value + excluded.value"
)
_MAX_TALLY: Final = (
    "INSERT INTO tally (tenant, rollout_id, ring, variant, name, value) VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (rollout_id, ring, variant, name) "
    "DO UPDATE SET value = excluded.value WHERE tally.value < excluded.value"
)
_ADD_DAILY: Final = (
    "INSERT INTO daily (tenant, day, product, name, value) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (day, product, name) DO UPDATE SET value = daily.value + excluded.value"
)
_ADD_HOUR: Final = (
    "INSERT INTO rollout_hour (tenant, rollout_id, hour, name, value) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (rollout_id, hour, name) DO UPDATE SET value = rollout_hour.value + excluded.value"
)
_ADD_EXPOSURE: Final = (
    "INSERT INTO exposure (tenant, rollout_id, variant, arm, errors, device_s, devices) "
    "VALUES (?, ?, ?, ?, ?, ?, 0) ON CONFLICT (rollout_id, variant, arm) DO UPDATE SET "
    "errors = exposure.errors + excluded.errors, device_s = exposure.device_s + excluded.device_s"
)
_ADD_DEVICE_ERRORS: Final = (
    "INSERT INTO exposure_device (tenant, rollout_id, arm, device_row, variant, errors) "
    "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (rollout_id, arm, device_row) DO UPDATE SET "
    "errors = exposure_device.errors + excluded.errors"
)
_ADD_FIRMWARE: Final = (
    "INSERT INTO firmware (tenant, product, variant, counter, version, devices) "
    "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (product, variant, counter) "
    "DO UPDATE SET devices = firmware.devices + excluded.devices, "
    "version = CASE WHEN excluded.version = '' THEN firmware.version ELSE excluded.version END"
)
_WATCHING: Final = (
    "SELECT rollout.id, release.counter FROM rollout JOIN release ON release.id = rollout.release_id "
    "WHERE rollout.tenant = ? AND rollout.product = ? AND rollout.kind = 'install' "
    "AND rollout.state IN ('active', 'paused', 'completed')"
)


def device(conn: Connection, row: int) -> DeviceRow | None:
    """Return what events need of a device, or None."""
    found = raw_connection(conn).execute(_DEVICE, (row,)).fetchone()
    return DeviceRow(*found) if found else None


def standing(
    conn: Connection, row: int
) -> tuple[dict[str, dict[str, Any]], list[str], dict[str, Any]]:
    """Return what a device said of its slots, of the images that it refuses, and of components beside the slots; nothing where there is no such device."""
    asked = "SELECT slots, refuses, components FROM device WHERE row = ?"
    found = raw_connection(conn).execute(asked, (row,)).fetchone()
    slots, refuses, apart = map(json.loads, found or ("{}", "[]", "{}"))
    return slots, refuses, apart


def put_events(conn: Connection, events: Iterable[EventRow]) -> None:
    """Store events; one that is there already stays as it is."""
    raw = raw_connection(conn)
    if is_postgres(conn):
        columns = list(zip(*events, strict=True))
        if columns:
            kinds = zip(_EVENT_COLUMNS, columns, strict=True)
            raw.execute(_PUT_EVENTS, [kind(column) for kind, column in kinds])
        return
    raw.executemany(_PUT_EVENT, events)


def touch_device(
    conn: Connection, row: int, *, acked_seq: int, boot_id: str, measured_until: int, now: int
) -> None:
    """Note how far a device's events are stored, up to when it has claimed device time, and that it was heard."""
    raw_connection(conn).execute(
        "UPDATE device SET acked_seq = ?1, measured_until = ?2, "
        "last_seen = CASE WHEN last_seen < ?3 THEN ?3 ELSE last_seen END, "
        "boot_id = CASE WHEN ?4 = '' THEN boot_id ELSE ?4 END WHERE row = ?5",
        (acked_seq, measured_until, now, boot_id, row),
    )


def set_running(
    conn: Connection,
    row: int,
    *,
    counter: int,
    sha256: str | None,
    version: str,
    confirmed_at: int,
) -> None:
    """Note what a device runs."""
    raw_connection(conn).execute(
        "UPDATE device SET running_counter = ?, running_sha256 = ?, running_version = ?, "
        "confirmed_at = ? WHERE row = ?",
        (counter, sha256, version, confirmed_at, row),
    )


def update_by_id(conn: Connection, update_id: str) -> UpdateRow | None:
    """Return one update, or None."""
    found = raw_connection(conn).execute(_UPDATE + "id = ?", (update_id,)).fetchone()
    return UpdateRow(*found) if found else None


def updates_of(conn: Connection, device_row: int) -> list[UpdateRow]:
    """Return every update of a device, the newest first."""
    found = raw_connection(conn).execute(
        _UPDATE + "device_row = ? ORDER BY rollout_id DESC", (device_row,)
    )
    return [UpdateRow(*one) for one in found]


def updates_in(conn: Connection, rollout_id: int, states: Sequence[str]) -> list[UpdateRow]:
    """Return a rollout's updates that are in one of `states`."""
    marks = ", ".join("?" * len(states))
    found = raw_connection(conn).execute(
        f"{_UPDATE} rollout_id = ? AND state IN ({marks})", (rollout_id, *states)
    )
    return [UpdateRow(*one) for one in found]


def overdue(conn: Connection, now: int, limit: int) -> list[UpdateRow]:
    """Return updates whose deadline passed, the oldest first."""
    found = raw_connection(conn).execute(
        _UPDATE + "deadline_at <= ? ORDER BY deadline_at LIMIT ?", (now, limit)
    )
    return [UpdateRow(*one) for one in found]


def put_update(conn: Connection, update: UpdateRow) -> None:
    """Write an update, new or changed."""
    raw_connection(conn).execute(_PUT_UPDATE, update)


def add_tally(
    conn: Connection, tenant: str, key: tuple[int, str, str], changes: Iterable[tuple[str, int]]
) -> None:
    """Add to counters of (rollout, ring, variant)."""
    raw_connection(conn).executemany(
        _ADD_TALLY, [(tenant, *key, name, value) for name, value in changes]
    )


def raise_tally(
    conn: Connection, tenant: str, key: tuple[int, str, str], name: str, value: int
) -> None:
    """Set a counter of (rollout, ring, variant) to `value` where it is lower."""
    raw_connection(conn).execute(_MAX_TALLY, (tenant, *key, name, value))


def add_daily(
    conn: Connection, tenant: str, day: int, product: str, changes: Iterable[tuple[str, int]]
) -> None:
    """Add to the counters of a day."""
    raw_connection(conn).executemany(
        _ADD_DAILY, [(tenant, day, product, name, value) for name, value in changes]
    )


def daily_sum(conn: Connection, day: int, name: str) -> int:
    """Return a counter of a day, over all products."""
    found = raw_connection(conn).execute(
        "SELECT coalesce(sum(value), 0) FROM daily WHERE tenant = ? AND day = ? AND name = ?",
        (tenant_of(conn), day, name),
    )
    return int(found.fetchone()[0])


def add_hour(
    conn: Connection, tenant: str, rollout_id: int, hour: int, changes: Iterable[tuple[str, int]]
) -> None:
    """Add to what the counters of a rollout changed by within an hour."""
    raw_connection(conn).executemany(
        _ADD_HOUR, [(tenant, rollout_id, hour, name, value) for name, value in changes]
    )


def hours(conn: Connection, rollout_id: int, since: int, until: int) -> list[tuple[int, str, int]]:
    """Return (hour, name, change) of a rollout's counters, by hour; both ends are unix hours and belong to it."""
    found = raw_connection(conn).execute(
        "SELECT hour, name, value FROM rollout_hour WHERE rollout_id = ? AND hour >= ? AND hour <= ? "
        "ORDER BY hour, name",
        (rollout_id, since, until),
    )
    return [tuple(one) for one in found]


def add_exposure(
    conn: Connection, tenant: str, rows: Iterable[tuple[int, str, str, int, int]]
) -> None:
    """Add (rollout, variant, arm, errors, device seconds)."""
    raw_connection(conn).executemany(_ADD_EXPOSURE, [(tenant, *row) for row in rows])


def add_device_errors(
    conn: Connection, tenant: str, rows: Iterable[tuple[int, str, int, str, int]]
) -> None:
    """Add (rollout, arm, device row, variant, errors) to what single devices had."""
    raw_connection(conn).executemany(_ADD_DEVICE_ERRORS, [(tenant, *row) for row in rows])


def noisiest(conn: Connection, rollout_id: int) -> dict[str, int]:
    """Return the errors of the updated device that had the most, by variant."""
    found = raw_connection(conn).execute(
        "SELECT variant, max(errors) FROM exposure_device "
        "WHERE rollout_id = ? AND arm = 'updated' GROUP BY variant",
        (rollout_id,),
    )
    return dict(found)


def ends_of(conn: Connection, row: int) -> tuple[int, int, int, int, str, str]:
    """Return what is kept of restarts that nobody asked for (`server.restarts.Ends`)."""
    found = raw_connection(conn).execute(
        "SELECT restarts_from, restarts, restarted_at, cut_at, restarted_boot, restart_cause "
        "FROM device WHERE row = ?",
        (row,),
    )
    return tuple(found.fetchone())


def put_ends(conn: Connection, row: int, ends: tuple[int, int, int, int, str, str]) -> None:
    """Write the same."""
    raw_connection(conn).execute(
        "UPDATE device SET restarts_from = ?, restarts = ?, restarted_at = ?, cut_at = ?, "
        "restarted_boot = ?, restart_cause = ? WHERE row = ?",
        (*ends, row),
    )


def add_firmware(
    conn: Connection, tenant: str, product: str, variant: str, counter: int, version: str, by: int
) -> None:
    """Add to how many devices of a variant run a release."""
    raw_connection(conn).execute(_ADD_FIRMWARE, (tenant, product, variant, counter, version, by))


def watching(conn: Connection, tenant: str, product: str) -> list[tuple[int, int]]:
    """Return (rollout, release counter) of the installs whose evidence is still taken."""
    return [tuple(one) for one in raw_connection(conn).execute(_WATCHING, (tenant, product))]


def put_seen(conn: Connection, seen: Iterable[tuple[int, int]]) -> None:
    """Write when devices were last heard, as (time, row).

    What stands there of more than an hour later was written while the clock was ahead, and would hide every contact until then.
    """
    raw = raw_connection(conn)
    if is_postgres(conn):
        columns = [Numbers(column) for column in zip(*seen, strict=True)]
        if columns:
            raw.execute(_PUT_SEEN, columns)
        return
    raw.executemany(
        "UPDATE device SET last_seen = ?1 "
        "WHERE row = ?2 AND (last_seen < ?1 OR last_seen > ?1 + 3600)",
        seen,
    )


def newest_position(conn: Connection) -> int:
    """Return the position of the newest event, or 0."""
    found = raw_connection(conn).execute("SELECT max(position) FROM event").fetchone()
    return int(found[0] or 0)


def next_position(conn: Connection, position: int) -> int:
    """Return the position of the first event at or behind this one, or 0."""
    found = raw_connection(conn).execute(
        "SELECT min(position) FROM event WHERE position >= ?", (position,)
    )
    return int(found.fetchone()[0] or 0)


def event_log(conn: Connection) -> list[str]:
    """Return every event, in the order in which it was received: position, time of receipt and body."""
    found = raw_connection(conn).execute(
        "SELECT position, received_at, body FROM event ORDER BY position"
    )
    return [f"{position} {at} {body}" for position, at, body in found]


def tallies(conn: Connection, rollout_id: int) -> list[tuple[str, str, str, int]]:
    """Return (ring, variant, name, value) of a rollout."""
    found = raw_connection(conn).execute(
        "SELECT ring, variant, name, value FROM tally WHERE rollout_id = ?", (rollout_id,)
    )
    return list(found)


def exposures(conn: Connection, rollout_id: int) -> list[tuple[str, str, int, int]]:
    """Return (variant, arm, errors, device seconds) of a rollout."""
    found = raw_connection(conn).execute(
        "SELECT variant, arm, errors, device_s FROM exposure WHERE rollout_id = ?", (rollout_id,)
    )
    return list(found)


def gate_epoch(conn: Connection, tenant: str) -> int:
    """Return the gate epoch; 0 before the first halt."""
    found = raw_connection(conn).execute("SELECT epoch FROM gate WHERE tenant = ?", (tenant,))
    row = found.fetchone()
    return int(row[0]) if row else 0


def raise_gate_epoch(conn: Connection, tenant: str) -> int:
    """Add one to the gate epoch and return it."""
    raw_connection(conn).execute(
        "INSERT INTO gate (tenant, epoch) VALUES (?, 1) "
        "ON CONFLICT (tenant) DO UPDATE SET epoch = gate.epoch + 1",
        (tenant,),
    )
    return gate_epoch(conn, tenant)


def forget_leases(conn: Connection) -> None:
    """End every lease: for a process that has just locked the data directory, so that none of their holders can be alive."""
    raw_connection(conn).execute("DELETE FROM lease")
