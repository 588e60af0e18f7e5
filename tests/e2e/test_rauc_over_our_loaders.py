"""A real RAUC with `bootloader=custom` over one of our boot loaders: it installs, GRUB's record says so, and its `mark-good` keeps what runs."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.loaders import grub
from tests.e2e.test_foreign_installers import Rauc, bundle_of, certificate, needs

from tidegate.sim.virtual_board import slot_path

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
SHIPPED = Path(__file__).resolve().parents[2] / "boot" / "rauc" / "tidegate-boot"
CONFIG = """
[device]
product = "gw1"
model = "gw1"
revision = 3
id = "dev-1"
[server]
url = "http://127.0.0.1:9"
root = "{folder}/root.json"
[[slot]]
name = "A"
path = "{a}"
[[slot]]
name = "B"
path = "{b}"
[bootloader]
name = "grub"
[bootloader.grub]
env = "{folder}/grubenv"
"""
#: The shipped script, with this checkout's agent on its way.
WRAPPER = """#!/bin/sh
PATH={folder}/bin:$PATH
export TIDEGATE_SLOT="$(cat {folder}/runs)"
. {script}
"""
AGENT = """#!/bin/sh
exec {python} -m tidegate.agent.main --config {folder}/agent.toml "$@"
"""


class Board:
    """Two slot files, GRUB's block, and RAUC's service."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        board = folder / "board"
        board.mkdir()
        a, b = (slot_path(board, one) for one in "AB")
        for one in (a, b):
            one.parent.mkdir(exist_ok=True)
            one.write_bytes(bytes(1 << 20))
        self.slot = b
        grub.rig(folder)
        self.env = folder / "grubenv"
        (folder / "root.json").write_text("{}")
        (folder / "agent.toml").write_text(CONFIG.format(folder=folder, a=a, b=b))
        (folder / "bin").mkdir()
        self._script("bin/tidegate-agent", AGENT.format(python=sys.executable, folder=folder))
        self.runs("A")
        certificate(folder)
        self.service = Rauc(folder, board, activate="")
        self._script("backend", WRAPPER.format(folder=folder, script=SHIPPED))

    def _script(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o755)

    def runs(self, slot: str) -> None:
        """Say what the machine was started from."""
        (self.folder / "runs").write_text(slot)

    def rauc(self, *words: str) -> str:
        """Run RAUC's command against the service."""
        done = subprocess.run(
            ["rauc", "-c", str(self.service.config), *words],
            env={"PATH": "/usr/bin:/bin", "DBUS_SYSTEM_BUS_ADDRESS": self.service.address},
            capture_output=True,
            text=True,
            check=False,
        )
        log = (self.folder / "service.log").read_text()
        assert done.returncode == 0, done.stdout + done.stderr + log
        return done.stdout


@pytest.fixture
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    needs("rauc", "dbus-daemon", "mksquashfs")
    made = Board(tmp_path_factory.mktemp("b"))
    yield made
    made.service.close()


def test_rauc_installs_activates_and_marks_good_through_our_boot_loader(board: Board) -> None:
    image = board.folder / "image"
    image.write_bytes(b"new".ljust(64 << 10, b"\0"))
    _, package = bundle_of(image, board.folder)
    assert "A" in board.rauc("status")

    board.rauc("install", str(package))
    assert board.slot.read_bytes().startswith(b"new")
    held = grub.variables(board.env)
    assert (held["ORDER"], held["B_OK"], held["B_TRY"]) == ("B A", "0", "03")
    assert grub.power_on(board.env) == "B"

    board.runs("B")
    board.rauc("status", "mark-good", "rootfs.1")
    held = grub.variables(board.env)
    assert (held["ORDER"], held["B_OK"], held["B_TRY"]) == ("B A", "1", "15")
    board.rauc("status", "mark-bad", "rootfs.0")
    assert grub.variables(board.env)["A_OK"] == "0"
