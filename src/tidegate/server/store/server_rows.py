"""Which online keys the servers of a database have."""

from typing import Final

from sqlalchemy import Connection, insert, select, update

from tidegate.server.store.server_tables import online_key

_NAME: Final = "online"


def keys_held(conn: Connection) -> str | None:
    """Return the digest of the keys that servers of this database have, or None: nobody has said so yet."""
    found: str | None = conn.execute(
        select(online_key.c.digest).where(online_key.c.name == _NAME)
    ).scalar()
    return found


def first_keys(conn: Connection, digest: str, now: int) -> str:
    """Return the digest that is held: this one, where nobody was first."""
    held = keys_held(conn)
    if held is None:
        hold_keys(conn, digest, now)
    return held or digest


def hold_keys(conn: Connection, digest: str, now: int) -> None:
    """Note that these are the keys from now on."""
    values = {"digest": digest, "at": now}
    if keys_held(conn) is None:
        conn.execute(insert(online_key).values(name=_NAME, **values))
    else:
        conn.execute(update(online_key).where(online_key.c.name == _NAME).values(**values))
