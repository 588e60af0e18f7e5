"""Where work comes from: the request behind it, carried from whoever asks the store to the thread that writes.

Only what the operators' log records of a request: its id and address. Both are claims, the address as good as the proxies in between.
"""

from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Final, NamedTuple, TypeVar

from sqlalchemy import Connection

T = TypeVar("T")
_KEY: Final = "tidegate.origin"


class Origin(NamedTuple):
    """A request: `request` is its id, `ip` the address that it came from, both "" where unknown."""

    request: str = ""
    ip: str = ""


#: Of the request that is answered in this context.
ORIGIN: Final[ContextVar[Origin | None]] = ContextVar("tidegate_origin", default=None)


def carried(work: Callable[[Connection], T]) -> Callable[[Connection], T]:
    """Return `work` with the request behind it, wherever it is run."""
    origin = ORIGIN.get()
    return work if origin is None else partial(_under, origin, work)


def of(conn: Connection) -> Origin:
    """Return what is behind the work on this connection."""
    found: Origin | None = conn.info.get(_KEY)
    return found or Origin()


def _under(origin: Origin, work: Callable[[Connection], T], conn: Connection) -> T:
    conn.info[_KEY] = origin
    try:
        return work(conn)
    finally:
        conn.info.pop(_KEY, None)
