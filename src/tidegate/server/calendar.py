"""The server's expiry calendar: every published document and every accepted grant, from the database."""

from functools import lru_cache
from typing import Final

from tidegate.core.accept import alone
from tidegate.core.calendar import Due, Entry, due_of, entries
from tidegate.core.metadata import parse_root, parse_targets, root_extra
from tidegate.server.store import Connection, grant_rows, release_queries

_ONLINE: Final = ("snapshot", "timestamp")


def calendar(conn: Connection, now: int) -> tuple[Entry, ...]:
    """Return what lapses when, the earliest first.

    Args:
        conn: a reading connection.
        now: unix seconds.
    """
    dues = [_due(row) for row in release_queries.ends(conn)]
    dues += [
        Due(role=f"grant/{product}-{serial}", version=serial, expires_at=expires_at)
        for product, serial, expires_at in grant_rows.in_force(conn, now)
    ]
    return entries(dues, now)


def _due(row: release_queries.EndRow) -> Due:
    if row.role not in _ONLINE:
        return due_of(row.role, row.version, row.expires_at)
    return Due(
        role=row.role,
        version=row.version,
        expires_at=row.expires_at,
        keeper="server",
        renew_at=(row.created_at + row.expires_at) // 2,
        fix="start the server: it renews it by itself",
    )


def one_signer(conn: Connection) -> tuple[str, ...]:
    """Return the products that one person can release to everybody; none under a lab root, where one person holds everything anyway, and it says so."""
    root = release_queries.newest_document(conn, "root")
    row = release_queries.newest_document(conn, "targets")
    return _alone(root.body, row.body) if root is not None and row is not None else ()


@lru_cache(maxsize=4)
def _alone(root: bytes, targets: bytes) -> tuple[str, ...]:
    """Read them once; they change a few times a year."""
    return () if root_extra(parse_root(root)).lab else alone(parse_targets(targets))
