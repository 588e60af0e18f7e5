"""Whether the log says the same as what is kept: the facts of a rollout, booked anew from the first, page by page."""

from collections.abc import Iterator

import msgspec

from tidegate.core.errors import RequestError
from tidegate.rollout.evidence.baseline import Baseline
from tidegate.rollout.evidence.book import Book
from tidegate.rollout.evidence.settings import Harm
from tidegate.rollout.evidence.strata import Scheme
from tidegate.server.gatekeeper.kept import facts_of
from tidegate.server.store import Connection, gate_rows


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What booking the log anew came to. `differs_at`: number of the first page after which the book is another one; 0 = none."""

    rollout: str
    pages: int
    facts: int
    digest: str
    kept: str
    differs_at: int = 0

    @property
    def same(self) -> bool:
        """Say whether the log leads to what is kept, page by page."""
        return not self.differs_at and self.digest == self.kept


def replay(conn: Connection, rollout: str, rollout_id: int) -> Replayed:
    """Book a rollout's log anew and compare it with what is kept.

    Args:
        conn: any connection, on one snapshot.
        rollout: its name.
        rollout_id: its row.

    Raises:
        RequestError: `request.not_found`: no evidence was ever weighed for it.
    """
    state = gate_rows.kept(conn, rollout_id)
    if state is None:
        raise RequestError(
            "request.not_found",
            f"no evidence was weighed for {rollout}: its policy has no evidence guard, or it has not begun",
        )
    scheme = msgspec.json.decode(state.scheme, type=Scheme)
    baseline = msgspec.json.decode(state.baseline, type=Baseline)
    pages = facts = differs_at = 0
    book = Book(scheme, Harm(), baseline)
    for number, after, found, booked in _booked(conn, rollout_id, book):
        pages, facts, book = number, facts + found, booked
        if not differs_at and book.digest() != after:
            differs_at = number
    return Replayed(
        rollout=rollout, pages=pages, facts=facts, digest=book.digest(), kept=state.digest,
        differs_at=differs_at,
    )  # fmt: skip


def _booked(conn: Connection, rollout_id: int, book: Book) -> Iterator[tuple[int, str, int, Book]]:
    """Book page after page; yield (number, digest that was noted, facts, the book)."""
    for number, _, body, harm, digest in gate_rows.facts(conn, rollout_id):
        if harm is not None:
            settings = msgspec.json.decode(harm, type=Harm)
            # The first settings say which metrics there are; later ones keep them.
            book = (
                Book.unpack(book.pack(), settings, book.baseline)
                if book.facts
                else Book(book.scheme, settings, book.baseline)
            )
        found = facts_of(body)
        book.fold_all(found)
        yield number, digest, len(found), book
