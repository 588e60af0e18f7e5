"""Polls that each open a TLS connection of their own, as devices do that sleep between them: a few at a time, nothing resumed."""

import ssl
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from bench.figure import Figure
from bench.poll import request
from bench.servers import connected, control_plane, reference, trust

from tidegate.server import tls
from tidegate.sim.load.process import cpu_s
from tidegate.sim.load.stock import fill

DEVICES = 1_000
SECONDS = 5.0
AT_A_TIME = 8


def _rate(pid: int, port: int, context: ssl.SSLContext, asks: Sequence[bytes], s: float) -> float:
    """Return polls per second of the server's processor time."""
    end, used = time.monotonic() + s, cpu_s(pid)

    def asked(first: int) -> int:
        count = 0
        while time.monotonic() < end:
            with connected(port, context, 30) as wire:
                wire.sendall(asks[(first + count) % len(asks)])
                answer = wire.recv(4096)
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(answer[:300].decode(errors="replace"))
            count += 1
        return count

    with ThreadPoolExecutor(AT_A_TIME) as threads:
        count = sum(threads.map(asked, range(0, len(asks), len(asks) // AT_A_TIME)))
    return count / (cpu_s(pid) - used)


def _handshakes(folder: Path, seconds: float) -> float:
    """Return the server's side of handshakes per second of its processor time, over memory: no socket, no HTTP."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), trust(folder)
    assert client is not None
    server.load_cert_chain(folder / "server.pem", folder / "server.key")
    count, used, end = 0, 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        asking = client.wrap_bio(back, there, server_hostname="127.0.0.1")
        start = time.process_time()
        asked = server.wrap_bio(there, back, server_side=True)
        used += time.process_time() - start
        done = False
        while not done:
            _step(asking)
            start = time.process_time()
            done = _step(asked)
            used += time.process_time() - start
        count += 1
    return count / used


def _step(side: ssl.SSLObject) -> bool:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def measure(seconds: float = SECONDS) -> list[Figure]:
    """Measure it, the bare application by the same certificate, and the handshakes alone."""
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch)
        folder = data / tls.FOLDER
        tls.own_certificate(folder, ("127.0.0.1", "localhost"), datetime.now(UTC))
        context = trust(folder)
        assert context is not None
        fleet = fill(data, DEVICES, int(time.time()), 3600)
        asks = [request(fleet.token(number)) for number in range(DEVICES)]
        with reference(tls=folder) as (pid, port):
            bare = _rate(pid, port, context, asks, seconds)
        with control_plane(data, tls=True) as (pid, port):
            polls = _rate(pid, port, context, asks, seconds)
        alone = _handshakes(folder, seconds / 2)
    return [
        Figure(
            name="polls over fresh TLS connections, a second and core",
            value=polls, unit="polls/s", reference=bare, bar=1_000,
            against="a bare ASGI application, same certificate",
        ),
        Figure(
            name="the same",
            value=polls, unit="polls/s", reference=alone, against="TLS handshakes alone, in memory",
        ),
    ]  # fmt: skip
