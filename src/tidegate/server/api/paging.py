"""Pages of lists: a cursor says behind what the next page begins, not how many came before, so that nothing is left out or told twice when things are added.

A cursor is opaque to whoever sends it and untrusted here. A page that has one behind it has `next`; without, it was the last.
"""

import base64
import binascii
from typing import Annotated, Final

from litestar.params import QueryParameter

from tidegate.core.errors import RequestError

PAGE_MAX: Final = 500
_CURSOR_MAX: Final = 300
Limit = Annotated[int, QueryParameter(ge=1, le=PAGE_MAX, description="Most items of the page.")]
Cursor = Annotated[
    str,
    QueryParameter(
        max_length=_CURSOR_MAX, description="`next` of the page before; empty = the first."
    ),
]


def cursor_of(position: int) -> str | None:
    """Return an opaque cursor; None for 0: there is no next page."""
    return _sealed(f"c{position}") if position else None


def position_of(cursor: str | None) -> int:
    """Return the position of a cursor (untrusted); 0 for none.

    Raises:
        RequestError: `request.invalid`.
    """
    if not cursor:
        return 0
    plain = _opened(cursor)
    if plain[:1] != "c":
        raise _wrong()
    return _number(plain[1:])


def cursor_of_place(place: tuple[int, str] | None, order: str = "") -> str | None:
    """Return an opaque cursor of a time and a name in an order (empty = the list's usual one); None for none."""
    return None if place is None else _sealed(f"p{order}{place[0]} {place[1]}")


def place_of(cursor: str, order: str = "") -> tuple[int, str]:
    """Return the place of a cursor (untrusted) of that order; (0, "") for none.

    Raises:
        RequestError: `request.invalid`.
    """
    if not cursor:
        return 0, ""
    at, space, name = _opened(cursor).partition(" ")
    number = at.removeprefix(f"p{order}")
    if number == at or not space:
        raise _wrong()
    return _number(number), name


def cursor_of_value(order: str, value: int | str | None) -> str:
    """Return an opaque cursor of what stands in the column of an order; `order` has no space."""
    return _sealed(f"{'n' if isinstance(value, int) else 't'}{order} {value}")


def value_of(cursor: str, order: str, *, number: bool) -> int | str:
    """Return the value of a cursor (untrusted) of that order: a number, or a text.

    Raises:
        RequestError: `request.invalid`.
    """
    kind, space, value = _opened(cursor).partition(" ")
    if not space or kind != f"{'n' if number else 't'}{order}":
        raise _wrong()
    return _number(value) if number else value


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 16:
        raise _wrong()
    return int(text)


def _sealed(plain: str) -> str:
    return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def _opened(cursor: str) -> str:
    try:
        padded = cursor[:_CURSOR_MAX] + "=" * (-len(cursor) % 4)
        plain = base64.urlsafe_b64decode(padded).decode()
    except (binascii.Error, ValueError) as error:
        raise _wrong() from error
    # the decoder passes over what it does not know, and no database that is not a file holds a NUL
    if _sealed(plain) != cursor or "\0" in plain:
        raise _wrong()
    return plain


def _wrong() -> RequestError:
    return RequestError(
        "request.invalid", "cursor: take it from `next` of a page in the same order"
    )
