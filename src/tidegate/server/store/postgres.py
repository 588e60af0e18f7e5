"""The store on PostgreSQL: one writer connection a process with group commit, readers on a small pool of snapshots; any number of processes.

**One transaction writes at a time**, over all processes: each takes one advisory lock before it reads anything, and keeps it until its commit is seen by
everybody (docs/decisions/0028). So what is decided in a transaction cannot race, numbers that are given out come to light in their order, and everything is
as it is on SQLite, where the database itself sees to that.

A commit of which nothing was heard may have happened: whoever waits for it is told so (`data.outcome_unknown`), and nobody tries again on his behalf. What
devices send may be sent again; what people do is looked at first. Not decided here: what the work is.
"""

import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, Final, NamedTuple, TypeVar

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.types.string import TextLoader
from sqlalchemy import Connection, Engine, RootTransaction, create_engine
from sqlalchemy.exc import DBAPIError, PendingRollbackError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import NullPool, QueuePool

from tidegate.core.errors import BusyError, ConfigError, RequestError, TidegateError
from tidegate.server.store import arrays, cell_rows, changes, partitions, scope
from tidegate.server.store.migrations import require_head, upgrade
from tidegate.server.store.raw import Raw, Values, dollars, raw_connection
from tidegate.server.store.scope import Scope
from tidegate.server.store.shared import Shared
from tidegate.server.store.shared_rows import RowGround, hint
from tidegate.server.store.writer import Writer

T = TypeVar("T")

#: Whoever holds it writes: "tidegate" as a number. Locks of this kind belong to one database.
LOCK: Final = 0x7469_6465_6761_7465
#: How long a turn is waited for, and how long a process may hold it without a word to the database, in milliseconds.
TURN_MS: Final = 10_000
#: How long a turn is waited for after one that did not come.
AGAIN_MS: Final = 1_000
SILENT_MS: Final = 20_000
#: Connections for reading that are kept, and how many there may be.
READERS: Final = 4
READERS_MAX: Final = 24
READER_WAIT_S: Final = 10
#: What a connection is opened with, where its address does not say otherwise: a server that is gone without a word is noticed within seconds.
_PATIENCE: Final = {
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "application_name": "tidegate",
}
#: What is acknowledged is durable, whatever the server's default is.
_DURABLE: Final = (
    "SELECT set_config('synchronous_commit', 'on', false) "
    "WHERE current_setting('synchronous_commit') = 'off'"
)
_log = logging.getLogger("tidegate.store")


class Place(NamedTuple):
    """Where a tenant's rows are: in a schema of the database with this address; secret, where it holds a password."""

    address: str
    tenant: str


def schema_of(tenant: str) -> str:
    """Return the name of a tenant's schema; that of the default tenant is the one that its address leads to."""
    return f"tidegate_{tenant.replace('-', '_')}"


def lock_of(tenant: str) -> int:
    """Return the number of the lock that a tenant's writers take: tenants do not wait for one another."""
    if tenant == scope.DEFAULT:
        return LOCK
    return int.from_bytes(hashlib.sha256(f"tidegate/{tenant}".encode()).digest()[:8], signed=True)


class _Number(Loader):
    """A sum of whole numbers is `numeric` to PostgreSQL; no column of ours is."""

    def load(self, data: Buffer) -> int | float:
        text = bytes(data)
        return int(text) if text.lstrip(b"-").isdigit() else float(text)


class _Marked:
    """A connection that takes statements with SQLite's marks, and gives JSON as the text that it is (see `raw`)."""

    def __init__(self, wire: "Wire") -> None:
        self.wire = wire

    def _cursor(self) -> "psycopg.RawCursor[Any]":
        made = psycopg.RawCursor(self.wire)
        made.adapters.register_loader("json", TextLoader)
        return made

    def execute(self, statement: str, values: Values = ()) -> "psycopg.RawCursor[Any]":
        return self._cursor().execute(dollars(statement).encode(), values or None)

    def executemany(self, statement: str, rows: Iterable[Values]) -> None:
        found = list(rows)
        if len(found) == 1:
            self.execute(statement, found[0])
        elif found:
            self._cursor().executemany(dollars(statement).encode(), found)


