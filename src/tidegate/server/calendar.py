"""The server's expiry calendar: every published document and every accepted grant, from the database."""

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
    root = release_queries.newest_document(conn, "root")
    kept = [*([root] if root is not None else []), *release_queries.newest_offline(conn)]
    dues = [due_of(row.role, row.version, row.expires_at) for row in kept]
    for role in _ONLINE:
        row_ = release_queries.newest_document(conn, role)
        if row_ is not None:
            dues.append(
                Due(
                    role=role,
                    version=row_.version,
                    expires_at=row_.expires_at,
                    keeper="server",
                    renew_at=(row_.created_at + row_.expires_at) // 2,
                    fix="start the server: it renews it by itself",
                )
            )
    dues += [
        Due(role=f"grant/{product}-{serial}", version=serial, expires_at=expires_at)
        for product, serial, expires_at in grant_rows.in_force(conn, now)
    ]
    return entries(dues, now)


def one_signer(conn: Connection) -> tuple[str, ...]:
    """Return the products that one person can release to everybody; none under a lab root, where one person holds everything anyway, and it says so."""
    root = release_queries.newest_document(conn, "root")
    row = release_queries.newest_document(conn, "targets")
    if root is None or row is None or root_extra(parse_root(root.body)).lab:
        return ()
    return alone(parse_targets(row.body))
