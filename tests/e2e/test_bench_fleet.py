"""`tidegate bench fleet`, small: it measures a real server, and what it says adds up."""

import json
import subprocess
import sys

import pytest
from tests.e2e.served import environment

pytestmark = pytest.mark.e2e


def bench(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "tidegate.cli", "bench", "fleet", *words],
        env=environment(), capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip


def test_measures_a_fleet_at_its_pace_and_a_halt_that_reaches_all_who_wait() -> None:
    done = bench(
        *("--devices", "300", "--interval", "10", "--seconds", "2", "--sockets", "40"),
        *("--tls-seconds", "1", "--json"),
    )
    assert done.returncode == 0, done.stderr
    [run] = json.loads(done.stdout)["runs"]
    assert (run["devices"], run["sockets"], run["turns"], run["pace_wanted"]) == (300, 40, 60, 30)
    assert run["held"]["connections"] == 40
    assert 0 < run["held"]["half_s"] <= run["held"]["all_s"] < 30
    rest = 1 - run["idle_cores"]
    assert run["devices_a_core"] == pytest.approx(10e6 / run["turn_us"] * rest, rel=0.01)
    assert run["devices_a_core_tls"] == pytest.approx(10e6 / run["tls_poll_us"], rel=0.01)
    assert 0 < run["poll"]["p50_ms"] <= run["poll"]["p99_ms"] <= run["poll"]["max_ms"]


def test_says_what_to_do_when_so_many_connections_cannot_be() -> None:
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if not 0 < hard < 60_000:
        pytest.skip("this machine lets a process open as many files as it likes")
    done = bench("--devices", "100", "--sockets", "60000")
    assert done.returncode != 0
    assert "--sockets" in done.stderr
    assert "ulimit" in done.stderr
