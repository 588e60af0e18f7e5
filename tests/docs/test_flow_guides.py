"""The guides on bad links and on inhibitors work as printed: the configuration is read, the commands are asked of a real agent."""

import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.test_partial_connectivity import status
from tests.unit.agent.test_process import VirtualBoard, board, make_plane

from tidegate.agent import config
from tidegate.sim.virtual_board import wait_for

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).resolve().parents[2]
LINK = (ROOT / "docs/guides/partial-connectivity.md").read_text()
INHIBIT = (ROOT / "docs/guides/inhibit-updates.md").read_text()
BLOCK = re.compile(r"^ *```(\w+) ?([^\n]*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def blocks(text: str, language: str, label: str) -> list[str]:
    return [body for one, name, body in BLOCK.findall(text) if (one, name) == (language, label)]


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualBoard]:
    plane = make_plane()
    plane.halted = True  # what comes is staged, and waits
    folder = tmp_path_factory.mktemp("agent")
    with board(plane, folder) as found:
        text = found.config.read_text().replace('rate = "4KiB/s"\n', "")
        found.config.write_text(f'{text}\n[inhibit]\ndir = "{folder}/inhibit.d"\n')
        found.kill()
        found.start()
        assert wait_for(lambda: (status(found).get("update") or {}).get("state") == "staged", 40)
        yield found


def run(agent: VirtualBoard, line: str) -> "subprocess.CompletedProcess[str]":
    words = shlex.split(line, comments=True)
    assert words[0] == "tidegate-agent", line
    return agent.agent(*words[1:])


@pytest.mark.parametrize(
    "block",
    [
        body
        for text in (LINK, INHIBIT)
        for language, _, body in BLOCK.findall(text)
        if language == "toml"
    ],
)
def test_the_configuration_is_read(block: str, agent: VirtualBoard) -> None:
    parts = agent.config.with_name(agent.config.name + ".d")
    parts.mkdir(exist_ok=True)
    part = parts / "guide.toml"
    try:
        part.write_text(block)
        found = config.read(agent.config, {})
    finally:
        part.unlink()
    assert found.settings != config.read(agent.config, {}).settings


def test_the_commands_for_the_link_do_what_they_say(agent: VirtualBoard) -> None:
    (block,) = blocks(LINK, "sh", "")
    shown = [run(agent, line) for line in block.splitlines()]
    assert [one.returncode for one in shown] == [0] * 6, shown
    assert "200000 bytes/s" in shown[0].stdout
    assert "The link is metered" in shown[3].stdout
    assert "Link      no limit" in shown[5].stdout


def test_an_activation_is_put_off_and_held(agent: VirtualBoard) -> None:
    (block,) = blocks(LINK, "sh", "update")
    lines = block.splitlines()
    said = ["Put off.", "Not put off any more.", "On hold.", "Hold ended.", "Skipping"]
    for line, words in zip(lines, said, strict=True):
        done = run(agent, line)
        assert (done.returncode, words in done.stdout) == (0, True), (line, done)


def test_the_script_for_networkmanager_writes_one_word(tmp_path: Path) -> None:
    (script,) = blocks(LINK, "sh", "dispatcher")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "busctl"
    for said, word in (("u 1", "yes"), ("u 3", "yes"), ("u 2", "no"), ("u 0", "no"), ("", "no")):
        program.write_text(f'#!/bin/sh\necho "{said}"\n')
        program.chmod(0o755)
        text = script.replace("/run/tidegate", str(tmp_path))
        path = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
        subprocess.run(["/bin/sh", "-c", text], env=path, check=True)
        assert (tmp_path / "metered").read_text() == f"{word}\n"


def test_a_command_runs_under_an_inhibitor(agent: VirtualBoard) -> None:
    (block,) = blocks(INHIBIT, "sh", "")
    assert run(agent, block).returncode == 0


def test_a_program_holds_a_connection(agent: VirtualBoard) -> None:
    (block,) = blocks(INHIBIT, "python", "")
    path = str(agent.folder / "sock")
    code = block.replace("/run/tidegate/agent.sock", path)
    first, _, last = code.rpartition("held.close()")
    assert last.strip() == ""
    names: dict[str, object] = {}
    exec(first, names)
    assert status(agent)["inhibitors"] == ["pump: a patient is connected"]
    held = names["held"]
    assert isinstance(held, socket.socket)
    held.close()
    assert wait_for(lambda: status(agent)["inhibitors"] == [], 10)
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_a_script_leaves_one_behind_and_takes_it_away(agent: VirtualBoard) -> None:
    (block,) = blocks(INHIBIT, "sh", "left")
    leave, look, take = block.splitlines()
    name = run(agent, leave).stdout.removeprefix("Left behind: ").strip().rstrip(".")
    assert f"Inhibitors  {name}: cron: data is being moved" in run(agent, look).stdout
    assert run(agent, re.sub(r"agent-\w{8}", name, take)).returncode == 0
    assert status(agent)["inhibitors"] == []


def test_a_file_says_not_now(agent: VirtualBoard) -> None:
    (block,) = blocks(INHIBIT, "sh", "file")
    make, remove = block.replace("/run/tidegate", str(agent.folder)).splitlines()
    subprocess.run(["/bin/sh", "-c", make], check=True)
    assert status(agent)["inhibitors"] == ["lab: calibration"]
    subprocess.run(["/bin/sh", "-c", remove], check=True)
    assert status(agent)["inhibitors"] == []
