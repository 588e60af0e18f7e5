"""The composition root: settings in, one ASGI application out. The device side is answered raw; the rest goes to Litestar, imported when it is first needed.

`App` runs anywhere: under uvicorn (`server.serve`), or inside a simulation that owns clock and randomness and calls `tick` by hand.
"""

import asyncio
import functools
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, cast

from tidegate.server import threads
from tidegate.server.asgi import live
from tidegate.server.config import Settings
from tidegate.server.hot import POLL, PREFIX, HotApp
from tidegate.server.logs import Traced
from tidegate.server.pace import paced
from tidegate.server.probes import PATHS, Probes
from tidegate.server.proxies import Proxies
from tidegate.server.readiness import Readiness
from tidegate.server.services import Services, open_services
from tidegate.server.spans import Spanned, Spans
from tidegate.server.store import Store

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

_log = logging.getLogger("tidegate.server")
#: Bad news is looked at this soon, in seconds: several reports that come together are judged together.
_WAKE_S: Final = 0.2
#: What is owed to the world is looked for this often, beside at once after people did something, in seconds.
_OWED_S: Final = 5
#: Hints in memory are made anew this often whatever happens, in seconds.
_COMPILE_S: Final = 600


class Settled:
    """What people do is answered when it counts in every process of this server: a halt that one acknowledges, none goes past.

    Attributes:
        inner: the application that it stands before.
    """

    def __init__(self, app: Asgi, store: Store) -> None:
        """Stand before `app`."""
        self.inner = app
        self._store = store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def later(message: Message) -> None:
            if message["type"] == "http.response.start":
                await asyncio.to_thread(self._store.settle)
            await send(message)

        reads = scope["type"] != "http" or scope["method"] in {"GET", "HEAD", "OPTIONS"}
        await self.inner(scope, receive, send if reads else later)


