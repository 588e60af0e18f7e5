"""Going back to a moment on PostgreSQL, as the guide says it: a real archive, a real base copy, and a halt after that moment that nobody may go past.

Places and the moment are those of this test; the commands are the guide's.
"""

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from tests.postgres import Server, binaries
from tests.unit.server.rig import Device, Rig

from tidegate.server.store import hot, partitions, tables

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "guides" / "back-up-and-restore.md"
MOMENT = "2026-11-29 14:05:00+00"
_BLOCK = re.compile(r"^```(ini|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def blocks() -> list[str]:
    part = GUIDE.read_text().split("## Any moment of the past")[1].split("\n## ")[0]
    return [found[2] for found in _BLOCK.finditer(part)]


class Ground:
    """A machine with a PostgreSQL that keeps its log, as far as the guide sees it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.chmod(0o755)
        for name in ("wal", "backup", "postgresql"):
            (folder / name).mkdir()
            if os.getuid() == 0:
                shutil.chown(folder / name, "postgres", "postgres")
        lines = (line.split(" = ", 1) for line in self.placed(blocks()[0]).splitlines() if line)
        self.server = Server(**{name: value.strip("'") for name, value in lines})
        self.url = self.server.migrated()

    def placed(self, text: str) -> str:
        """Return a text of the guide with this machine's places."""
        for there, here in (
            ("/srv/wal", "wal"), ("/srv/backup", "backup"), ("/var/lib/postgresql", "postgresql"),
            ("/etc/tidegate", "."),
        ):  # fmt: skip
            text = text.replace(there, str(self.folder / here))
        return text

    def run(self, block: str) -> None:
        """Carry out commands as PostgreSQL's own user."""
        found = binaries()
        env = {**os.environ, "PATH": f"{found}:{os.environ['PATH']}"}
        done = subprocess.run(
            self.server.as_its_user("bash", "-ec", self.placed(block)),
            env=env, capture_output=True, text=True, check=False, cwd="/",
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def say(self, statement: str) -> Any:
        with self.server.connect() as conn:
            found = conn.execute(statement.encode()).fetchone()
            return found[0] if found else None

    def wait(self, holds: Callable[[], bool]) -> None:
        until = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < until
            time.sleep(0.05)


@pytest.fixture
def ground() -> Iterator[Ground]:
    # not below pytest's own folder, which is closed to PostgreSQL's user
    with tempfile.TemporaryDirectory(prefix="tidegate-pitr-") as folder:
        made = Ground(Path(folder))
        yield made
        made.server.close()


def states(rig: Rig) -> dict[str, str]:
    r = tables.rollout.c
    return rig.read(lambda conn: dict(conn.execute(select(r.name, r.state)).all()))  # type: ignore[no-any-return]


def test_back_to_the_minute_before_and_nobody_goes_past_what_happened_after_it(
    ground: Ground,
) -> None:
    _, base, restored, hold = blocks()
    data = ground.folder / "data"
    rig = Rig(data, url=ground.url)
    rig.publish_trust()
    rig.rollout(rig.release(1), name="first")
    device = rig.device()
    device.run(device.assignment())
    port = f"localhost:{ground.server.port}"
    ground.run(base.replace("@localhost/", f"@{port}/"))

    # after the base copy, before the moment
    second = rig.rollout(rig.release(2), name="second")
    body = device.assignment()
    device.tell("staged", body, bytes=4096)
    log = rig.read(hot.event_log)
    moment = ground.say("SELECT clock_timestamp()::text")
    ground.wait(lambda: bool(ground.say(f"SELECT clock_timestamp() > '{moment}'::timestamptz + interval '0.2 s'")))  # fmt: skip

    # after the moment: a halt, and an event
    rig.set_rollout(second, state="halted")
    device.tell("heartbeat")
    assert not device.permit(body).envelope
    epoch = rig.read(lambda conn: hot.gate_epoch(conn, "default"))
    segment = ground.say("SELECT pg_walfile_name(pg_switch_wal())")
    ground.wait((ground.folder / "wal" / segment).exists)
    rig.close()
    ground.server.stop()

    ground.run(restored.replace(MOMENT, moment))
    archiving = ("archive_mode", "archive_command", "archive_timeout")
    ground.server.move(ground.folder / "postgresql" / "restored", without=archiving)
    ground.server.start()
    ground.wait(lambda: ground.say("SELECT pg_is_in_recovery()") is False)
    went_back = Rig(data, now=rig.now, url=ground.url, offline=rig.offline)
    assert states(went_back) == {"first": "active", "second": "active"}  # the halt is forgotten
    assert went_back.read(hot.event_log) == log
    assert went_back.read(partitions.pieces)
    went_back.close()

    config = ground.folder / "tidegate.toml"
    config.write_text(f'[data]\ndir = "{data}"\n')
    done = subprocess.run(
        ["bash", "-ec", ground.placed(hold)],
        env={**os.environ, "PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}", "TIDEGATE_DATABASE_URL": ground.url},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    held = Rig(data, now=rig.now, url=ground.url, offline=rig.offline)
    assert states(held) == {"first": "paused", "second": "paused"}
    assert held.read(lambda conn: hot.gate_epoch(conn, "default")) > epoch
    back = Device(held, device.id, seq=device.seq, counter=device.counter, sha256=device.sha256)
    back.log_in()
    assert not back.permit(body).envelope
    assert back.tell("heartbeat").acked_seq == back.seq
    held.close()
