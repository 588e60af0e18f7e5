"""What a person waits for who opens the page of an incident of a large rollout.

Devices and their outcomes are written in bulk; the page is put together by the real functions from the real store.
"""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from bench import rollout as fleets
from bench.figure import Figure
from sqlalchemy import insert

from tidegate.server.operations import Operations
from tidegate.server.store import Connection, admin_rollouts, tables
from tidegate.server.store import web_queries as rows
from tidegate.server.tick import tick
from tidegate.server.web.queries import incidents

DEVICES: Final = 100_000
SMALL: Final = 1_000
TURNS: Final = 7
#: One device in so many ended badly.
BAD: Final = 200
_BATCH: Final = 50_000


def outcomes(rollout_id: int, count: int) -> list[dict[str, Any]]:
    """Make rows of updates that ended: most well, some badly, in the order in which devices ask."""
    found = []
    for number in range(count):
        bad = number % BAD == 0
        at = fleets.NOW + 60 + (number * 7919) % 86_400
        found.append(
            {
                "id": f"u{number}", "rollout_id": rollout_id, "device_row": number + 1,
                "state": "reverted" if bad else "confirmed", "reason": "health.boot" if bad else None,
                "ring": "all", "variant": f"gw1-r{number % 5 + 1}", "from_counter": 0,
                "release_counter": 1, "offered_at": fleets.NOW, "state_at": at,
                "permitted_at": at - 30, "ended_at": at,
            }
        )  # fmt: skip
    return found


def measured(count: int) -> float:
    """Return the median milliseconds of a page over so many outcomes."""
    folder = Path(tempfile.mkdtemp(prefix="tidegate-bench-"))
    try:
        services = fleets.opened(folder / "data")
        services.store.write(lambda conn: fleets.seed(conn, count)).result()
        services.close()
        services = fleets.opened(folder / "data")
        operations = Operations(services)
        made = operations.create(
            {"preset": "emergency", "release": "gw1-1.1.0"}, fleets.OPERATOR, "bench", fleets.NOW
        )
        tick(services, fleets.NOW)

        def happened(conn: Connection) -> None:
            row = admin_rollouts.rollout(conn, made.name)
            assert row is not None
            ended = outcomes(int(row["id"]), count)
            for start in range(0, count, _BATCH):
                conn.execute(insert(tables.update), ended[start : start + _BATCH])

        services.store.write(happened).result()
        operations.act(made.name, "halt", fleets.OPERATOR, "bench", fleets.NOW + 90_000)
        row = services.store.read(lambda conn: admin_rollouts.rollout(conn, made.name))
        assert row is not None
        name = services.store.read(lambda conn: rows.incident_of(conn, int(row["id"]), "halt"))
        took = []
        for _ in range(TURNS):
            start = time.perf_counter()
            found = services.store.read(
                lambda conn: incidents.page(conn, name, fleets.NOW + 90_000)
            )
            took.append(1_000 * (time.perf_counter() - start))
            assert found is not None
        services.close()
        return sorted(took)[TURNS // 2]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure() -> list[Figure]:
    """Measure over a hundred thousand outcomes, beside a thousand."""
    small, large = measured(SMALL), measured(DEVICES)
    return [
        Figure(
            name="incident: page over 100,000 outcomes", value=large, unit="ms",
            reference=small, against=f"at {SMALL:,}", bar=200, at_most=True,
        )
    ]  # fmt: skip
