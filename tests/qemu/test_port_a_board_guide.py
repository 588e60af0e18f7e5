"""The guide that ports a board, carried out as printed: every command at the desk, every command at the console of a board in QEMU."""

import contextlib
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

import pytest
from lab import practice
from lab.machine import Machine

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "guides" / "port-a-board.md").read_text()
FENCE = re.compile(r"^```(?:sh|toml) (\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
DEFAULT_PORT = 8440
#: Python starts in seconds under emulation; other work on the machine makes it many times that.
ASK_S = 300.0


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass
class Desk:
    """Somebody with two terminals who does what the guide says."""

    folder: Path
    port: int
    machine: Machine
    server: "subprocess.Popen[bytes] | None" = None
    typed: list[str] = field(default_factory=list)

    def at_desk(self, line: str) -> None:
        words = shlex.split(line)
        if words[0] == "grub-editenv":
            # The plug was pulled at the end of the step before.
            self.machine.kill()
        if words[:3] == ["python", "-m", "lab.practice"] and words[3] == "start":
            self.switch_on()
            return
        if words[:2] == ["tidegate", "serve"]:
            self.serve()
            return
        if words[:3] == ["tidegate", "release", "sign"]:
            # The person is asked for it.
            words += ["--version", words[3].removeprefix("gateway-").removesuffix(".bundle")]
        programs = {"python": [sys.executable], "tidegate": [sys.executable, "-m", "tidegate.cli"]}
        command = [*programs.get(words[0], [words[0]]), *words[1:]]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=500,
        )
        assert done.returncode == 0, (
            f"{line}\n{done.stdout}{done.stderr}\n{self.machine.text[-2000:]}"
        )
        self.typed.append(done.stdout)

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
            "TIDEGATE_SERVER": f"http://127.0.0.1:{self.port}",
            "TIDEGATE_DATA_DIR": str(self.folder / "tidegate-data"),
            "TIDEGATE_LAB_CACHE": os.environ.get(
                "TIDEGATE_LAB_CACHE", str(ROOT / ".cache" / "lab")
            ),
        }

    def switch_on(self) -> None:
        """Be the command that starts the board: the same machine, with this test at its console."""
        assert (self.folder / "board" / "disk.img").exists()
        self.machine.kill()
        self.machine.start()
        self.sit_down()

    def sit_down(self) -> None:
        self.machine.expect("^READY")
        # `ask` reads answers only.
        self.machine.send("stty -echo; PS1=")

    def serve(self) -> None:
        command = [
            sys.executable,
            "-m",
            "tidegate.cli",
            "serve",
            "--listen",
            f"127.0.0.1:{self.port}",
        ]
        self.server = subprocess.Popen(command, cwd=self.folder, env=self.environment())
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with (
                contextlib.suppress(OSError),
                urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=5),
            ):
                return
            time.sleep(0.1)
        raise AssertionError("the server does not answer")

    def at_board(self, line: str) -> None:
        if line == "reboot -f":
            self.machine.send(line)
            self.sit_down()
            return
        if line == "tidegate-agent doctor" and self.server is None:
            # Not configured yet: one line that says so.
            self.typed.append(self.machine.ask(f"{line} 2>&1; true", ASK_S))
            return
        self.typed.append(self.machine.ask(line, ASK_S))


@pytest.fixture
def desk(accelerator: str, tmp_path: Path) -> Iterator[Desk]:
    # The guide's folder lies in the repository: `../boot` must be there.
    (tmp_path / "boot").symlink_to(ROOT / "boot")
    folder = tmp_path / "work"
    folder.mkdir()
    machine = Machine(practice.hardware(), folder / "board" / "disk.img", tmp_path / "console.log")
    made = Desk(folder, free_port(), machine)
    yield made
    machine.kill()
    if made.server is not None:
        made.server.terminate()
        made.server.wait(20)


def steps() -> list[tuple[str, str]]:
    return [(kind, text) for kind, text in FENCE.findall(GUIDE)]


@pytest.mark.timeout(1200)
def test_the_guide_takes_a_bare_board_to_a_confirmed_update_and_back_from_a_bad_one(
    desk: Desk,
) -> None:
    said: dict[str, str] = {}
    for kind, text in steps():
        if kind not in ("desk", "board"):
            changed = text.replace(f":{DEFAULT_PORT}", f":{desk.port}")
            (desk.folder / kind).write_text(changed)
            continue
        for line in text.splitlines():
            # What a person sees on the console before the next step.
            if line == "tidegate device show board1" and "joined" not in said:
                _until(desk, "tidegate-agent status", "accepted")
                said["joined"] = "yes"
            if line == "cat /etc/version":
                end = "health.service" if "tried" in said else "slot B, confirmed"
                _until(desk, "tidegate-agent status", end)
            if "it cannot work" in line:
                said["tried"] = "yes"
            (desk.at_desk if kind == "desk" else desk.at_board)(line)
            if line.startswith("tidegate rollout wait"):
                # The console of the system that was left is gone.
                desk.machine.send("stty -echo; PS1=")
    everything = "\n".join(desk.typed)
    assert "error[config.missing]" in everything
    assert "tidegate.slot=A" in everything
    assert "tidegate.slot=B" in everything
    assert "BAD" not in everything
    assert "B_OK=1" in everything
    assert [one for one in desk.typed if one.strip() == "1.1.0"] != []
    status = desk.typed[-3]
    assert "gateway-1.1.0" in status, status
    assert "health.service" in status, status


def _until(desk: Desk, line: str, words: str, limit_s: float = 600.0) -> None:
    """Ask at the console until the answer holds these words; a board that restarts meanwhile is waited for."""
    end = time.monotonic() + limit_s
    last = ""
    while time.monotonic() < end:
        try:
            last = desk.machine.ask(f"stty -echo; PS1=; {line} 2>&1; true", ASK_S / 3)
        except AssertionError as error:
            last = str(error)
        if words in last:
            return
        # Each question starts a Python on the board, which has other work now.
        time.sleep(5)
    raise AssertionError(f"{words!r} was not said: {last[-1500:]}")
