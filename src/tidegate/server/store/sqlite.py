"""The store on SQLite: one writer thread with group commit, readers on snapshots; one process at a time, or several that know of one another (`shared`).

A commit is durable: synchronous=FULL. What it has in common with PostgreSQL is in `writer`.
"""

import contextlib
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from tidegate.core.errors import BusyError, ConfigError, TidegateError
from tidegate.server.store import cell_rows, changes
from tidegate.server.store.migrations import upgrade
from tidegate.server.store.raw import Raw
from tidegate.server.store.scope import DEFAULT, Scope
from tidegate.server.store.shared import Shared
from tidegate.server.store.shared_files import FileGround, Turn, make_folder
from tidegate.server.store.writer import Writer

T = TypeVar("T")

DATABASE_NAME: Final = "tidegate.db"
LOCK_NAME: Final = "lock"


class SqliteStore(Writer):
    """A `Store` in one file. Made by `open_store`."""

    def __init__(
        self, engine: Engine, lock_fd: int, own: Scope, shared_dir: Path | None = None
    ) -> None:
        """Take over the engine of a scope whose schema is current, and the descriptor that holds the lock of its directory.

        `shared_dir` is that directory where other processes use it too, else None.
        """
        super().__init__(own)
        self._engine = engine
        self._lock_fd = lock_fd
        self._shared: Shared | None = None
        if shared_dir is not None:
            self._turn = Turn(make_folder(shared_dir))
            self._shared = Shared(FileGround(shared_dir, self._look), self._hear, own.tenant)
        self._local = threading.local()
        self._readers: list[Connection] = []
        self._own: Connection | None = None
        self._thread.start()

    @property
    def seen(self) -> int | None:
        """Return the number of the newest change of other processes that was seen here; None where there are no others."""
        return None if self._shared is None else self._shared.seen

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on a read-only snapshot, in the calling thread.

        Raises:
            TidegateError: the database failed (`data.*`), or whatever `work` raised.
        """
        conn = self._reader()
        try:
            with _translated(), conn.begin():
                return work(conn)
        finally:
            conn.info.clear()

    def on_setback(self, hold: Callable[[Connection], object]) -> None:
        """See `Store`: nobody puts another file in the place of an open one."""

    def follow(self) -> None:
        """Begin to tell subscribers what other processes on this database change; nothing to do where there are none."""
        if self._shared is not None:
            self._shared.follow()

    @property
    def shared(self) -> bool:
        """Say whether other processes may use this database."""
        return self._shared is not None

    @property
    def fresh(self) -> bool:
        """Say whether what subscribers keep in memory is as the database is, but for a few seconds at most."""
        return self._shared is None or self._shared.fresh

    @property
    def ahead_s(self) -> int:
        """Return 0: the database has no clock but this machine's."""
        return 0

    def settle(self) -> None:
        """Wait until what was committed here counts in every process: it has been seen there, or nothing is begun there by what was before."""
        if self._shared is not None:
            self._shared.settle()

    def close(self) -> None:
        """Finish what is queued, close every connection and let the directory go. Safe to repeat."""
        if not self._finish():
            return
        if self._shared is not None:
            self._shared.close()
            self._turn.close()
        for conn in self._readers:
            conn.close()
        self._engine.dispose()
        os.close(self._lock_fd)

    def _reader(self) -> Connection:
        conn: Connection | None = getattr(self._local, "conn", None)
        if conn is None:
            conn = self._engine.connect().execution_options(tidegate_read=True)
            raw_connection(conn).execute("PRAGMA query_only=ON")
            # every thread that reads has a connection; the pages are shared by the kernel anyway
            raw_connection(conn).execute("PRAGMA cache_size=-4096")
            self._local.conn = conn
            with self._guard:
                self._readers.append(conn)
        return conn

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Connection]:
        """See `Writer`. Where other processes write too, it waits for its turn."""
        if self._own is None:
            self._own = self._engine.connect()
        conn = self._own
        changes.begin(conn, rows_later=self._shared is not None)
        with _translated():
            if self._shared is None:
                with conn.begin():
                    yield conn
                return
            with self._turn:
                committed = False
                try:
                    with conn.begin():
                        yield conn
                    committed = True
                finally:
                    self._shared.done(committed=committed)

    def _translated(self) -> AbstractContextManager[None]:
        """See `Writer`."""
        return _translated()

    def _stands(self, conn: Connection) -> bool:
        """See `Writer`: SQLite itself may have rolled everything back (disk full, say)."""
        return raw_connection(conn).in_transaction

    def _leave(self, raw: Raw) -> None:
        """See `Writer`."""
        raw.execute("RELEASE SAVEPOINT work")

    def _note(self, conn: Connection) -> None:
        """See `Writer`."""
        if self._shared is not None:
            self._shared.note(raw_connection(conn), changes.noted(conn))

    def _release(self) -> None:
        """See `Writer`."""
        if self._own is not None:
            self._own.close()

    @contextlib.contextmanager
    def _look(self) -> Iterator[sqlite3.Connection]:
        """Open a connection of its own for reading, outside of any transaction."""
        with self._engine.connect() as conn:
            raw = raw_connection(conn)
            raw.execute("PRAGMA query_only=ON")
            yield raw


