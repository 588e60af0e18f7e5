"""`sort=name`, `sort=-created_at`: the order of a list, by fields that an index of the database holds; other fields are refused with the names of these.

A cursor belongs to the order in which its page was told, and is refused in another.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, TypeVar

from litestar.params import QueryParameter

from tidegate.core.errors import RequestError
from tidegate.core.nearest import did_you_mean
from tidegate.server.api import paging
from tidegate.server.store.ordering import Order

T = TypeVar("T")
#: Name of the query parameter, and of a handler's `opt` that holds its `Sorting`.
SORT: Final = "sort"
_SORT_MAX: Final = 64
#: Fields that hold texts; the others hold numbers.
_TEXTS: Final = frozenset({"name", "id"})
Sort = Annotated[
    str,
    QueryParameter(
        max_length=_SORT_MAX,
        description="Order of the list: a field, with `-` before it from the greatest to the smallest.",
    ),
]


class Sorting:
    """The orders of one list."""

    def __init__(self, usual: str, columns: Mapping[str, str], hint: str = "") -> None:
        """Offer fields of the items, each by the column that no two rows share.

        Args:
            usual: order where none is asked for, written like any other.
            columns: field → column.
            hint: what to do instead, for who asks for a field that is not among them.
        """
        self.usual = usual
        self._columns = dict(columns)
        self._hint = hint

    @property
    def words(self) -> tuple[str, ...]:
        """Return what may be asked for."""
        return tuple(f"{sign}{field}" for field in self._columns for sign in ("", "-"))

    def order(self, sort: str, cursor: str) -> Order:
        """Return the order that is asked for, from a cursor on (both untrusted; empty = the usual order, the first page).

        Raises:
            RequestError: `request.invalid`: no such order, or the cursor is not of it.
        """
        word = self.checked(sort)
        found = Order(by=self._columns[word.lstrip("-")], down=word.startswith("-"))
        if not cursor:
            return found
        if word == self.usual:
            return found.behind(paging.position_of(cursor))
        return found.behind(paging.value_of(cursor, word, number=word.lstrip("-") not in _TEXTS))

    def checked(self, sort: str) -> str:
        """Return the order that is asked for, in words (untrusted; empty = the usual one).

        Raises:
            RequestError: `request.invalid`: no such order.
        """
        word = sort or self.usual
        if word not in self.words:
            near = did_you_mean(word, self.words)
            fields = ", ".join(self._columns)
            raise RequestError(
                "request.invalid",
                f'sort: no order "{word[:_SORT_MAX]}"{near}',
                hint=f"sort by {fields}; with - before it the other way{self._hint}",
            )
        return word

    def cursor(self, sort: str, more: Order | None) -> str | None:
        """Return the cursor of the next page; None where there is none."""
        if more is None:
            return None
        word = sort or self.usual
        if word == self.usual:
            return paging.cursor_of(int(more.after or 0))
        return paging.cursor_of_value(word, more.after)


def page(
    items: Sequence[T], name: Callable[[T], str], sort: str, cursor: str, limit: int
) -> tuple[list[T], str | None]:
    """Cut a page out of a whole list of things with a name and `created_at`; return it and the cursor of the next one.

    Raises:
        RequestError: `request.invalid`: no such order, or the cursor is not of it.
    """
    word = BY_NAME.checked(sort)

    def place(one: Any) -> tuple[int, str]:
        return (int(one.created_at) if word.endswith("created_at") else 0), name(one)

    down, usual = word.startswith("-"), word == BY_NAME.usual
    after = paging.place_of(cursor, "" if usual else word)
    left = [
        one for one in items if not cursor or (place(one) < after if down else place(one) > after)
    ]
    left.sort(key=place, reverse=down)
    more = place(left[limit - 1]) if len(left) > limit else None
    return left[:limit], paging.cursor_of_place(more, "" if usual else word)


ROLLOUTS: Final = Sorting("-created_at", {"created_at": "id", "name": "name"})
#: A counter is unique within a product.
RELEASES: Final = Sorting(
    "-published_at", {"published_at": "id", "name": "name", "counter": "counter"}
)
DEVICES: Final = Sorting(
    "enrolled_at",
    {"enrolled_at": "row", "id": "id"},
    "; when a device was last heard is for the query: seen > 24h",
)
INCIDENTS: Final = Sorting("-opened_at", {"opened_at": "id"})
JOBS: Final = Sorting("-created_at", {"created_at": "id"})
NOTICES: Final = Sorting("-created_at", {"created_at": "id"})
ENTRIES: Final = Sorting("-at", {"at": "seq"})
STORY: Final = Sorting("at", {"at": "id"})
REPORTS: Final = Sorting("-received_at", {"received_at": "position"})
BY_NAME: Final = Sorting("name", {"name": "name", "created_at": "created_at"})
