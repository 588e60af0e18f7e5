"""The resident process of a real agent loads neither tuf nor cryptography, whatever boot loader and health check it drives.

Import contracts cannot see what is loaded by name; here the process itself is asked, after it has joined a fleet, signed in and polled over real HTTP.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bench.device import add_claim, write_config
from bench.servers import control_plane

HEAVY = (
    "tuf",
    "securesystemslib",
    "cryptography",
    "urllib3",
    "tidegate.core.keys",
    "tidegate.core.verify",
)

# Runs one whole visit in this process, then loads every back end that is shipped, then says what is loaded.
VISIT = """
import json, sys
from tidegate.agent import bootloaders, health, main
from tidegate.core.release import HealthCheck
code = main.main(["--config", sys.argv[1], "run", "--once", *sys.argv[2:]])
for name in bootloaders.names():
    __import__(f"tidegate.agent.bootloaders.{name}")
for name in health.names():
    health.load(HealthCheck(name="x", kind=name, settings={}))
print(json.dumps([code, sorted(sys.modules)]))
"""


def _visit(config: Path, *options: str) -> tuple[int, set[str]]:
    result = subprocess.run(
        [sys.executable, "-c", VISIT, str(config), *options],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    code, modules = json.loads(result.stdout.splitlines()[-1])
    return code, set(modules)


@pytest.mark.e2e
def test_the_idle_loop_polls_without_tuf_and_cryptography(tmp_path: Path) -> None:
    add_claim(tmp_path / "data")
    with control_plane(tmp_path / "data") as (_, port):
        config = write_config(tmp_path / "device", port)
        code, modules = _visit(config)
        assert code == 0, "the agent has not reached its server"
        assert modules & set(HEAVY) == set()
        # The same visit in one process loads them: the question is one that can be answered with yes.
        _, inline = _visit(write_config(tmp_path / "other", port), "--inline")
    assert {"cryptography", "securesystemslib"} <= inline
