"""Statements about what the evidence gate keeps (`gate_tables`). JSON columns are text here. Nothing is decided."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from tidegate.server.store.raw import raw_connection

#: No decision yet; older servers wrote no text at all, which is not JSON.
_NONE: Final = "null"
PART: Final = "part"
SITE: Final = "site"


class Happening(NamedTuple):
    """What happened to a device, in the order of commits."""

    seq: int
    at: int
    device_row: int
    what: str
    value: int = 0
    seconds: int = 0
    name: str = ""
    amount: float | None = None


class Head(NamedTuple):
    """How far what is kept goes."""

    generation: int
    position: int
    stepped_at: int
    opened_at: int


class Kept(NamedTuple):
    """A row of the table `gate_state`, without its rollout."""

    generation: int
    position: int
    stepped_at: int
    opened_at: int
    scheme: str
    known: str
    baseline: str
    harm: str
    snapshot: bytes
    digest: str
    facts: int
    decision: str
    decided_at: int


class Told(NamedTuple):
    """What people are told of a row of the table `gate_state`: all but the snapshot."""

    position: int
    stepped_at: int
    opened_at: int
    scheme: str
    baseline: str
    harm: str
    digest: str
    facts: int
    decision: str
    decided_at: int


class Room(NamedTuple):
    """How many more permits a part of the devices, or a site, may get."""

    kind: str
    name: str
    room: int
    because: str


# --- what happens ----------------------------------------------------------------------------------------------------

_TELL: Final = (
    "INSERT INTO gate_happening (tenant, rollout_id, at, device_row, what) "
    "SELECT ?, rollout_id, ?, ?, ? FROM gate_state WHERE rollout_id = ?"
)


def tell(
    conn: Connection, tenant: str, rollout_id: int, device_row: int, what: Iterable[str], now: int
) -> None:
    """Note what happened to a device, if its rollout's gate is open: what was before is read from the updates when it opens."""
    values = [(tenant, now, device_row, one, rollout_id) for one in what]
    raw_connection(conn).executemany(_TELL, values)


def put_happenings(
    conn: Connection, tenant: str, rollout_id: int, rows: Iterable[tuple[int, int, str]]
) -> None:
    """Note (time, device row, what) of a rollout whose gate opens now."""
    raw_connection(conn).executemany(
        "INSERT INTO gate_happening (tenant, rollout_id, at, device_row, what) VALUES (?, ?, ?, ?, ?)",
        [(tenant, rollout_id, *row) for row in rows],
    )


def tell_measured(
    conn: Connection,
    tenant: str,
    device_row: int,
    measured: Iterable[tuple[int, int, int]],
    now: int,
) -> None:
    """Note what a device measured, as (rollout, errors, seconds), for rollouts that are watched."""
    raw_connection(conn).executemany(
        "INSERT INTO gate_happening (tenant, rollout_id, at, device_row, what, value, seconds) "
        "SELECT ?, rollout_id, ?, ?, 'measured', ?, ? FROM gate_state WHERE rollout_id = ? AND watched = 1",
        [(tenant, now, device_row, errors, s, rollout) for rollout, errors, s in measured],
    )


#: Notes a metric where the settings hold its name, or its name behind a minus: what they are without it is something else then.
_TELL_NAMED: Final = (
    "INSERT INTO gate_happening (tenant, rollout_id, at, device_row, what, name, amount, seconds) "
    "SELECT ?1, rollout_id, ?2, ?3, 'measured', CAST(?4 AS TEXT), ?5, ?6 FROM gate_state "
    "WHERE rollout_id = ?7 AND watched = 1 AND CAST(harm AS TEXT) != replace(replace("
    "CAST(harm AS TEXT), '\"' || CAST(?4 AS TEXT) || '\"', ''), '\"-' || CAST(?4 AS TEXT) || '\"', '')"
)


def tell_named(
    conn: Connection,
    tenant: str,
    device_row: int,
    measured: Iterable[tuple[int, str, float, int]],
    now: int,
) -> None:
    """Note metrics of a device's own, as (rollout, name, amount, seconds), for rollouts that are watched and whose settings name them."""
    raw_connection(conn).executemany(
        _TELL_NAMED,
        [
            (tenant, now, device_row, name, amount, s, rollout)
            for rollout, name, amount, s in measured
        ],
    )


def watched(conn: Connection) -> dict[int, bool]:
    """Return of every rollout with a gate whether what devices measure is noted."""
    found = raw_connection(conn).execute("SELECT rollout_id, watched FROM gate_state")
    return {int(one): bool(noted) for one, noted in found}


