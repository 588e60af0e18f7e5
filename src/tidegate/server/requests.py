"""What is known of a request while it is answered: its id, which its answer carries, and where it came from. The operators' log records both with each act."""

import re
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from tidegate.server.store.origin import ORIGIN, Origin

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADER: Final = b"x-request-id"
#: Ids that are taken over from a proxy or a client, which is believed in nothing else.
_ID: Final = re.compile(rb"[A-Za-z0-9._-]{8,64}")
_IP_MAX: Final = 64


async def answer(app: Asgi, scope: Scope, receive: Receive, send: Send) -> None:
    """Have `app` answer, with the request known to whatever it writes."""
    if scope["type"] != "http":
        await app(scope, receive, send)
        return
    origin = origin_of(scope)

    async def named(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", ()), (HEADER, origin.request.encode())]
            message = {**message, "headers": headers}
        await send(message)

    token = ORIGIN.set(origin)
    try:
        await app(scope, receive, named)
    finally:
        ORIGIN.reset(token)


def origin_of(scope: Scope) -> Origin:
    """Return id and address of a request; an id that is not well-formed is replaced."""
    found = next((value for name, value in scope["headers"] if name == HEADER), b"")
    request = found.decode() if _ID.fullmatch(found) else secrets.token_hex(8)
    client = scope.get("client")
    return Origin(request, str(client[0])[:_IP_MAX] if client else "")