class Wire(psycopg.Connection[Any]):
    """A connection to PostgreSQL."""

    @cached_property
    def marked(self) -> _Marked:
        """Return it in the form that `raw.raw_connection` gives out."""
        return _Marked(self)


class PostgresStore(Writer):
    """A `Store` on a PostgreSQL server. Made by `open_store`."""

    #: Savepoints are transactions within the transaction, of which PostgreSQL remembers 64 well.
    group_max = 60

    def __init__(self, place: Place, *, durable: bool = True) -> None:
        """Take over a place whose schema is current; `durable`: False gives up safety for speed, for simulations and tests."""
        own = Scope(place.tenant)
        super().__init__(own)
        readers = READERS if place.tenant == scope.DEFAULT else 1
        self._writers = _engine(own, _connector(place, durable=durable))
        self._engine = _engine(own, _connector(place, reading=True), readers=readers)
        self._lock = lock_of(place.tenant)
        with translated():
            self._ground = RowGround(_connector(place, alone=True), place.tenant)
            self._shared = Shared(self._ground, self._hear, place.tenant, self._look_back)
        self._hold: Callable[[Connection], object] = lambda _: None
        #: Whether it is not known yet if the writer's connection leads to a database that went back.
        self._unsure = False
        self._patient = True
        self._own: tuple[Connection, Wire] | None = None
        self._thread.start()

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on a read-only snapshot, in the calling thread.

        Raises:
            TidegateError: the database failed (`data.*`, `server.busy`), or whatever `work` raised.
        """
        with translated(), self._engine.connect() as conn, conn.begin():
            return work(conn)

    def follow(self) -> None:
        """Begin to tell subscribers what other processes on this database change."""
        self._shared.follow()

    @property
    def shared(self) -> bool:
        """Say whether other processes may use this database."""
        return True

    @property
    def seen(self) -> int | None:
        """Return the number of the newest change of other processes that was seen here."""
        return self._shared.seen

    @property
    def fresh(self) -> bool:
        """Say whether what subscribers keep in memory is as the database is, but for a few seconds at most."""
        return self._shared.fresh

    @property
    def ahead_s(self) -> int:
        """Return how far this machine's clock is ahead of the database server's, in seconds; looked at with every beat."""
        return self._ground.ahead_s

    def settle(self) -> None:
        """Wait until what was committed here counts in every process: it has been seen there, or nothing is begun there by what was before."""
        self._shared.settle()

    def close(self) -> None:
        """Finish what is queued and close every connection. Safe to repeat."""
        if self._finish():
            self._shared.close()
            self._engine.dispose()
            self._writers.dispose()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Connection]:
        """See `Writer`. It waits for its turn."""
        with translated():
            conn, wire, turn = self._in_turn()
            held = False
            try:
                held = self._held_back(conn)
                yield conn
            except BaseException as error:
                self._given_up(turn, wire, error)
                raise
            try:
                turn.commit()
            except DBAPIError as error:
                self._shared.doubt()
                self._drop_if_useless(error)
                if not wire.closed:
                    raise
                raise BusyError(
                    "data.outcome_unknown",
                    "the database went away before it said whether this was done",
                ) from error
            self._shared.done(committed=True)
            self._unsure = False
            if held:
                self._shared.held()

    def _in_turn(self) -> tuple[Connection, Wire, RootTransaction]:
        """Begin a transaction and wait for its turn. A connection that broke since it was used last is made anew: nothing was asked of it yet."""
        stood = self._own is not None
        try:
            return self._begun()
        except (DBAPIError, PendingRollbackError):
            if not stood or self._own is not None:
                raise
            self._patient = True
            return self._begun()

    def _begun(self) -> tuple[Connection, Wire, RootTransaction]:
        conn, wire = self._connected()
        changes.begin(conn, rows_later=True)
        turn = conn.begin()
        try:
            self._wait_for_turn(conn)
        except BaseException as error:
            self._given_up(turn, wire, error)
            raise
        return conn, wire, turn

    def _given_up(self, turn: RootTransaction, wire: Wire, error: BaseException) -> None:
        """Undo a transaction in which something failed."""
        # the server may have ended it meanwhile, and let others write
        self._shared.doubt() if wire.closed else self._shared.done(committed=False)
        with contextlib.suppress(SQLAlchemyError):
            turn.rollback()
        self._drop_if_useless(error)

    def on_setback(self, hold: Callable[[Connection], object]) -> None:
        """See `Store`."""
        self._hold = hold

    def _look_back(self) -> None:
        """Have the writer hold what there is to hold, though nobody wants to write."""
        self._unsure = True
        if not self.waiting:
            self.write(lambda _: None, urgent=True)

    def _held_back(self, conn: Connection) -> bool:
        """Hold everything, before anything else is done, where this connection leads to a database that went back in time; say whether it was so."""
        if not self._unsure or not self._shared.went_back(raw_connection(conn)):
            return False
        self._hold(conn)
        return True

    def _wait_for_turn(self, conn: Connection) -> None:
        """Take the lock. As long as somebody holds it who does not go on, whoever comes later is told so after `AGAIN_MS`."""
        patient, self._patient = self._patient, False
        if not patient:
            conn.exec_driver_sql(f"SET LOCAL lock_timeout = {AGAIN_MS}")
        conn.exec_driver_sql(f"SELECT pg_advisory_xact_lock({self._lock})")
        self._patient = True

    def _connected(self) -> tuple[Connection, Wire]:
        """Return the writer's connection, made where there is none."""
        if self._own is None:
            conn = self._writers.connect()
            self._own, self._unsure = (conn, wire_of(conn)), True
        return self._own

    def _drop_if_useless(self, error: BaseException) -> None:
        """Have the next group open a connection of its own, where this one is broken, or to a server that only reads."""
        if self._own is None:
            return
        conn, wire = self._own
        told = _original(error.__cause__ if isinstance(error, TidegateError) else error)
        if not wire.closed and getattr(told, "sqlstate", "") != _READ_ONLY:
            return
        _log.warning("the connection to the database is given up: %s", type(told).__name__)
        self._own = None
        wire.close()
        with contextlib.suppress(SQLAlchemyError):
            conn.invalidate()
            conn.close()

    def _translated(self) -> AbstractContextManager[None]:
        """See `Writer`."""
        return translated()

    def _stands(self, conn: Connection) -> bool:
        """See `Writer`."""
        if self._own is None or conn.invalidated:
            return False
        status = self._own[1].info.transaction_status
        return status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}

    def _leave(self, raw: Raw) -> None:
        """See `Writer`. The next one is made within it: one question less to the server for each piece of work."""

    def _note(self, conn: Connection) -> None:
        """See `Writer`. Whoever writes is alone, so the rows are numbered without a gap."""
        changed, raw = changes.noted(conn), raw_connection(conn)
        self._shared.note(raw, changed)
        hint(raw, changed, self.scope.tenant)

    def _release(self) -> None:
        """See `Writer`."""
        if self._own is not None:
            self._own[0].close()


