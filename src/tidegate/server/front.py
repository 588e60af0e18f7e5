"""What stands in front of the applications of a server's tenants: it picks one by the host that was asked for, and hands over the request.

The host is a stranger's text, and picks no more than the cell: what is let in there is decided by that cell's own keys, tokens and people. Where there is only
the default tenant nothing is looked at.
"""

import asyncio
import logging
import time
from typing import Final

from tidegate.core.errors import RequestError, TidegateError
from tidegate.server import threads
from tidegate.server.app import App, Receive, Scope, Send
from tidegate.server.asgi import header_of, live, send_problem
from tidegate.server.cells import Cell, Cells
from tidegate.server.hot import PREFIX
from tidegate.server.probes import PATHS
from tidegate.server.tenants import host_of, own_host

#: A cell that could not be opened is tried again this often, in seconds.
_AGAIN_S: Final = 30
_LATER: Final = (b"retry-after", b"60")
_log = logging.getLogger("tidegate.tenants")


class Front:
    """The whole server as one ASGI application, with all its tenants."""

    def __init__(self, app: App, cells: Cells) -> None:
        """Stand before the default tenant's application and the cells of the others."""
        self.app = app
        self.cells = cells
        self._strict = app.services.settings.tenants_strict
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or follow the life of the server."""
        if scope["type"] == "lifespan":
            await live(receive, send, self._start, self._stop)
        elif not self.cells.hosts or scope["path"] in PATHS:
            await self.app(scope, receive, send)
        else:
            try:
                chosen = self._chosen(scope)
            except TidegateError as error:
                await send_problem(send, error, [_LATER])
                return
            await chosen(scope, receive, send)

    def _chosen(self, scope: Scope) -> App:
        """Return the application that a request is for.

        Raises:
            RequestError: `request.invalid`: it names two hosts; `tenant.unknown_host`; `quota.requests`. BusyError: `tenant.suspended`, `tenant.unavailable`.
        """
        host = host_of((header_of(scope, b"host") or b"").decode("latin-1"))
        if sum(name == b"host" for name, _ in scope["headers"]) > 1:
            raise RequestError("request.invalid", "a request names one host")
        cell = self.cells.hosts.get(host)
        if cell is None:
            if self._strict and host != self._own:
                raise RequestError("tenant.unknown_host", "nothing is served at this host")
            return self.app
        return self._admitted(cell, scope)

    def _admitted(self, cell: Cell, scope: Scope) -> App:
        app = cell.require_open()
        if not scope["path"].startswith(PREFIX):
            cell.require_rate(time.monotonic())
        return app

    @property
    def _own(self) -> str:
        return own_host(self.app.services.settings)

    # --- life ---

    def close_waiters(self) -> None:
        """End what only waits: the server is about to stop."""
        for app in (self.app, *(one.app for one in self.cells.all)):
            if app is not None:
                app.hot.polls.waiters.close()

    async def _start(self) -> None:
        loop, news = asyncio.get_running_loop(), asyncio.Event()
        loop.set_default_executor(threads.of_people())
        await self.app.start()

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(news.set)

        self.cells.wake = wake
        await self._arrange()
        self._task = asyncio.create_task(self._keep(news))

    async def _arrange(self) -> None:
        await asyncio.to_thread(self.cells.arrange)
        opened, closed = self.cells.moved()
        for app in opened:
            await app.start()
        for app in closed:
            app.hot.polls.waiters.close()
            await app.stop()

    async def _keep(self, news: asyncio.Event) -> None:
        """Open and close cells as tenants come and go."""
        while True:
            try:
                async with asyncio.timeout(_AGAIN_S):
                    await news.wait()
            except TimeoutError:
                pass
            news.clear()
            try:
                await self._arrange()
            except Exception:  # noqa: BLE001 - the loop has to outlive whatever one look met
                _log.exception("the tenants could not be looked at; the next look tries again")

    async def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for one in self.cells.all:
            if one.app is not None:
                await one.app.stop()
        await self.app.stop()
