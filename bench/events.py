"""Durable events: every answer means that the events are on disk. Heartbeats with metrics, in batches as devices send them after a while offline.

Here on SQLite, which is part of the server's process; `events_postgres` has the same on PostgreSQL.
"""

import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path

import msgspec
from bench.figure import Figure
from bench.load import drive
from bench.servers import control_plane

from tidegate.core.protocol import EventBody, EventItem, EventsRequest, Metrics
from tidegate.server.store.sqlite import DATABASE_NAME
from tidegate.sim.load.stock import Stock, fill

CONNECTIONS = 48
BATCH = 64
DEVICES = 1_000
SECONDS = 4.0


def body(device: str, first: int) -> bytes:
    """Return a batch of a device's events, from this number on."""
    items = [
        EventItem(
            body=EventBody(
                device_id=device, seq=first + step, at=1_800_000_000, kind="heartbeat",
                variant="gw1-r3", running_counter=1, running_version="1.0.0",
                metrics=Metrics(errors=1, device_s=300),
            )
        )
        for step in range(BATCH)
    ]  # fmt: skip
    return msgspec.json.encode(EventsRequest(events=tuple(items)))


class Stream:
    """Requests of one device, each with the events that follow the last."""

    def __init__(self, token: str, device: str) -> None:
        self._token, self._device = token, device
        self.sent = 0

    def __call__(self) -> bytes:
        """Return the next request."""
        content = body(self._device, self.sent + 1)
        self.sent += BATCH
        head = (
            f"POST /d/v1/events HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {self._token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        return head.encode() + content


def streams(fleet: Stock) -> list[Stream]:
    """Return a stream for each connection."""
    return [Stream(fleet.token(one), f"dev-{one:07}") for one in range(CONNECTIONS)]


def _bare_inserts(folder: Path, seconds: float) -> float:
    """Return rows a second of processor time that SQLite itself takes: same batches, one commit each, synchronous=FULL."""
    conn = sqlite3.connect(folder / "bare.sqlite", isolation_level=None)
    conn.execute("PRAGMA journal_mode=WAL")
    conn.execute("PRAGMA synchronous=FULL")
    conn.execute(
        "CREATE TABLE event (position INTEGER PRIMARY KEY, device INTEGER, seq INTEGER, at INTEGER,"
        " kind TEXT, body TEXT, UNIQUE (device, seq))"
    )
    text = "x" * (len(body("dev-0000001", 1)) // BATCH)
    rows, cpu, end = 0, time.process_time(), time.monotonic() + seconds
    while time.monotonic() < end:
        batch = [(1, rows + step, 1, "heartbeat", text) for step in range(BATCH)]
        conn.execute("BEGIN")
        conn.executemany(
            "INSERT INTO event (device, seq, at, kind, body) VALUES (?, ?, ?, ?, ?)", batch
        )
        conn.execute("COMMIT")
        rows += BATCH
    conn.close()
    return rows / (time.process_time() - cpu)


def measure(seconds: float = SECONDS) -> list[Figure]:
    """Measure distinct events of many devices, and plain inserts of the same size."""
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        sending = streams(fill(data, DEVICES, int(time.time()), 3600))
        with control_plane(data) as (pid, port):
            per_core, wall = drive(port, sending, pid=pid, seconds=seconds)
        stored = _stored(data)
        bare = _bare_inserts(Path(scratch), seconds / 2)
    sent = sum(stream.sent for stream in sending)
    return [
        Figure(
            name="durable events a second and core, SQLite",
            value=per_core * BATCH, unit="events/s", reference=bare,
            against="bare SQLite inserts, one commit a batch", bar=30_000,
        ),
        Figure(name="durable events a second, SQLite, wall time", value=wall * BATCH, unit="events/s"),
        Figure(name="events stored of those sent, SQLite", value=100 * stored / sent, unit="%", bar=100),
    ]  # fmt: skip


def _stored(data: Path) -> int:
    """Count the events in the database, after the server has stopped."""
    with closing(sqlite3.connect(data / DATABASE_NAME)) as conn:
        return int(conn.execute("SELECT count(*) FROM event").fetchone()[0])