def wire_of(conn: Connection) -> Wire:
    """Return the driver's own connection, for what only PostgreSQL has."""
    wire = conn.connection.driver_connection
    assert isinstance(wire, Wire)  # noqa: S101 - tells the type checker what this module itself opened
    return wire


def open_store(address: str, *, durable: bool = True, tenant: str = scope.DEFAULT) -> PostgresStore:
    """Open the store on a PostgreSQL server whose schema is current: no server changes a schema that others are using.

    Args:
        address: `postgresql://…` as libpq takes it; secret, where it holds a password.
        durable: False gives up safety against a power cut for speed; for simulations only.
        tenant: whose it is: each has a schema of its own in one database.

    Raises:
        BusyError: `data.unreachable`, `server.busy`.
        ConfigError: `data.denied`, `data.read_only`, `data.older_schema`, `data.newer_schema`, `data.other_tenant`, `config.invalid`.
    """
    place = Place(address, tenant)
    with _first(place) as conn:
        require_head(conn)
        with conn.begin():
            conn.exec_driver_sql(_locked(tenant))
            cell_rows.claim(conn, int(time.time()))
    return PostgresStore(place, durable=durable)


def upgrade_schema(address: str, tenant: str = scope.DEFAULT) -> None:
    """Bring the schema up to date, or make it, in one transaction, while nobody else writes; what takes long is done before it, beside servers that run.

    Raises:
        BusyError, ConfigError: as `open_store`.
    """
    place = Place(address, tenant)
    if tenant != scope.DEFAULT:
        with _first(Place(address, scope.DEFAULT)) as conn, conn.begin():
            conn.exec_driver_sql(f'CREATE SCHEMA IF NOT EXISTS "{schema_of(tenant)}"')
    with _first(place) as conn:
        partitions.prepare(conn)
        upgrade(conn, locked=_locked(tenant))


