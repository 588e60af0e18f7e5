"""The reference of the poll: a bare ASGI application on the same server that answers the same bytes and checks nothing."""

import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

Send = Callable[[dict[str, Any]], Awaitable[None]]

BODY = b'{"work":false,"poll_after_s":300,"gate_epoch":0}'
HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(BODY)).encode()),
    (b"etag", b'"0123456789abcdef"'),
]


async def app(scope: dict[str, Any], _receive: object, send: Send) -> None:
    """Answer every request alike."""
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})


def main(listener: int) -> None:
    """Serve on a listening socket that was inherited; `fd=` would hide that it is TCP, and cost the no-delay flag."""
    config = uvicorn.Config(
        app, log_level="error", access_log=False, lifespan="off", loop="uvloop", http="httptools"
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=listener)])


if __name__ == "__main__":
    main(int(sys.argv[1]))
