"""The first steps are taken as they are printed: a real server, a real agent on a virtual board, a good release and a bad one."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bench.servers import free_port, wait_for

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "start" / "first-steps.md").read_text()
STAYS = (["serve"], ["sim", "board"])

pytestmark = pytest.mark.e2e


def _section(number: int) -> list[list[str]]:
    """Return the calls of `tidegate` that a section prints."""
    text = PAGE.partition(f"\n## {number}.")[2].partition("\n## ")[0]
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).splitlines()
    return [words[1:] for line in lines if (words := shlex.split(line)) and words[0] == "tidegate"]


class Terminal:
    """A person's terminals: one folder, one PATH, programs that stay."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.stays: list[subprocess.Popen[bytes]] = []
        self.version = "1.0.0"
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
        self.env = {
            **os.environ,
            "PATH": path,
            "PYTHONPATH": str(ROOT / "src"),
            "TIDEGATE_SERVER": f"http://127.0.0.1:{self.port}",
        }

    def type(self, words: list[str]) -> str:
        """Run one printed call, with what a person answers when asked; return what it printed."""
        command = [sys.executable, "-m", "tidegate.cli", *words, *self._answers(words)]
        if words[:1] in STAYS or words[:2] in STAYS:
            self._stay(command)
            return ""
        result = subprocess.run(
            command,
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=110,
        )
        assert result.returncode == 0, f"{words}\n{result.stdout}{result.stderr}"
        if words[0] == "init":
            config = self.folder / "tidegate.toml"
            config.write_text(config.read_text().replace(":8440", f":{self.port}"))
        return result.stdout

    def _answers(self, words: list[str]) -> list[str]:
        if words[:2] == ["release", "sign"]:
            return ["--version", self.version]
        if words[:2] == ["rollout", "create"] and "--dry-run" not in words:
            return ["--yes", "--reason", "the page says so"]
        if words[:2] == ["sim", "board"]:
            return ["--server", self.env["TIDEGATE_SERVER"], "--size", "16MiB"]
        return []

    def _stay(self, command: list[str]) -> None:
        log = (self.folder / f"stays-{len(self.stays)}.log").open("wb")
        with log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.env, stderr=log, stdout=log
            )
        self.stays.append(process)
        if len(self.stays) == 1:
            wait_for(self.port, process)

    def close(self) -> None:
        for process in reversed(self.stays):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    made = Terminal(tmp_path)
    yield made
    made.close()


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def _device(terminal: Terminal) -> dict[str, Any]:
    found = json.loads(terminal.type(["device", "list", "--json"]))["items"]
    assert [one["id"] for one in found] == ["board1"]
    return dict(found[0])


def _state(terminal: Terminal) -> str:
    update = _device(terminal)["update"] or {}
    return str(update.get("state"))


@pytest.mark.timeout(240)
def test_the_first_steps_end_as_the_page_says(terminal: Terminal) -> None:
    for number in range(2, 7):
        for words in _section(number):
            terminal.type(words)
            if words[:2] == ["sim", "board"]:
                _until(lambda: "board1" in terminal.type(["device", "list"]))
    _until(lambda: _state(terminal) == "confirmed")
    assert _device(terminal)["running_version"] == "1.0.0"

    # Section 7 in a person's editor.
    folder = terminal.folder
    _edit(folder / "release.toml", 'version = "1.0.0"', 'version = "1.1.0"')
    _edit(folder / "release.toml", "counter = 1", "counter = 2")
    _edit(folder / "health.toml", 'run  = ["true"]', 'run  = ["false"]')
    _edit(folder / "health.toml", 'give_up = "60s"', 'give_up = "8s"')
    _edit(folder / "rollout.toml", "gateway-1.0.0", "gateway-1.1.0")
    terminal.version = "1.1.0"
    for words in _section(5):
        terminal.type([word.replace("1.0.0", "1.1.0") for word in words])
    terminal.type(["rollout", "create", "rollout.toml"])
    _until(lambda: _state(terminal) == "reverted")
    said = "".join(terminal.type(words) for words in _section(7))
    assert "health.command" in said
    assert json.loads(terminal.type(["incident", "list", "--json"]))["items"]
    assert _device(terminal)["running_version"] == "1.0.0"


def _until(holds: Callable[[], bool], limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end
