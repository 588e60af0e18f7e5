"""A live fleet moves from SQLite to PostgreSQL in the middle of its rollouts, by the steps of docs/guides/postgresql.md; real agents carry on as they are."""

import io
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests import postgres

from tidegate.server.store.sqlite import DATABASE_NAME
from tidegate.sim import cast
from tidegate.sim.control import RolloutView
from tidegate.sim.play import Play
from tidegate.sim.processes import Server, environment
from tidegate.sim.stage import Stage, StageOptions
from tidegate.sim.teller import Teller

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(900)]

#: A rollout beside the main one, whose evidence is weighed: it takes hours, so it is under way when the server moves.
WEIGHED = "weighed"
WHO = "SELECT id, enrolled_at, key_sha256 FROM device ORDER BY id"
EPOCH = "SELECT coalesce(max(epoch), 0) FROM gate"


class Move:
    """A fleet, and the server that moves beneath it."""

    def __init__(self, folder: Path, url: str) -> None:
        teller = Teller(io.StringIO())
        options = StageOptions(folder=folder, devices=60, speed=100.0, seed=3)
        self.stage, self.url, self.folder = Stage(options, teller), url, folder
        self.stage.set()
        self.play = Play(self.stage, teller)
        self.data = self._server.data

    @property
    def _server(self) -> Server:
        assert self.stage.server is not None, "the stage has a server of its own"
        return self.stage.server

    def cli(self, *arguments: str, code: int = 0, **environ: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "tidegate.cli", *arguments],
            capture_output=True, text=True, timeout=120, check=False, cwd=self.folder,
            env={**environment(), **self._reached(), **environ},
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def _reached(self) -> dict[str, str]:
        token = (self.data / "bootstrap.token").read_text().strip()
        return {**os.environ, "TIDEGATE_SERVER": self.stage.url, "TIDEGATE_TOKEN": token}

    def there(self, asked: str) -> list[tuple[Any, ...]]:
        """Ask the file."""
        with closing(sqlite3.connect(self.data / DATABASE_NAME, timeout=10)) as raw:
            return raw.execute(asked).fetchall()

    def here(self, asked: str) -> list[tuple[Any, ...]]:
        """Ask PostgreSQL."""
        with psycopg.connect(self.url) as conn:
            return conn.execute(asked.encode()).fetchall()

    def move(self) -> None:
        """Do what the guide says: stop, make the schema, copy, say where the database is, start."""
        old = self._server
        old.stop()
        self.cli("db", "upgrade", TIDEGATE_DATABASE_URL=self.url)
        self.cli("db", "copy", "--from", str(self.data), "--to", self.url)
        config = self.folder / "tidegate.toml"
        config.write_text(config.read_text() + f'[database]\nurl = "{self.url}"\n')
        new = Server(self.data, old.port, self.folder / "server.log", ("--config", str(config)))
        self.stage.server = new
        self.stage._open.append(new)


@pytest.fixture
def moving(tmp_path: Path) -> Iterator[Move]:
    with postgres.database(postgres.Server.database) as url:
        made = Move(tmp_path, url)
        try:
            yield made
        finally:
            made.stage.close()


def _begin(moving: Move) -> str:
    """Start the rollout to most devices, and beside it one to the internal ones whose evidence is weighed."""
    policy = cast.policy(cast.GOOD, "most")
    policy |= {"audience": "stage in (pilot, fleet)", "ring": policy["ring"][1:]}
    name = moving.play.control.roll_out(policy)
    ring = {"name": "internal", "audience": "rest", "soak": "7d"}
    guard = {"type": "evidence", "preset": "emergency", "replaces": "failure_rate"}
    other = {**policy, "name": WEIGHED, "audience": "stage = internal"}
    moving.play.control.roll_out({**other, "guards": [guard], "ring": [ring]})
    return name


def test_a_fleet_carries_on_in_the_middle_of_its_rollouts(moving: Move) -> None:
    play, stage = moving.play, moving.stage
    name = _begin(moving)

    def under_way(view: RolloutView) -> bool:
        return view.count("confirmed", ring="fleet") >= 3 and bool(view.pending)

    before = play.watch(name, under_way)
    replayed = moving.cli("rollout", "evidence", WEIGHED, "--replay")
    heads = moving.cli("audit", "checkpoint")
    (moving.folder / "heads.txt").write_text(heads)
    (moving.folder / "audit.key").write_text(moving.cli("audit", "checkpoint", "--verifier"))
    moving.move()
    known, (epoch,) = moving.there(WHO), moving.there(EPOCH)[0]
    assert len(known) >= 50

    everybody = sum(plan.stage != "internal" for plan in stage.plans) + 1
    play.watch(name, lambda view: view.passed and view.count("confirmed") >= everybody)
    both = play.settle(name, lambda both: _most_agree(both.view, both.truths, everybody))
    assert both.view.count("confirmed") == everybody > before.count("confirmed")
    assert _most_agree(both.view, both.truths, everybody), both.view.headline
    # They are who they were: nobody had to join again.
    assert set(known) <= set(moving.here(WHO))
    assert "lead to what is kept" in moving.cli("rollout", "evidence", WEIGHED, "--replay")
    assert "lead to what is kept" in replayed
    assert moving.here(EPOCH)[0][0] >= epoch

    moving.cli("rollout", "halt", WEIGHED, "--reason", "is it heard?")
    let_go = play.control.rollout(WEIGHED).count("exposed")
    halted = time.monotonic()
    while time.monotonic() < halted + 5:
        time.sleep(0.5)
    assert play.control.rollout(WEIGHED).count("exposed") == let_go
    assert moving.here(EPOCH)[0][0] > epoch

    moving.cli("audit", "export", "-o", "audit.jsonl")
    moving.cli("audit", "verify", "audit.jsonl", "heads.txt", "--key", "audit.key")


def _most_agree(view: RolloutView, truths: list[Any], everybody: int) -> bool:
    """Say whether the boards know what the server counts of the rollout to most devices."""
    found = [one for one in truths if one.stage != "internal"]
    confirmed = sum(one.counter == cast.GOOD.counter for one in found)
    return confirmed == everybody == view.count("confirmed") and not view.count("reverted")
