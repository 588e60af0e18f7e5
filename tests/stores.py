"""Both places where a server keeps what it knows, for suites that run over each."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from tests import postgres

from tidegate.server.store import postgres as postgres_store
from tidegate.server.store import sqlite as sqlite_store
from tidegate.server.store import tables
from tidegate.server.store.postgres import PostgresStore
from tidegate.server.store.sqlite import SqliteStore

BACK_ENDS: Final = ("sqlite", "postgres")
#: Where servers of the present test keep what they know; databases by folder, where there are any.
_present: list[str] = ["sqlite"]
_urls: dict[Path, str] = {}


@dataclass(frozen=True)
class Place:
    """A place for one store: a folder, or the address of a database."""

    folder: Path
    url: str = ""

    def open(self, *, durable: bool = True) -> SqliteStore | PostgresStore:
        """Open the store."""
        if self.url:
            return postgres_store.open_store(self.url, durable=durable)
        return sqlite_store.open_store(self.folder, durable=durable)


def differences(conn: Connection) -> list[object]:
    """Return in what a database's schema and the tables of the code are not the same."""
    opts = {"include_object": _is_of_the_schema} if conn.dialect.name == "postgresql" else {}
    return list(compare_metadata(MigrationContext.configure(conn, opts=opts), tables.metadata))


def _is_of_the_schema(
    thing: Any, name: str | None, kind: str, reflected: bool, other: object
) -> bool:
    """Leave out what PostgreSQL alone has: pieces of the event log, each with the constraint that the log as a whole has elsewhere."""
    table = name if kind == "table" else thing.table.name
    pieces = reflected and str(table).startswith("event_") and table not in tables.metadata.tables
    return not pieces and name != "uq_event_device_row_seq"


@contextlib.contextmanager
def place(back_end: str, folder: Path, *, empty: bool = False) -> Iterator[Place]:
    """Lend a place of this kind: with a schema that is current, or (`empty`) without any."""
    if back_end == "sqlite":
        yield Place(folder)
        return
    make = postgres.Server.database if empty else postgres.Server.migrated
    with postgres.database(make) as url:
        yield Place(folder, url)


@contextlib.contextmanager
def present(back_end: str) -> Iterator[None]:
    """Have `url_of` lend databases on this back end; they end with the test."""
    _present.append(back_end)
    try:
        yield
    finally:
        _present.pop()
        for url in _urls.values():
            postgres.server().drop(url)
        _urls.clear()


def url_of(folder: Path) -> str:
    """Return the address of the database that goes with a data directory, made where there is none; empty = it is a file there."""
    if _present[-1] == "sqlite":
        return ""
    if folder not in _urls:
        _urls[folder] = postgres.server().migrated()
    return _urls[folder]