def set_watched(conn: Connection, rollouts: Iterable[int]) -> None:
    """Note what devices measure for these rollouts, and for no others."""
    raw = raw_connection(conn)
    raw.execute("UPDATE gate_state SET watched = 0 WHERE watched = 1")
    raw.executemany(
        "UPDATE gate_state SET watched = 1 WHERE rollout_id = ?", [(one,) for one in rollouts]
    )


def forget_happenings(conn: Connection, rollout_id: int, position: int) -> None:
    """Drop what happened up to a position: the stored state knows it."""
    raw_connection(conn).execute(
        "DELETE FROM gate_happening WHERE rollout_id = ? AND seq <= ?", (rollout_id, position)
    )


def happenings(conn: Connection, rollout_id: int, after: int) -> list[Happening]:
    """Return what happened in a rollout behind a position, in order."""
    found = raw_connection(conn).execute(
        "SELECT seq, at, device_row, what, value, seconds, name, amount FROM gate_happening "
        "WHERE rollout_id = ? AND seq > ? ORDER BY seq",
        (rollout_id, after),
    )
    return [Happening(*one) for one in found]


# --- what is known ---------------------------------------------------------------------------------------------------


def head(conn: Connection, rollout_id: int) -> Head | None:
    """Return how far what is kept of a rollout goes; None = its gate was never opened."""
    found = raw_connection(conn).execute(
        f"SELECT {', '.join(Head._fields)} FROM gate_state WHERE rollout_id = ?",  # noqa: S608 - names of ours
        (rollout_id,),
    )
    row = found.fetchone()
    return Head(*row) if row else None


def kept(conn: Connection, rollout_id: int) -> Kept | None:
    """Return all that is kept of a rollout, or None."""
    found = raw_connection(conn).execute(
        f"SELECT {', '.join(Kept._fields)} FROM gate_state WHERE rollout_id = ?",  # noqa: S608 - names of ours
        (rollout_id,),
    )
    row = found.fetchone()
    if row is None:
        return None
    state = Kept(*row)
    return state._replace(decision=_decided(state.decision))


def told(conn: Connection, rollout_id: int) -> Told | None:
    """Return what people are told of a rollout, or None."""
    found = raw_connection(conn).execute(
        f"SELECT {', '.join(Told._fields)} FROM gate_state WHERE rollout_id = ?",  # noqa: S608 - names of ours
        (rollout_id,),
    )
    row = found.fetchone()
    if row is None:
        return None
    state = Told(*row)
    return state._replace(decision=_decided(state.decision))


def decision(conn: Connection, rollout_id: int) -> str:
    """Return the last decision, JSON text; empty = there is none."""
    return _decided(_text(conn, "decision", rollout_id))


def _decided(text: str) -> str:
    return "" if text == _NONE else text


def harm(conn: Connection, rollout_id: int) -> str:
    """Return what is tolerated, JSON text; empty = the gate was never opened."""
    return _text(conn, "harm", rollout_id)


def known(conn: Connection, rollout_id: int) -> str:
    """Return the values that are told apart by attribute, JSON text; empty = the gate is not open."""
    return _text(conn, "known", rollout_id)


def _text(conn: Connection, column: str, rollout_id: int) -> str:
    found = raw_connection(conn).execute(
        f"SELECT {column} FROM gate_state WHERE rollout_id = ?",  # noqa: S608 - a name of ours
        (rollout_id,),
    )
    row = found.fetchone()
    return str(row[0]) if row else ""


def put_state(conn: Connection, tenant: str, rollout_id: int, state: Kept) -> None:
    """Write the state that a rollout's gate begins with, in place of one that was there."""
    names = ", ".join(Kept._fields)
    marks = ", ".join("?" * len(Kept._fields))
    anew = ", ".join(f"{name} = excluded.{name}" for name in Kept._fields)
    kept = state._replace(decision=state.decision or _NONE)
    raw_connection(conn).execute(
        f"INSERT INTO gate_state (tenant, rollout_id, {names}) VALUES (?, ?, {marks}) "  # noqa: S608
        f"ON CONFLICT (rollout_id) DO UPDATE SET watched = 1, {anew}",
        (tenant, rollout_id, *kept),
    )


