"""The control plane on an inherited listening socket: `python -m bench.served DATA FD`. The server's own settings of uvicorn."""

import socket
import sys
from pathlib import Path

import uvicorn

from tidegate.server.app import create_app
from tidegate.server.config import Settings


def main(data: Path, listener: int) -> None:
    """Serve a data directory, without the planner."""
    app = create_app(Settings(data_dir=data, events_burst=1 << 40))
    config = uvicorn.Config(
        app, log_level="error", access_log=False, lifespan="on", loop="uvloop", http="httptools"
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=listener)])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
