"""The fleet over REST: status, the event log, the stream of changes, and the description of the API itself."""

from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from litestar import Controller, Request, get
from litestar.response import ServerSentEvent, ServerSentEventMessage

from tidegate.server import calendar, inquiry, series
from tidegate.server.api.desk import (
    ABOUT,
    ANSWER,
    ANYBODY,
    PERMISSION,
    WHOLE,
    Desk,
    DeskDep,
    Moment,
)
from tidegate.server.api.openapi import describe
from tidegate.server.api.paging import Cursor, Limit, cursor_of, position_of
from tidegate.server.api.wire import Calendar, Events
from tidegate.server.facts import Status
from tidegate.server.series import FleetSeries

HEARTBEAT_S: Final = 10.0
_MONTH_S: Final = 30 * 86_400


class FleetRoutes(Controller):
    """What is not about one thing."""

    tags = ("fleet",)

    @get("/status", opt={PERMISSION: "fleet.read", ABOUT: WHOLE}, sync_to_thread=True)
    def status(self, desk: DeskDep) -> Status:
        """Return the fleet on one screen."""
        return desk.read(lambda conn: inquiry.status(conn, desk.now))

    @get("/calendar", opt={PERMISSION: "fleet.read", ABOUT: WHOLE}, sync_to_thread=True)
    def calendar(self, desk: DeskDep) -> Calendar:
        """Return the expiry calendar: root, targets, products, online roles and grants."""
        return desk.read(
            lambda conn: Calendar(
                at=desk.now,
                items=calendar.calendar(conn, desk.now),
                one_signer=calendar.one_signer(conn),
            )
        )

    @get("/series", opt={PERMISSION: "fleet.read", ABOUT: WHOLE}, sync_to_thread=True)
    def series(self, desk: DeskDep, since: Moment = 0) -> FleetSeries:
        """Return what happened in the fleet day by day, and which versions ran when; the last thirty days where `since` says nothing."""
        start = since or desk.now - _MONTH_S
        return desk.read(lambda conn: series.of_fleet(conn, start))

    @get("/events", opt={PERMISSION: "fleet.read", ABOUT: WHOLE}, sync_to_thread=True)
    def events(self, desk: DeskDep, cursor: Cursor = "", limit: Limit = 100) -> Events:
        """Return the event log in order; a page that is full has a `next`."""
        after = position_of(cursor)
        items, more = desk.read(lambda conn: inquiry.events(conn, after=after, limit=limit))
        return Events(items=items, next=cursor_of(more))

    @get("/stream", opt={PERMISSION: "fleet.read", ABOUT: WHOLE, ANSWER: ("text/event-stream",)})
    async def stream(self, desk: DeskDep) -> ServerSentEvent:
        """Tell what changes, as server-sent events named `change`; a comment every ten seconds when nothing does."""
        return ServerSentEvent(_told(desk))


async def _told(desk: Desk) -> AsyncIterator[ServerSentEventMessage]:
    async for change in desk.live.stream(HEARTBEAT_S):
        if change is None:
            yield ServerSentEventMessage(comment="nothing new", data=None)
        else:
            plain = {"kind": change.kind, "key": change.key}
            yield ServerSentEventMessage(data=msgspec.json.encode(plain).decode(), event="change")


@get(
    "/openapi.json",
    opt={PERMISSION: ANYBODY, "exclude_from_auth": True},
    sync_to_thread=True,
    include_in_schema=False,
)
def openapi_document(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """Describe the whole API, device routes included, as OpenAPI 3.1."""
    state = request.app.state
    found: dict[str, Any] | None = state.get("described")
    if found is None:
        found = state["described"] = describe(request.app)
    return found
