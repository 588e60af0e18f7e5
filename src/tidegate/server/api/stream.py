"""What happens, as server-sent events that name themselves, say where the reader stands, and go on from there: `/api/v1/events/stream`.

A reader that comes back with the `Last-Event-ID` of the last event that it has misses nothing (`server.following`). One person has a bounded number of streams;
who may not ask any more is told nothing any more, ten seconds later at most.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Annotated, Final

import msgspec
from litestar import Controller, get
from litestar.datastructures import State
from litestar.params import HeaderParameter, QueryParameter
from litestar.response import ServerSentEvent, ServerSentEventMessage

from tidegate.core.errors import BusyError, RequestError, TidegateError
from tidegate.core.nearest import did_you_mean
from tidegate.server import following, live
from tidegate.server.actors import FLEET
from tidegate.server.api.desk import ABOUT, ANSWER, PERMISSION, WHOLE, ApiRequest, Desk, DeskDep
from tidegate.server.following import Changed, Place, Resync

#: A comment is sent after so many seconds of silence: who hears nothing for longer has lost the connection.
HEARTBEAT_S: Final = 10.0
#: What happens within so many seconds is read at once.
GATHER_S: Final = 0.05
#: Streams of one person at a time.
STREAMS_MAX: Final = 8
#: A browser comes again after so many milliseconds.
_AGAIN_MS: Final = 2_000
_SEATS: Final = "streams by person"
LastId = Annotated[
    str,
    HeaderParameter(
        name="Last-Event-ID",
        max_length=40,
        description="The `id` of the last event that is known; the stream goes on behind it.",
    ),
]
Kinds = Annotated[
    str,
    QueryParameter(
        max_length=200,
        description="Changes of these kinds only, separated by commas: "
        + ", ".join(sorted(following.KINDS)),
    ),
]
Reports = Annotated[
    bool, QueryParameter(description="Tell what devices report, too, as events named `event`.")
]


class StreamRoutes(Controller):
    """The stream."""

    tags = ("fleet",)

    @get(
        "/events/stream",
        opt={PERMISSION: "fleet.read", ABOUT: WHOLE, ANSWER: ("text/event-stream",)},
    )
    async def follow(
        self,
        request: ApiRequest,
        desk: DeskDep,
        last: LastId = "",
        kinds: Kinds = "",
        reports: Reports = False,
    ) -> ServerSentEvent:
        """Tell what happens, as it happens: `change` (`kind`, `key`, `at`), `event` (what a device reported), `resync` (look at everything anew).

        Each event has an `id`; come back with it in `Last-Event-ID` and nothing is missed. Without one the stream begins now. After ten seconds of silence
        comes a comment. One person may have 8 streams at a time.
        """
        wanted = _kinds(kinds)
        place = following.place_of(last) if last else None
        seats = _seats(request.app.state)
        if seats[request.user.name] >= STREAMS_MAX:
            raise RequestError(
                "request.rate_limited",
                f"you have {STREAMS_MAX} streams already",
                hint="close one of them: one stream tells everything",
            )
        if desk.live.watchers >= live.WATCHERS_MAX:
            raise BusyError("server.busy", f"{live.WATCHERS_MAX} watch already")
        if place is None:
            place = await asyncio.to_thread(desk.read, following.here)
        return ServerSentEvent(_told(request, desk, seats, place, wanted, reports=reports))


def _kinds(text: str) -> frozenset[str]:
    wanted = frozenset(one.strip() for one in text.split(",") if one.strip())
    for one in sorted(wanted - following.KINDS):
        near = did_you_mean(one, sorted(following.KINDS))
        raise RequestError("request.invalid", f'kinds: no kind "{one[:40]}"{near}')
    return wanted or following.KINDS


def _seats(state: State) -> Counter[str]:
    found: Counter[str] | None = state.get(_SEATS)
    if found is None:
        found = state[_SEATS] = Counter()
    return found


async def _told(
    request: ApiRequest,
    desk: Desk,
    seats: Counter[str],
    place: Place,
    kinds: frozenset[str],
    *,
    reports: bool,
) -> AsyncIterator[ServerSentEventMessage]:
    name, loop = request.user.name, asyncio.get_running_loop()
    if seats[name] >= STREAMS_MAX:
        return  # several asked at once, and each saw the last free seat
    seats[name] += 1
    news = desk.live.stream(HEARTBEAT_S)
    waiting, asked = asyncio.ensure_future(anext(news)), loop.time()
    try:
        await asyncio.sleep(
            0
        )  # whoever waits is told of what happens from here on, so nothing falls between the first look and the waiting
        yield ServerSentEventMessage(comment="follow", data=None, id=str(place), retry=_AGAIN_MS)
        while True:
            # by the clock, not in silence alone: where something happens all the time there is none
            if loop.time() - asked >= HEARTBEAT_S:
                if not await asyncio.to_thread(_may, request, desk):
                    return
                asked = loop.time()
            found, place, more = await asyncio.to_thread(_look, desk, place, kinds, reports)
            for behind, told in found:
                yield ServerSentEventMessage(
                    data=msgspec.json.encode(told).decode(), event=_name(told), id=str(behind)
                )
            if more:
                continue
            change = await waiting
            waiting = asyncio.ensure_future(anext(news))
            if change is not None:
                await asyncio.sleep(GATHER_S)
            else:
                yield ServerSentEventMessage(comment="nothing new", data=None)
    finally:
        seats[name] -= 1
        if not seats[name]:
            del seats[name]
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await news.aclose()


def _look(
    desk: Desk,
    place: Place,
    kinds: frozenset[str],
    reports: bool,
) -> tuple[list[tuple[Place, following.Told]], Place, bool]:
    return desk.read(lambda conn: following.since(conn, place, kinds, reports=reports))


def _name(told: following.Told) -> str:
    if isinstance(told, Changed):
        return "change"
    return "resync" if isinstance(told, Resync) else "event"


def _may(request: ApiRequest, desk: Desk) -> bool:
    """Say whether whoever listens may still: a token or session that ended ends the stream."""
    try:
        actor = desk.accounts.authenticate(request.headers, request.cookies, desk.now)
        actor.require("fleet.read", FLEET)
    except TidegateError:
        return False
    return True
