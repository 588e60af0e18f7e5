"""The control plane on an inherited listening socket: `python -m bench.served SETTINGS COUNTING FD`, as the product serves it, without the planner.

SETTINGS are those of `Settings`, as JSON. COUNTING = 1 has it count polls.
"""

import json
import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import uvicorn
from bench.servers import POLLS_PATH

from tidegate.server import tls
from tidegate.server.app import create_app
from tidegate.server.config import Settings
from tidegate.server.serve import config_of

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


def main(words: dict[str, Any], counts: bool, listener: int) -> None:
    """Serve a data directory. One machine is the whole fleet here, so that no bound for an address or a device holds."""
    settings = Settings(
        **{**words, "data_dir": Path(words["data_dir"])},
        events_burst=1 << 40,
        connections_per_address=0,
    )
    app = create_app(settings)
    config = config_of(app, tls.context_for(settings))
    if counts:
        config.app = counting(app)
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=listener)])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2] == "1", int(sys.argv[3]))
