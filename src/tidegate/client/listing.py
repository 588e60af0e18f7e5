"""Lists that come in pages: asked for when they are walked through, one page at a time."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from tidegate.client.link import Link

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Page(Protocol[T_co]):
    """What every page has."""

    @property
    def items(self) -> Sequence[T_co]:
        """Return what is on it."""
        ...

    @property
    def next(self) -> str | None:
        """Return the cursor of the page behind it; None where it is the last."""
        ...


P_co = TypeVar("P_co", bound=Page[object], covariant=True)


class Listing(Generic[T, P_co]):
    """A list of the server. Nothing is asked before it is walked through, and each walk asks anew.

    A cursor says behind what a page begins, so what is added meanwhile neither hides nor repeats anything.
    """

    def __init__(
        self, link: "Link", path: str, kind: type[P_co], query: Mapping[str, object] | None = None
    ) -> None:
        """Prepare to ask `path` for pages of this kind."""
        self._link = link
        self._path = path
        self._kind = kind
        self._query = dict(query or {})

    def __iter__(self) -> Iterator[T]:
        """Walk through all items.

        Raises:
            TidegateError: as the server says.
        """
        for page in self.pages():
            yield from page.items  # type: ignore[misc]  # the page's items are T: the generator writes both from one schema

    def pages(self, cursor: str = "") -> Iterator[P_co]:
        """Walk through the pages, from a cursor (`next` of a page) or from the first.

        Raises:
            TidegateError: as the server says.
        """
        more: str | None = cursor
        while more is not None:
            asked = {**self._query, "cursor": more} if more else self._query
            page = self._link.ask("GET", self._path, self._kind, query=asked)
            yield page
            more = page.next or None

    def first(self) -> P_co:
        """Return the first page.

        Raises:
            TidegateError: as the server says.
        """
        return next(self.pages())
