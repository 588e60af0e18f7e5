"""A simulated link: the agent's `Transport` over a wire (a server in this process, or real HTTP on this machine), with the faults of the field on it.

Wires can lie: `Tampered` and its like sit where a hostile proxy would, and change what passes. What refuses it must be the device.
"""

import asyncio
import http.client
import ssl
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol
from urllib.parse import unquote

from tidegate.core.errors import TransferError
from tidegate.sim.clock import DeviceClock
from tidegate.sim.faults import LinkFaults

Message = MutableMapping[str, Any]
AsgiApp = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]


@dataclass(frozen=True)
class Answer:
    """A whole HTTP answer. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Wire(Protocol):
    """What carries a request to a server and brings the whole answer back."""

    def send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> Answer:
        """Exchange one request. Raises TransferError when nobody answers."""
        ...


class AsgiWire:
    """A server in this process: its ASGI application is called without any socket."""

    def __init__(self, app: AsgiApp, loop: asyncio.AbstractEventLoop) -> None:
        """Use `app` on `loop`, which must not be running."""
        self._app = app
        self._loop = loop

    def send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> Answer:
        """Call the application and gather its answer."""
        return self._loop.run_until_complete(self._exchange(method, path, headers, body or b""))

    async def _exchange(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        plain, _, query = path.partition("?")
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        raw += [(b"host", b"sim"), (b"content-length", str(len(body)).encode())]
        scope: Message = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(plain),
            "raw_path": plain.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": raw,
            "client": ("127.0.0.1", 1),
            "server": ("sim", 80),
            "state": {},
        }
        sent = False
        status, found, parts = 500, {}, []

        async def receive() -> Message:
            nonlocal sent
            if sent:
                await asyncio.Event().wait()  # the client stays until it has the whole answer
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                found.update({k.decode().lower(): v.decode() for k, v in message["headers"]})
            elif message["type"] == "http.response.body":
                parts.append(bytes(message.get("body", b"")))

        await self._app(scope, receive, send)
        return Answer(status, found, b"".join(parts))


class HttpWire:
    """Real HTTP to a server, on one kept-alive connection; over TLS where a `context` says whom to believe."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        timeout_s: float = 30.0,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Connect to `host:port` when first needed."""
        self._host, self._port, self._timeout_s = host, port, timeout_s
        self._context = context
        self._connection: http.client.HTTPConnection | None = None

    def send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> Answer:
        """Exchange one request; a kept connection that the server has closed is opened again once."""
        fresh = self._connection is None
        try:
            return self._exchange(method, path, headers, body)
        except (http.client.HTTPException, ConnectionError) as error:
            self.close()
            if fresh:
                raise _translate(error) from error
        except OSError as error:
            self.close()
            raise _translate(error) from error
        try:
            return self._exchange(method, path, headers, body)
        except (http.client.HTTPException, OSError) as error:
            self.close()
            raise _translate(error) from error

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _exchange(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> Answer:
        if self._connection is None:
            self._connection = self._opened()
        self._connection.request(method, path, body=body, headers=dict(headers))
        answer = self._connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, found, answer.read())

    def _opened(self) -> http.client.HTTPConnection:
        if self._context is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=self._timeout_s, context=self._context
        )


def _translate(error: Exception) -> TransferError:
    if isinstance(error, TimeoutError):
        return TransferError("download.timeout", "no answer in time")
    if isinstance(error, http.client.IncompleteRead):
        return TransferError("download.truncated", "the answer ended early")
    return TransferError("download.refused", str(error)[:200])


@dataclass(frozen=True)
class Pattern:
    """When a device has a network: `length_s` of each `period_s`, beginning at `start_s`; always when `period_s` is 0."""

    period_s: float = 0.0
    start_s: float = 0.0
    length_s: float = 0.0

    def is_online(self, at: float) -> bool:
        """Say whether there is a network at this time of the simulation."""
        return not self.period_s or (at - self.start_s) % self.period_s < self.length_s

    def next_online(self, at: float) -> float:
        """Return when there is a network next; `at` itself when there is one."""
        if self.is_online(at):
            return at
        return at + self.period_s - (at - self.start_s) % self.period_s