def drop_schema(address: str, tenant: str) -> None:
    """Destroy a tenant's schema with everything in it, which is never the default tenant's. Safe to repeat.

    Raises:
        BusyError, ConfigError: as `open_store`.
    """
    if tenant == scope.DEFAULT:
        raise ConfigError("config.invalid", "the default tenant has no schema of its own")
    with _first(Place(address, scope.DEFAULT)) as conn, conn.begin():
        conn.exec_driver_sql(f'DROP SCHEMA IF EXISTS "{schema_of(tenant)}" CASCADE')


@contextlib.contextmanager
def loading(address: str, tenant: str = scope.DEFAULT) -> Iterator[Connection]:
    """Open a transaction in which nobody else writes, kept at the end; the schema is made first where there is none.

    Raises:
        BusyError, ConfigError: as `open_store`.
    """
    upgrade_schema(address, tenant)
    with _first(Place(address, tenant)) as conn, conn.begin():
        conn.exec_driver_sql(_locked(tenant))
        yield conn


@contextlib.contextmanager
def looking_at(address: str, tenant: str = scope.DEFAULT) -> Iterator[Connection]:
    """Open a database for reading only, also beside servers that run on it. Nothing is locked, made or migrated.

    Raises:
        BusyError, ConfigError: as `open_store`.
    """
    place = Place(address, tenant)
    engine = _engine(Scope(place.tenant), _connector(place, reading=True))
    try:
        with translated(), engine.connect() as conn, conn.begin():
            cell_rows.require_own(conn)
            yield conn
    finally:
        engine.dispose()


def condition(conn: Connection) -> tuple[str, int, str]:
    """Return what the server is, the size of the database in bytes, and what is wrong with how it is set (empty = nothing)."""
    found = conn.exec_driver_sql(
        "SELECT current_setting('server_version'), pg_database_size(current_database()), "
        "current_setting('fsync'), current_setting('full_page_writes')"
    ).one()
    off = [
        name
        for name, value in zip(("fsync", "full_page_writes"), found[2:], strict=True)
        if value != "on"
    ]
    wrong = f"{' and '.join(off)} off: a power cut may destroy everything" if off else ""
    return f"PostgreSQL {found[0].split()[0]}", int(found[1]), wrong


@contextlib.contextmanager
def _first(place: Place) -> Iterator[Connection]:
    """Open a connection to a database that nothing is known of."""
    engine = _engine(Scope(place.tenant), _connector(place))
    try:
        with translated(), engine.connect() as conn:
            _require_utf8(conn)
            yield conn
    finally:
        engine.dispose()


def _require_utf8(conn: Connection) -> None:
    with conn.begin():
        encoding = conn.exec_driver_sql("SHOW server_encoding").scalar()
    if encoding != "UTF8":
        raise ConfigError("config.invalid", f"the database is in {encoding}; UTF8 is wanted")


def _locked(tenant: str) -> str:
    """Return the statement that waits for the turn to write, until the end of a transaction."""
    return f"SELECT pg_advisory_xact_lock({lock_of(tenant)})"


def _connector(
    place: Place, *, reading: bool = False, durable: bool = True, alone: bool = False
) -> Callable[[], Wire]:
    """Return what opens connections: for reading, for writing in turn, or (`alone`) for single statements that are committed at once."""
    try:
        given: dict[str, Any] = conninfo_to_dict(place.address)
    except psycopg.ProgrammingError as error:
        # not what libpq says of it: that quotes the address, password and all
        raise ConfigError("config.invalid", "[database] url is not an address") from error
    if not reading:
        given.setdefault("target_session_attrs", "read-write")
    elif "," in f"{given.get('host', '')}{given.get('hostaddr', '')}":
        # one of them is a standby, which may lag behind what was acknowledged
        given.setdefault("target_session_attrs", "primary")
    if place.tenant != scope.DEFAULT:
        # part of how a session begins, which nothing that is said in it later undoes
        path = f"-c search_path={schema_of(place.tenant)}"
        given["options"] = f"{given.get('options', '')} {path}".strip()
    conninfo = make_conninfo(**{**_PATIENCE, **given})
    set_up = _DURABLE if durable else "SET synchronous_commit = off"
    if not reading:
        set_up += (
            f"; SET lock_timeout = {TURN_MS}; SET idle_in_transaction_session_timeout = {SILENT_MS}"
        )

    def connect() -> Wire:
        wire = Wire.connect(conninfo, autocommit=True)
        wire.execute(set_up)
        wire.adapters.register_loader("numeric", _Number)
        arrays.register(wire.adapters)
        wire.autocommit = alone
        if reading:
            wire.read_only = True
            wire.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        return wire

    return connect