def begin_anew(conn: Connection, rollout_id: int) -> None:
    """Drop what is known of a rollout, so that its gate opens again; what happened before is not told again."""
    raw = raw_connection(conn)
    raw.execute(
        "UPDATE gate_state SET generation = generation + 1, snapshot = ?2, decision = ?3, "
        "position = (SELECT coalesce(max(seq), 0) FROM gate_happening WHERE gate_happening.rollout_id = ?1) "
        "WHERE rollout_id = ?1",
        (rollout_id, b"", _NONE),
    )
    for table in ("gate_fact", "gate_room"):
        raw.execute(f"DELETE FROM {table} WHERE rollout_id = ?", (rollout_id,))  # noqa: S608 - a name of ours


def change_state(
    conn: Connection, rollout_id: int, generation: int, values: dict[str, Any]
) -> bool:
    """Change columns of a rollout's state, if it still is of that generation, and raise it; say whether it did."""
    given = ", ".join(f"{name} = ?" for name in values)
    done = raw_connection(conn).execute(
        f"UPDATE gate_state SET generation = generation + 1, {given} "  # noqa: S608 - names of ours
        "WHERE rollout_id = ? AND generation = ?",
        (*values.values(), rollout_id, generation),
    )
    return done.rowcount == 1


def add_facts(
    conn: Connection,
    tenant: str,
    rollout_id: int,
    at: int,
    body: bytes,
    digest: str,
    harm: str | None = None,
) -> None:
    """Append to a rollout's log."""
    raw = raw_connection(conn)
    newest = raw.execute("SELECT max(seq) FROM gate_fact WHERE rollout_id = ?", (rollout_id,))
    raw.execute(
        "INSERT INTO gate_fact (tenant, rollout_id, seq, at, body, digest, harm) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (tenant, rollout_id, (newest.fetchone()[0] or 0) + 1, at, body, digest, harm),
    )


def facts(conn: Connection, rollout_id: int) -> Iterator[tuple[int, int, bytes, str | None, str]]:
    """Yield (number, time, facts, settings where they changed, digest afterwards) of a rollout's log, in order."""
    yield from raw_connection(conn).execute(
        "SELECT seq, at, body, harm, digest FROM gate_fact WHERE rollout_id = ? ORDER BY seq",
        (rollout_id,),
    )


# --- room ------------------------------------------------------------------------------------------------------------


def rooms(conn: Connection, rollout_id: int, kind: str | None = None) -> list[Room]:
    """Return what is left to whom."""
    found = raw_connection(conn).execute(
        "SELECT kind, name, room, because FROM gate_room WHERE rollout_id = ?1 "
        "AND (CAST(?2 AS TEXT) IS NULL OR kind = ?2)",
        (rollout_id, kind),
    )
    return [Room(*one) for one in found]


def rooms_of(conn: Connection, rollout_id: int, parts: Sequence[str], site: str) -> list[Room]:
    """Return what is left to these parts and to a site (empty = none), as far as it is limited."""
    marks = ", ".join("?" * len(parts))
    found = raw_connection(conn).execute(
        "SELECT kind, name, room, because FROM gate_room WHERE rollout_id = ? AND "  # noqa: S608 - marks
        f"((kind = '{PART}' AND name IN ({marks})) OR (kind = '{SITE}' AND name = ?))",
        (rollout_id, *parts, site),
    )
    return [Room(*one) for one in found]


def set_parts(
    conn: Connection, tenant: str, rollout_id: int, rows: Iterable[tuple[str, int, str]]
) -> None:
    """Replace what is left to parts, as (name, room, because)."""
    raw = raw_connection(conn)
    raw.execute("DELETE FROM gate_room WHERE rollout_id = ? AND kind = ?", (rollout_id, PART))
    raw.executemany(_PUT_ROOM, [(tenant, rollout_id, PART, *row) for row in rows])


def set_sites(
    conn: Connection, tenant: str, rollout_id: int, rows: Iterable[tuple[str, int, str]]
) -> None:
    """Write what is left to sites, as (name, room, because); others stay as they are."""
    raw_connection(conn).executemany(_PUT_ROOM, [(tenant, rollout_id, SITE, *row) for row in rows])


def add_room(conn: Connection, rollout_id: int, by: int, keys: Iterable[tuple[str, str]]) -> None:
    """Take from (negative) or give to what is left, by (kind, name)."""
    raw_connection(conn).executemany(
        "UPDATE gate_room SET room = room + ? WHERE rollout_id = ? AND kind = ? AND name = ?",
        [(by, rollout_id, *key) for key in keys],
    )


