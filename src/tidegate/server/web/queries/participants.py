"""The devices of a rollout, by where they stand: past the point of no return, waiting, ended so or so; and who has not gone back."""

from typing import Final

from tidegate.core.errors import RequestError
from tidegate.server import listing
from tidegate.server.store import Connection
from tidegate.server.web import words
from tidegate.server.web.views import ParticipantRow, ParticipantsPage
from tidegate.server.why import NO_BOUNDS, Bounds

PAGE: Final = 50
STRAGGLERS: Final = "stragglers"
#: What may be looked at, and what it is called.
CHOICES: Final = (
    ("past", "past the point of no return"),
    ("waiting", "waiting, can be stopped"),
    ("confirmed", "confirmed"),
    ("reverted", "reverted"),
    ("failed", "failed"),
    ("lost", "lost"),
    ("declined", "declined"),
    (STRAGGLERS, "ordered back and not gone"),
)


def page(
    conn: Connection, name: str, state: str, cursor: str, now: int, bounds: Bounds = NO_BOUNDS
) -> ParticipantsPage | None:
    """Return one page of a rollout's devices, or None: there is no such rollout. State and cursor are untrusted; `bounds` are the server's.

    Raises:
        RequestError: `request.invalid`: no such state.
    """
    after = int(cursor) if cursor.isascii() and cursor.isdigit() and len(cursor) < 12 else 0
    wanted = state or CHOICES[0][0]
    note = ""
    try:
        if wanted == STRAGGLERS:
            rows, more = _stragglers(conn, name, after, now, bounds)
        else:
            rows, more = _updates(conn, name, wanted, after)
    except RequestError as error:
        if error.code == "request.not_found":
            return None
        if error.code != "request.conflict":
            raise
        rows, more, note = (), 0, "Nothing of this rollout was ordered back."
    return ParticipantsPage(
        now,
        name,
        wanted,
        CHOICES,
        rows,
        str(more) if more else "",
        note or "No device stands there.",
    )


def _updates(
    conn: Connection, name: str, state: str, after: int
) -> tuple[tuple[ParticipantRow, ...], int]:
    found, more = listing.updates(conn, name, state, after=after, limit=PAGE)
    rows = tuple(
        ParticipantRow(
            one.device, one.variant, one.site, one.ring, one.state, one.reason or "",
            words.reason(one.reason) if one.reason else "", one.since, one.last_seen,
        )
        for one in found
    )  # fmt: skip
    return rows, more


def _stragglers(
    conn: Connection, name: str, after: int, now: int, bounds: Bounds
) -> tuple[tuple[ParticipantRow, ...], int]:
    found, more = listing.stragglers(conn, name, now, bounds, after=after, limit=PAGE)
    rows = tuple(
        ParticipantRow(
            one.device, one.variant, one.site, "", one.state or "waiting", "", one.why, 0, one.last_seen
        )
        for one in found
    )  # fmt: skip
    return rows, more