def _engine(own: Scope, connect: Callable[[], Wire], *, readers: int = 0) -> Engine:
    """Return a tenant's engine with so many connections that stay open."""
    pool: dict[str, Any] = {"poolclass": NullPool, "execution_options": own.options}
    if readers:
        pool |= {
            "poolclass": QueuePool,
            "pool_size": readers,
            "max_overflow": READERS_MAX - readers,
            "pool_timeout": READER_WAIT_S,
            "pool_pre_ping": True,
        }
    # the address is not given to SQLAlchemy, which shows it in texts
    return create_engine("postgresql+psycopg://", creator=connect, use_native_hstore=False, **pool)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn PostgreSQL's words into ours, each with a code and a remedy."""
    try:
        yield
    except (DBAPIError, psycopg.Error, PendingRollbackError, PoolTimeoutError) as error:
        found = translate(error)
        if found is None:
            raise
        raise found from error


_READ_ONLY: Final = "25006"
_BUSY: Final = BusyError, "server.busy", "the database is held by others"
_AWAY: Final = BusyError, "data.unreachable", "the database is away: {}"
_DENIED: Final = ConfigError, "data.denied", "the database refuses: {}"
_DAMAGED: Final = ConfigError, "data.damaged", "the database is damaged: {}"
_MEANINGS: Final[dict[str, tuple[type[TidegateError], str, str]]] = {
    _READ_ONLY: (ConfigError, "data.read_only", "the database cannot be written"),
    "53100": (BusyError, "data.full", "the disk of the database server is full"),
    **dict.fromkeys(("55P03", "40001", "40P01", "53200", "53300", "53400", "57014"), _BUSY),
    **dict.fromkeys(("28000", "28P01", "3D000", "42501"), _DENIED),
    **dict.fromkeys(("XX001", "XX002"), _DAMAGED),
    **dict.fromkeys(("08", "57", "58", "25P03"), _AWAY),
    "22": (RequestError, "request.invalid", "a value cannot be stored: {}"),
    "54": (RequestError, "request.too_large", "a value is too long for the database to find it by"),
}
#: What libpq says of an attempt to connect comes without a number.
_SAID: Final = {
    "session is read-only": _READ_ONLY,
    **dict.fromkeys(
        ("authentication failed", "does not exist", "pg_hba.conf", "no password"), "28000"
    ),
}


def _original(error: BaseException | None) -> BaseException | None:
    """Return the driver's error in SQLAlchemy's."""
    return error.orig if isinstance(error, DBAPIError) else error


def translate(error: Exception) -> TidegateError | None:
    """Return our error for a database's, or None where it is a fault in Tidegate itself. Addresses and values stay out of it."""
    if isinstance(error, PoolTimeoutError):
        return BusyError("server.busy", "every connection for reading is in use")
    original = _original(error)
    text = (str(original).splitlines() or [""])[0]
    state = getattr(original, "sqlstate", None) or _unnumbered(original, text)
    found = _MEANINGS.get(state) or _MEANINGS.get(state[:2])
    if found is None:
        return None
    kind, code, said = found
    return kind(code, said.format(text))


def _unnumbered(original: BaseException | None, text: str) -> str:
    """Return the number that an error would have, had the server made it."""
    if isinstance(original, psycopg.DataError):
        return "22"
    if isinstance(original, PendingRollbackError | psycopg.OperationalError):
        return next((state for words, state in _SAID.items() if words in text), "08")
    return "08" if isinstance(original, psycopg.InterfaceError) else ""