def raw_connection(conn: Connection) -> sqlite3.Connection:
    """Return the driver's own connection, for what only SQLite has. Statements for both databases go through `raw.raw_connection`."""
    raw = conn.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)  # noqa: S101 - tells the type checker what this module itself opened
    return raw


def open_store(
    data_dir: Path, *, durable: bool = True, shared: bool = False, tenant: str = DEFAULT
) -> SqliteStore:
    """Open the store of a data directory, made and migrated as needed.

    Args:
        data_dir: made with mode 0700 where it is missing. One process at a time may hold it, or several that all say `shared`.
        durable: False gives up safety against a power cut for speed; for simulations only.
        shared: whether other processes may open it too; they start one at a time (`store.shared_files.starting`).
        tenant: whose it is.

    Raises:
        BusyError: `data.locked`.
        ConfigError: `data.read_only`, `data.newer_schema`, `data.damaged`, `data.other_tenant`.
    """
    lock_fd = _lock(data_dir, shared=shared)
    try:
        path = data_dir / DATABASE_NAME
        fresh = not path.exists()
        own = Scope(tenant)
        engine = _engine(path, durable=durable, own=own)
        with _translated(), engine.connect() as conn:
            upgrade(conn)
            with conn.begin():
                cell_rows.claim(conn, int(time.time()))
        if fresh:
            path.chmod(0o600)
            _sync_directory(data_dir)
    except BaseException:
        os.close(lock_fd)
        raise
    return SqliteStore(engine, lock_fd, own, data_dir if shared else None)


def _lock(data_dir: Path, *, shared: bool) -> int:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock_fd = os.open(data_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError("data.read_only", f"{data_dir}: {error.strerror}") from error
    try:
        fcntl.flock(lock_fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock_fd)
        raise BusyError("data.locked", f"{data_dir}: another server has this directory") from error
    return lock_fd


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _engine(path: Path, *, durable: bool, own: Scope, looking: bool = False) -> Engine:
    engine = create_engine(
        f"sqlite+pysqlite:///file:{quote(str(path))}?mode={'ro' if looking else 'rwc'}&uri=true",
        poolclass=NullPool,
        execution_options=own.options,
        connect_args={
            "check_same_thread": False,
            "timeout": 10,
            "cached_statements": 512,
        },
    )

    @event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun below, not guessed by the driver
        if looking:
            connection.execute("PRAGMA query_only=ON")
            return
        for pragma in (
            "journal_mode=WAL",
            f"synchronous={'FULL' if durable else 'OFF'}",
            "foreign_keys=ON",
            "cache_size=-32768",
            "temp_store=MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _began(conn: Connection) -> None:
        reading = conn.get_execution_options().get("tidegate_read", False)
        raw_connection(conn).execute("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turn SQLite's words into ours, each with a code and a remedy."""
    try:
        yield
    except (DBAPIError, sqlite3.DatabaseError) as error:
        found = translate(error)
        if found is None:
            raise
        raise found from error


def translate(error: Exception) -> TidegateError | None:
    """Return our error for a database's, or None where it is a fault in Tidegate itself."""
    text = str(error.orig if isinstance(error, DBAPIError) else error)
    if "disk is full" in text:
        return BusyError("data.full", "the disk of the data directory is full")
    if "readonly" in text or "unable to open" in text:
        return ConfigError("data.read_only", f"the database cannot be written: {text}")
    if "malformed" in text or "not a database" in text:
        return ConfigError("data.damaged", f"the database is damaged: {text}")
    if "database is locked" in text:
        return BusyError("server.busy", "the database is held by another program")
    return None


@contextlib.contextmanager
def looking_at(data_dir: Path, tenant: str = DEFAULT) -> Iterator[Connection]:
    """Open the database of a tenant's data directory for reading only, also beside a server that runs on it. Nothing is locked, made or migrated.

    Raises:
        ConfigError: `data.read_only`, `data.damaged`, `data.other_tenant`.
    """
    engine = _engine(data_dir / DATABASE_NAME, durable=True, looking=True, own=Scope(tenant))
    try:
        with (
            _translated(),
            engine.connect().execution_options(tidegate_read=True) as conn,
            conn.begin(),
        ):
            cell_rows.require_own(conn)
            yield conn
    finally:
        engine.dispose()


@contextlib.contextmanager
def alone(data_dir: Path, tenant: str = DEFAULT) -> Iterator[Connection]:
    """Open the database of a tenant's data directory for reading, with no server on it meanwhile.

    Raises:
        BusyError: `data.locked`. ConfigError: `data.read_only`, `data.damaged`, `data.other_tenant`.
    """
    lock_fd = _lock(data_dir, shared=False)
    engine = _engine(data_dir / DATABASE_NAME, durable=True, looking=True, own=Scope(tenant))
    try:
        with _translated(), engine.connect().execution_options(tidegate_read=True) as conn:
            with conn.begin():
                cell_rows.require_own(conn)
            yield conn
    finally:
        engine.dispose()
        os.close(lock_fd)


def damage(conn: Connection) -> str:
    """Return what SQLite's quick check finds wrong, or an empty string."""
    found = raw_connection(conn).execute("PRAGMA quick_check(1)").fetchone()
    return "" if found is None or found[0] == "ok" else str(found[0])
