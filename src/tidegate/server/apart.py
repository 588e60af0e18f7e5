"""Counting apart those whom a query keeps out of a rollout (`rollout.keeping`): their outcomes leave the evidence of the others, and come back when they do.

An update of theirs is counted under the text of the query in place of its variant. That is done after the isolation, in steps: who is kept out is decided by
the query itself, whatever has been counted yet.
"""

import functools
from typing import Any, Final

from tidegate.rollout import keeping
from tidegate.server import outcomes
from tidegate.server.groups import Book
from tidegate.server.store import Connection, Store, admin_rollouts, changes, hot

Row = dict[str, Any]
#: Updates that are counted anew in one transaction.
STEP: Final = 500


def misplaced(conn: Connection, row: Row, now: int) -> list[tuple[str, str]]:
    """Return (update, the name to count it under) of everyone who is not counted where they belong. Reads every update of the rollout: on a snapshot.

    Args:
        conn: any connection.
        row: of the rollout.
        now: unix seconds.
    """
    entries = keeping.queries(row["isolated"])
    book = Book(conn) if entries else None
    found: list[tuple[str, str]] = []
    for one in admin_rollouts.updates_with_devices(conn, int(row["id"]), marked=not entries):
        attrs = book.attributes(one, now) if book is not None else {}
        name = keeping.kept_out(entries, "", attrs) or str(one["variant"])
        if name != one["counted_as"]:
            found.append((str(one["update_id"]), name))
    return found


def count_all(store: Store, rollout_id: int, now: int) -> list[tuple[str, str]]:
    """Have everybody of a rollout counted where they belong, in steps; return who was not. Safe to repeat."""

    def wrong(conn: Connection) -> list[tuple[str, str]]:
        row = admin_rollouts.rollout_by_id(conn, rollout_id)
        return misplaced(conn, row, now) if row is not None else []

    moves = store.read(wrong)
    for start in range(0, len(moves), STEP):
        part = moves[start : start + STEP]
        store.write(functools.partial(count_anew, moves=part)).result()
    return moves


def is_stray(conn: Connection, rollout_id: int) -> bool:
    """Say whether anybody is counted under a query that keeps nobody out any more: whoever was to count them anew was ended before."""
    under = {
        variant
        for _, variant, what, value in hot.tallies(conn, rollout_id)
        if variant.startswith(keeping.MARK) and what == "offered" and value
    }
    row = admin_rollouts.rollout_by_id(conn, rollout_id) if under else None
    return row is not None and not under <= set(row["isolated"])


def count_anew(conn: Connection, moves: list[tuple[str, str]]) -> None:
    """Count updates under other names, in one transaction on the writer. Safe to repeat."""
    for update_id, name in moves:
        old = hot.update_by_id(conn, update_id)
        if old is None or old.variant == name:
            continue
        hot.put_update(conn, old._replace(variant=name))
        for variant, sign in ((old.variant, -1), (name, 1)):
            steps = [(what, sign * by) for what, by in outcomes.contributions(old).items()]
            hot.add_tally(conn, old.tenant, (old.rollout_id, old.ring, variant), steps)
        if old.permitted_at is not None:
            key = (old.rollout_id, old.ring, name)
            hot.raise_tally(conn, old.tenant, key, "last_permit_at", old.permitted_at)
        changes.notify(conn, "update", str(old.rollout_id))
        changes.notify(conn, "device", str(old.device_row))
