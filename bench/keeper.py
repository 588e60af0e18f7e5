"""What it costs a server to weigh the evidence of a hundred thousand devices: a whole step, an early decision, the writer's share, what is stored.

The rows of the fleet are written in bulk; server, store, planner and gate are the real ones.
"""

import functools
import shutil
import tempfile
import time
from pathlib import Path
from typing import Final

from bench import rollout as fleets
from bench.figure import Figure

from tidegate.server.gatekeeper.keeper import Keeper
from tidegate.server.operations import Operations
from tidegate.server.services import Services
from tidegate.server.store import Connection, admin_rollouts, gate_rows, hot
from tidegate.server.tick import keeper_of, tick

DEVICES: Final = 100_000
SMALL: Final = 10_000
TURNS: Final = 5
TICK_S: Final = 900
#: Permits, each with its outcome, that happen between two early decisions.
NEWS: Final = 100


def measured(count: int) -> dict[str, float]:
    """Return medians, in milliseconds: whole step, its part in the writer, early decision; and the bytes of the stored state."""
    folder = Path(tempfile.mkdtemp(prefix="tidegate-bench-"))
    try:
        services = fleets.opened(folder / "data")
        services.store.write(lambda conn: fleets.seed(conn, count)).result()
        services.close()
        services = fleets.opened(folder / "data")
        made = Operations(services).create(
            {"preset": "emergency", "release": "gw1-1.1.0"}, fleets.OPERATOR, "bench", fleets.NOW
        )
        tick(services, fleets.NOW)
        found = services.store.read(lambda conn: admin_rollouts.rollout(conn, made.name))
        assert found is not None
        figures = _turns(services, int(found["id"]), count)
        services.close()
        return figures
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _turns(services: Services, rollout_id: int, count: int) -> dict[str, float]:
    steps, writing, early = [], [], []
    keeper = keeper_of(services)
    now = fleets.NOW
    for turn in range(TURNS):
        now += TICK_S
        seen = [(now, row) for row in range(1, count + 1)]
        services.store.write(functools.partial(hot.put_seen, seen=seen)).result()
        start = time.perf_counter()
        keeper.prepare(services.store, rollout_id, now)
        between = time.perf_counter()
        _weigh(services, keeper, rollout_id, now)
        end = time.perf_counter()
        steps.append(1_000 * (end - start))
        writing.append(1_000 * (end - between))
        rows = [
            (now, 1 + turn * NEWS + one, what)
            for one in range(NEWS)
            for what in ("permit", "confirmed")
        ]
        told = functools.partial(
            gate_rows.put_happenings, tenant="default", rollout_id=rollout_id, rows=rows
        )
        services.store.write(told).result()
        start = time.perf_counter()
        _weigh(services, keeper, rollout_id, now)
        early.append(1_000 * (time.perf_counter() - start))
    state = services.store.read(lambda conn: gate_rows.kept(conn, rollout_id))
    assert state is not None
    middle = TURNS // 2
    return {
        "step": sorted(steps)[middle],
        "writer": sorted(writing)[middle],
        "early": sorted(early)[middle],
        "bytes": float(len(state.snapshot)),
    }


def _weigh(services: Services, keeper: Keeper, rollout_id: int, now: int) -> None:
    from tidegate.server import planning

    def work(conn: Connection) -> None:
        row = admin_rollouts.rollout_by_id(conn, rollout_id)
        assert row is not None
        keeper.weigh(conn, row, planning.model_of(row), now)

    services.store.write(work).result()


def measure() -> list[Figure]:
    """Measure at a hundred thousand devices, beside ten thousand."""
    small, large = measured(SMALL), measured(DEVICES)
    against = f"at {SMALL:,}"
    return [
        Figure(
            name="keeper: whole step, 100,000 devices", value=large["step"], unit="ms",
            reference=small["step"], against=against, bar=3_000, at_most=True,
        ),
        Figure(
            name="keeper: the writer's share of it", value=large["writer"], unit="ms",
            reference=small["writer"], against=against, bar=100, at_most=True,
        ),
        Figure(
            name=f"keeper: early decision, {NEWS} outcomes", value=large["early"], unit="ms",
            reference=small["early"], against=against, bar=50, at_most=True,
        ),
        Figure(
            name="keeper: stored state", value=large["bytes"] / 1e6, unit="MB",
            reference=small["bytes"] / 1e6, against=against, bar=5, at_most=True,
        ),
    ]  # fmt: skip
