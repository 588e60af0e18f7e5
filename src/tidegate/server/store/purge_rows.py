"""What is counted before a tenant's database is destroyed. No decision is made here."""

from typing import Final

from sqlalchemy import Connection, func, select

from tidegate.server.store import tables as t

_COUNTED: Final = {
    "accounts": t.account,
    "releases": t.release,
    "rollouts": t.rollout,
    "events": t.event,
}


def counts(conn: Connection) -> dict[str, int]:
    """Return how many rows there are of what people know by name."""
    return {
        name: int(conn.execute(select(func.count()).select_from(table)).scalar_one())
        for name, table in _COUNTED.items()
    }
