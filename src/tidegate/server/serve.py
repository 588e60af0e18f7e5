"""Serving over HTTP: the port, TLS, uvicorn with the right options, a graceful stop.

The port is taken before the data directory is touched, so that a start that cannot serve changes nothing.
"""

import contextlib
import gc
import logging
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import uvicorn

from tidegate.core.errors import BusyError, ConfigError
from tidegate.server import tls
from tidegate.server.app import App, create_app
from tidegate.server.cells import Cells
from tidegate.server.config import Settings
from tidegate.server.config_values import split_listen
from tidegate.server.connections import Bounds, guarded
from tidegate.server.front import Front
from tidegate.server.people.limits import require_a_way_in
from tidegate.server.proxies import Proxies

_BACKLOG: Final = 2_048
#: How long requests under way may take after a stop was asked for.
_GRACE_S: Final = 10
#: When Python looks for rings of garbage (`gc.set_threshold`): requests on ten thousand connections are far more objects than its usual 700, and no garbage.
_GC: Final = (20_000, 20, 20)


def bind(settings: Settings) -> socket.socket:
    """Take the port.

    Raises:
        BusyError: `serve.port_taken`. ConfigError: `serve.no_tls`: reachable from elsewhere without TLS; `config.invalid`: no such address here.
    """
    host, port = split_listen(settings.listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    plain = not (settings.tls or settings.tls_cert)
    if plain and not _is_local(host) and not settings.trusted_proxies:
        raise ConfigError("serve.no_tls", f"{settings.listen} can be reached from other machines")
    taken = socket.socket(family, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((host, port))
    except OSError as error:
        taken.close()
        if error.errno in {98, 13}:  # EADDRINUSE; EACCES: a port below 1024
            raise BusyError("serve.port_taken", f"{settings.listen}: {error.strerror}") from error
        raise ConfigError("config.invalid", f"{settings.listen}: {error.strerror}") from error
    taken.listen(_BACKLOG)
    return taken


def _is_local(host: str) -> bool:
    return host in {"localhost", "::1"} or host.startswith("127.")


def url_of(settings: Settings, taken: socket.socket) -> str:
    """Return the address that is served, with the real port."""
    host, port = taken.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    scheme = "https" if settings.tls or settings.tls_cert else "http"
    return f"{scheme}://{shown}:{port}"


def serve(
    settings: Settings,
    *,
    opened: Callable[[App], None] = lambda _: None,
    ready: Callable[[App, str], None] = lambda *_: None,
) -> None:
    """Serve until SIGINT or SIGTERM; everything acknowledged is durable whenever it ends.

    Args:
        settings: the server's.
        opened: called when the data directory is open and nothing is served yet.
        ready: called with the address when requests are answered.

    Raises:
        ConfigError, BusyError: nothing was served.
    """
    # the application for people is made later, when a server that cannot let anybody in would run already
    require_a_way_in(
        settings.oidc, local=settings.accounts_local, external_url=settings.external_url
    )
    taken = bind(settings)
    try:
        context = tls.context_for(settings)
        with _lasting():
            app = create_app(settings, ticking=True)
            front = Front(app, Cells(app, lambda one: create_app(one, ticking=True)))
    except BaseException:
        taken.close()
        raise
    try:
        opened(app)
        url = url_of(settings, taken)
        server = _Server(config_of(front, context), lambda: ready(app, url), front.close_waiters)
        with _quiet_end():
            server.run(sockets=[taken])
    finally:
        front.cells.close()
        app.close()
        taken.close()


@contextlib.contextmanager
def _lasting() -> Iterator[None]:
    """Make what stays for the life of the process: Python need not go through a whole fleet again and again to find that none of it is garbage."""
    usual = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if usual:
            gc.enable()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC)


@contextlib.contextmanager
def _quiet_end() -> Iterator[None]:
    """Let a signal that was obeyed end there: uvicorn raises it anew after its stop, which would end the process before it closed its data."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.signal(one, lambda *_: None) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


class _Server(uvicorn.Server):
    """Says when it is ready, and when it is about to stop: what only waits need not be waited for."""

    def __init__(
        self, config: uvicorn.Config, ready: Callable[[], None], stopping: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._ready = ready
        self._stopping = stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()
            _tell_supervisor("READY=1")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        _tell_supervisor("STOPPING=1")
        self._stopping()
        await super().shutdown(sockets)


def _tell_supervisor(state: str) -> None:
    """Tell systemd, where it asks to be told (sd_notify(3))."""
    name = os.environ.get("NOTIFY_SOCKET", "")
    if not name:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.sendto(state.encode(), f"\0{name[1:]}" if name.startswith("@") else name)


def config_of(front: App | Front, context: ssl.SSLContext | None) -> uvicorn.Config:
    """Return how uvicorn is to serve: with our bounds of a connection, and TLS where there is a context."""
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    application: Any = front
    settings = (front.app if isinstance(front, Front) else front).services.settings
    host, _ = split_listen(settings.listen)
    bounds = Bounds(
        settings.connections_per_address,
        Proxies(settings.trusted_proxies),
        # in plain, on an address that others can reach: for the proxies alone that end TLS
        proxies_only=context is None and not _is_local(host),
    )
    config = uvicorn.Config(
        application,
        loop="uvloop",
        http=guarded(bounds),
        ws="none",
        lifespan="on",
        access_log=False,
        proxy_headers=False,
        log_config=None,
        server_header=False,
        date_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_GRACE_S,
    )
    if context is not None:
        config.load()
        config.ssl = context
    return config
