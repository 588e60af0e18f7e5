"""`kill -9` of the real agent process at ten random moments of two updates, and of the server once in the middle."""

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from tests.e2e.plant import Plant, slot_digest

from tidegate.agent.files import StateDirectory
from tidegate.agent.journal import Journal
from tidegate.sim.virtual_board import VirtualBoard, wait_for

pytestmark = pytest.mark.e2e

SEED: Final = 20261124
KILLS: Final = 5  # in each of two updates
NAME: Final = "board-1"


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path)
    try:
        yield made
    finally:
        if made.served.process.poll() is None:
            made.served.kill()


class _Killer(threading.Thread):
    """Kills the agent again and again, at moments that nobody can foresee, and notes what it was doing.

    At most once in a phase that begins anew each time: all kills would fall there.
    """

    def __init__(self, board: VirtualBoard, chance: random.Random) -> None:
        super().__init__(daemon=True)
        self.board, self.chance = board, chance
        self.found: list[str] = []

    def run(self) -> None:
        while len(self.found) < KILLS:
            time.sleep(self.chance.uniform(0.1, 1.3))
            phase = _phase(self.board.folder)
            if phase == "Idle" or (phase != "Testing" and self.found.count(phase) >= 1):
                continue
            if self.board.kill_agent():
                self.found.append(phase)


def _phase(folder: Path) -> str:
    """Return what the agent is doing, from its journal."""
    state, _ = Journal(StateDirectory(str(folder / "state"))).read()
    return "Idle" if state is None else type(state.phase).__name__


@pytest.mark.timeout(150)
def test_killed_at_ten_random_moments_it_ends_on_a_whole_signed_image_counted_once(
    plant: Plant,
) -> None:
    factory = plant.release(1)
    folder = plant.board(NAME, factory)
    plant.release(2, warmup_s=5)
    plant.release(3, warmup_s=5)
    board = VirtualBoard(folder)
    chance = random.Random(SEED)
    board.start()
    try:
        assert wait_for(lambda: NAME in plant.control.running(), 20)
        kills = []
        for counter in (2, 3):
            killer = _Killer(board, chance)
            killer.start()
            rollout = plant.roll_out(counter, delivery={"rate": "1MiB/s"})
            if counter == 3:
                assert wait_for(lambda: _phase(folder) != "Idle", 20)
                plant.served.kill()
                plant.served.start()
            killer.join(60)
            kills += killer.found
            assert plant.ends(rollout, "completed"), (
                kills,
                (folder / "agent.log").read_text()[-2000:],
            )
        running = board.running
    finally:
        board.stop()
    assert len(kills) == 2 * KILLS
    assert board.crashes >= 2 * KILLS
    assert {"Downloading", "Testing"} <= set(kills), kills
    other = {"A": "B", "B": "A"}[running]
    assert slot_digest(folder, running) == plant.digests[3]
    assert slot_digest(folder, other) == plant.digests[2]
    assert plant.control.running()[NAME] == 3
    _counted_once(plant)


def _counted_once(plant: Plant) -> None:
    for rollout in ("to-2", "to-3"):
        view = plant.control.rollout(rollout)
        counts = {name: view.count(name) for name in ("offered", "exposed", "confirmed", "reverted", "lost", "failed_before", "failed_after")}  # fmt: skip
        assert counts == {
            "offered": 1,
            "exposed": 1,
            "confirmed": 1,
            "reverted": 0,
            "lost": 0,
            "failed_before": 0,
            "failed_after": 0,
        }
    confirmed = plant.rows(
        "SELECT update_id, count(*) FROM event WHERE kind = 'confirmed' GROUP BY 1"
    )
    assert [count for _, count in confirmed] == [1, 1]
    stored = plant.rows("SELECT count(*), count(DISTINCT seq) FROM event")[0]
    assert stored[0] == stored[1]
    daily = plant.daily()
    assert daily["end:confirmed"] == 2
    assert daily["permit"] == 2
    assert daily["download.ok"] == 2
    assert "download.failed" not in daily
    for received, resumes in plant.rows("SELECT bytes, resumes FROM 'update'"):
        assert received > 100_000, resumes
