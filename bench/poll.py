"""Polls of devices that are up to date: keep-alive, with a session token, over a fleet of 100,000.

First as many as go, then half as many, and how long one of those takes.
"""

import tempfile
import time
from pathlib import Path
from statistics import median

from bench.figure import Figure
from bench.load import drive
from bench.servers import control_plane, reference

from tidegate.sim.load.stock import fill
from tidegate.sim.load.wires import Answer, Wires

CONNECTIONS = 48
DEVICES = 100_000
SECONDS = 4.0
#: Half of what was carried is asked for so long, so often: on a machine with other work one pause of it is not the server's.
HALF_S = 3.0
ROUNDS = 3


def request(token: str, *more: str) -> bytes:
    """Return a poll."""
    lines = ["GET /d/v1/poll HTTP/1.1", "Host: bench", f"Authorization: Bearer {token}", *more]
    return "\r\n".join([*lines, "", ""]).encode()


def _p99_ms(port: int, requests: list[bytes], per_s: float) -> float:
    """Return how long 99 of 100 answers took at most, counted from when they were due, in milliseconds; the median of some rounds."""
    found = []
    wires = Wires(port, len(requests))
    try:
        for _ in range(ROUNDS):
            took: list[float] = []

            def note(answer: Answer, took: list[float] = took) -> None:
                if answer.status != 200:
                    raise RuntimeError(f"{answer.status}: {answer.body[:200]!r}")
                took.append(answer.took_s)

            wires.play(
                lambda number: (requests[number % len(requests)],),
                per_s=per_s, seconds=HALF_S, note=note,
            )  # fmt: skip
            found.append(1_000 * sorted(took)[int(0.99 * len(took))])
    finally:
        wires.close()
    return median(found)


def measure(devices: int = DEVICES, seconds: float = SECONDS) -> list[Figure]:
    """Measure it and the bare application in turn."""
    with tempfile.TemporaryDirectory() as scratch:
        fleet = fill(Path(scratch), devices, int(time.time()), 3600)
        requests = [request(fleet.token(number)) for number in range(CONNECTIONS)]
        with reference() as (pid, port):
            bare, bare_wall = drive(port, requests, pid=pid, seconds=seconds)
        with control_plane(Path(scratch)) as (pid, port):
            polls, wall = drive(port, requests, pid=pid, seconds=seconds)
            half = min(wall, bare_wall) / 2
            p99 = _p99_ms(port, requests, half)
        with reference() as (_, port):
            bare_p99 = _p99_ms(port, requests, half)
    against = "a bare ASGI application"
    return [
        Figure(
            name="polls a second and core",
            value=polls, unit="polls/s", reference=bare, against=against, bar=20_000,
        ),
        Figure(
            name="polls as a share of the bare application",
            value=100 * polls / bare, unit="%", bar=60,
        ),
        Figure(
            name="polls a second, wall time, with its load generator",
            value=wall, unit="polls/s", reference=bare_wall, against=against,
        ),
        Figure(
            name=f"poll answered, p99 at half load ({half:,.0f}/s)",
            value=p99, unit="ms", reference=bare_p99, against=against, bar=10, at_most=True,
        ),
    ]  # fmt: skip
