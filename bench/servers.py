"""Start servers as processes of their own on a port of the system's choice, and stop them."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent


def wait_for(port: int, process: "subprocess.Popen[bytes]", limit_s: float = 60.0) -> None:
    """Return when something answers on the port. Raises RuntimeError when the process ends or time is up."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError("the server does not answer")


@contextmanager
def reference() -> Iterator[tuple[int, int]]:
    """Run the bare application; gives (process id, port)."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        listener.set_inheritable(True)
        port = listener.getsockname()[1]
        command = [sys.executable, "-m", "bench.reference", str(listener.fileno())]
        process = subprocess.Popen(command, cwd=HERE.parent, pass_fds=[listener.fileno()])
    with stopping(process):
        wait_for(port, process)
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
