"""Server-sent events, as `/api/v1/events/stream` sends them: what is read here is untrusted and bounded by the line."""

from collections.abc import Iterable, Iterator

import msgspec


class StreamEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a stream.

    Attributes:
        event: its name: `change`, `event`, `resync`; `message` where it has none.
        data: what it says, mostly JSON.
        id: where the stream stands behind it; come back with it in `last_event_id`.
    """

    event: str
    data: str
    id: str


def events_of(lines: Iterable[str]) -> Iterator[StreamEvent]:
    """Yield the events of the lines of a stream. Comments are passed over; an event that was not ended is not told."""
    name, data, last = "", list[str](), ""
    for line in lines:
        if not line:
            if data:
                yield StreamEvent(event=name or "message", data="\n".join(data), id=last)
            name, data = "", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id" and "\0" not in value:
            last = value
