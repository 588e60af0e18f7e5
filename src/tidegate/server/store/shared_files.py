"""How server processes on one SQLite database find one another: by files in its directory that the kernel locks.

The locks end with the process that holds them, and need no clock. What they are for is told in `shared`.
"""

import contextlib
import fcntl
import os
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from tidegate.core.errors import BusyError, ConfigError
from tidegate.server.store.raw import Raw
from tidegate.server.store.shared import START_S

FOLDER: Final = "shared"
#: How often a process looks, in seconds: it costs microseconds here.
LOOK_S: Final = 0.05
#: How long a turn is waited for, in seconds.
TURN_S: Final = 10.0
#: How long a turn is waited for after one that did not come, in seconds.
AGAIN_S: Final = 1.0
_PAUSE_S: Final = 0.0005
_SEQ: Final = struct.Struct("<Q")


def make_folder(data_dir: Path) -> Path:
    """Return the folder of the locks, made where it is missing, and the data directory with it.

    Raises:
        ConfigError: `data.read_only`.
    """
    folder = data_dir / FOLDER
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
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


class FileGround:
    """A `shared.Ground` of files."""

    def __init__(self, data_dir: Path, look: Callable[[], AbstractContextManager[Any]]) -> None:
        """Take part in a directory whose schema is current; `look` opens a connection for reading."""
        self._folder = make_folder(data_dir)
        self._peers: Peers | None = None
        self._version = -1
        self.look = look

    def newest(self, raw: Raw) -> int:
        """See `shared.Ground`."""
        found = raw.execute("SELECT seq FROM sqlite_sequence WHERE name = 'change'").fetchone()
        return int(found[0]) if found else 0

    def went_back(self, _: Raw, __: object) -> bool:
        """See `shared.Ground`. Nobody puts another file in the place of an open one."""
        return False

    def forget(self) -> None:
        """See `shared.Ground`."""

    def join(self) -> None:
        """See `shared.Ground`."""
        self._peers = Peers(self._folder)

    def changed(self, raw: Raw) -> bool:
        """See `shared.Ground`."""
        before, self._version = self._version, int(raw.execute("PRAGMA data_version").fetchone()[0])
        return self._version != before

    def confirm(self, _: Raw, seq: int) -> bool:
        """See `shared.Ground`. A lock tells that a process lives, so there is nothing to renew."""
        if self._peers is not None:
            self._peers.confirm(seq)
        return True

    def behind(self, seq: int) -> int:
        """See `shared.Ground`."""
        return self._peers.behind(seq) if self._peers is not None else 0

    def pause(self, _: Raw, stopping: threading.Event) -> None:
        """See `shared.Ground`."""
        stopping.wait(LOOK_S)

    def wake(self) -> None:
        """See `shared.Ground`."""

    def leave(self) -> None:
        """See `shared.Ground`."""
        if self._peers is not None:
            self._peers.close()
