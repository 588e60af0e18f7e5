"""Payload bytes from the folder: several devices at once, each from some offset on to the end, over keep-alive connections; thrown away in the kernel."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

from bench.figure import Figure
from bench.servers import control_plane, stopping

from tidegate.server.blobs.local import LocalBlobs
from tidegate.sim.load.process import cpu_s, peak_mib
from tidegate.sim.load.stock import fill

SIZE = 256 << 20
CONNECTIONS = 8
SECONDS = 5.0
OFFSET = 1 << 20


class _Wire:
    """One connection that asks for the same bytes over and over."""

    def __init__(self, port: int, request: bytes) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._request = request
        self.count = 0

    def run(self, until: float) -> None:
        """Ask until then; raises RuntimeError for any other answer than the range."""
        unused = bytearray(1 << 20)
        while time.monotonic() < until:
            self._sock.sendall(self._request)
            head = b""
            while b"\r\n\r\n" not in head:
                head += self._sock.recv(1)
            if not head.startswith(b"HTTP/1.1 206"):
                raise RuntimeError(head.decode(errors="replace"))
            left = SIZE - OFFSET
            while left and time.monotonic() < until:
                # Linux throws the bytes of a stream away for MSG_TRUNC (tcp(7)), and copies none
                got = self._sock.recv_into(unused, min(left, 1 << 20), socket.MSG_TRUNC)
                if not got:
                    raise RuntimeError("the server closed a connection")
                left -= got
                self.count += got
        self._sock.close()


def _rate(pid: int, port: int, requests: Sequence[bytes]) -> tuple[float, float]:
    """Return GB per second of the server's processor time, and per second of wall time."""
    wires = [_Wire(port, one) for one in requests]
    begun, used = time.monotonic(), cpu_s(pid)
    with ThreadPoolExecutor(len(wires)) as threads:
        list(threads.map(lambda one: one.run(begun + SECONDS), wires))
    total = sum(one.count for one in wires)
    return total / (cpu_s(pid) - used) / 1e9, total / (time.monotonic() - begun) / 1e9


def _request(name: str, token: str) -> bytes:
    lines = [f"GET /d/v1/blobs/{name} HTTP/1.1", "Host: bench", f"Range: bytes={OFFSET}-"]
    return "\r\n".join([*lines, f"Authorization: Bearer {token}", "", ""]).encode()


def measure() -> list[Figure]:
    """Measure it, and a server of files that sends them from the page cache by itself (sendfile), in turn."""
    with tempfile.TemporaryDirectory() as scratch:
        content = os.urandom(1 << 20) * (SIZE >> 20)
        name = sha256(content).hexdigest()
        fleet = fill(Path(scratch), CONNECTIONS, int(time.time()), 3600)
        blobs = LocalBlobs(Path(scratch) / "blobs")
        blobs.put(name, [content])
        requests = [_request(name, fleet.token(number)) for number in range(CONNECTIONS)]
        folder = Path(scratch) / "blobs" / name[:2]
        command = [sys.executable, "-m", "bench.file_server", str(folder)]
        process = subprocess.Popen(
            command,
            cwd=Path(__file__).resolve().parents[1],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # clients that leave in the middle
        )
        with stopping(process):
            assert process.stdout is not None
            port = int(process.stdout.readline())
            best, _ = _rate(process.pid, port, requests)
            process.stdout.close()
        with control_plane(Path(scratch)) as (pid, port):
            rate, wall = _rate(pid, port, requests)
            memory = peak_mib(pid)
    return [
        Figure(
            name="payload bytes a second and core, from the folder",
            value=rate, unit="GB/s", reference=best, against="sendfile alone", bar=1.2,
        ),
        Figure(name="the same, wall time, with its load generator", value=wall, unit="GB/s"),
        Figure(name="most memory of the server meanwhile", value=memory, unit="MiB"),
    ]  # fmt: skip
