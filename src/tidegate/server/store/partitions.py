"""The event log on PostgreSQL: one table in pieces, each a range of positions, so that what is old goes as a whole (docs/decisions/0038).

A position is the log's own time: whoever writes is alone, so they grow as events come, also while a clock steps. Pieces are made ahead; what no piece covers
goes into `event_rest`, and nothing is ever refused for want of one. On SQLite the log is one table, and every function here finds no piece.

Not decided here: what is old, and which rows stay (`server.retention`).
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection

from tidegate.server.store.raw import is_postgres, raw_connection

#: A piece holds about what comes in so many seconds, and at least and at most so many positions.
SPAN_S: Final = 14 * 86_400
WIDTH_MIN: Final = 1_000_000
WIDTH_MAX: Final = 200_000_000
#: So many pieces are made ahead of the newest event, and so many at once at most.
AHEAD: Final = 2
_AT_ONCE: Final = 4
#: How far positions jump when a log that is one table becomes the first piece: so many events may come while it is looked through.
JUMP: Final = 100_000_000
#: How long a lock on the whole log is waited for, in milliseconds: everybody else would wait as well. It is tried again later.
LOCK_MS: Final = 500
#: The condition that a log in one table is looked through for, before the step that makes it the first piece.
FIRST: Final = "event_first"
_BOUND: Final = re.compile(r"FROM \('?(\d+)'?\) TO \('?(\d+)'?\)")
_PIECES: Final = (
    "SELECT child.relname, pg_get_expr(child.relpartbound, child.oid) FROM pg_inherits "
    "JOIN pg_class child ON child.oid = inhrelid WHERE inhparent = 'event'::regclass"
)
_COLUMNS: Final = (
    "position, tenant, device_row, seq, received_at, at, kind, update_id, attempt, reason, body, "
    "envelope"
)


class Piece(NamedTuple):
    """A piece of the log: table `name` holds the positions from `low` to before `high`."""

    name: str
    low: int
    high: int


def pieces(conn: Connection) -> list[Piece]:
    """Return the pieces of the log in their order, without the one for what no other covers; none on SQLite."""
    if not is_postgres(conn):
        return []
    found: list[Piece] = []
    for name, bound in conn.exec_driver_sql(_PIECES):
        range_ = _BOUND.search(bound)
        if range_:
            found.append(Piece(name, int(range_[1]), int(range_[2])))
    return sorted(found, key=lambda piece: piece.low)


def missing(conn: Connection, newest: int, width: int) -> bool:
    """Say whether pieces have to be made, with the newest position of the log and the width of a piece; never on SQLite."""
    known = pieces(conn)
    return bool(known) and known[-1].high - newest <= AHEAD * width


def grow(conn: Connection, newest: int, width: int) -> int:
    """Make pieces ahead of the newest position (inclusive, as it is in this transaction on the writer); return how many."""
    if not is_postgres(conn):
        return 0
    made = 0
    with_lock = f"SET LOCAL lock_timeout = {LOCK_MS}"
    conn.exec_driver_sql(with_lock)
    while made < _AT_ONCE and missing(conn, newest, width):
        # what is in `event_rest` already stays there: a piece must not claim it
        low = max(pieces(conn)[-1].high, newest + 1)
        _make(conn, low, low + width)
        made += 1
    return made


def reach(conn: Connection, newest: int) -> None:
    """Have pieces up to a position, for a log that is brought in as a whole; at most about sixteen."""
    known = pieces(conn)
    if not known:
        return
    high = known[-1].high
    width = max(WIDTH_MIN, -(-(newest + 1 - high) // 16))
    while high <= newest:
        _make(conn, high, high + width)
        high += width


def retire(conn: Connection, piece: Piece, kept: Sequence[int]) -> bool:
    """Take a piece away, but for these positions, which are kept in `event_rest`; False = it is not there.

    Waits `LOCK_MS` for those who read the log, then raises what becomes `server.busy`: nothing has happened, and it may be repeated.
    """
    if piece not in pieces(conn):
        return False
    conn.exec_driver_sql(f"SET LOCAL lock_timeout = {LOCK_MS}")
    conn.exec_driver_sql(f"ALTER TABLE event DETACH PARTITION {piece.name}")
    if kept:
        raw_connection(conn).execute(
            f"INSERT INTO event ({_COLUMNS}) SELECT {_COLUMNS} FROM {piece.name} "  # noqa: S608 - names of ours
            "WHERE position = ANY(?::bigint[]) ORDER BY position",
            [list(kept)],
        )
    conn.exec_driver_sql(f"DROP TABLE {piece.name}")
    return True


def prepare(conn: Connection) -> None:
    """Look through a log that is one table still, while others write to it, so that becoming the first piece takes no time.

    Args:
        conn: outside of a transaction. May be repeated.
    """
    with conn.begin():
        plain = conn.exec_driver_sql(
            "SELECT relkind = 'r' FROM pg_class WHERE oid = to_regclass('event')"
        ).scalar()
        newest = conn.exec_driver_sql("SELECT max(position) FROM event").scalar() if plain else 0
        if not newest:
            return
        conn.exec_driver_sql(f"ALTER TABLE event DROP CONSTRAINT IF EXISTS {FIRST}")
        conn.exec_driver_sql(
            f"ALTER TABLE event ADD CONSTRAINT {FIRST} CHECK (position < {newest + JUMP}) NOT VALID"
        )
    with conn.begin():
        conn.exec_driver_sql(f"ALTER TABLE event VALIDATE CONSTRAINT {FIRST}")


def _make(conn: Connection, low: int, high: int) -> None:
    """Make one piece. It is attached, not made as a piece: that would keep everybody from reading the log."""
    name = f"event_{low}"
    conn.exec_driver_sql(f"CREATE TABLE {name} (LIKE event)")
    conn.exec_driver_sql(
        f"ALTER TABLE {name} ADD CONSTRAINT uq_{name}_device_row_seq UNIQUE (device_row, seq)"
    )
    conn.exec_driver_sql(
        f"ALTER TABLE event ATTACH PARTITION {name} FOR VALUES FROM ({low}) TO ({high})"
    )
