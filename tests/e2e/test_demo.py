"""The demo as a stranger runs it: a process of its own, judged by its exit code and its table."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tidegate.server.store.sqlite import DATABASE_NAME
from tidegate.sim.processes import environment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def _demo(folder: Path, *options: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "tidegate.cli", "demo", "--data", str(folder), *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )


def _living(folder: Path) -> list[str]:
    """Return the command lines of processes that work below `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(folder) in line:
                found.append(line)
    return found


def test_the_whole_story_comes_true_and_every_count_agrees(tmp_path: Path) -> None:
    process = _demo(tmp_path, "--exit", "--json", "--devices", "120", "--seed", "3")
    out, err = process.communicate(timeout=580)
    assert process.returncode == 0, err.decode()
    verdict: dict[str, Any] = json.loads(out)
    assert verdict["true"]
    assert {row["step"] for row in verdict["rows"]} == {"1", "2", "3", "4", "5", "6"}
    assert [row for row in verdict["rows"] if not row["agrees"]] == []
    assert b"kill -9 of the server" in err
    assert b"corrective action" in err.lower()
    assert _living(tmp_path) == []
    assert _clones(tmp_path) == (0, 0)


def _clones(folder: Path) -> tuple[int, int]:
    """Return how many devices were taken for clones, and how many gave as much as a hint: none of a story's devices is one."""
    (database,) = folder.rglob(DATABASE_NAME)
    with closing(sqlite3.connect(database)) as conn:
        asked = "SELECT count(*) FROM event WHERE reason = 'security.clone'"
        (events,) = conn.execute(asked).fetchone()
        trails = [json.loads(text or "{}") for (text,) in conn.execute("SELECT trail FROM device")]
    assert len(trails) >= 100
    return int(events), sum(bool(one and one.get("hints")) for one in trails)


def test_a_demo_that_is_ended_takes_its_processes_with_it(tmp_path: Path) -> None:
    process = _demo(tmp_path, "--devices", "100")
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(b"http://"):
            break
    assert len(_living(tmp_path)) >= 2
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert _living(tmp_path) == []
