"""What raw ASGI handlers share: headers, bodies that are bounded while they are read, answers and problems."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from tidegate.core import codec
from tidegate.core.errors import RequestError, TidegateError
from tidegate.server import problems

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

#: Each piece of a request's body has to come within this, and all of it within that, in seconds.
_PIECE_S: Final = 30
_BODY_S: Final = 120
_log = logging.getLogger("tidegate.server")


async def live(
    receive: Receive,
    send: Send,
    start: Callable[[], Awaitable[None]],
    stop: Callable[[], Awaitable[None]],
) -> None:
    """Follow the life of the server (ASGI lifespan)."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            try:
                await start()
            except Exception as error:  # noqa: BLE001 - told to the server, which ends
                _log.exception("the server could not start")
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await stop()
            await send({"type": "lifespan.shutdown.complete"})
            return


def require_method(method: str, *allowed: str) -> None:
    """Refuse another method than these.

    Raises:
        RequestError: `request.method`.
    """
    if method not in allowed:
        raise RequestError("request.method", f"{' or '.join(allowed)} is wanted here")


def header_of(scope: Scope, wanted: bytes) -> bytes | None:
    """Return the first header of this name (lower case), untrusted; None for none."""
    for name, value in scope["headers"]:
        if name == wanted:
            found: bytes = value
            return found
    return None


def headers_of(scope: Scope, *wanted: bytes) -> dict[bytes, bytes | None]:
    """Return the last header of each of these names (lower case), untrusted; None for none."""
    found: dict[bytes, bytes | None] = dict.fromkeys(wanted)
    for name, value in scope["headers"]:
        if name in found:
            found[name] = value
    return found


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """Read a body, and stop as soon as it is larger than it may be, or too slow: a connection that only drips holds nothing here.

    Raises:
        RequestError: `request.too_large`, `request.invalid` when the client left in the middle or was too slow.
    """
    declared = header_of(scope, b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise RequestError("request.too_large", f"at most {limit} bytes are taken")
    pieces: list[bytes] = []
    count, loop = 0, asyncio.get_running_loop()
    end = loop.time() + _BODY_S
    while True:
        try:
            async with asyncio.timeout_at(min(end, loop.time() + _PIECE_S)):
                message = await receive()
        except TimeoutError as error:
            raise RequestError("request.invalid", "the request came too slowly") from error
        if message["type"] == "http.disconnect":
            raise RequestError("request.invalid", "the request ended early")
        piece = message.get("body", b"")
        count += len(piece)
        if count > limit:
            raise RequestError("request.too_large", f"at most {limit} bytes are taken")
        pieces.append(piece)
        if not message.get("more_body", False):
            return b"".join(pieces)


async def send_all(send: Send, status: int, body: bytes, headers: Headers) -> None:
    """Send a whole answer; its length is told unless `headers` do."""
    if status != 304 and not any(name == b"content-length" for name, _ in headers):
        headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_problem(send: Send, error: TidegateError, headers: Headers | None = None) -> None:
    """Send an error as RFC 9457 problem, with `headers` beside it."""
    found = problems.problem(error)
    status = 416 if error.code == "download.range" else found.status
    extra = list(headers or [])
    if status in {429, 503, 507} and not any(name == b"retry-after" for name, _ in extra):
        extra.append((b"retry-after", b"5"))
    await send_all(send, status, codec.encode(found), [(b"content-type", problems.TYPE), *extra])
