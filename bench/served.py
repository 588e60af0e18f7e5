"""The control plane on an inherited listening socket: `python -m bench.served DATA POLL_INTERVAL_S FD`. The server's own settings of uvicorn."""

import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import uvicorn
from bench.servers import POLLS_PATH

from tidegate.server.app import create_app
from tidegate.server.config import Settings

_POLL_PATH = "/d/v1/poll"
_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Message, _Receive, _Send], Awaitable[None]]


def counting(app: _App) -> _App:
    """Wrap the control plane, so that the polls that it answered can be asked for."""
    count = 0

    async def counted(scope: _Message, receive: _Receive, send: _Send) -> None:
        nonlocal count
        if scope.get("path") == POLLS_PATH:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": str(count).encode()})
            return
        await app(scope, receive, send)
        count += scope.get("path") == _POLL_PATH

    return counted


def main(data: Path, poll_interval_s: int, listener: int) -> None:
    """Serve a data directory, without the planner."""
    settings = Settings(data_dir=data, events_burst=1 << 40, poll_interval_s=poll_interval_s or 300)
    app = create_app(settings)
    config = uvicorn.Config(
        counting(app) if poll_interval_s else app,
        log_level="error", access_log=False, lifespan="on", loop="uvloop", http="httptools",
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=listener)])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
