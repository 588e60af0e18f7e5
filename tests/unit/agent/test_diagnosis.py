"""The doctor: each fault of a board is found, told in one line, with what to do; and a good board gets no bad word."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tidegate.agent import config, diagnosis, doctor
from tidegate.agent.diagnosis import Answer, Surroundings
from tidegate.agent.settings import Config

ROOT_A = "22 1 179:2 / / rw,relatime shared:1 - ext4 /dev/mmcblk0p2 rw"
DATA = "40 22 179:4 / /data rw,noatime - ext4 /dev/mmcblk0p4 rw"


class Board:
    """A folder that stands for a board: a kernel's files, two slots, and an agent's configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.proc = folder / "proc"
        (self.proc / "self").mkdir(parents=True)
        self.mounted(ROOT_A, DATA)
        self.started("console=ttyS0 root=/dev/mmcblk0p2 tidegate.slot=A panic=-1")
        (folder / "root.json").write_text('{"signed": {"version": 1}}')
        self.state = str(folder / "state")
        self.more = ""
        self.devices: dict[str, str] = {}
        for slot in "AB":
            path = folder / f"slot-{slot}"
            path.write_bytes(bytes(4096))
            self.devices[str(path)] = {"A": "179:2", "B": "179:3"}[slot]

    def mounted(self, *lines: str) -> None:
        (self.proc / "self" / "mountinfo").write_text("\n".join(lines) + "\n")

    def started(self, words: str) -> None:
        (self.proc / "cmdline").write_text(words + "\n")

    def slot(self, name: str) -> Path:
        return self.folder / f"slot-{name}"

    def config(self, bootloader: str = "uboot") -> Config:
        path = self.folder / "agent.toml"
        path.write_text(f"""
[device]
product = "gw1"
model = "gw1"
revision = 3
id = "dev-1"
[server]
url = "http://127.0.0.1:1"
root = "{self.folder}/root.json"
[[slot]]
name = "A"
path = "{self.slot("A")}"
[[slot]]
name = "B"
path = "{self.slot("B")}"
[bootloader]
name = "{bootloader}"
[state]
dir = "{self.state}"
{self.more}
""")
        return config.read(path)

    def around(self) -> Surroundings:
        devices = self.devices

        class Around(Surroundings):
            def block_device(self, path: str) -> str | None:
                return devices.get(path)

        return Around(str(self.proc))


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path)


def told(answers: Any) -> list[tuple[str, str]]:
    return [(one.level, f"{one.detail} | {one.todo}") for one in answers]


def worst(answers: Any) -> Answer:
    found = sorted(answers, key=lambda one: ["bad", "warn", "ok"].index(one.level))
    assert isinstance(found[0], Answer)
    return found[0]


def slots(board: Board, current: str = "A") -> Answer:
    return worst(diagnosis.slots(board.config(), board.around(), current))


# --- slots --------------------------------------------------------------------------------------------------------------


def test_a_good_board_gets_no_bad_word(board: Board) -> None:
    found = list(diagnosis.slots(board.config(), board.around(), "A"))
    assert [one.level for one in found] == ["ok"] * 3
    assert found[-1].detail == "/ is on slot A"
    assert {one.level for one in diagnosis.kernel(board.config(), board.around())} == {"ok"}


def test_a_slot_that_is_not_there(board: Board) -> None:
    board.slot("B").unlink()
    found = slots(board)
    assert (found.level, found.detail) == ("bad", f"B: {board.slot('B')} is not there")
    assert "lsblk" in found.todo


def test_slots_of_different_sizes(board: Board) -> None:
    board.slot("B").write_bytes(bytes(2048))
    found = slots(board)
    assert (found.level, found.detail) == ("warn", "sizes differ: A 4096, B 2048 bytes")
    assert found.todo == "an image must fit into B, too"


