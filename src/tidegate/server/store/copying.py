"""Moving from SQLite to PostgreSQL: every row of every table, in one transaction that is kept only when what arrived is what was sent.

What arrived is read back and compared by count and digest before anything is kept. A digest is the sum of the rows' SHA-256: in whatever order two databases
sort them, the same rows give the same sum. The source is locked meanwhile, so that no server writes to it, and stays as it is.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import JSON, Connection, Table, func, select

from tidegate.core.errors import ConfigError, RequestError
from tidegate.server.store import hot, partitions, sqlite
from tidegate.server.store.migrations import require_head
from tidegate.server.store.postgres import loading, translated
from tidegate.server.store.raw import Raw, raw_connection
from tidegate.server.store.scope import DEFAULT
from tidegate.server.store.tables import metadata

_PAGE: Final = 2_000
_MODULUS: Final = 1 << 256


class Copied(NamedTuple):
    """A table that was copied."""

    table: str
    rows: int
    digest: str


class Sum:
    """A digest of rows in any order, and how many there were."""

    def __init__(self) -> None:
        """Of no row."""
        self.rows = 0
        self._sum = 0

    def add(self, row: Iterable[Any]) -> None:
        """Take in a row."""
        plain = [one.hex() if isinstance(one, bytes) else one for one in row]
        digest = hashlib.sha256(json.dumps(plain, ensure_ascii=False).encode()).digest()
        self._sum = (self._sum + int.from_bytes(digest, "big")) % _MODULUS
        self.rows += 1

    @property
    def digest(self) -> str:
        """Return it in hexadecimal digits."""
        return f"{self._sum:064x}"


def copy(
    data_dir: Path,
    address: str,
    told: Callable[[Copied], None] = lambda _: None,
    tenant: str = DEFAULT,
) -> list[Copied]:
    """Copy the database of a data directory to a PostgreSQL server; all of it is there on return, or nothing.

    Args:
        data_dir: whose database it is; no server may be running on it.
        address: of a database without rows, its schema made here where there is none; secret, where it holds a password.
        told: called with each table as soon as it was copied and compared.
        tenant: whose it is.

    Raises:
        BusyError: `data.locked`: a server runs on it; `data.unreachable`. ConfigError: `data.*`. RequestError: `request.conflict`: the target is in use;
            `request.invalid`: a value that PostgreSQL does not take, named with its table.
    """
    if not (data_dir / sqlite.DATABASE_NAME).is_file():
        raise ConfigError("config.missing", f"{data_dir} holds no {sqlite.DATABASE_NAME}")
    with sqlite.alone(data_dir, tenant) as source:
        require_head(source)
        with loading(address, tenant) as target, source.begin():
            _require_empty(target)
            partitions.reach(target, hot.newest_position(source))
            found = [_table(source, target, one, told) for one in metadata.sorted_tables]
            _count_on(target)
    return found


def _require_empty(target: Connection) -> None:
    for table in metadata.sorted_tables:
        if target.execute(
            select(func.count()).select_from(select(table).limit(1).subquery())
        ).scalar():
            raise RequestError(
                "request.conflict",
                f"the table {table.name} of the target has rows; only an empty database is filled",
            )


def _table(
    source: Connection, target: Connection, table: Table, told: Callable[[Copied], None]
) -> Copied:
    sent, arrived = Sum(), Sum()
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    asked = f'SELECT {names} FROM "{table.name}"'  # noqa: S608 - names of ours
    into = f'COPY "{table.name}" ({names}) FROM STDIN'
    try:
        with translated(), target.connection.cursor().copy(into) as pipe:
            for row in _rows(raw_connection(source), asked, table):
                sent.add(row)
                pipe.write_row(row)
    except RequestError as error:
        raise RequestError(error.code, f"table {table.name}: {error.detail}") from error
    for back in _streamed(target, asked):
        arrived.add(back)
    if (sent.rows, sent.digest) != (arrived.rows, arrived.digest):
        raise ConfigError(
            "data.damaged",
            f"table {table.name}: {sent.rows} rows were sent, and {arrived.rows} came back"
            f"{' with other content' if sent.rows == arrived.rows else ''}; nothing was kept",
        )
    copied = Copied(table.name, sent.rows, sent.digest)
    told(copied)
    return copied


def _rows(raw: Raw, asked: str, table: Table) -> Iterator[list[Any]]:
    """Yield rows as they are stored; no text at all, which older servers wrote for "nothing", is not JSON."""
    documents = [place for place, one in enumerate(table.columns) if isinstance(one.type, JSON)]
    for found in raw.execute(asked):
        row = list(found)
        for place in documents:
            row[place] = "null" if row[place] == "" else row[place]
        yield row


def _streamed(target: Connection, asked: str) -> Iterator[tuple[Any, ...]]:
    """Yield rows of the target, a page at a time: a log may not fit into memory."""
    raw = raw_connection(target)
    raw.execute(f"DECLARE back NO SCROLL CURSOR FOR {asked}")
    while page := raw.execute(f"FETCH {_PAGE} FROM back").fetchall():
        yield from page
    raw.execute("CLOSE back")


def _count_on(target: Connection) -> None:
    """Have numbers that PostgreSQL gives out go on behind those that are there."""
    for table in metadata.sorted_tables:
        for column in table.primary_key.columns:
            sequence = target.execute(
                select(func.pg_get_serial_sequence(f'"{table.name}"', column.name))
            ).scalar()
            newest = target.execute(select(func.max(column))).scalar() if sequence else None
            if newest is not None:
                target.execute(select(func.setval(sequence, newest)))
