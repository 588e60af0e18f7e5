"""What changed, told twice: as a row for other processes, and in this one as soon as the transaction is durable."""

from collections.abc import Callable

from sqlalchemy import Connection, insert

from tidegate.server.store import Change
from tidegate.server.store.tables import change as change_table

_CHANGES = "tidegate.changes"
_HOOKS = "tidegate.hooks"
_ROWS_LATER = "tidegate.rows_later"


def bump(conn: Connection, kind: str, key: str, now: int) -> None:
    """Note in this transaction that `kind` `key` changed. Subscribers of the store hear of it after the commit."""
    if _ROWS_LATER not in conn.info:
        conn.execute(insert(change_table).values(at=now, kind=kind, key=key))
    notify(conn, kind, key)


def notify(conn: Connection, kind: str, key: str) -> None:
    """Tell the store's subscribers. A row is written only where other processes have to hear of it, and then one for all that a commit holds."""
    conn.info.setdefault(_CHANGES, []).append(Change(kind, key))


def after_commit(conn: Connection, hook: Callable[[], None]) -> None:
    """Run `hook` on the writer's thread once this transaction is durable, and not at all when it is undone. It must not raise."""
    conn.info.setdefault(_HOOKS, []).append(hook)


def mark(conn: Connection) -> tuple[int, int]:
    """Return where the lists stand now, for `undo`."""
    info = conn.info
    return len(info.get(_CHANGES, ())), len(info.get(_HOOKS, ()))


def undo(conn: Connection, position: tuple[int, int]) -> None:
    """Forget what was noted since `mark`: that part of the transaction was undone."""
    del conn.info.setdefault(_CHANGES, [])[position[0] :]
    del conn.info.setdefault(_HOOKS, [])[position[1] :]


def begin(conn: Connection, *, rows_later: bool) -> None:
    """Forget what is noted on a connection: a transaction begins.

    Args:
        conn: the writer's.
        rows_later: the store writes the rows, from `noted`, one for all that a transaction holds: other processes follow them.
    """
    info = conn.info
    info[_CHANGES], info[_HOOKS] = [], []
    if rows_later:
        info[_ROWS_LATER] = True


def noted(conn: Connection) -> tuple[Change, ...]:
    """Return everything noted so far, each change once."""
    return tuple(dict.fromkeys(conn.info.get(_CHANGES, ())))


def taken(conn: Connection) -> tuple[tuple[Change, ...], list[Callable[[], None]]]:
    """Return everything noted, each change once, and what is to be called after the commit."""
    return noted(conn), conn.info.get(_HOOKS, [])
