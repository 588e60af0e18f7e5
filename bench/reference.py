"""The reference of the poll: a bare ASGI application on the same server that answers the same bytes and checks nothing."""

import asyncio
import socket
import ssl
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


#: A poll that waits is answered when somebody asks for this.
WAKE_PATH = "/wake"
#: How many wait.
WAITING_PATH = "/waiting"
_waiting: list[asyncio.Future[None]] = []


async def app(scope: dict[str, Any], _receive: object, send: Send) -> None:
    """Answer every request alike; one that prefers to wait, when it is woken."""
    if scope["type"] != "http":
        return
    if scope["path"] == WAKE_PATH:
        for one in _waiting:
            one.set_result(None)
        _waiting.clear()
    elif any(name == b"prefer" for name, _ in scope["headers"]):
        _waiting.append(asyncio.get_running_loop().create_future())
        await _waiting[-1]
    if scope["path"] == WAITING_PATH:
        count = str(len(_waiting)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": count})
        return
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})


def main(tls: str, listener: int) -> None:
    """Serve on a listening socket that was inherited; `fd=` would hide that it is TCP, and cost the no-delay flag."""
    config = uvicorn.Config(
        app, log_level="error", access_log=False, lifespan="off", loop="uvloop", http="httptools"
    )
    if tls:
        config.load()
        config.ssl = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        config.ssl.load_cert_chain(f"{tls}/server.pem", f"{tls}/server.key")
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=listener)])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
