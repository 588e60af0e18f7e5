"""What comes in is looked at before any route reads it: bodies are bounded in size and in time, and no text holds a NUL, which no database of ours stores.

Routes that take a stream read it themselves, within bounds of their own.
"""

import asyncio
import re
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from litestar.types import ASGIApp, Receive, Scope, Send

from tidegate.core.errors import RequestError
from tidegate.server.api.desk import BODY, Desk

#: Each piece of a body has to come within this, and all of it within that, in seconds.
PIECE_S: Final = 30
WHOLE_S: Final = 120
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
#: The escape of NUL, and not a backslash before the letters.
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


class Intake:
    """Middleware behind authentication: who is nobody is told so before anything of his is read."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand before `app`."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on with the whole body at hand.

        Raises:
            RequestError: `request.invalid`, `request.too_large`.
        """
        if "\0" in str(scope["path"]) or b"\0" in unquote_to_bytes(scope["query_string"]):
            raise RequestError("request.invalid", "a NUL character in the address")
        handler: Any = scope.get("route_handler")
        if scope.get("method") in _READS or (handler is not None and BODY in handler.opt):
            await self.app(scope, receive, send)
            return
        desk: Desk = scope["litestar_app"].state.desk
        body = await _read(receive, desk.services.settings.body_max)
        if b"\0" in body or _NUL.search(body):
            raise RequestError("request.invalid", "a NUL character in the body")
        await self.app(scope, again(body, receive), send)


async def _read(receive: Receive, most: int) -> bytes:
    try:
        async with asyncio.timeout(WHOLE_S):
            return await whole(receive, most)
    except TimeoutError as error:
        raise RequestError("request.invalid", "the request came too slowly") from error


async def whole(receive: Receive, most: int) -> bytes:
    """Return a body.

    Raises:
        RequestError: `request.too_large`; `request.invalid`: whoever sent it left.
        TimeoutError: a piece did not come.
    """
    body = bytearray()
    while True:
        async with asyncio.timeout(PIECE_S):
            message = await receive()
        if message["type"] != "http.request":
            raise RequestError("request.invalid", "the request ended early")
        body += message.get("body", b"")
        if len(body) > most:
            raise RequestError("request.too_large", f"at most {most} bytes are taken")
        if not message.get("more_body", False):
            return bytes(body)


def again(body: bytes, receive: Receive) -> Receive:
    """Return what gives a body that was read already, and then what `receive` gives."""
    told = False

    async def replay() -> Any:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