class App:
    """The whole server as one ASGI application, with its parts."""

    def __init__(self, services: Services, *, ticking: bool) -> None:
        """Compose it. `ticking`: run the planner by itself while the application lives."""
        self.services = services
        self.hot = HotApp(services)
        self._proxies = Proxies(services.settings.trusted_proxies)
        self._traced = Traced(self.hot)
        self.spans = Spans(services.settings.otel_endpoint)
        self._people = Traced(Spanned(paced(self._answered), self.spans), self._count)
        self.readiness = Readiness(services, ticking=ticking)
        self.probes = Probes(
            self.readiness, self._alive, lambda: services.now, services.threads.probes
        )
        self._admin: Asgi | None = None
        self._making = threading.Lock()
        self._looking = threading.Lock()
        self._closed = False
        self._ticking = ticking
        self._task: asyncio.Task[None] | None = None
        self._warm: asyncio.Task[Asgi] | None = None
        self._teller: asyncio.Task[None] | None = None
        self._news: asyncio.Event | None = None
        self._owed: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        services.wake = self._wake

    @property
    def store(self) -> Store:
        """Return the store."""
        return self.services.store

    @property
    def admin(self) -> Asgi:
        """Return the application for people: API and web. Litestar takes a second to import, so it is made on first use, or beside the first requests."""
        with self._making:
            if self._admin is None:
                from tidegate.server.api import create_admin_app

                made: Any = create_admin_app(self.services, self.readiness)
                self._admin = Settled(made, self.store) if self.store.shared else made
            return cast("Asgi", self._admin)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or follow the life of the server."""
        if self._proxies and scope["type"] == "http":
            self._proxies.look_through(scope)
        if scope["type"] == "http" and scope["path"] == POLL:
            await self.hot(scope, receive, send)
        elif scope["type"] == "http" and scope["path"].startswith(PREFIX):
            await self._traced(scope, receive, send)
        elif scope["type"] == "lifespan":
            await live(receive, send, self.start, self.stop)
        elif scope["type"] == "http" and scope["path"] in PATHS:
            await self.probes(scope, send)
        else:
            await self._people(scope, receive, send)

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._admin is None:
            await asyncio.to_thread(lambda: self.admin)
        await self.admin(scope, receive, send)

    def _count(self, status: int) -> None:
        self.services.counters.requests[f"{status // 100}xx" if status else "gone"] += 1

    def _alive(self) -> bool:
        """Say whether everything that should run in this process does."""
        loops = (self._task, self._teller)
        ended = any(one is not None and one.done() for one in loops)
        return self.store.alive and not ended and not self._closed

    def tick(self, now: int | None = None) -> None:
        """Let the planner look at every rollout, sweep silent devices, renew metadata; durable on return. Safe to repeat."""
        from tidegate.server.tick import tick

        with self._looking:
            if self._closed:
                return
            self.services.flush_seen()
            with self.spans.span("planner.tick"):
                tick(self.services, self.services.now if now is None else now)

    def deliver(self, now: int | None = None) -> int:
        """Deliver what the world is owed and is due; return how many messages arrived. Safe to repeat."""
        from tidegate.server.outbox import deliver_due

        return deliver_due(self.services, self.services.now if now is None else now)

    def close(self) -> None:
        """Finish what is under way, a tick too, and close everything. Safe to repeat."""
        with self._looking:
            self._closed = True
        self.spans.close()
        self.services.close()

    async def start(self) -> None:
        """Begin what runs by itself, on this event loop."""
        self._loop = asyncio.get_running_loop()
        self._news, self._owed = asyncio.Event(), asyncio.Event()
        self.hot.load.watch()
        if self._ticking:
            settings = self.services.settings
            if settings.webhooks or settings.mails:
                self._teller = asyncio.create_task(self._tell_for_ever())
            self._warm = asyncio.create_task(asyncio.to_thread(lambda: self.admin))
            self._task = asyncio.create_task(self._tick_for_ever())

    async def stop(self) -> None:
        """End what runs by itself, and close everything."""
        self.hot.load.close()
        for task in (self._task, self._teller, self._warm):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await asyncio.to_thread(self.close)

    def _wake(self) -> None:
        """Have the planner look soon; from any thread."""
        if self._loop is not None and self._news is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)
            if self._owed is not None:
                self._loop.call_soon_threadsafe(self._owed.set)

    async def _tick_for_ever(self) -> None:
        news = self._news or asyncio.Event()
        compiled = time.monotonic()
        while True:
            counters = self.services.counters
            try:
                counters.ticks += 1
                await threads.call(self.services.threads.planner, self.tick)
                counters.ticked_at = self.services.now
                if time.monotonic() - compiled > _COMPILE_S:
                    compiled = time.monotonic()
                    services = self.services
                    await threads.call(
                        services.threads.planner, services.store.read, services.fleet.compile
                    )
            except Exception:  # noqa: BLE001 - the loop has to outlive whatever one tick met
                counters.ticks_failed += 1
                _log.exception("a tick failed; the next one tries again")
            try:
                await asyncio.wait_for(news.wait(), self.services.settings.tick_s)
                await asyncio.sleep(_WAKE_S)
            except TimeoutError:
                pass
            news.clear()

    async def _tell_for_ever(self) -> None:
        """Deliver what the world is owed, beside the planner: a receiver that is slow holds up no decision."""
        owed = self._owed or asyncio.Event()
        while True:
            try:
                await threads.call(self.services.threads.teller, self.deliver)
            except Exception:  # noqa: BLE001 - the loop has to outlive whatever one delivery met
                _log.exception("a delivery failed; the next one tries again")
            try:
                await asyncio.wait_for(owed.wait(), _OWED_S)
                await asyncio.sleep(_WAKE_S)
            except TimeoutError:
                pass
            owed.clear()


def create_app(
    settings: Settings | None = None,
    *,
    clock: Callable[[], float] = time.time,
    randomness: Callable[[int], bytes] = os.urandom,
    store: Store | None = None,
    ticking: bool = False,
) -> App:
    """Open everything and compose the application.

    Args:
        settings: None = the defaults.
        clock: unix seconds; every `now` in the server comes from it.
        randomness: unpredictable bytes.
        store: one that is open already.
        ticking: run the planner in the background while the application lives; without it, call `App.tick`.

    Raises:
        ConfigError, BusyError: `data.*`, `key.*`.
    """
    wanted = settings or Settings()
    if wanted.webhooks or wanted.mails:
        from tidegate.server.channels import channels_of

        channels_of(wanted)  # a mistake in them ends the start, before anything is touched
    opened = functools.partial(open_services, clock=clock, randomness=randomness, store=store)
    return App(opened(wanted), ticking=ticking)
