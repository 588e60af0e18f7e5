"""Pages of lists: a cursor says behind what the next page begins, not how many came before, so that nothing is left out or told twice when things are added.

A cursor is opaque to whoever sends it and untrusted here. A page that has one behind it has `next`; without, it was the last.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, Final, TypeVar

from litestar.params import QueryParameter

from tidegate.core.errors import RequestError

T = TypeVar("T")
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
    if plain[:1] != "c" or not plain[1:].isdigit() or not plain.isascii() or len(plain) > 16:
        raise _wrong()
    return int(plain[1:])


def cursor_of_place(place: tuple[int, str] | None) -> str | None:
    """Return an opaque cursor of a time and a name; None for none."""
    return None if place is None else _sealed(f"p{place[0]} {place[1]}")


def place_of(cursor: str) -> tuple[int, str]:
    """Return the place of a cursor (untrusted); (0, "") for none.

    Raises:
        RequestError: `request.invalid`.
    """
    if not cursor:
        return 0, ""
    at, space, name = _opened(cursor).partition(" ")
    if at[:1] != "p" or not at[1:].isascii() or not at[1:].isdigit() or len(at) > 16 or not space:
        raise _wrong()
    return int(at[1:]), name


def page(
    items: Sequence[T], name: Callable[[T], str], cursor: str, limit: int
) -> tuple[list[T], str | None]:
    """Cut a page out of a whole list, by name; return it and the cursor of the next one."""
    _, after = place_of(cursor)
    left = sorted((one for one in items if not cursor or name(one) > after), key=name)
    more = (0, name(left[limit - 1])) if len(left) > limit else None
    return left[:limit], cursor_of_place(more)


def _sealed(plain: str) -> str:
    return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def _opened(cursor: str) -> str:
    try:
        padded = cursor[:_CURSOR_MAX] + "=" * (-len(cursor) % 4)
        plain = base64.urlsafe_b64decode(padded).decode()
    except (binascii.Error, ValueError) as error:
        raise _wrong() from error
    if _sealed(plain) != cursor:  # the decoder passes over what it does not know
        raise _wrong()
    return plain


def _wrong() -> RequestError:
    return RequestError("request.invalid", "cursor: take it from `next` of a page")
