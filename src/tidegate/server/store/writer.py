"""What both stores do alike: one writer thread with group commit, and telling whoever wants to know what was changed.

Everything that waits when the writer is free goes into one transaction, each piece of work under its own savepoint, and is acknowledged after one commit:
cheap and durable at once. Not decided here: what the work is, and how a database begins, commits and fails.
"""

import abc
import functools
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any, Final, TypeVar

from sqlalchemy import Connection

from tidegate.core.errors import BusyError
from tidegate.server.store import Change, changes
from tidegate.server.store.origin import carried
from tidegate.server.store.raw import Raw, raw_connection
from tidegate.server.store.scope import Scope
from tidegate.server.store.timing import Timing

T = TypeVar("T")
Work = Callable[[Connection], Any]
#: Waiting work: what is urgent first, then in the order of asking; no work at all = the end.
Job = tuple[int, int, Work | None, "Future[Any]"]

#: Nothing is added to a transaction after so many seconds: what is urgent, and other processes, wait for it.
GROUP_S: Final = 0.1
_URGENT, _USUAL, _LAST = range(3)
_log = logging.getLogger("tidegate.store")


class Writer(abc.ABC):
    """The part of a `Store` that writes. A back end says how, in the methods that are abstract here, and calls `start` when it is made."""

    #: Most pieces of work in one transaction: bounds how long the first of them waits for its acknowledgement.
    group_max = 512

    def __init__(self, scope: Scope) -> None:
        """Nothing waits, and nobody listens."""
        self.scope = scope
        self._jobs: queue.PriorityQueue[Job] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._listeners: list[Callable[[tuple[Change, ...]], None]] = []
        #: How long its transactions took.
        self.commits = Timing()
        self._telling = threading.Lock()
        self._guard = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)

    # --- what a back end says ---

    @abc.abstractmethod
    def _writing(self) -> AbstractContextManager[Connection]:
        """Enter a transaction, committed at the end and undone when it raises; entered anew for each group, on a connection of which nothing is noted."""

    @abc.abstractmethod
    def _translated(self) -> AbstractContextManager[None]:
        """Turn a database's words into ours, each with a code and a remedy."""

    @abc.abstractmethod
    def _stands(self, conn: Connection) -> bool:
        """Say whether a transaction in which something failed can go on."""

    @abc.abstractmethod
    def _leave(self, raw: Raw) -> None:
        """Leave the savepoint `work`."""

    @abc.abstractmethod
    def _note(self, conn: Connection) -> None:
        """Do what comes last in a transaction."""

    @abc.abstractmethod
    def _release(self) -> None:
        """Let go of what only the writer's thread has, as its last act."""

    # --- what they have in common ---

    def write(self, work: Callable[[Connection], T], *, urgent: bool = False) -> "Future[T]":
        """Queue `work` for the writer; see `Store.write`.

        Raises:
            BusyError: `server.busy`: the store is closing.
        """
        future: Future[T] = Future()
        with self._guard:
            if self._closed:
                raise BusyError("server.busy", "the server is stopping")
            order = _URGENT if urgent else _USUAL
            self._jobs.put((order, next(self._numbers), carried(work), future))
        return future

    @property
    def waiting(self) -> int:
        """How many pieces of work wait for the writer, about."""
        return self._jobs.qsize()

    @property
    def alive(self) -> bool:
        """Say whether there is still a writer."""
        return self._thread.is_alive()

    def subscribe(self, listener: Callable[[tuple[Change, ...]], None]) -> None:
        """See `Store.subscribe`. A listener that raises is logged and goes on being called."""
        self._listeners.append(listener)

    def _finish(self) -> bool:
        """Do what is queued and end the thread; False = that was done before."""
        with self._guard:
            if self._closed:
                return False
            self._closed = True
            self._jobs.put((_LAST, 0, None, Future()))
        self._thread.join()
        return True

    def _run(self) -> None:
        try:
            while True:
                _, _, work, future = self._jobs.get()
                if work is None:
                    return
                self._commit(work, future)
        finally:
            self._release()

    def _commit(self, work: Work, future: "Future[Any]") -> None:
        """Do a piece of work, and what else waits, in one transaction."""
        batch = [future]
        done: list[tuple[Future[Any], Any]] = []
        began = time.monotonic()
        told: tuple[tuple[Change, ...], list[Callable[[], None]]] = (), []
        try:
            with self._writing() as conn:
                for each, waits in self._group(work, future):
                    if waits is not future:
                        batch.append(waits)
                    if waits.set_running_or_notify_cancel():
                        self._perform(conn, each, waits, done)
                self._note(conn)
                told = changes.taken(conn)
        except BaseException as error:  # noqa: BLE001 - whatever it was, nothing of the group is acknowledged: each waiter must hear it
            for waits in batch:
                if not waits.done():
                    waits.set_exception(error)
            return
        self.commits.add(time.monotonic() - began, len(batch))
        self._hear(*told)
        for waits, result in done:
            waits.set_result(result)

    def _group(self, work: Work, future: "Future[Any]") -> Iterator[tuple[Work, "Future[Any]"]]:
        """Yield a piece of work, then what waits or comes while it is done, up to the bounds of a group."""
        end = time.monotonic() + GROUP_S
        yield work, future
        for _ in range(self.group_max - 1):
            if time.monotonic() > end:
                return
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            if job[2] is None:
                self._jobs.put(job)
                return
            yield job[2], job[3]

    def _perform(
        self,
        conn: Connection,
        work: Work,
        future: "Future[Any]",
        done: list[tuple["Future[Any]", Any]],
    ) -> None:
        """Run one piece of work under a savepoint, so that its failure undoes only itself."""
        raw = raw_connection(conn)
        raw.execute("SAVEPOINT work")
        position = changes.mark(conn)
        try:
            with self._translated():
                result = work(conn)
        except BaseException as error:
            if not self._stands(conn):
                raise
            raw.execute("ROLLBACK TO SAVEPOINT work")
            self._leave(raw)
            changes.undo(conn, position)
            if not isinstance(error, Exception):
                raise
            future.set_exception(error)
            return
        self._leave(raw)
        done.append((future, result))

    def _hear(self, changed: tuple[Change, ...], hooks: Sequence[Callable[[], None]] = ()) -> None:
        """Call listeners, then hooks. One thread at a time: whoever comes later has read what is newer."""
        calls: list[Callable[[], None]] = []
        if changed:
            calls += [functools.partial(one, changed) for one in self._listeners]
        with self._telling:
            for call in (*calls, *hooks):
                try:
                    call()
                except Exception:  # noqa: BLE001  # one listener must not hurt the others
                    _log.exception("a listener of the store failed")
