"""An agent that stays connected to a server which it would otherwise ask every ten minutes: it hears of a release, of a halt and of its owner at once."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e import plant as plants
from tests.e2e.plant import Plant
from tests.e2e.served import environment

from tidegate.sim.virtual_board import VirtualBoard, wait_for

pytestmark = pytest.mark.e2e


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plant]:
    monkeypatch.setattr(plants, "SETTINGS", '[poll]\ninterval = "10min"\n[plan]\ntick = "1s"\n')
    made = Plant(tmp_path)
    try:
        yield made
    finally:
        if made.served.process.poll() is None:
            made.served.kill()


def connected(folder: Path) -> None:
    path = folder / "agent.toml"
    found = path.read_text()
    assert 'interval = "1s"' in found
    path.write_text(found.replace('interval = "1s"', 'interval = "server"\nstay_connected = true'))


def told(folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", "tidegate.agent.main", *words]
    command += ["--config", str(folder / "agent.toml")]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout


def waits(plant: Plant) -> bool:
    _, page = plant.served.ask("GET", "/metrics")
    return b"tidegate_polls_held 1.0" in page


def test_an_agent_that_stays_connected_is_there_when_it_is_wanted(plant: Plant) -> None:
    factory = plant.release(1)
    folder = plant.board("board-1", factory)
    connected(folder)
    plant.release(2)
    board = VirtualBoard(folder)
    board.start()
    try:
        assert wait_for(lambda: "board-1" in plant.control.running(), 20)
        assert wait_for(lambda: waits(plant), 20)
        # its owner is served while it waits, and not after the wait
        began = time.monotonic()
        told(folder, "hold", "--for", "1h")
        assert json.loads(told(folder, "status", "--json"))["holds"]
        told(folder, "release")
        told(folder, "check")
        assert time.monotonic() - began < 15
        assert wait_for(lambda: waits(plant), 20)
        rollout = plant.roll_out(2)
        assert plant.ends(rollout, "completed", 60)
        assert plant.control.running()["board-1"] == 2
        assert wait_for(lambda: waits(plant), 20)
        began = time.monotonic()
        assert plant.served.stop() == 0
        assert time.monotonic() - began < 8  # whoever only waits does not hold up a stop
    finally:
        board.stop()