@pytest.mark.parametrize(("how", "level"), [("rw", "bad"), ("ro", "warn")])
def test_a_candidate_that_is_mounted(board: Board, how: str, level: str) -> None:
    board.mounted(ROOT_A, DATA, f"50 22 179:3 / /mnt {how} - ext4 /dev/mmcblk0p3 rw")
    found = slots(board)
    assert found.level == level
    assert "is mounted" in found.detail
    assert found.todo.startswith("umount /mnt")


def test_both_slots_are_one_device(board: Board) -> None:
    board.devices[str(board.slot("B"))] = "179:2"
    assert ("bad", "both slots are one device | give each [[slot]] its own path") in told(
        diagnosis.slots(board.config(), board.around(), "A")
    )


def test_the_wrong_slot_is_mounted(board: Board) -> None:
    board.mounted(ROOT_A.replace("179:2", "179:3"), DATA)
    found = slots(board)
    assert found.level == "bad"
    assert found.detail == "the kernel's command line says slot A, and / is on slot B"


def test_slots_that_are_files_need_not_be_there_yet(board: Board) -> None:
    board.slot("B").unlink()
    given = board.config()
    sized = {"A": given.slots["A"], "B": (str(board.slot("B")), 4096)}
    changed = Config(**{**{n: getattr(given, n) for n in given.__struct_fields__}, "slots": sized})
    assert worst(diagnosis.slots(changed, board.around(), "A")).level == "ok"


def test_services_that_keep_a_trial_behind_our_back(board: Board) -> None:
    root = board.folder / "root"
    wants = root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    blessing = root / "lib/systemd/system/systemd-bless-boot.service"
    blessing.parent.mkdir(parents=True)
    blessing.touch()
    assert list(diagnosis.rivals(board.config("grub"), str(root))) == []
    (wants / "rauc-mark-good.service").touch()
    (found,) = diagnosis.rivals(board.config("grub"), str(root))
    assert (found.level, found.detail.split()[0]) == ("bad", "rauc-mark-good.service")
    (wants / "rauc-mark-good.service").unlink()
    (found,) = diagnosis.rivals(board.config("systemd_boot"), str(root))
    assert found.todo.startswith("systemctl mask systemd-bless-boot.service")
    (root / "etc/systemd/system/systemd-bless-boot.service").symlink_to("/dev/null")
    assert list(diagnosis.rivals(board.config("systemd_boot"), str(root))) == []


# --- kernel and state ---------------------------------------------------------------------------------------------------


def test_a_command_line_that_names_no_slot(board: Board) -> None:
    board.started("console=ttyS0 panic=-1")
    found = worst(diagnosis.kernel(board.config(), board.around()))
    assert (found.level, found.detail) == ("bad", "the kernel's command line names no slot")


@pytest.mark.parametrize("words", ["tidegate.slot=A", "tidegate.slot=A panic=0"])
def test_a_kernel_that_stays_where_it_panics(board: Board, words: str) -> None:
    board.started(words)
    assert worst(diagnosis.kernel(board.config(), board.around())).level == "warn"


@pytest.mark.parametrize(
    ("line", "level", "words"),
    [
        ("60 22 0:33 / {} rw - tmpfs tmpfs rw", "bad", "gone after a restart"),
        ("60 22 179:9 / {} ro - ext4 /dev/x ro", "bad", "read-only"),
        ("60 22 179:9 / {} rw - squashfs /dev/x ro", "bad", "read-only"),
        ("60 22 179:9 / {} rw - vfat /dev/x rw", "bad", "lost in a power cut"),
        ("60 22 179:3 / {} rw - ext4 /dev/x rw", "bad", "which is a slot"),
        ("60 22 0:44 / {} rw - overlay overlay rw", "warn", "overlay"),
        ("60 22 179:9 / {} rw - f2fs /dev/x rw", "ok", "f2fs"),
    ],
)
def test_what_the_state_lies_on(board: Board, line: str, level: str, words: str) -> None:
    Path(board.state).mkdir()
    board.mounted(ROOT_A, line.format(board.state))
    found = diagnosis.state(board.config(), board.around())
    assert (found.level, words in found.detail) == (level, True), found


