"""Making and halting a rollout over a million devices: what a person waits for, and the rows that it writes.

The rows of the fleet are written in bulk; server, store and operations are the real ones.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from bench.figure import Figure
from sqlalchemy import func, insert, select

from tidegate.core.hardware import HardwareRange
from tidegate.core.release import Install, PayloadRef, ReleaseTarget, release_sha256
from tidegate.server.auth import Actor
from tidegate.server.config import Settings
from tidegate.server.operations import Operations
from tidegate.server.services import Services, open_services
from tidegate.server.store import Connection, hot, release_queries, tables

DEVICES: Final = 1_000_000
SMALL: Final = 10_000
TURNS: Final = 9
NOW: Final = 1_800_000_000
OPERATOR: Final = Actor(name="bench", role="admin")
POLICY: Final[dict[str, Any]] = {"preset": "normal", "release": "gw1-1.1.0"}
_BATCH: Final = 50_000


def fleet(count: int) -> Iterator[dict[str, Any]]:
    """Make rows of devices: 5 revisions, 200 sites, 3 classes of connectivity."""
    for number in range(count):
        rev = number % 5 + 1
        yield {
            "id": f"gw1-{number:07d}", "public_key": "", "keytype": "ed25519",
            "key_sha256": f"{number:064x}", "state": "accepted", "product": "gw1", "model": "gw1",
            "rev": rev, "variant": f"gw1-r{rev}", "channel": "stable", "site": f"s{number % 200}",
            "connectivity": ("always", "daily", "weekly")[number % 3], "attributes": {},
            "slots": {}, "refuses": [], "inhibitors": [], "enrolled_at": NOW, "last_seen": NOW,
        }  # fmt: skip


def seed(conn: Connection, count: int) -> None:
    """Write the fleet, a group of ten canaries and a release."""
    rows = fleet(count)
    while batch := [one for _, one in zip(range(_BATCH), rows, strict=False)]:
        conn.execute(insert(tables.device), batch)
    for rev in range(1, 6):
        hot.add_firmware(conn, "default", "gw1", f"gw1-r{rev}", 0, "", count // 5)
    group = {"name": "internal", "query": None, "created_at": NOW, "created_by": "bench"}
    conn.execute(insert(tables.device_group).values(**group))
    members = [{"group_id": 1, "device_row": row} for row in range(1, 11)]
    conn.execute(insert(tables.group_member), members)
    publish(conn)


def publish(conn: Connection) -> None:
    """Write a release, as if it had been published."""
    digest = "ab" * 32
    target = ReleaseTarget(
        product="gw1",
        version="1.1.0",
        release_counter=1,
        security_version=1,
        channels=("stable",),
        hardware=(HardwareRange("gw1", 1, 9),),
        install=Install(size=4096, sha256=digest),
        payloads=(PayloadRef(kind="full", sha256=digest, length=4096, index_sha256=digest),),
    )
    release = release_queries.add_release(
        conn,
        {
            "name": "gw1-1.1.0", "product": "gw1", "version": "1.1.0", "counter": 1,
            "security_version": 1, "release_sha256": release_sha256([digest]),
            "channels": ["stable"], "kind": "feature", "state": "live", "published_at": NOW,
            "published_by": "bench", "signers": [],
        },
    )  # fmt: skip
    release_queries.add_artifact(
        conn,
        {
            "release_id": release, "path": "gw1/1.1.0/rootfs", "component": "rootfs",
            "install_sha256": digest, "install_size": 4096, "length": 4096, "sha256": digest,
            "target": msgspec.to_builtins(target),
        },
    )  # fmt: skip


def opened(folder: Path, clock: Callable[[], float] = lambda: float(NOW)) -> Services:
    """Open a server on a folder."""
    settings = Settings(data_dir=folder, approval_above_devices=10**9, approval_above_bp=10_000)
    return open_services(settings, clock=clock, randomness=bytes)


def rows_written(conn: Connection) -> int:
    """Count the rows of everything that a rollout may write to, but for the fleet."""
    counted = [tables.rollout, tables.update, tables.plan_log, tables.audit, tables.incident]
    counted += [tables.change, tables.outbox, tables.tally, tables.permit]
    counted += [tables.audience_tables.fixed_audience]
    return sum(
        int(conn.execute(select(func.count()).select_from(one)).scalar_one()) for one in counted
    )


def measured(count: int) -> tuple[float, float, float, int]:
    """Return the median milliseconds of making a rollout, and one with a fixed audience, and of halting one, and the most rows that a turn wrote."""
    folder = Path(tempfile.mkdtemp(prefix="tidegate-bench-"))
    try:
        services = opened(folder / "data")
        services.store.write(lambda conn: seed(conn, count)).result()
        services.close()
        services = opened(folder / "data")
        operations = Operations(services)
        make, fix, halt, most = [], [], [], 0
        for turn in range(TURNS):
            before = services.store.read(rows_written)
            start = time.perf_counter()
            made = operations.create({**POLICY, "name": f"r{turn}"}, OPERATOR, "bench", NOW)
            make.append(1_000 * (time.perf_counter() - start))
            start = time.perf_counter()
            operations.act(made.name, "halt", OPERATOR, "bench", NOW)
            halt.append(1_000 * (time.perf_counter() - start))
            start = time.perf_counter()
            operations.create(
                {**POLICY, "name": f"s{turn}", "dynamic": False}, OPERATOR, "bench", NOW
            )
            fix.append(1_000 * (time.perf_counter() - start))
            operations.act(f"s{turn}", "halt", OPERATOR, "bench", NOW)
            most = max(most, services.store.read(rows_written) - before)
        services.close()
        middle = [sorted(one)[TURNS // 2] for one in (make, fix, halt)]
        return middle[0], middle[1], middle[2], most
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure() -> list[Figure]:
    """Measure at a million devices, beside ten thousand."""
    small = measured(SMALL)
    print(f"rollout: writing {DEVICES:,} devices ...", file=sys.stderr)
    large = measured(DEVICES)
    against = f"at {SMALL:,}"
    return [
        Figure(
            name="rollout: made for 1,000,000 devices", value=large[0], unit="ms",
            reference=small[0], against=against, bar=100, at_most=True,
        ),
        Figure(
            name="rollout: made as a snapshot of 1,000,000 devices", value=large[1], unit="ms",
            reference=small[1], against=against, bar=100, at_most=True,
        ),
        Figure(
            name="rollout: halted", value=large[2], unit="ms", reference=small[2],
            against=against, bar=100, at_most=True,
        ),
        Figure(
            name="rollout: rows written, two made and halted", value=large[3], unit="",
            reference=small[3], against=against, bar=small[3], at_most=True,
        ),
    ]  # fmt: skip