_PUT_ROOM: Final = (
    "INSERT INTO gate_room (tenant, rollout_id, kind, name, room, because) VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (rollout_id, kind, name) DO UPDATE SET room = excluded.room, because = excluded.because"
)


# --- what a gate opens with ------------------------------------------------------------------------------------------

#: Earlier installs that say what is normal: those that ended well, and were not brought back.
_EARLIER: Final = (
    "SELECT rollout.id FROM rollout WHERE tenant = ? AND product = ? AND kind = 'install' "
    "AND state IN ('completed', 'superseded') AND id != ? "
    "AND NOT EXISTS (SELECT 1 FROM rollout AS child WHERE child.parent_id = rollout.id) "
    "AND EXISTS (SELECT 1 FROM tally WHERE tally.rollout_id = rollout.id AND name = 'confirmed' AND value > 0) "
    "ORDER BY ended_at DESC, id DESC LIMIT ?"
)


def earlier(conn: Connection, tenant: str, product: str, rollout_id: int, most: int) -> list[int]:
    """Return the newest rollouts of a product that ended well, the newest first."""
    found = raw_connection(conn).execute(_EARLIER, (tenant, product, rollout_id, most))
    return [int(one[0]) for one in found]


#: The install of a product whose book was written last and can be read still, whatever became of it.
_LATEST: Final = (
    "SELECT gate_state.rollout_id FROM gate_state JOIN rollout ON rollout.id = gate_state.rollout_id "
    "WHERE rollout.tenant = ? AND rollout.product = ? AND rollout.kind = 'install' AND rollout.id != ? "
    "AND length(gate_state.snapshot) > 0 ORDER BY stepped_at DESC, rollout.id DESC LIMIT 1"
)


def latest(conn: Connection, tenant: str, product: str, rollout_id: int) -> int | None:
    """Return the other rollout of a product whose book was written last; None = there is none."""
    found = raw_connection(conn).execute(_LATEST, (tenant, product, rollout_id)).fetchone()
    return int(found[0]) if found else None


def recording(conn: Connection, tenant: str, product: str, at: int) -> tuple[int, int]:
    """Return how many of a product's accepted devices kept a record of their restarts at a time, and how many had joined by then."""
    found = (
        raw_connection(conn)
        .execute(
            "SELECT count(*) FILTER (WHERE restarts_from > 0 AND restarts_from <= ?1), count(*) FROM device "
            "WHERE tenant = ?2 AND product = ?3 AND state = 'accepted' AND enrolled_at <= ?1",
            (at, tenant, product),
        )
        .fetchone()
    )
    return int(found[0]), int(found[1])


def ends(conn: Connection, rollout_id: int, late_s: int) -> list[tuple[str, int, int]]:
    """Return (connectivity, permits, of which nothing was heard for `late_s` seconds) of a rollout."""
    found = raw_connection(conn).execute(
        "SELECT device.connectivity, count(*), "
        "count(*) FILTER (WHERE \"update\".state = 'lost' "
        'OR coalesce("update".ended_at, 0) - "update".permitted_at > ?) '
        'FROM "update" JOIN device ON device.row = "update".device_row '
        'WHERE "update".rollout_id = ? AND "update".permitted_at IS NOT NULL GROUP BY device.connectivity',
        (late_s, rollout_id),
    )
    return [(str(name), int(count), int(late)) for name, count, late in found]


def answers_s(conn: Connection, rollout_id: int, most: int = 10_000) -> list[tuple[str, int]]:
    """Return (connectivity, seconds from permit to answer) of confirmed devices of a rollout."""
    found = raw_connection(conn).execute(
        'SELECT device.connectivity, "update".ended_at - "update".permitted_at '
        'FROM "update" JOIN device ON device.row = "update".device_row '
        'WHERE "update".rollout_id = ? AND "update".state = \'confirmed\' '
        'AND "update".permitted_at IS NOT NULL AND "update".ended_at IS NOT NULL LIMIT ?',
        (rollout_id, most),
    )
    return [(str(name), int(seconds)) for name, seconds in found]


def heard_since(
    conn: Connection, tenant: str, product: str, since: int
) -> Iterator[tuple[int, int]]:
    """Yield (row, when it was last heard) of a product's devices that were heard at or after a time."""
    yield from raw_connection(conn).execute(
        "SELECT row, last_seen FROM device WHERE tenant = ? AND product = ? AND last_seen >= ? "
        "AND state = 'accepted'",
        (tenant, product, since),
    )
