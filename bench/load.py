"""A load generator: many keep-alive connections, one request at a time on each, answers checked."""

import selectors
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tidegate.sim.load.process import cpu_s


@dataclass
class _Wire:
    sock: socket.socket
    request: bytes | Callable[[], bytes]
    buffer: bytearray = field(default_factory=bytearray)

    def send(self) -> None:
        self.buffer.clear()
        self.sock.sendall(self.request if isinstance(self.request, bytes) else self.request())

    def finish(self, status: bytes) -> None:
        """Wait for the last answer and close, so that nothing is sent and not answered."""
        self.sock.settimeout(30)
        while not self.answered(status):
            pass
        self.sock.close()

    def answered(self, status: bytes) -> bool:
        """Read what is there; say whether a whole answer has come. Raises RuntimeError for any other status."""
        chunk = self.sock.recv(65536)
        if not chunk:
            raise RuntimeError("the server closed a connection")
        self.buffer += chunk
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return False
        if not head.startswith(b"HTTP/1.1 " + status):
            raise RuntimeError(bytes(self.buffer[:300]).decode(errors="replace"))
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return len(body) >= length


def drive(
    port: int,
    requests: Sequence[bytes | Callable[[], bytes]],
    *,
    pid: int,
    seconds: float,
    status: bytes = b"200",
) -> tuple[float, float]:
    """Send `requests`, one on each connection, over and over; one that can be called is asked for its bytes each time.

    Returns:
        Requests per second of the server's processor time, and per second of wall time.
    """
    select = selectors.DefaultSelector()
    wires = []
    for request in requests:
        wire = _Wire(socket.create_connection(("127.0.0.1", port)), request)
        wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        select.register(wire.sock, selectors.EVENT_READ, wire)
        wires.append(wire)
    for wire in wires:
        wire.send()
    warm_up = 0.5
    count, counting, begin = 0, False, time.monotonic()
    cpu, start = 0.0, begin
    while (now := time.monotonic()) < begin + warm_up + seconds:
        if not counting and now > begin + warm_up:
            counting, count, cpu, start = True, 0, cpu_s(pid), now
        for key, _ in select.select(1.0):
            if key.data.answered(status):
                count += 1
                key.data.send()
    spent, wall = cpu_s(pid) - cpu, time.monotonic() - start
    for wire in wires:
        wire.finish(status)
    return count / max(spent, 0.01), count / wall
