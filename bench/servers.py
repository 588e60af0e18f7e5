"""Start servers as processes of their own on a port of the system's choice, and stop them."""

import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from tidegate.server.tls import FOLDER

#: A control plane that counts polls answers here how many came before.
POLLS_PATH = "/bench/polls"
HERE = Path(__file__).resolve().parent


def wait_for(
    port: int,
    process: "subprocess.Popen[bytes]",
    limit_s: float = 60.0,
    context: ssl.SSLContext | None = None,
) -> None:
    """Return when the server answers a request: its socket listens before it does. Raises RuntimeError when the process ends or time is up."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        try:
            with connected(port, context, limit_s) as probe:
                probe.sendall(
                    b"GET /d/v1/poll HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
                )
                if probe.recv(16):
                    return
        except OSError:
            pass
        time.sleep(0.02)
    raise RuntimeError("the server does not answer")


def connected(port: int, context: ssl.SSLContext | None, limit_s: float) -> socket.socket:
    """Open a connection to this machine, and wrap it where there is a context."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=limit_s)
    return plain if context is None else context.wrap_socket(plain, server_hostname="127.0.0.1")


def reference(*, tls: Path | None = None) -> AbstractContextManager[tuple[int, int]]:
    """Run the bare application; gives (process id, port). With a folder of `server.tls` it serves by that certificate."""
    return _module("bench.reference", str(tls or ""), context=trust(tls))


def control_plane(
    data: Path, poll_interval_s: int = 0, **settings: Any
) -> AbstractContextManager[tuple[int, int]]:
    """Run the control plane on a data directory; gives (process id, port). With a poll interval of one's own it also counts polls (`POLLS_PATH`)."""
    words = {"data_dir": str(data), "poll_interval_s": poll_interval_s or 300, **settings}
    context = trust(data / FOLDER) if settings.get("tls") else None
    counts = "1" if poll_interval_s else "0"
    return _module("bench.served", json.dumps(words), counts, context=context)


def trust(folder: Path | None) -> ssl.SSLContext | None:
    """Return what believes the authority of a folder of `server.tls`."""
    return None if folder is None else ssl.create_default_context(cafile=str(folder / "ca.pem"))


@contextmanager
def _module(*words: str, context: ssl.SSLContext | None) -> Iterator[tuple[int, int]]:
    """Run a module with a listening socket as its last argument."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(2048)
        listener.set_inheritable(True)
        port = listener.getsockname()[1]
        command = [sys.executable, "-m", *words, str(listener.fileno())]
        process = subprocess.Popen(command, cwd=HERE.parent, pass_fds=[listener.fileno()])
    with stopping(process):
        wait_for(port, process, context=context)
        yield process.pid, port


@contextmanager
def stopping(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """End the process at the end of the block."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
