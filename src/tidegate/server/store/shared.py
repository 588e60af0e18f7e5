"""Several server processes on one SQLite database: whose turn it is to write, what the others changed, and how old a process's view may be.

The database itself lets one write at a time and keeps every transaction whole; what is decided in a transaction needs nothing of this. Memory does: who may
ask, what a poll hints at, what is published. So each process

- takes its **turn** to write in the order of asking: SQLite alone lets whoever wakes up first go ahead, and a halt might wait behind busy neighbours;
- writes what it changed into the table `change`, in the same transaction, and **follows** what the others wrote there;
- holds a **lease** on what it has in memory: `fresh` is false once it could not look for `LEASE_S`, and then it lets nobody begin anything;
- **settles** what a person did: the answer waits until every living process has seen it, or its lease has run out.

So staleness may delay a start and never a stop. Locks are the kernel's, on files: they end with the process that holds them, and need no clock. The lease
goes by the monotonic clock, which processes of one machine share; a step of the wall clock changes nothing here.
"""

import contextlib
import fcntl
import logging
import os
import sqlite3
import struct
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from tidegate.core.errors import BusyError, ConfigError
from tidegate.server.store import Change
from tidegate.server.store.raw import Raw

FOLDER: Final = "shared"
#: How long a process may answer by what it has in memory without having looked, in seconds.
LEASE_S: Final = 5.0
#: How often it looks, in seconds.
LOOK_S: Final = 0.05
#: How long a turn, and a start, is waited for, in seconds.
TURN_S: Final = 10.0
#: How long a turn is waited for after one that did not come, in seconds.
AGAIN_S: Final = 1.0
START_S: Final = 120.0
#: Rows of `change` that are kept for those who follow. Who is further behind reads everything anew.
KEPT: Final = 100_000
#: What a listener hears who may have missed something.
RESYNC: Final = Change("resync", "")
_PAUSE_S: Final = 0.0005
_ROWS_MAX: Final = 10_000
_SEQ: Final = struct.Struct("<Q")
_ADD: Final = "INSERT INTO change (seq, at, kind, key) VALUES (?, ?, ?, ?)"
_log = logging.getLogger("tidegate.store")


def make_folder(data_dir: Path) -> Path:
    """Return the folder of the locks, made where it is missing.

    Raises:
        ConfigError: `data.read_only`.
    """
    folder = data_dir / FOLDER
    try:
        (folder / "peers").mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError("data.read_only", f"{folder}: {error.strerror}") from error
    return folder


@contextlib.contextmanager
def starting(data_dir: Path) -> Iterator[None]:
    """Let one process at a time open a shared data directory: it may have to make keys, or bring the schema up to date.

    Raises:
        BusyError: `data.locked`: another one has been starting for `START_S`. ConfigError: `data.read_only`.
    """
    lock = os.open(make_folder(data_dir) / "start", _FLAGS, 0o600)
    try:
        busy = BusyError("data.locked", f"{data_dir}: another server is starting")
        _lock(lock, time.monotonic() + START_S, busy)
        yield
    finally:
        os.close(lock)


_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC


def _lock(lock: int, end: float, busy: BusyError) -> None:
    """Wait for a lock until a time on the monotonic clock, and not for ever: its holder may be stopped in the middle."""
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise busy from None
            time.sleep(_PAUSE_S)
        else:
            return


