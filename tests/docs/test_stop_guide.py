"""The guide for when something is wrong is carried out as it stands, on a real server and a board with a real agent, with two real holders of incident keys."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.plant import PRODUCT, Plant
from tests.e2e.served import environment

from tidegate.core.metadata import RoleKeys, parse_root, sign
from tidegate.publisher import bundle
from tidegate.publisher.ceremony import ROOT_S, RootSpec, begin_root, begin_targets, online_keys
from tidegate.publisher.keyfile import new_key, open_key, read_public
from tidegate.publisher.lab import Lab
from tidegate.sim.virtual_board import VirtualBoard, wait_for

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "guides" / "stop-and-bring-back.md").read_text()
PASSPHRASE = "correct horse battery staple"
GOOD, BAD, WORSE = 118, 121, 122
VERSIONS = {GOOD: "2.4.1", BAD: "2.5.1", WORSE: "2.6.0"}
ROLES = {"root": "root", "targets": "targets", "rita": "product", "gus": "incident", "hana": "incident"}  # fmt: skip


def team(folder: Path, online: dict[str, Any]) -> Lab:
    """Make the keys that the guide speaks of, and a root in which two of two must sign grants."""
    folder.mkdir(exist_ok=True)
    now = int(time.time())
    for name, role in ROLES.items():
        path = folder / f"{name}.key"
        new_key(path, name, PASSPHRASE, role=role, randomness=os.urandom, memory_kib=1 << 10)  # type: ignore[arg-type]
    public = {name: read_public(folder / f"{name}.key").key for name in ROLES}
    rings = {
        "root": RoleKeys((public["root"],), 1),
        "targets": RoleKeys((public["targets"],), 1),
        "incident": RoleKeys((public["gus"], public["hana"]), 2),
        **{name: RoleKeys((key,), 1) for name, key in online_keys(online).items()},
    }
    spec = RootSpec(tenant="default", expires_s=ROOT_S, roles=rings)
    products = {PRODUCT: RoleKeys((public["rita"],), 1)}
    drafts = {
        "root": begin_root(spec, previous=None, now=now),
        "targets": begin_targets(products, previous=None, now=now, one_signer={PRODUCT}),
    }
    signed = {
        name: sign(body, open_key(folder / f"{name}.key", PASSPHRASE))
        for name, body in drafts.items()
    }
    parse_root(signed["root"])
    root, trust = folder / "root.1.json", folder / "trust.bundle"
    root.write_bytes(signed["root"])
    bundle.write(trust, signed, {})
    passphrase = folder / "passphrase"
    passphrase.write_text(PASSPHRASE + "\n")
    return Lab(folder, root, trust, {"product": folder / "rita.key"}, passphrase)


class Desk(Plant):
    """The plant of the end-to-end tests with the guide's people, and somebody who types what the guide prints."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, lab=lambda control: team(folder, control.online_keys()))
        self.names: dict[str, str] = {}

    def version(self, counter: int) -> str:
        return VERSIONS[counter]

    def run(self, *words: str) -> str:
        env = {
            **environment(),
            "TIDEGATE_SERVER": self.url,
            "TIDEGATE_TOKEN": (self.served.data / "bootstrap.token").read_text().strip(),
            "TIDEGATE_KEY_PASSPHRASE_FILE": str(self.folder / "passphrase"),
            "TIDEGATE_ROOT": str(self.folder / "root.1.json"),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
        }
        command = [sys.executable, "-m", "tidegate.cli", *words]
        done = subprocess.run(
            command, cwd=self.folder, env=env, capture_output=True, text=True, check=False,
            timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
        return done.stdout

    def typed(self, line: str) -> None:
        """Carry out a printed line: with the incident that there really is, and what a person types when asked."""
        for printed, real in self.names.items():
            line = line.replace(printed, real)
        words = shlex.split(line, comments=True)[1:]
        if words[:3] == ["incident", "grant", "sign"]:
            words += ["--words", json.loads(self.run(*words[:2], "show", words[3], "--json"))["words"]]  # fmt: skip
        if words[:2] == ["release", "sign"]:
            words += ["--version", words[2].removeprefix(f"{PRODUCT}-").removesuffix(".bundle")]
        self.run(*words)

    def runs(self, counter: int) -> bool:
        """Wait until the board runs a release and the server knows it."""
        found = "SELECT running_counter FROM device"
        return wait_for(lambda: self.rows(found) == [(counter,)], 60)


def section(title: str) -> list[str]:
    """Return the commands of a section of the guide."""
    text = GUIDE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).splitlines()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    with suppress(Exception):
        made.served.stop()
    if made.served.process.poll() is None:
        made.served.kill()


@pytest.mark.timeout(170)
def test_every_command_of_the_guide_does_what_it_says(desk: Desk) -> None:
    image = desk.release(GOOD, warmup_s=1)
    for counter in (BAD, WORSE):
        desk.release(counter, warmup_s=1)
    board = VirtualBoard(desk.board("board1", image, GOOD))
    board.start()
    try:
        assert desk.runs(GOOD)
        _first_day(desk)
        _second_day(desk)
    finally:
        board.stop()


def _first_day(desk: Desk) -> None:
    desk.roll_out(BAD, name="gw1-2.5.1")
    assert desk.runs(BAD)
    for title in ("Stop", "Only one hardware variant is bad", "Bring devices back that took it"):
        for line in section(title):
            desk.typed(line)
    assert desk.runs(GOOD)
    desk.names["INC-2026-014"] = desk.rows("SELECT name FROM incident ORDER BY id")[0][0]


def _second_day(desk: Desk) -> None:
    desk.roll_out(WORSE, name="gw1-2.6.0")
    assert desk.runs(WORSE)
    lines = section("Nobody allowed that way back")
    halt = next(number for number, line in enumerate(lines) if line.startswith("tidegate halt"))
    for line in lines[halt : halt + 1]:
        desk.typed(line)
    newest = "SELECT name FROM incident ORDER BY id DESC LIMIT 1"
    desk.names["INC-2026-015"] = desk.rows(newest)[0][0]
    for line in lines[halt + 1 :]:
        desk.typed(line)
    assert desk.runs(GOOD)
    shown = desk.run("incident", "show", desk.names["INC-2026-015"])
    assert "signed by 2" in shown
    # The same bytes again, under the next counter: for the device that the grant brought back, the only way on.
    uploaded = sum(one.stat().st_size for one in (desk.served.data / "blobs").rglob("*"))
    for line in lines[:halt]:
        desk.typed(line)
    assert sum(one.stat().st_size for one in (desk.served.data / "blobs").rglob("*")) == uploaded
    desk.roll_out(123, name="again", release="gw1-2.4.1.r123")
    assert desk.runs(123)
    for title in ("Never again", "Tell people"):
        for line in section(title):
            desk.typed(line)
    assert (desk.folder / "report.md").stat().st_size > 500
