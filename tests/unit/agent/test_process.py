"""The real process over real HTTP with two slot files: killed at random moments, it ends on a whole, signed image, told once."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO

import msgspec
import pytest
from tests.crash.board_config import BOARD_CONFIG
from tests.crash.http_plane import serving
from tests.crash.lab import Order, Plane
from tests.crash.releases import SLOT_SIZE, make_release

from tidegate.agent.boot import file_record as boot_file
from tidegate.core.release import HealthCheck, HealthContract, Running
from tidegate.sim.clock import AcceleratedTimeline

pytestmark = pytest.mark.e2e
REBOOT = 75
CONFIG = f'{BOARD_CONFIG}[download]\nrate = "4KiB/s"\nsync = "8KiB"\n'


class VirtualBoard:
    """A board whose slots are files: takes the boot decision, starts the agent, starts it again when it ends."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.config = folder / "agent.toml"
        self.config.write_text(CONFIG.format(folder=folder, url=url))
        self.boots = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.slot = ""
        #: Where the agent's complaints go; None = where the tests' own go.
        self.log: IO[bytes] | None = None

    def boot(self) -> None:
        """Power on: the loader spends a try, then starts the slot."""
        path = self.folder / "boot.json"
        record = boot_file.BootRecord(slots=("A", "B"), primary="A")
        if path.exists():
            record = boot_file.decode(path.read_bytes())
        self.slot, record = boot_file.decide(record)
        path.write_bytes(boot_file.encode(record))
        self.boots += 1
        self.start()

    def start(self) -> None:
        """Start the agent in the present boot."""
        names = {"TIDEGATE_SLOT": self.slot, "TIDEGATE_BOOT_ID": f"boot-{self.boots}"}
        command = [sys.executable, "-m", "tidegate.agent.main", "--config", str(self.config), "run"]
        self.process = subprocess.Popen(command, env={**os.environ, **names}, stderr=self.log)

    def tend(self) -> None:
        """Do what a supervisor does, once."""
        assert self.process is not None
        code = self.process.poll()
        if code is None:
            return
        if code == REBOOT:
            self.boot()
        else:
            self.start()

    def kill(self) -> None:
        """Take the agent away in the middle of whatever it does."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def agent(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run one verb."""
        command = [sys.executable, "-m", "tidegate.agent.main", words[0]]
        command += ["--config", str(self.config), *words[1:]]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def make_plane(*, healthy: bool = True) -> Plane:
    wanted = "raise SystemExit(0)" if healthy else "raise SystemExit(1)"
    check = HealthCheck(
        name="core", kind="command", settings={"run": [sys.executable, "-c", wanted]}
    )
    contract = HealthContract(warmup_s=1, timeout_s=3, interval_s=1, checks=(check,))
    releases = (make_release(1, health=contract), make_release(2, health=contract))

    class Now(AcceleratedTimeline):
        """The wall clock."""

    plane = Plane(Now(1.0), releases)  # type: ignore[arg-type]
    plane.order = Order("install", releases[1], "u-1")
    return plane


@contextmanager
def board(
    plane: Plane,
    folder: Path,
    through: Callable[[str], AbstractContextManager[str]] = nullcontext,
) -> Iterator[VirtualBoard]:
    """Run an agent on a board. `through`: puts something between it and its server; from the server's URL to the one that the agent is told."""
    first = plane.releases[0]
    release = first.target.release
    (folder / "root.json").write_bytes(plane.root)
    (folder / "A").write_bytes(first.image.ljust(SLOT_SIZE, b"\0"))
    running = Running(
        release_counter=1, security_version=1, sha256=release.install.sha256, version="1.1"
    )
    (folder / "installed.json").write_bytes(msgspec.json.encode(running))
    with serving(plane) as url, through(url) as told:
        made = VirtualBoard(folder, told)
        made.boot()
        try:
            yield made
        finally:
            made.kill()


def until_told(plane: Plane, made: VirtualBoard, limit_s: float = 45.0) -> None:
    end = time.monotonic() + limit_s
    while time.monotonic() < end and not plane.outcomes():
        made.tend()
        time.sleep(0.05)


def test_a_real_process_updates_itself_and_answers_people(tmp_path: Path) -> None:
    plane = make_plane()
    with board(plane, tmp_path) as made:
        until_told(plane, made)
        assert plane.outcomes() == [("confirmed", None)]
        assert (made.slot, made.boots) == ("B", 2)
        image = plane.releases[1].image
        assert (tmp_path / "B").read_bytes()[: len(image)] == image
        found = json.loads(made.agent("status", "--json").stdout)
        assert found["running"] == {
            "release": "gw1-1.2",
            "release_counter": 2,
            "sha256": plane.releases[1].target.release.install.sha256,
            "slot": "B",
            "confirmed": True,
        }
        doctor = made.agent("doctor")
        assert (doctor.returncode, "BAD" in doctor.stdout) == (0, False)
        second = made.agent("run")
        assert (second.returncode, "agent.locked" in second.stderr) == (1, True)
        key = tmp_path / "state" / "device.key"
        assert key.stat().st_mode & 0o077 == 0


