"""The live stream: named events that carry rendered fragments, at most one a second, only when they changed.

Every viewer shares one look at the reader's position, and one view of each page per position: a hundred open tabs cost one query.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import FromQuery, QueryParameter
from litestar.response import Stream

from tidegate.core.errors import BusyError, RequestError, TidegateError
from tidegate.server.actors import Sight
from tidegate.server.scopes import ABOUT, LISTED, PERMISSION
from tidegate.server.web import guard
from tidegate.server.web.guard import WebRequest
from tidegate.server.web.pages import Query
from tidegate.server.web.render import EVIDENCE, LIVE
from tidegate.server.web.site import Site, SiteDep, Visit

TICK_S: Final = 1.0
BEAT_S: Final = 10.0
#: How often a page is drawn again although nothing happened: "seen 38 s ago" grows old by itself.
REDRAW_S: Final = 15.0
#: How often it is looked again whether whoever is behind a stream may see its page.
RECHECK_S: Final = 60.0
MOST_STREAMS: Final = 500
_MOST_VIEWS: Final = 64
#: The permission that every page takes.
_READ: Final = "fleet.read"
#: Page → what it is about.
_ABOUT: Final = {
    "fleet": LISTED,
    "rollouts": LISTED,
    "rollout": "rollout",
    "device": "device",
    "incidents": LISTED,
}


@dataclass(slots=True)
class Pulse:
    """What all streams of this process share."""

    streams: int = 0
    _position: int = 0
    _looked_at: float = float("-inf")
    _views: dict[tuple[str, str, str, Sight, int, int], object] = field(default_factory=dict)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def position(self, site: Site) -> int:
        """Return the reader's position, asked for at most once a tick."""
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if now - self._looked_at >= TICK_S / 2:
                self._position = await site.run(site.reader.position)
                self._looked_at = now
        return self._position

    async def view(self, site: Site, visit: Visit, page: str, key: str, position: int) -> object:
        """Return the view of a page at a position, shared by all who look at it. `None`: it is gone."""
        now = site.now()
        slot = (
            page,
            key,
            visit.account.name if page == "rollout" else "",
            visit.account.sight,
            position,
            now // int(REDRAW_S),
        )
        async with self._lock:
            if slot not in self._views:
                if len(self._views) >= _MOST_VIEWS:
                    self._views.clear()
                self._views[slot] = await site.run(_load(site, visit, page, key, now))
            return self._views[slot]


def _load(site: Site, visit: Visit, page: str, key: str, now: int) -> Callable[[], object]:
    reader, sight = site.reader, visit.account.sight
    match page:
        case "fleet":
            return lambda: reader.fleet(now, sight)
        case "rollouts":
            return lambda: reader.rollouts(now, "", sight)
        case "rollout":
            return lambda: reader.rollout(key, visit.account, now)
        case "device":
            return lambda: reader.device(key, now)
        case "incidents":
            return lambda: reader.incidents(now, sight)
        case _:
            raise RequestError("request.not_found", "No such live page.")


def event(name: str, data: str, position: int) -> bytes:
    """Write one server-sent event."""
    lines = "".join(f"data: {line}\n" for line in data.splitlines() or [""])
    return f"id: {position}\nevent: {name}\n{lines}\n".encode()


@dataclass(slots=True)
class Listener:
    """One open page: what it holds, and what it is sent."""

    site: Site
    pulse: Pulse
    visit: Visit
    page: str
    key: str
    _sent: dict[str, bytes] = field(default_factory=dict)

    async def fragments(self, position: int, *, quiet: bool = False) -> list[bytes]:
        """Draw every region and return events for those that differ from what the page holds. `quiet` only takes note."""
        view = await self.pulse.view(self.site, self.visit, self.page, self.key, position)
        if view is None:
            return []
        visit = Visit(self.visit.account, self.visit.session, self.site.now())
        drawn = await self.site.run(lambda: self._draw(visit, view))
        out = []
        for region, html in drawn.items():
            mark = hashlib.sha256(html.encode()).digest()
            if self._sent.get(region) != mark:
                self._sent[region] = mark
                out.append(event(region, html, position))
        return [] if quiet else out

    def _draw(self, visit: Visit, view: object) -> dict[str, str]:
        context = self.site.context(visit, view)
        return {
            region: self.site.renderer.fragment(self.page, region, context)
            for region in LIVE[self.page]
            if not _absent(region, view)
        }

    async def run(self, since: int) -> AsyncIterator[bytes]:
        """Send what changed after `since`, then listen on until the page goes away, the session ends or may not see it any more."""
        loop = asyncio.get_running_loop()
        position = await self.pulse.position(self.site)
        yield b"retry: 3000\n\n"
        first = await self.fragments(position, quiet=position == since)
        if position == since and await self.site.run(self.site.reader.position) != since:
            # It changed between the page and here: what was drawn is newer than what the page holds.
            self._sent.clear()
            first = await self.fragments(position)
        for item in first:
            yield item
        drawn_at = beat_at = checked_at = loop.time()
        while True:
            await asyncio.sleep(TICK_S)
            now = loop.time()
            latest = await self.pulse.position(self.site)
            if latest != position or now - drawn_at >= REDRAW_S:
                position, drawn_at = latest, now
                for item in await self.fragments(position):
                    beat_at = now
                    yield item
            if now - beat_at >= BEAT_S:
                beat_at = now
                yield event("beat", str(self.site.now()), position)
            if now - checked_at >= RECHECK_S:
                checked_at = now
                if not await self._may_still():
                    return

    async def _may_still(self) -> bool:
        """Say whether whoever looks still is who came, holds what they held, and sees what the page is about: else the page has to ask anew."""
        site, visit, now = self.site, self.visit, self.site.now()
        if await site.run(lambda: site.auth.account(visit.session, now)) != visit.account:
            return False
        try:
            fresh = Visit(visit.account, visit.session, now)
            await site.check(fresh, _READ, _ABOUT[self.page], self.key)
        except TidegateError:
            return False
        return True


def _absent(region: str, view: Any) -> bool:
    if region == "exposure":
        return view.chart is None or not view.chart.drawable
    return region in EVIDENCE and not view.weighs


class Live(Controller):
    """`/live`: one connection a page."""

    include_in_schema = False

    @get("/live", opt={PERMISSION: _READ, ABOUT: LISTED})
    async def listen(
        self,
        request: WebRequest,
        site: SiteDep,
        pulse: NamedDependency[Pulse],
        page: Query,
        key: Annotated[str, QueryParameter(name="id", max_length=130)] = "",
        since: FromQuery[int] = 0,
    ) -> Stream:
        """Open the stream of one page."""
        visit = await site.visit(request)
        if page not in LIVE:
            raise RequestError("request.not_found", "No such live page.")
        await site.check(visit, _READ, _ABOUT[page], key)
        if pulse.streams >= MOST_STREAMS:
            raise BusyError("server.busy", "Too many live pages are open.")
        last = request.headers.get("last-event-id", "")
        start = int(last) if last.isascii() and last.isdigit() and len(last) < 20 else since
        listener = Listener(site, pulse, visit, page, key)
        headers = guard.HEADERS | {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return Stream(
            _counted(pulse, listener.run(start)), media_type="text/event-stream", headers=headers
        )


async def _counted(pulse: Pulse, stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    pulse.streams += 1
    try:
        async for item in stream:
            yield item
    finally:
        pulse.streams -= 1
