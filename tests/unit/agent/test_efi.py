"""Boot variables: found by description, written as efivarfs wants it, everything of others kept; every half-way state is harmless."""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from tests.contract.loaders.efi import GUID, Firmware, rig
from tests.contract.rig import Rig

from tidegate.agent import bootloaders
from tidegate.agent.boot.efi_variables import EfiVariables
from tidegate.core.errors import ConfigError, DeviceError


@pytest.fixture
def board(tmp_path: Path) -> Rig:
    return rig(tmp_path)


@pytest.fixture
def firmware(board: Rig, tmp_path: Path) -> Firmware:
    return Firmware(tmp_path / "efivars")


def test_a_variable_is_its_attributes_and_then_its_value(board: Rig, firmware: Firmware) -> None:
    board.loader("A").arm_trial("B", 1)
    body = (firmware.folder / f"BootNext-{GUID}").read_bytes()
    assert body == b"\x07\0\0\0\x1b\0"
    assert (firmware.folder / f"BootOrder-{GUID}").read_bytes() == b"\x07\0\0\0\x1a\0\0\0"


def test_what_else_is_in_the_order_keeps_its_place_behind(board: Rig, firmware: Firmware) -> None:
    firmware.order(7, 0x1A, 0x1B, 0)
    board.loader("A").commit("B")
    assert firmware.numbers("BootOrder") == [0x1B, 0x1A, 7, 0]
    board.loader("B").mark_bad("A")
    assert firmware.numbers("BootOrder") == [0x1B, 7, 0]


def test_a_trial_that_runs_is_on_trial_though_the_firmware_has_forgotten_it(board: Rig) -> None:
    board.loader("A").arm_trial("B", 1)
    assert board.boot() == "B"
    assert (board.loader("B").state("B"), board.loader("B").tries_left("B")) == ("trial", 0)
    assert board.boot() == "A"
    assert board.loader("A").state("B") == "bad"


def test_the_firmwares_word_on_what_runs_counts(
    board: Rig, firmware: Firmware, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TIDEGATE_SLOT", raising=False)
    cmdline = tmp_path / "cmdline"
    cmdline.write_text("tidegate.slot=A\n")
    loader = bootloaders.load("efi", {**board.settings, "cmdline": str(cmdline)})
    firmware.put("BootCurrent", struct.pack("<H", 0x1B))
    assert loader.current() == "B"
    firmware.put("BootCurrent", struct.pack("<H", 0))
    assert loader.current() == "A", "another loader stood in between: the kernel was told"


def test_a_stale_next_of_the_other_slot_goes_before_a_commit(
    board: Rig, firmware: Firmware
) -> None:
    firmware.put("BootNext", struct.pack("<H", 0x1A))
    board.loader("B").commit("B")
    assert (firmware.get("BootNext"), board.boot()) == (None, "B")


def test_a_next_of_somebody_else_is_left_alone(board: Rig, firmware: Firmware) -> None:
    firmware.put("BootNext", struct.pack("<H", 0))
    board.loader("A").commit("A")
    board.loader("A").mark_bad("B")
    assert firmware.numbers("BootNext") == [0]


def test_an_entry_is_found_by_its_description_alone_and_must_be_one(
    board: Rig, firmware: Firmware
) -> None:
    firmware.add_entry(0x1C, "Tidegate B")
    with pytest.raises(DeviceError, match="2 active boot entries"):
        board.loader("A").arm_trial("B", 1)
    (firmware.folder / f"Boot001C-{GUID}").unlink()
    firmware.add_entry(0x1B, "Tidegate B", attributes=0)
    with pytest.raises(DeviceError, match="0 active boot entries"):
        board.loader("A").arm_trial("B", 1)


@pytest.mark.parametrize("option", [b"", b"\1", b"\1\0\0\0\0\0", b"\1\0\0\0\0\0T\0i", b"\xff" * 9])
def test_a_damaged_entry_of_somebody_else_is_no_obstacle(
    board: Rig, firmware: Firmware, option: bytes
) -> None:
    firmware.put("Boot0005", option)
    board.loader("A").arm_trial("B", 1)
    assert board.boot() == "B"


@pytest.mark.parametrize("name", ["BootNext", "BootCurrent"])
def test_a_number_that_is_none_is_an_error(board: Rig, firmware: Firmware, name: str) -> None:
    firmware.put(name, b"\x1a")
    loader = bootloaders.load("efi", dict(board.settings))
    ask = loader.current if name == "BootCurrent" else lambda: loader.commit("A")
    with pytest.raises(DeviceError, match="damaged"):
        ask()


def test_a_variable_shorter_than_its_attributes_is_an_error(board: Rig, firmware: Firmware) -> None:
    (firmware.folder / f"BootOrder-{GUID}").write_bytes(b"\x07\0")
    with pytest.raises(DeviceError, match="shorter"):
        board.loader("A").primary()


def test_a_board_without_efivarfs_says_so(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="No such file"):
        EfiVariables(str(tmp_path / "none")).names()
    with pytest.raises(DeviceError, match="mount efivarfs"):
        EfiVariables(str(tmp_path)).names()


def test_the_last_good_slot_is_never_given_up(board: Rig) -> None:
    board.loader("A").mark_bad("B")
    with pytest.raises(DeviceError, match="only good one"):
        board.loader("A").mark_bad("A")
    with pytest.raises(DeviceError, match="only good one"):
        board.loader("A").arm_trial("A", 1)


def test_a_variable_that_the_kernel_guards_is_written_all_the_same(
    board: Rig, firmware: Firmware
) -> None:
    path = firmware.folder / f"BootOrder-{GUID}"
    if (
        shutil.which("chattr") is None
        or subprocess.run(["chattr", "+i", path], check=False, capture_output=True).returncode
    ):
        pytest.skip("this file system has no immutable flag, or this user may not set it")
    try:
        with pytest.raises(PermissionError):
            path.write_bytes(b"")
        board.loader("A").arm_trial("B", 1)
        assert firmware.numbers("BootOrder") == [0x1A, 0]
    finally:
        subprocess.run(["chattr", "-i", path], check=True)


def test_settings_that_cannot_work_are_refused() -> None:
    wrong: list[dict[str, object]] = [
        {"labels": ["x"]},
        {"labels": ["x", "x"]},
        {"lables": ["x", "y"]},
        {"vars": 1},
    ]
    for one in wrong:
        with pytest.raises(ConfigError):
            bootloaders.load("efi", {"slots": ["A", "B"], **one})
