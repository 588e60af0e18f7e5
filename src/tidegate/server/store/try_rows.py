"""Statements about what was tried too often. No decision is made here."""

from sqlalchemy import Connection, delete, insert, select, update

from tidegate.server.store.account_tables import tried


def quiet_at(conn: Connection, source_sha256: str) -> int:
    """Return when a source will have been quiet for long enough, in unix milliseconds; 0 = nothing is known of it."""
    asked = select(tried.c.quiet_ms).where(tried.c.source_sha256 == source_sha256)
    return int(conn.execute(asked).scalar() or 0)


def put(conn: Connection, source_sha256: str, quiet_ms: int) -> None:
    """Put down when a source will have been quiet for long enough."""
    at = tried.c.source_sha256 == source_sha256
    if not conn.execute(update(tried).where(at).values(quiet_ms=quiet_ms)).rowcount:
        conn.execute(insert(tried).values(source_sha256=source_sha256, quiet_ms=quiet_ms))


def drop(conn: Connection, source_sha256: str) -> None:
    """Forget a source."""
    conn.execute(delete(tried).where(tried.c.source_sha256 == source_sha256))


def drop_over(conn: Connection, now_ms: int) -> None:
    """Forget sources that have been quiet for long enough."""
    conn.execute(delete(tried).where(tried.c.quiet_ms <= now_ms))
