"""The store: one unit-of-work API over SQLite (one writer thread, group commit) and, later, PostgreSQL.

Domain code is synchronous functions of a connection. `write` runs one on the writer inside a transaction and returns a future that is done when the commit is
durable; what it returned was acknowledged. `read` runs one on a snapshot.
"""

from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple, Protocol, TypeVar

from sqlalchemy import Connection as Connection

T = TypeVar("T")


class Change(NamedTuple):
    """Something was changed by a committed transaction: `kind` as in the table `change`, `key` its name or row."""

    kind: str
    key: str


class Store(Protocol):
    """Where all state lives. Safe to call from any thread."""

    def write(self, work: Callable[[Connection], T], *, urgent: bool = False) -> "Future[T]":
        """Queue `work` for the writer; what is urgent goes before what waits already.

        The future carries its result after the commit is durable, or what it raised (its own changes undone).
        """
        ...

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on a read-only snapshot, in the calling thread."""
        ...

    def subscribe(self, listener: Callable[[tuple["Change", ...]], None]) -> None:
        """Have `listener` called with what changed: after the commit and before its futures are done, on the writer's thread."""
        ...

    def close(self) -> None:
        """Finish what is queued, then close."""
        ...
