"""Polls of devices that are up to date: keep-alive, with a session token, over a fleet of 100,000."""

import tempfile
from pathlib import Path

from bench.figure import Figure
from bench.fleet import fill
from bench.load import drive
from bench.servers import control_plane, reference

CONNECTIONS = 48
DEVICES = 100_000
SECONDS = 4.0


def _request(token: str, tag: str = "") -> bytes:
    lines = ["GET /d/v1/poll HTTP/1.1", "Host: bench", f"Authorization: Bearer {token}"]
    if tag:
        lines.append(f"If-None-Match: {tag}")
    return "\r\n".join([*lines, "", ""]).encode()


def measure() -> list[Figure]:
    """Measure it and the bare application in turn."""
    with tempfile.TemporaryDirectory() as scratch:
        tokens = fill(Path(scratch), DEVICES, sessions=CONNECTIONS)
        requests = [_request(token) for token in tokens]
        with reference() as (pid, port):
            bare, _ = drive(port, requests, pid=pid, seconds=SECONDS)
        with control_plane(Path(scratch)) as (pid, port):
            polls, wall = drive(port, requests, pid=pid, seconds=SECONDS)
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
        Figure(name="polls a second, wall time, with its load generator", value=wall, unit="polls/s"),
    ]  # fmt: skip
