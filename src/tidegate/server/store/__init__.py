"""The store: one unit-of-work API over SQLite and PostgreSQL, one writer thread with group commit in each.

Domain code is synchronous functions of a connection. `write` runs one on the writer inside a transaction and returns a future that is done when the commit is
durable; what it returned was acknowledged. `read` runs one on a snapshot.
"""

from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple, Protocol, TypeVar

from sqlalchemy import Connection as Connection

from tidegate.server.store.scope import Scope
from tidegate.server.store.timing import Timing

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

    @property
    def scope(self) -> Scope:
        """Return whose database it is, and what may be taken there."""
        ...

    @property
    def waiting(self) -> int:
        """How many pieces of work wait for the writer, about."""
        ...

    @property
    def commits(self) -> Timing:
        """How long its transactions took."""
        ...

    @property
    def alive(self) -> bool:
        """Say whether there is still a writer."""
        ...

    @property
    def seen(self) -> int | None:
        """Return the number of the newest change of other processes that was seen here; None where there are no others."""
        ...

    def on_setback(self, hold: Callable[[Connection], object]) -> None:
        """Say what is to be done, before anything else, in a database that is found to have gone back in time beneath this process."""
        ...

    def follow(self) -> None:
        """Begin to tell subscribers what other processes on this database change; nothing to do where there are none."""
        ...

    @property
    def shared(self) -> bool:
        """Say whether other processes may use this database."""
        ...

    @property
    def fresh(self) -> bool:
        """Say whether what subscribers keep in memory is as the database is, but for a few seconds at most."""
        ...

    @property
    def ahead_s(self) -> int:
        """Return how far this machine's clock is ahead of the database's, in seconds, as it was seen last; 0 where the database is here."""
        ...

    def settle(self) -> None:
        """Wait until what was committed here counts in every process: it has been seen there, or nothing is begun there by what was before."""
        ...

    def close(self) -> None:
        """Finish what is queued, then close."""
        ...
