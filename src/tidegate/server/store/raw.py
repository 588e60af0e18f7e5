"""The one door to a driver's own connection, for the statements that are written by hand.

They stand once, with SQLite's marks: `?`, or `?1` where a value is wanted twice. PostgreSQL's driver gets them as `$1`. What both
databases understand is all that may be in them: no `max(a, b)`, no booleans that are added up, no numbers where a condition is wanted.
"""

import functools
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

from sqlalchemy import Connection

Values = Sequence[Any]
#: Statements that are remembered in their other form. Nearly all stand in the code; some have as many marks as a list has members, and a server runs for years.
KNOWN_MAX: Final = 512
#: Texts and names in quotes are left alone.
_MARK: Final = re.compile(r"""'[^']*'|"[^"]*"|\?(\d*)""")


class Found(Protocol):
    """What a statement found."""

    @property
    def rowcount(self) -> int:
        """Return how many rows were changed."""
        ...

    def fetchone(self) -> Any:
        """Return the next row, or None."""
        ...

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""
        ...

    def __iter__(self) -> Iterator[Any]:
        """Yield the rows that are left."""
        ...


class Raw(Protocol):
    """A driver's connection, as far as both have it."""

    def execute(self, statement: str, values: Values = (), /) -> Found:
        """Run one statement."""
        ...

    def executemany(self, statement: str, rows: Iterable[Values], /) -> object:
        """Run one statement with each of these values."""
        ...


class Texts(tuple[str | None, ...]):
    """A column of texts, as one value of a statement for PostgreSQL: an array in the driver's shortest form."""

    __slots__ = ()


class Numbers(tuple[int, ...]):
    """A column of whole numbers up to 64 bits, none of them missing; as `Texts`."""

    __slots__ = ()


def raw_connection(conn: Connection) -> Raw:
    """Return the driver's own connection, for statements written by hand."""
    raw: Any = conn.connection.driver_connection
    if isinstance(raw, sqlite3.Connection):
        return raw
    marked: Raw = raw.marked  # store.postgres.Wire
    return marked


def is_postgres(conn: Connection) -> bool:
    """Say whether this is PostgreSQL, for the few statements that stand twice because one form is several times as fast."""
    return conn.dialect.name == "postgresql"


@functools.lru_cache(KNOWN_MAX)
def dollars(statement: str) -> str:
    """Return a statement with PostgreSQL's marks in place of SQLite's."""
    number = 0

    def mark(found: re.Match[str]) -> str:
        nonlocal number
        if not found[0].startswith("?"):
            return found[0]
        number += 1
        return f"${found[1] or number}"

    return _MARK.sub(mark, statement)