class Turn:
    """The order in which processes write: whoever has waited goes before whoever has just been.

    Two locks make it so: the one who is next holds the first while it waits for the second. Both together are waited for `TURN_S`, once: as long as somebody
    holds the database who does not go on, whoever comes later is told so after `AGAIN_S`, instead of after all that waited before it.
    """

    def __init__(self, folder: Path) -> None:
        """Open the locks in `folder`."""
        self._next = os.open(folder / "next", _FLAGS, 0o600)
        self._turn = os.open(folder / "turn", _FLAGS, 0o600)
        self._patience_s = TURN_S

    def __enter__(self) -> None:
        """Wait for the turn.

        Raises:
            BusyError: `server.busy`: another process has been writing for `TURN_S`.
        """
        busy = BusyError("server.busy", "another process of this server holds the database")
        end, self._patience_s = time.monotonic() + self._patience_s, AGAIN_S
        _lock(self._next, end, busy)
        try:
            _lock(self._turn, end, busy)
        finally:
            fcntl.flock(self._next, fcntl.LOCK_UN)
        self._patience_s = TURN_S

    def __exit__(self, *_: object) -> None:
        """Let the next one write."""
        fcntl.flock(self._turn, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close both."""
        os.close(self._next)
        os.close(self._turn)


class Peers:
    """Who else serves this directory, and how far each has followed: a locked file for every process, with a number in it."""

    def __init__(self, folder: Path) -> None:
        """Add this process."""
        self._folder = folder / "peers"
        self._name = uuid.uuid4().hex
        made = self._folder / f".{self._name}"
        self._file = os.open(made, _FLAGS, 0o600)
        os.pwrite(self._file, _SEQ.pack(0), 0)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        # under its name only when it is locked: an unlocked one is taken for dead
        made.replace(self._folder / self._name)

    def confirm(self, seq: int) -> None:
        """Say that everything up to `seq` is seen here."""
        os.pwrite(self._file, _SEQ.pack(seq), 0)

    def behind(self, seq: int) -> int:
        """Return how many living processes have not seen `seq` yet. What the dead left behind is removed."""
        return sum(
            not self._has_seen(path, seq)
            for path in self._folder.iterdir()
            if path.name != self._name and not path.name.startswith(".")
        )

    def _has_seen(self, path: Path, seq: int) -> bool:
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            found = os.pread(file, _SEQ.size, 0)
            return len(found) == _SEQ.size and _SEQ.unpack(found)[0] >= seq
        else:
            path.unlink(missing_ok=True)
            return True
        finally:
            os.close(file)

    def close(self) -> None:
        """Remove this process."""
        (self._folder / self._name).unlink(missing_ok=True)
        os.close(self._file)


def put_changes(raw: Raw, first: int, changed: tuple[Change, ...]) -> int:
    """Write what a transaction changed, as rows from that number on; return the last. Those that nobody needs any more go."""
    at = int(time.time())
    raw.executemany(_ADD, [(first + n, at, *one) for n, one in enumerate(changed)])
    last = first + len(changed) - 1
    if first // 1_000 != last // 1_000:
        raw.execute("DELETE FROM change WHERE seq <= ?", (last - KEPT,))
    return last


class Shared:
    """What one process knows of the others. Made by the store; `follow` starts the thread that looks."""

    def __init__(
        self,
        data_dir: Path,
        look: Callable[[], AbstractContextManager[sqlite3.Connection]],
        tell: Callable[[tuple[Change, ...]], None],
    ) -> None:
        """Take part. What is read into memory afterwards is kept as others change it, from `follow` on.

        Args:
            data_dir: of the store; its schema is current.
            look: opens a connection for reading.
            tell: is told what others changed, on the thread that follows.
        """
        self._folder = make_folder(data_dir)
        self.turn = Turn(self._folder)
        self._peers: Peers | None = None
        self._look = look
        self._tell = tell
        self._own: deque[tuple[int, int]] = deque()
        self._noted: tuple[int, int] | None = None
        self._written = 0
        with look() as raw:
            self._seen = _newest(raw)
        self._fresh_until = 0.0
        self._stopping = threading.Event()
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store-follower", daemon=True)

    @property
    def fresh(self) -> bool:
        """Say whether this process may answer by what it has in memory."""
        return time.monotonic() < self._fresh_until

    def follow(self) -> None:
        """Begin to follow. On return this process is known to the others, and has seen what they did so far."""
        self._peers = Peers(self._folder)
        self._thread.start()
        self._begun.wait(START_S)

    @property
    def seen(self) -> int:
        """Return the number of the newest change that was seen here."""
        return self._seen

    def note(self, raw: sqlite3.Connection, changed: tuple[Change, ...]) -> None:
        """Write what a transaction changed into it, for the others; once, as the last thing before its commit."""
        if not changed:
            return
        first = _newest(raw) + 1
        self._noted = (first, put_changes(raw, first, changed))
        self._own.append(self._noted)  # before the commit: the thread that follows may be faster

    def done(self, *, committed: bool) -> None:
        """Say what became of the transaction, while this process still has its turn: of one that was undone, others get the numbers."""
        noted, self._noted = self._noted, None
        if noted is None:
            return
        if committed:
            self._written = noted[1]
        else:
            self._own.remove(noted)

    def settle(self) -> None:
        """Wait until every living process has seen what was committed here, or may not answer by what it had before."""
        if self._peers is None:
            return
        seq, end = self._written, time.monotonic() + LEASE_S
        while self._peers.behind(seq) and time.monotonic() < end:
            time.sleep(LOOK_S / 5)

    def close(self) -> None:
        """Stop following, and leave."""
        self._stopping.set()
        if self._peers is not None:
            self._thread.join()
            self._peers.close()
        self.turn.close()

    def _run(self) -> None:
        version = -1
        with self._look() as raw:
            while not self._stopping.is_set():
                began = time.monotonic()
                try:
                    found = int(raw.execute("PRAGMA data_version").fetchone()[0])
                    if found != version:
                        self._take(raw)
                        version = found
                except sqlite3.Error:
                    _log.exception("what other processes changed could not be read")
                else:
                    self._fresh_until = began + LEASE_S
                self._begun.set()
                self._stopping.wait(LOOK_S)

    def _take(self, raw: sqlite3.Connection) -> None:
        """Read what was committed since, tell what others did, and confirm it."""
        while True:
            found = raw.execute(
                "SELECT seq, kind, key FROM change WHERE seq > ? ORDER BY seq LIMIT ?",
                (self._seen, _ROWS_MAX),
            ).fetchall()
            if not found:
                break
            changed = [Change(kind, key) for seq, kind, key in found if not self._is_own(seq)]
            if found[0][0] != self._seen + 1:  # what was in between is gone
                changed = [RESYNC]
            if changed:
                self._tell(tuple(dict.fromkeys(changed)))
            self._seen = found[-1][0]
        if self._peers is not None:
            self._peers.confirm(self._seen)

    def _is_own(self, seq: int) -> bool:
        """Say whether this process wrote a row, and forget about those before it."""
        while self._own and self._own[0][1] < seq:
            self._own.popleft()
        return bool(self._own) and self._own[0][0] <= seq


def _newest(raw: sqlite3.Connection) -> int:
    """Return the number of the newest change that there ever was; rows may be gone."""
    found = raw.execute("SELECT seq FROM sqlite_sequence WHERE name = 'change'").fetchone()
    return int(found[0]) if found else 0
