"""Starting with 100,000 enrolled devices: from nothing to the first answer, and the memory after it."""

import tempfile
import time
from pathlib import Path

from bench.figure import Figure
from bench.servers import control_plane

from tidegate.sim.load.process import resident_mib, settle
from tidegate.sim.load.stock import fill

DEVICES = 100_000


def _start(data: Path) -> tuple[float, float]:
    begin = time.monotonic()
    with control_plane(data) as (pid, _):
        took = time.monotonic() - begin
        settle(pid)
        return took, resident_mib(pid)


def measure() -> list[Figure]:
    """Measure a full and an empty control plane."""
    with tempfile.TemporaryDirectory() as empty, tempfile.TemporaryDirectory() as full:
        fill(Path(full), DEVICES, int(time.time()), 3600)
        fill(Path(empty), 0, int(time.time()), 3600)
        empty_s, empty_mib = _start(Path(empty))
        full_s, full_mib = _start(Path(full))
    against = "with no device"
    return [
        Figure(
            name=f"start with {DEVICES:,} devices",
            value=full_s, unit="s", reference=empty_s, against=against, bar=5, at_most=True,
        ),
        Figure(
            name=f"resident memory with {DEVICES:,} devices",
            value=full_mib, unit="MiB", reference=empty_mib, against=against,
            bar=300_000_000 / (1 << 20), at_most=True,
        ),
    ]  # fmt: skip
