"""The guide to a device without a server is carried out as it stands, by a real agent on a virtual board and with no server anywhere."""

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidegate.core.bundle import read_manifest
from tidegate.core.release import Running
from tidegate.core.ustar import Reader
from tidegate.sim.virtual_board import BoardSpec, VirtualBoard, make_board

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "guides" / "offline-bundle.md").read_text()

pytestmark = pytest.mark.e2e


def _calls() -> list[list[str]]:
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)).splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


class Desk:
    """A folder with laboratory keys, and a board beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {
            **os.environ,
            "PYTHONPATH": str(ROOT / "src"),
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
            "TIDEGATE_KEY_PASSPHRASE_FILE": str(folder / "lab/keys/passphrase"),
        }
        self.env.pop("TIDEGATE_SERVER", None)

    def run(self, program: str, *words: str) -> "subprocess.CompletedProcess[str]":
        module = "tidegate.agent.main" if program == "tidegate-agent" else "tidegate.cli"
        if program == "tidegate-agent":
            words = (*words, "--config", str(self.folder / "board" / "agent.toml"))
        command = [sys.executable, "-m", module, *words]
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def status(self) -> dict[str, object]:
        said = self.run("tidegate-agent", "status", "--json")
        return dict(json.loads(said.stdout)) if said.returncode == 0 else {}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    done = made.run("tidegate", "init", "--lab")
    assert done.returncode == 0, done.stderr
    release = tmp_path / "release.toml"
    text = release.read_text().replace('"1.0.0"', '"1.1.0"').replace("counter = 1 ", "counter = 2 ")
    release.write_text(text)
    image = tmp_path / "factory.img"
    image.write_bytes(b"\0" * 1080 + b"\x53\xef" + b"\0" * 4096)
    sha256 = hashlib.sha256(image.read_bytes()).hexdigest()
    spec = BoardSpec(
        device_id="dev-1",
        product="gateway",
        model="gateway",
        rev=3,
        server="http://127.0.0.1:1",
        anchor=(tmp_path / "lab" / "root.1.json").read_bytes(),
        claim="none",
        image=image,
        installed=Running(release_counter=1, version="1.0.0", sha256=sha256),
        slot_size=9 << 20,
        attributes={},
    )
    make_board(tmp_path / "board", spec)
    for name, content in re.findall(r"```toml (\S+)\n(.*?)```", GUIDE, re.DOTALL):
        file = tmp_path / "board" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(content)
    board = VirtualBoard(tmp_path / "board")
    board.start()
    try:
        yield made
    finally:
        board.stop()


def _until(desk: Desk, release: str, limit_s: float = 60.0) -> dict[str, object]:
    end = time.monotonic() + limit_s
    running: dict[str, object] = {}
    while time.monotonic() < end:
        found = desk.status().get("running")
        running = found if isinstance(found, dict) else {}
        if running.get("release") == release and running.get("confirmed"):
            break
        time.sleep(0.5)
    return running


def test_the_guide_ends_in_a_device_that_runs_the_release(desk: Desk) -> None:
    calls = _calls()
    assert [words[0] for words in calls].count("tidegate-agent") == 2
    for program, *words in calls:
        typed = ["--version", "1.1.0"] if words[:2] == ["release", "sign"] else []
        done = desk.run(program, *words, *typed)
        end = time.monotonic() + 30
        # The board is switched on, or in the middle of its restart.
        while "link.unreachable" in done.stderr and time.monotonic() < end:
            time.sleep(0.2)
            done = desk.run(program, *words, *typed)
        assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
    running = _until(desk, "gateway-1.1.0")
    assert running == running | {
        "release": "gateway-1.1.0",
        "release_counter": 2,
        "confirmed": True,
    }
    with (desk.folder / "gateway-1.1.0.offline.bundle").open("rb") as file:
        manifest = read_manifest(Reader(file.read))
    wrong = desk.run("tidegate", "release", "check", "gateway-1.1.0.offline.bundle", "--first")
    assert (wrong.returncode != 0, "for devices" in wrong.stderr) == (True, True), wrong.stderr
    assert [one.role for one in manifest.members] == ["root", "targets", "product/gateway", None]
    blobs = [one.name for one in (desk.folder / "mirror" / "blobs").iterdir()]
    assert blobs == [manifest.payloads[0].sha256]
    # Not twice, not from the mirror either, not what is meant for a server, and not without permission.
    for path, code in (
        ("gateway-1.1.0.offline.bundle", "compat.counter"),
        ("mirror", "compat.counter"),
        ("gateway-1.1.0.bundle", "release.malformed"),
        ("nothing.bundle", "config.unreadable"),
    ):
        again = desk.run("tidegate-agent", "apply-now", "--bundle", path)
        assert (again.returncode, code in again.stderr) == (1, True), again.stderr


def test_what_a_device_would_refuse_is_not_written(desk: Desk) -> None:
    built = desk.run("tidegate", "release", "build", "release.toml", "--first")
    assert built.returncode == 0, built.stderr
    command = (
        "tidegate",
        "release",
        "bundle",
        "gateway-1.1.0.bundle",
        "--with",
        "lab/trust.bundle",
    )
    unsigned = desk.run(*command)
    assert (unsigned.returncode != 0, "sig." in unsigned.stderr) == (True, True), unsigned.stderr
    rootless = desk.run(*command[:-1], "release.toml")
    assert rootless.returncode != 0
    assert "Traceback" not in unsigned.stderr + rootless.stderr
    assert not list(desk.folder.glob("*.offline.bundle"))