class Presence(Protocol):
    """When a device has a network, in seconds of the simulation."""

    def is_online(self, at: float) -> bool:
        """Say whether there is a network at this time."""
        ...

    def next_online(self, at: float) -> float:
        """Return when there is a network next; `at` itself when there is one."""
        ...


class SimResponse:
    """`agent.ports.Response` over a whole answer, which may be cut and takes simulated time to read."""

    def __init__(self, answer: Answer, clock: DeviceClock, bytes_per_s: float, end: int) -> None:
        """Serve the body up to byte `end`; beyond it the transfer is truncated."""
        self.status = answer.status
        self.headers: Mapping[str, str] = answer.headers
        self._body = answer.body
        self._clock = clock
        self._bytes_per_s = bytes_per_s
        self._end = end
        self._at = 0

    def read(self, count: int) -> bytes:
        """Read at most `count` bytes.

        Raises:
            TransferError: `download.truncated`.
        """
        piece = self._body[self._at : min(self._at + count, self._end)]
        self._at += len(piece)
        if self._bytes_per_s > 0 and piece:
            self._clock.sleep(len(piece) / self._bytes_per_s)
        if not piece and count > 0 and self._at < len(self._body):
            raise TransferError("download.truncated", f"ended after {self._at} bytes")
        return piece

    def close(self) -> None:
        """Nothing is held."""


class SimLink:
    """`agent.ports.Transport` of one simulated device.

    Attributes:
        faults: may be changed while the device runs.
        wire: what it is plugged into; a lying proxy can be put here.
        down: there is no network, whatever the pattern says.
    """

    def __init__(
        self,
        wire: Wire,
        clock: DeviceClock,
        random: Random,
        *,
        faults: LinkFaults | None = None,
        pattern: Presence | None = None,
    ) -> None:
        """Plug a device into `wire`."""
        self.wire = wire
        self.faults = faults or LinkFaults()
        self.pattern: Presence = pattern or Pattern()
        self.down = False
        self.requests = 0
        self._clock = clock
        self._random = random

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 30.0,
    ) -> SimResponse:
        """Send one request, as far as the link allows.

        Raises:
            TransferError: offline (`download.dns`), lost on either way (`download.timeout`), or what the wire says.
        """
        self.requests += 1
        faults = self.faults
        if self.down or not self.pattern.is_online(self._clock.at()):
            raise TransferError("download.dns", "no network")
        self._clock.sleep(faults.latency_s)
        lost = self._random.random() if faults.loss_ratio else 1.0
        if lost < faults.loss_ratio / 2:
            self._clock.sleep(timeout_s)
            raise TransferError("download.timeout", "the request got lost")
        answer = self.wire.send(method, path, headers or {}, body)
        if lost < faults.loss_ratio:
            self._clock.sleep(timeout_s)
            raise TransferError("download.timeout", "the answer got lost")
        return SimResponse(answer, self._clock, faults.bytes_per_s, self._end(path, answer))

    def _end(self, path: str, answer: Answer) -> int:
        length, faults = len(answer.body), self.faults
        if "/blobs/" not in path:
            return length
        if faults.truncate_at is not None and faults.truncations > 0:
            faults.truncations -= 1
            return min(length, faults.truncate_at)
        if faults.cut_ratio and self._random.random() < faults.cut_ratio:
            return self._random.randrange(length) if length else 0
        return length


class Tampered:
    """A proxy that lies: every answer to a path with `part` in it goes through `change`."""

    def __init__(self, wire: Wire, part: str, change: Callable[[Answer], Answer]) -> None:
        """Sit before `wire`."""
        self._wire = wire
        self._part = part
        self._change = change
        self.changed = 0

    def send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> Answer:
        """Pass a request on, and change the answer to it."""
        answer = self._wire.send(method, path, headers, body)
        if self._part not in path or answer.status >= 300:
            return answer
        self.changed += 1
        return self._change(answer)


def flip_byte(offset: int) -> Callable[[Answer], Answer]:
    """Make a change that flips one bit of the byte at `offset` (counted from the end when negative)."""

    def change(answer: Answer) -> Answer:
        body = bytearray(answer.body)
        if body:
            body[offset % len(body)] ^= 1
        return Answer(answer.status, answer.headers, bytes(body))

    return change
