"""What one connection may cost: how long a head may take, how large it may be, how many connections one address may hold.

uvicorn bounds none of that. The body of a request is bounded by whoever reads it (`hot`, `pace`), an idle connection by uvicorn's own time-out.
A head that takes too long is looked for once a second over all connections, so that a request that comes whole, as nearly all do, costs no timer.
"""

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, NamedTuple

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tidegate.server.limits import prefix
from tidegate.server.proxies import Proxies
from tidegate.server.streams import ABORT

#: How long a head may take from its first byte on, or a fresh connection until then, in seconds.
HEAD_S: Final = 15.0
#: Most bytes of a head, beside what came in the same read as its first byte, and most headers.
HEAD_BYTES: Final = 64 << 10
HEADERS_MAX: Final = 100
#: What is still taken, and thrown away, of a body whose request is answered already, so that the sender comes to read the answer: bytes, and seconds.
DRAIN_BYTES: Final = 8 << 20
DRAIN_S: Final = 5.0
_SWEEP_S: Final = 1.0
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Bounds(NamedTuple):
    """What connections are held to. `per_address` of those that come from no trusted proxy; 0 = no bound. `proxies_only`: nobody else, and this machine."""

    per_address: int
    proxies: Proxies
    head_s: float = HEAD_S
    proxies_only: bool = False


def guarded(bounds: Bounds) -> type[HttpToolsProtocol]:
    """Return the protocol that holds connections to `bounds`; its counts are those of one server."""
    known = _Known()

    class Guarded(_Guarded):
        _bounds = bounds
        _known = known

    return Guarded


class _Known:
    """What one server knows of its connections: how many each address holds, and whether anybody looks after them."""

    def __init__(self) -> None:
        self.held = Counter[str]()
        self.sweeping = False


class _Guarded(HttpToolsProtocol):
    _bounds: Bounds
    _known: _Known

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._waits_since: float | None = self.loop.time()
        self._head: int | None = None
        self._drain: int | None = None
        address = self.client[0] if self.client else ""
        self._name = "" if self._bounds.proxies.trust(address) else prefix(address)
        self._known.held[self._name] += 1
        if self._name and self._bounds.proxies_only and not _is_loopback(address):
            transport.abort()
        if self._name and 0 < self._bounds.per_address < self._known.held[self._name]:
            transport.abort()
        if not self._known.sweeping:
            self._known.sweeping = True
            self.loop.call_later(_SWEEP_S, self._sweep)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._waits_since = None
        self._known.held[self._name] -= 1
        if self._known.held[self._name] <= 0:
            del self._known.held[self._name]

    def data_received(self, data: bytes) -> None:
        if self._head is not None:
            self._head += len(data)
            if self._head > HEAD_BYTES:
                self.transport.abort()
                return
        if self._drain is not None:
            self._drain -= len(data)
            if self._drain < 0:
                self.transport.abort()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[ABORT] = self.transport.abort  # type: ignore[typeddict-unknown-key]  # a key of our own
        self._head = 0
        self._waits_since = self.loop.time()

    def on_headers_complete(self) -> None:
        self._head = self._waits_since = None
        if len(self.headers) <= HEADERS_MAX:
            super().on_headers_complete()
            return
        app, self.app = self.app, _too_many
        try:
            super().on_headers_complete()
        finally:
            self.app = app

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self._drain is not None:
            self._drain = self._waits_since = None

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body:
            self._drain = DRAIN_BYTES
            self._waits_since = self.loop.time() + DRAIN_S - self._bounds.head_s

    def _sweep(self) -> None:
        """End the connections whose head takes too long; on the loop, once a second as long as there are any."""
        late = self.loop.time() - self._bounds.head_s
        for one in list(self.connections):
            waits = getattr(one, "_waits_since", None)
            if waits is not None and waits < late:
                one.transport.abort()
        if self.connections:
            self.loop.call_later(_SWEEP_S, self._sweep)
        else:
            self._known.sweeping = False


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


async def _too_many(_scope: object, _receive: object, send: Send) -> None:
    headers = [(b"content-length", b"0"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 431, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
