"""Channels and messages for the web: the same functions as the API's."""

from collections.abc import Callable, Sequence
from typing import Final

from tidegate.core.errors import ConfigError
from tidegate.server import outbox
from tidegate.server.outbox import ChannelFacts
from tidegate.server.store import Connection
from tidegate.server.store.ordering import NEWEST
from tidegate.server.web.views import ChannelRow, NoticesPage

#: Returns the channels of the settings.
Channels = Callable[[], Sequence[ChannelFacts]]
_ROWS: Final = 50


def page(conn: Connection, channels: Channels, in_state: str, cursor: str, now: int) -> NoticesPage:
    """Return one page of messages; state and cursor are untrusted.

    Raises:
        RequestError: `request.invalid`: no such state.
    """
    place = int(cursor) if cursor.isascii() and cursor.isdigit() and len(cursor) < 16 else 0
    order = NEWEST.behind(place) if place else NEWEST
    found, more = outbox.listed(conn, state=in_state, order=order, limit=_ROWS)
    known: Sequence[ChannelFacts] = ()
    problem = ""
    try:
        known = channels()
    except ConfigError as error:
        problem = error.detail
    return NoticesPage(
        now,
        tuple(ChannelRow(one, outbox.newest_to(conn, one.name)) for one in known),
        tuple(found),
        in_state,
        problem,
        next_cursor=str(more.after) if more else "",
    )
