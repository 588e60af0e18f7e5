"""Which store: PostgreSQL where an address is given, else a file in the data directory."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from tidegate.core.errors import ConfigError
from tidegate.server.store import Connection, Store, sqlite
from tidegate.server.store.migrations import schema_version
from tidegate.server.store.raw import is_postgres
from tidegate.server.store.scope import DEFAULT

if TYPE_CHECKING:
    from tidegate.server.store.copying import Copied


def open_store(
    folder: Path,
    *,
    url: str = "",
    durable: bool = True,
    shared: bool = False,
    tenant: str = DEFAULT,
) -> Store:
    """Open the store that is meant. A file is made and brought up to date as needed; a database of a server is not (`upgrade`).

    Args:
        folder: the data directory.
        url: of a PostgreSQL server, with its password; secret. Empty = SQLite.
        durable: False gives up safety against a power cut for speed; for simulations only.
        shared: whether other processes may open the folder's database too; any number may always use one server.
        tenant: whose it is.

    Raises:
        BusyError, ConfigError: `data.*`, `config.missing`.
    """
    if not url:
        return sqlite.open_store(folder, durable=durable, shared=shared, tenant=tenant)
    made: Store = _postgres().open_store(url, durable=durable, tenant=tenant)
    return made


def upgrade(folder: Path, url: str, tenant: str = DEFAULT) -> None:
    """Bring the schema up to date, or make it; nothing happens where it is current.

    Raises:
        BusyError, ConfigError: `data.*`, `config.missing`.
    """
    if url:
        _postgres().upgrade_schema(url, tenant)
    else:
        sqlite.open_store(folder, tenant=tenant).close()


@contextlib.contextmanager
def looking(folder: Path, url: str, tenant: str = DEFAULT) -> Iterator[Connection]:
    """Open the database for reading only, also beside servers that run on it. Nothing is locked, made or migrated.

    Raises:
        BusyError, ConfigError: `data.*`, `config.missing`.
    """
    found = _postgres().looking_at(url, tenant) if url else sqlite.looking_at(folder, tenant)
    with found as conn:
        yield conn


def is_there(folder: Path, url: str) -> bool:
    """Say whether there is a database: a server's always is, as far as anybody knows who does not ask it."""
    return bool(url) or (folder / sqlite.DATABASE_NAME).is_file()


def condition(conn: Connection, folder: Path) -> tuple[str, int, str]:
    """Return what a database is, how many bytes it takes, and what is found wrong with it (empty = nothing)."""
    if is_postgres(conn):
        name, size, wrong = _postgres().condition(conn)
        return str(name), int(size), str(wrong)
    size = (folder / sqlite.DATABASE_NAME).stat().st_size
    return "SQLite", size, sqlite.damage(conn)


def copy(
    folder: Path,
    url: str,
    told: "Callable[[Copied], None]" = lambda _: None,
    tenant: str = DEFAULT,
) -> "list[Copied]":
    """Copy a file's content to a PostgreSQL server; see `copying.copy`.

    Raises:
        BusyError, ConfigError, RequestError: as there; `config.missing`.
    """
    _postgres()
    from tidegate.server.store import copying

    return copying.copy(folder, url, told, tenant)


def schema(folder: Path, url: str, tenant: str = DEFAULT) -> str | None:
    """Return the schema's version; None = there is none yet.

    Raises:
        BusyError, ConfigError: `data.*`, `config.missing`.
    """
    if not is_there(folder, url):
        return None
    with looking(folder, url, tenant) as conn:
        return schema_version(conn)


def ahead_s(conn: Connection) -> int:
    """Return how far this machine's clock is ahead of the database server's, in seconds; 0 for a file."""
    if not is_postgres(conn):
        return 0
    found = conn.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())").scalar_one()
    return round(time.time() - float(found))


def drop(url: str, tenant: str) -> None:
    """Destroy the schema of a tenant on a PostgreSQL server, with everything in it. Safe to repeat.

    Raises:
        BusyError, ConfigError: `data.*`, `config.missing`.
    """
    _postgres().drop_schema(url, tenant)


def schema_name(tenant: str) -> str:
    """Return the name of a tenant's schema, for people."""
    return str(_postgres().schema_of(tenant))


def _postgres() -> ModuleType:
    try:
        from tidegate.server.store import postgres
    except ImportError as error:
        raise ConfigError(
            "config.missing", "PostgreSQL wants its driver: pip install 'tidegate[postgres]'"
        ) from error
    return postgres