def test_of_two_mounts_at_one_place_the_last_counts(board: Board) -> None:
    Path(board.state).mkdir()
    first = f"60 22 179:9 / {board.state} rw - ext4 /dev/x rw"
    board.mounted(ROOT_A, first, f"61 22 0:33 / {board.state} rw - tmpfs tmpfs rw")
    assert diagnosis.state(board.config(), board.around()).level == "bad"


def test_a_mount_point_with_a_blank_is_read(board: Board) -> None:
    board.mounted("60 22 179:9 / /my\\040data rw - ext4 /dev/x rw", "half a line")
    (one,) = board.around().mounts()
    assert (one.point, one.writable) == ("/my data", True)


# --- programs -----------------------------------------------------------------------------------------------------------


def test_an_installer_whose_program_is_missing(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.more = '[installer]\nallow = ["raw_image", "rauc"]\n'
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    found = list(diagnosis.installers(board.config()))
    assert [one.level for one in found] == ["ok", "bad"]
    assert found[1].detail == "rauc: no program rauc"
    assert "install RAUC" in found[1].todo


def test_a_rauc_that_would_activate_by_itself(board: Board) -> None:
    conf = board.folder / "system.conf"
    conf.write_text("[system]\ncompatible=gw1\n")
    board.more = (
        f'[installer]\nallow = ["rauc"]\n[installer.rauc]\nprogram = "sh"\nconfig = "{conf}"\n'
    )
    (found,) = diagnosis.installers(board.config())
    assert (found.level, "activate-installed=false" in found.detail) == ("bad", True)
    conf.write_text("[system]\nactivate-installed=false\n")
    (found,) = diagnosis.installers(board.config())
    assert found.level == "ok"


def test_update_modules_that_are_not_there(board: Board) -> None:
    board.more = (
        f'[installer]\nallow = ["module"]\n[installer.module]\ndirectory = "{board.folder}/none"\n'
    )
    (found,) = diagnosis.installers(board.config())
    assert (found.level, "No such file" in found.detail) == ("bad", True)


def test_a_board_without_systemd(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    found = list(diagnosis.health(board.config()))
    assert [one.level for one in found] == ["warn", "warn"]
    assert found[0].detail.startswith("no systemctl here")


def test_a_watchdog_that_is_configured_and_not_there(board: Board) -> None:
    board.more = f'[watchdog]\ndevice = "{board.folder}/watchdog"\n'
    assert diagnosis.watchdog(board.config()).level == "bad"
    (board.folder / "watchdog").touch()
    assert diagnosis.watchdog(board.config()).level == "ok"


# --- the whole ----------------------------------------------------------------------------------------------------------


def test_a_damaged_record_of_the_boot_loader_is_a_finding_with_a_way_out(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TIDEGATE_SLOT", raising=False)
    block = board.folder / "grubenv"
    block.write_bytes(b"nothing like it")
    board.more = f'[bootloader.grub]\nenv = "{block}"\ncmdline = "{board.proc}/cmdline"\n'
    found = [
        one
        for one in doctor.examine(board.config("grub"), board.around())
        if one.name == "bootloader"
    ]
    assert [(one.ok, one.level) for one in found] == [(False, "bad")]
    assert "activate.bootloader" in found[0].detail


def _output(run: Callable[[], int], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = run()
    return code, capsys.readouterr().out


def test_people_get_lines_and_programs_get_json(
    board: Board, capsys: pytest.CaptureFixture[str]
) -> None:
    given = board.config("file")
    code, text = _output(lambda: doctor.run(given, as_json=False), capsys)
    assert code == 1
    # Nobody answers on that port: bad, with what to do.
    assert "BAD  server" in text
    assert "       do           " in text
    code, text = _output(lambda: doctor.run(given, as_json=True), capsys)
    found = json.loads(text)
    assert code == 1
    assert {one["name"] for one in found} >= {"slots", "bootloader", "state", "server"}
    assert all(one["ok"] == (one["level"] != "bad") for one in found)
