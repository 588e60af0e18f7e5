"""A copy of a SQLite database beside a server that writes to it: one snapshot, in one file, by SQLite's own backup. Looking at a copy changes nothing."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from tidegate.core.errors import ConfigError
from tidegate.server.store import cell_rows
from tidegate.server.store.scope import DEFAULT, Scope
from tidegate.server.store.sqlite import DATABASE_NAME, translate


def copy(data_dir: Path, target: Path) -> None:
    """Copy the database of a data directory as it is at one moment; durable on return. Writers go on meanwhile.

    Raises:
        ConfigError: `data.read_only`, `data.damaged`. BusyError: `data.full`.
    """
    path = data_dir / DATABASE_NAME
    target.touch(mode=0o600)
    try:
        with (
            contextlib.closing(_open(path, "mode=ro")) as source,
            contextlib.closing(sqlite3.connect(target)) as made,
        ):
            # all pages in one step: in several, each write of the server would begin it anew
            source.backup(made, pages=-1)
            made.execute("PRAGMA journal_mode=DELETE")
        _sync(target)
    except sqlite3.DatabaseError as error:
        raise translate(error) or ConfigError("data.damaged", f"{path}: {error}") from error


@contextlib.contextmanager
def looking_at_copy(path: Path) -> Iterator[Connection]:
    """Open a copy for reading, and put nothing beside it.

    Raises:
        ConfigError: `data.damaged`.
    """
    engine = create_engine(
        "sqlite+pysqlite://", creator=lambda: _open(path, "immutable=1"), poolclass=NullPool
    )
    try:
        with engine.connect() as conn:
            yield conn.execution_options(**Scope(cell_rows.owner(conn) or DEFAULT).options)
    except sqlite3.DatabaseError as error:
        raise ConfigError("data.damaged", f"{path}: {error}") from error
    finally:
        engine.dispose()


def _open(path: Path, how: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?{how}", uri=True, timeout=10, check_same_thread=False
    )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
