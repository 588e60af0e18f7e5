"""The guide for U-Boot boards: its files are taken by the code as they stand, and what it says the agent says, the agent says."""

import re
import tomllib
from pathlib import Path

import pytest
from tests.contract.uboot_board import UbootBoard

from tidegate.agent import bootloaders
from tidegate.core.errors import ConfigError, TidegateError

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "guides" / "boot-uboot.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
PLACES = next(text for kind, text in BLOCKS if not kind and text.startswith("/dev/mmcblk0 "))
AGENT = tomllib.loads(next(text for kind, text in BLOCKS if kind == "toml"))
SAYS = re.findall(r"^\| `([^`]+)` \| ", GUIDE.split("## When something is wrong")[1], re.MULTILINE)


def _settings(folder: Path, places: str) -> dict[str, object]:
    config = folder / "fw_env.config"
    config.write_text(places)
    slots = [one["name"] for one in AGENT["slot"]]
    return {**AGENT["bootloader"]["uboot"], "config": str(config), "slots": slots}


def test_its_files_are_taken_as_they_stand(tmp_path: Path) -> None:
    assert AGENT["bootloader"]["name"] == "uboot"
    bootloaders.load("uboot", _settings(tmp_path, PLACES))
    files = re.search(r"`(/boot/\S+ 0 0x4000)` and `(/boot/\S+ 0 0x4000)`", GUIDE)
    assert files is not None
    bootloaders.load("uboot", _settings(tmp_path, "\n".join(files.groups())))
    with pytest.raises(ConfigError):
        bootloaders.load("uboot", _settings(tmp_path, PLACES.splitlines()[0]))


def test_every_message_that_it_explains_is_one_that_the_agent_gives(tmp_path: Path) -> None:
    said: list[str] = []

    def hear(**settings: object) -> None:
        given = board.settings() | {"slots": ["A", "B"], "current": "A"} | settings
        try:
            loader = bootloaders.load("uboot", given)
            loader.current()
            loader.primary()
            loader.mark_bad("B")
            loader.mark_bad("A")
        except TidegateError as error:
            said.append(error.detail)

    board = UbootBoard(tmp_path, copies=1)
    hear()
    board = UbootBoard(tmp_path, copies=2)
    hear()
    board.save({"bootcmd": "run x"})
    hear()
    hear(style="bootcount")
    board.save({"BOOT_ORDER": "A B", "BOOT_A_LEFT": "3", "BOOT_B_LEFT": "3"})
    empty = tmp_path / "cmdline"
    empty.write_text("quiet\n")
    hear(current="", cmdline=str(empty))
    hear()
    assert len(SAYS) == len(said) == 6
    for wanted, heard in zip(SAYS, said, strict=True):
        assert wanted.removesuffix("…").strip() in heard