def test_a_real_process_goes_back_from_an_unhealthy_release(tmp_path: Path) -> None:
    plane = make_plane(healthy=False)
    with board(plane, tmp_path) as made:
        until_told(plane, made)
        assert plane.outcomes() == [("reverted", "health.command")]
        assert made.slot == "A"


def test_killed_at_random_moments_it_ends_whole_and_told_once(tmp_path: Path) -> None:
    plane = make_plane()
    seed = random.Random(7)
    with board(plane, tmp_path) as made:
        for _ in range(10):
            time.sleep(seed.uniform(0.05, 0.9))
            made.tend()
            made.kill()
            made.tend()
        until_told(plane, made)
        time.sleep(0.3)
        assert [kind for kind, _ in plane.outcomes()] == ["confirmed"]
        image = plane.releases[1].image
        assert (tmp_path / made.slot).read_bytes()[: len(image)] == image


def test_only_a_boot_that_nobody_ended_is_told_as_a_restart(tmp_path: Path) -> None:
    plane = make_plane()
    plane.order = None

    def told() -> list[str]:
        found = [one.restart for one in plane.events.values() if one.restart is not None]
        return [one.boot_id for one in found if one.count]

    def heard(made: VirtualBoard) -> None:
        """Wait until the agent of this boot was heard."""
        end = time.monotonic() + 30
        name = f"boot-{made.boots}"
        while time.monotonic() < end and all(one.boot_id != name for one in plane.events.values()):
            time.sleep(0.05)

    with board(plane, tmp_path) as made:
        heard(made)
        assert made.process is not None
        made.process.terminate()
        made.process.wait(20)
        made.boot()
        heard(made)
        assert told() == [], "it was told to stop"
        made.kill()
        made.boot()
        heard(made)
        assert told() == ["boot-2"]


def test_a_device_enrols_by_hand_with_a_server_named_on_the_command_line(tmp_path: Path) -> None:
    plane = make_plane()
    (tmp_path / "root.json").write_bytes(plane.root)
    (tmp_path / "installed.json").write_bytes(b"{}")
    made = VirtualBoard(tmp_path, "http://127.0.0.1:1")
    refused = made.agent("enrol", "--no-claim")
    assert (refused.returncode, "download.refused" in refused.stderr) == (1, True)
    with serving(plane) as url:
        done = made.agent("enrol", "--no-claim", "--server", url)
    assert (done.returncode, "Joined: dev-1." in done.stdout) == (0, True)
    assert plane.device_key is not None
    assert plane.device_key.identity[:4] in done.stdout


def test_wrong_configuration_is_one_clear_line_and_exit_code_2(tmp_path: Path) -> None:
    made = VirtualBoard(tmp_path, "http://127.0.0.1:1")
    made.config.write_text('[device]\nprodukt = "gw1"\n')
    for verb in (("run",), ("config", "check"), ("status",)):
        done = made.agent(*verb)
        assert done.returncode == 2
        assert 'did you mean "device.product"?' in done.stderr
        assert "Traceback" not in done.stderr


def test_explain_knows_every_code_and_suggests_the_nearest(tmp_path: Path) -> None:
    made = VirtualBoard(tmp_path, "http://127.0.0.1:1")
    assert "core service" in made.agent("explain", "health.service").stdout
    wrong = made.agent("explain", "health.servise")
    assert (wrong.returncode, "health.service" in wrong.stderr) == (2, True)


def test_a_verb_without_a_running_agent_says_so(tmp_path: Path) -> None:
    (tmp_path / "root.json").write_bytes(b"{}")
    (tmp_path / "installed.json").write_bytes(b"{}")
    made = VirtualBoard(tmp_path, "http://127.0.0.1:1")
    done = made.agent("status")
    assert done.returncode == 1
    assert "no agent answers" in done.stderr
    assert "error[link.unreachable]" in done.stderr
    assert "tidegate-agent run" in done.stderr


def test_what_a_person_types_wrong_is_said_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "root.json").write_bytes(b"{}")
    (tmp_path / "installed.json").write_bytes(b"{}")
    made = VirtualBoard(tmp_path, "http://127.0.0.1:1")
    missing = made.agent("enrol", "--claim-file", str(tmp_path / "nofile"))
    assert (missing.returncode, "claim create --out" in missing.stderr) == (2, True)
    typed = made.agent("enroll")
    assert (typed.returncode, 'did you mean "enrol"?' in typed.stderr) == (2, True)
    made.config.write_text(made.config.read_text().replace('name = "file"', 'name = "flie"'))
    checked = made.agent("config", "check")
    assert (checked.returncode, 'did you mean "file"?' in checked.stderr) == (2, True)
    good = made.config.read_text().replace('name = "flie"', 'name = "uboot"')
    made.config.write_text(good + '\n[bootloader.uboot]\nstile = "order"\n')
    setting = made.agent("config", "check")
    assert (setting.returncode, 'did you mean "style"?' in setting.stderr) == (2, True)
    made.config.write_text(good + '\n[bootloader.uboot]\nconfig = "/nowhere/fw_env.config"\n')
    assert made.agent("config", "check").returncode == 0, "that the board lacks a file, doctor says"
    for one in (missing, typed, checked, setting):
        assert "Traceback" not in one.stderr
