"""`tidegate-agent boot`: RAUC's words over any boot loader of ours, and ours over theirs."""

import sys
from pathlib import Path

import pytest
from tests.contract.loaders import grub

from tidegate.agent import bootloaders, main
from tidegate.core.errors import DeviceError

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
path = "{folder}/a"
[[slot]]
name = "B"
path = "{folder}/b"
[bootloader]
name = "grub"
[bootloader.grub]
env = "{folder}/grubenv"
"""


class Device:
    """A board that GRUB boots, and its command."""

    def __init__(
        self, folder: Path, patch: pytest.MonkeyPatch, out: pytest.CaptureFixture[str]
    ) -> None:
        self._out = out
        self._patch = patch
        self.folder = folder
        self.env = folder / "grubenv"
        grub.rig(folder)
        (folder / "root.json").write_text("{}")
        self.config = folder / "agent.toml"
        self.config.write_text(CONFIG.format(folder=folder))
        self.runs("A")

    def runs(self, slot: str) -> None:
        self._patch.setenv("TIDEGATE_SLOT", slot)

    def boot(self, *words: str) -> str:
        code = main.main(["--config", str(self.config), "boot", *words])
        said = self._out.readouterr()
        assert code == 0, said.err
        return said.out

    def refused(self, *words: str) -> str:
        assert main.main(["--config", str(self.config), "boot", *words]) == 1
        said = self._out.readouterr()
        assert said.out == ""
        return said.err


@pytest.fixture
def device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Device:
    return Device(tmp_path, monkeypatch, capsys)


def test_an_installation_by_rauc_is_tried_and_kept_when_it_says_good(device: Device) -> None:
    # What RAUC calls, in its order: an installation, the start of what it wrote, `status mark-good`.
    assert device.boot("get-current") == "A\n"
    assert device.boot("set-state", "B", "bad") == ""
    assert device.boot("get-state", "B") == "bad\n"
    assert device.boot("set-primary", "B") == ""
    assert (device.boot("get-primary"), device.boot("get-state", "B")) == ("B\n", "good\n")
    assert device.boot("get-tries", "B") == "3\n"
    assert grub.power_on(device.env) == "B"
    device.runs("B")
    assert device.boot("set-state", "B", "good") == ""
    assert [grub.power_on(device.env) for _ in range(5)] == ["B"] * 5
    assert (device.boot("get-primary"), device.boot("get-current")) == ("B\n", "B\n")


def test_what_nobody_calls_good_goes_back(device: Device) -> None:
    device.boot("set-primary", "B", "2")
    assert [grub.power_on(device.env) for _ in range(3)] == ["B", "B", "A"]
    assert (device.boot("get-primary"), device.boot("get-state", "B")) == ("A\n", "bad\n")


def test_the_last_try_is_good_while_it_runs(device: Device) -> None:
    device.boot("set-primary", "B", "1")
    grub.power_on(device.env)
    device.runs("B")
    assert (device.boot("get-state", "B"), device.boot("get-primary")) == ("good\n", "A\n")


def test_the_running_slot_made_primary_is_kept(device: Device) -> None:
    device.boot("set-primary", "B")
    device.boot("set-primary", "A")
    assert [grub.power_on(device.env) for _ in range(5)] == ["A"] * 5


def test_a_slot_that_does_not_run_is_not_called_good(device: Device) -> None:
    device.boot("set-state", "B", "good")
    device.boot("set-state", "B", "bad")
    before = device.env.read_bytes()
    assert "does not run" in device.refused("set-state", "B", "good")
    assert device.env.read_bytes() == before


@pytest.mark.parametrize(
    "words",
    [
        ("get-primary", "A"),
        ("set-primary",),
        ("set-primary", "C"),
        ("set-primary", "B", "0"),
        ("set-primary", "B", "16"),
        ("set-primary", "B", "x"),
        ("get-state",),
        ("get-state", "C"),
        ("set-state", "B"),
        ("set-state", "B", "fine"),
        ("set-state", "C", "bad"),
        ("get-tries", "C"),
    ],
)
def test_words_that_do_not_fit_change_nothing(device: Device, words: tuple[str, ...]) -> None:
    before = device.env.read_bytes()
    assert "error[request.invalid]" in device.refused(*words)
    assert device.env.read_bytes() == before


def test_a_damaged_record_is_an_error(device: Device) -> None:
    device.env.write_bytes(b"")
    assert "error[activate.bootloader]" in device.refused("get-state", "B")


def test_the_custom_back_end_drives_this_command(device: Device) -> None:
    program = device.folder / "boot"
    program.write_text(
        f'#!/bin/sh\nexec {sys.executable} -m tidegate.agent.main --config {device.config} boot "$@"\n'
    )
    program.chmod(0o755)
    settings = {
        "command": [str(program)],
        "tries": True,
        "record": str(device.folder / "committed"),
        "slots": ["A", "B"],
        "current": "A",
    }
    loader = bootloaders.load("custom", settings)
    loader.mark_bad("B")
    loader.arm_trial("B", 2)
    assert (loader.primary(), loader.state("B"), loader.tries_left("B")) == ("A", "trial", 2)
    assert grub.power_on(device.env) == "B"
    device.runs("B")
    bootloaders.load("custom", {**settings, "current": "B"}).commit("B")
    assert [grub.power_on(device.env) for _ in range(5)] == ["B"] * 5
    with pytest.raises(DeviceError, match=r"is none of|no slot"):
        bootloaders.load("custom", {**settings, "slots": ["X", "Y"], "current": "X"}).primary()
