"""Processor time and memory of processes on this machine (Linux)."""

import time
from pathlib import Path


def cpu_s(pid: int) -> float:
    """Return the processor time, in seconds, of a process and all its threads so far, those that have ended too; to the nanosecond, where /proc has ticks."""
    # What clock_getcpuclockid(3) makes of a process id.
    return time.clock_gettime(~pid << 3 | 2)


def _rollup_kib(pid: int, *keys: str) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.split(":")[0] in keys)


def private_mib(pid: int) -> float:
    """Return the memory that only this process uses, in MiB."""
    return _rollup_kib(pid, "Private_Dirty", "Private_Clean") / 1024


def resident_mib(pid: int) -> float:
    """Return the resident set, in MiB."""
    return _rollup_kib(pid, "Rss") / 1024


def peak_mib(pid: int) -> float:
    """Return the most that was ever resident, in MiB.

    Not `ru_maxrss`: that is kept over an exec, so a small process that a large one started reports the large one's size.
    """
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def settle(pid: int, limit_s: float = 10.0) -> None:
    """Wait until the process has used no processor time for a while, or the limit has passed."""
    end, last, quiet_since = time.monotonic() + limit_s, -1.0, time.monotonic()
    while time.monotonic() < end and time.monotonic() - quiet_since < 0.5:
        now = cpu_s(pid)
        if now != last:
            last, quiet_since = now, time.monotonic()
        time.sleep(0.05)
