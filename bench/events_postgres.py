"""Durable events on PostgreSQL: as `events`, on a server of this machine that keeps what it says it has kept (fsync, full pages, synchronous commits)."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
from bench.events import BATCH, DEVICES, SECONDS, body, streams
from bench.figure import Figure
from bench.load import drive
from bench.servers import control_plane
from tests import postgres

from tidegate.sim.load.process import cpu_s
from tidegate.sim.load.stock import fill

#: As Debian's server is set up; the tests' server forgets on purpose.
_SAFE = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "autovacuum": "on",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
}
#: Rows that the reference commits at a time: about what a group of ours holds.
_GROUP = 16


def _server_cpu_s(postmaster: int) -> float:
    """Return the processor time of a PostgreSQL server and of the processes that it has now."""
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    return cpu_s(postmaster) + sum(cpu_s(int(one)) for one in children)


def _bare_copies(url: str, seconds: float, server_cpu: Callable[[], float]) -> tuple[float, float]:
    """Return rows a second of processor time, of this client alone and with the server's: COPY of the same rows, one commit for some batches."""
    text = "x" * (len(body("dev-0000001", 1)) // BATCH)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(
            "CREATE TABLE bare (position BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
            " device BIGINT, seq BIGINT, at BIGINT, kind TEXT, body TEXT, UNIQUE (device, seq))"
        )
        rows, theirs, mine = 0, server_cpu(), time.process_time()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with (
                conn.transaction(),
                conn.cursor() as cursor,
                cursor.copy("COPY bare (device, seq, at, kind, body) FROM STDIN (FORMAT BINARY)") as copy,
            ):  # fmt: skip
                copy.set_types(["int8", "int8", "int8", "text", "text"])
                for step in range(_GROUP * BATCH):
                    copy.write_row((1, rows + step, 1, "heartbeat", text))
            rows += _GROUP * BATCH
        mine, theirs = time.process_time() - mine, server_cpu() - theirs
    return rows / mine, rows / (mine + theirs)


def measure(seconds: float = SECONDS) -> list[Figure]:
    """Measure distinct events of many devices, and a bare COPY of the same size."""
    server = postgres.Server(**_SAFE)
    try:
        url = server.migrated()
        with tempfile.TemporaryDirectory() as scratch:
            data = Path(scratch)
            sending = streams(fill(data, DEVICES, int(time.time()), 3600, url=url))
            with control_plane(data, database_url=url) as (pid, port):
                # the one connection that writes stays, so what its process has used does not vanish
                before = _server_cpu_s(server.pid)
                begun = cpu_s(pid)
                per_core, wall = drive(port, sending, pid=pid, seconds=seconds)
                both = cpu_s(pid) - begun + _server_cpu_s(server.pid) - before
        sent = sum(stream.sent for stream in sending)
        with server.connect(url.rpartition("/")[2]) as conn:
            found = conn.execute("SELECT count(*) FROM event").fetchone()
        assert found is not None
        bare, bare_both = _bare_copies(url, seconds / 2, lambda: _server_cpu_s(server.pid))
    finally:
        server.close()
    against = "a bare COPY, one commit for 16 batches"
    return [
        Figure(
            name="durable events a second and core, PostgreSQL",
            value=per_core * BATCH, unit="events/s", reference=bare, against=against, bar=25_000,
        ),
        Figure(
            name="the same, PostgreSQL's own processor time counted too",
            value=sent / both, unit="events/s", reference=bare_both, against=against,
        ),
        Figure(
            name="durable events a second, PostgreSQL, wall time", value=wall * BATCH, unit="events/s"
        ),
        Figure(
            name="events stored of those sent, PostgreSQL",
            value=100 * int(found[0]) / sent, unit="%", bar=100,
        ),
    ]  # fmt: skip
