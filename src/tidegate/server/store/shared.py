"""Several server processes on one database: what the others changed, and how old a process's view may be.

The database lets one transaction write at a time and keeps it whole; what is decided in a transaction needs nothing of this. Memory does: who may ask, what a
poll hints at, what is published. So each process

- writes what it changed into the table `change`, in the same transaction, and **follows** what the others wrote there;
- holds a **lease** on what it has in memory: `fresh` is false once it could not look for `LEASE_S`, and then it lets nobody begin anything;
- **settles** what a person did: the answer waits until every living process has seen it, or its lease has run out.

It also remembers the newest change that it knows to be committed. A database in which that is not so has **gone back** in time: a standby took over that had
not got everything, or a backup was put in its place. Then this process is not fresh until its writer has held everything (`setback`).

So staleness may delay a start and never a stop. A lease goes by a clock of its process that nobody sets and that runs on while the machine sleeps: a step of
the wall clock changes nothing here. Who else there is, and who of them is alive, is known by files on one machine (`shared_files`) and by rows on PostgreSQL
(`shared_rows`).
"""

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final, Protocol

from tidegate.server.store import Change, scope
from tidegate.server.store.raw import Raw

#: How long a process may answer by what it has in memory without having looked, in seconds.
LEASE_S: Final = 5.0
#: How long a start is waited for, in seconds.
START_S: Final = 120.0
#: Rows of `change` that are kept for those who follow. Who is further behind reads everything anew.
KEPT: Final = 100_000
#: What a listener hears who may have missed something.
RESYNC: Final = Change("resync", "")
#: After a look that failed, in seconds; and between two looks at how far the others are.
_AGAIN_S: Final = 0.5
_SETTLE_S: Final = 0.01
_ROWS_MAX: Final = 10_000
_ROWS: Final = "SELECT seq, at, kind, key FROM change"
#: A row of `change`, and so what a number stands for: number, unix seconds, kind, key.
ChangeRow = tuple[int, int, str, str]
_ADD: Final = "INSERT INTO change (tenant, seq, at, kind, key) VALUES (?, ?, ?, ?, ?)"
_log = logging.getLogger("tidegate.store")


