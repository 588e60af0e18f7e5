"""What changed, told twice: as a row for other replicas, and in this process as soon as the transaction is durable."""

from collections.abc import Callable

from sqlalchemy import Connection, insert

from tidegate.server.store import Change
from tidegate.server.store.tables import change as change_table

_CHANGES = "tidegate.changes"
_HOOKS = "tidegate.hooks"


def bump(conn: Connection, kind: str, key: str, now: int, tenant: str = "default") -> None:
    """Note in this transaction that `kind` `key` changed. Subscribers of the store hear of it after the commit."""
    conn.execute(insert(change_table).values(tenant=tenant, at=now, kind=kind, key=key))
    notify(conn, kind, key)


def notify(conn: Connection, kind: str, key: str) -> None:
    """Tell this process's subscribers alone, without a row: for what happens too often to be told to other replicas one by one."""
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


def take(conn: Connection) -> tuple[tuple[Change, ...], list[Callable[[], None]]]:
    """Return everything noted, each change once, and forget it."""
    changes = tuple(dict.fromkeys(conn.info.pop(_CHANGES, ())))
    return changes, conn.info.pop(_HOOKS, [])
