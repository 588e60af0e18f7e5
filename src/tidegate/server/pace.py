"""A body has to keep coming: whoever stops in the middle of it is taken for gone, so that a connection that only drips holds no worker."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

#: How long the next piece of a body may take, in seconds. An upload of hours is fine as long as it goes on.
PIECE_S: Final = 60.0


def paced(app: Asgi, piece_s: float = PIECE_S) -> Asgi:
    """Return `app`, behind a clock for the bodies that it reads."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        whole = False

        async def timely() -> Message:
            nonlocal whole
            if whole:
                return await receive()  # waits for the end of the connection, as long as that takes
            try:
                message = await asyncio.wait_for(receive(), piece_s)
            except TimeoutError:
                return {"type": "http.disconnect"}
            whole = not message.get("more_body", False)
            return message

        await app(scope, timely, send)

    return answer