def clock_s() -> float:
    """Return the time by the clock of leases, in seconds since some moment."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def put_changes(raw: Raw, tenant: str, first: int, changed: tuple[Change, ...]) -> ChangeRow:
    """Write what a transaction changed, as rows from that number on; return the last one. Those that nobody needs any more go."""
    at = int(time.time())
    raw.executemany(_ADD, [(tenant, first + n, at, *one) for n, one in enumerate(changed)])
    last = first + len(changed) - 1
    if first // 1_000 != last // 1_000:
        raw.execute("DELETE FROM change WHERE seq <= ?", (last - KEPT,))
    return last, at, changed[-1].kind, changed[-1].key


def row_of(raw: Raw, seq: int) -> ChangeRow | None:
    """Return a change by its number; None = it is not there."""
    found = raw.execute(f"{_ROWS} WHERE seq = ?", (seq,)).fetchone()
    return None if found is None else (int(found[0]), int(found[1]), str(found[2]), str(found[3]))


class Ground(Protocol):
    """How the processes on one database find one another."""

    def went_back(self, raw: Raw, mark: ChangeRow | None) -> bool:
        """Say whether something is not there that was committed: the change `mark`, or what this process said of itself."""
        ...

    def forget(self) -> None:
        """Forget what this process said of itself: that is not so any more."""
        ...

    def look(self) -> AbstractContextManager[Raw]:
        """Open a connection for looking, outside of any transaction."""
        ...

    def newest(self, raw: Raw) -> int:
        """Return the number of the newest change that there ever was; rows may be gone."""
        ...

    def join(self) -> None:
        """Have the others know of this process."""
        ...

    def changed(self, raw: Raw) -> bool:
        """Say whether something may have been committed since this was last asked."""
        ...

    def confirm(self, raw: Raw, seq: int) -> bool:
        """Say to the others that everything up to `seq` is seen here, and that this process lives; False = it was said not long ago, and is not said again."""
        ...

    def behind(self, seq: int) -> int:
        """Return how many other processes have not seen `seq` and may live by what was before."""
        ...

    def pause(self, raw: Raw, stopping: threading.Event) -> None:
        """Wait until it is time to look again."""
        ...

    def wake(self) -> None:
        """End a pause; from any thread."""
        ...

    def leave(self) -> None:
        """Have the others forget this process."""
        ...


class Shared:
    """What one process knows of the others. Made by the store; `follow` starts the thread that looks."""

    def __init__(
        self,
        ground: Ground,
        tell: Callable[[tuple[Change, ...]], None],
        tenant: str = scope.DEFAULT,
        alarm: Callable[[], object] = lambda: None,
    ) -> None:
        """Take part. What is read into memory afterwards is kept as others change it, from `follow` on.

        Args:
            ground: of a database whose schema is current.
            tell: is told what others changed, on the thread that follows.
            tenant: whose database it is.
            alarm: is called on that thread as long as the database has gone back; it has the writer go to the database.
        """
        self._tenant = tenant
        self._ground = ground
        self._tell = tell
        self._alarm = alarm
        self._back = False
        self._own: deque[tuple[int, int]] = deque()
        self._noted: tuple[int, int] | None = None
        self._noted_row: ChangeRow | None = None
        self._written = 0
        self._settled = 0
        self._anew = False
        self._joined = False
        with ground.look() as raw:
            self._seen = ground.newest(raw)
            self._mark = row_of(raw, self._seen)
        self._fresh_until = 0.0
        self._stopping = threading.Event()
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store-follower", daemon=True)

    @property
    def seen(self) -> int:
        """Return the number of the newest change that was seen here."""
        return self._seen

    @property
    def fresh(self) -> bool:
        """Say whether this process may answer by what it has in memory."""
        return clock_s() < self._fresh_until and not self._back

    def follow(self) -> None:
        """Begin to follow. On return this process is known to the others, and has seen what they did so far."""
        self._ground.join()
        self._joined = True
        self._thread.start()
        self._begun.wait(START_S)

    def note(self, raw: Raw, changed: tuple[Change, ...]) -> None:
        """Write what a transaction changed into it, for the others; once, as the last thing before its commit."""
        if not changed:
            return
        first = self._ground.newest(raw) + 1
        self._noted_row = put_changes(raw, self._tenant, first, changed)
        self._noted = (first, self._noted_row[0])
        self._own.append(self._noted)  # before the commit: the thread that follows may be faster

    def done(self, *, committed: bool) -> None:
        """Say what became of the transaction, while nobody else can write: of one that was undone, others get the numbers."""
        noted, self._noted = self._noted, None
        if noted is None:
            return
        if committed:
            self._written = noted[1]
            self._remember(self._noted_row)
        else:
            with contextlib.suppress(ValueError):
                self._own.remove(noted)

    def doubt(self) -> None:
        """Say that nobody knows what became of the transaction, or that others may have written meanwhile: everything is read anew, as soon as that goes."""
        self.done(committed=False)
        self._anew = True

    def went_back(self, raw: Raw) -> bool:
        """Look whether the database is one that went back in time; once found, that stands until `held`.

        Args:
            raw: a connection of which that is not known yet.
        """
        if not self._back and self._ground.went_back(raw, self._mark):
            _log.error("the database went back in time: changes that were committed are not in it")
            self._back = True
        return self._back

    def held(self) -> None:
        """Say that everything was held in the database that went back, and that this is committed; what is in memory is read anew before anybody begins."""
        self._fresh_until = 0.0
        self._settled = 0
        self._own.clear()
        self._ground.forget()
        self._mark = self._noted_row
        self._anew = True
        self._back = False

    def _remember(self, row: ChangeRow | None) -> None:
        """Remember a change that is committed, where it is newer than what is remembered."""
        mark = self._mark
        if row is not None and (mark is None or row[0] > mark[0]):
            self._mark = row

    def settle(self) -> None:
        """Wait until every living process has seen what was committed here, or may not answer by what it had before.

        A lease is over `LEASE_S` after a look that began before the commit, whatever became of the process. Where nothing was committed since it was waited for
        last, nobody is asked: what is refused while the database is away is refused at once.
        """
        if not self._joined:
            return
        seq, end = self._written, clock_s() + LEASE_S
        if seq == self._settled:
            return
        while clock_s() < end and self._ground.behind(seq):
            time.sleep(_SETTLE_S)
        self._settled = seq

    def close(self) -> None:
        """Stop following, and leave."""
        self._stopping.set()
        if self._joined:
            self._ground.wake()
            self._thread.join()
            self._ground.leave()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._ground.look() as raw:
                    self._look(raw)
            except Exception:  # noqa: BLE001 - whatever it was: until a look goes well, nobody begins anything
                _log.warning("what other processes changed could not be read", exc_info=True)
                self._begun.set()
                self._stopping.wait(_AGAIN_S)

    def _look(self, raw: Raw) -> None:
        """Look for as long as the connection holds. A database goes back only beneath a connection that breaks."""
        while self.went_back(raw):
            self._alarm()
            self._begun.set()
            if self._stopping.wait(_AGAIN_S):
                return
        while not self._stopping.is_set():
            began = clock_s()
            if self._anew:
                self._anew = False
                self._seen = self._ground.newest(raw)
                self._tell((RESYNC,))
            if self._ground.changed(raw):
                self._take(raw)
            if self._ground.confirm(raw, self._seen):
                self._fresh_until = began + LEASE_S
            self._begun.set()
            self._ground.pause(raw, self._stopping)

    def _take(self, raw: Raw) -> None:
        """Read what was committed since, and tell what others did."""
        while True:
            found = raw.execute(
                f"{_ROWS} WHERE seq > ? ORDER BY seq LIMIT ?", (self._seen, _ROWS_MAX)
            ).fetchall()
            if not found:
                return
            changed = [Change(kind, key) for seq, _, kind, key in found if not self._is_own(seq)]
            if found[0][0] != self._seen + 1:  # what was in between is gone
                changed = [RESYNC]
            if changed:
                self._tell(tuple(dict.fromkeys(changed)))
            self._seen = found[-1][0]
            self._remember(tuple(found[-1]))

    def _is_own(self, seq: int) -> bool:
        """Say whether this process wrote a row, and forget about those before it."""
        while self._own and self._own[0][1] < seq:
            self._own.popleft()
        return bool(self._own) and self._own[0][0] <= seq
