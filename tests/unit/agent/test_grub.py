"""The block that GRUB reads: what is written is what GRUB's own tool reads, and the other way round; the shipped script is one that GRUB takes."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tidegate.agent import bootloaders
from tidegate.agent.bootloaders import grub
from tidegate.agent.ports import Bootloader, CountingBootloader
from tidegate.core.errors import ConfigError, DeviceError

SCRIPTS = Path(__file__).resolve().parents[3] / "boot" / "grub"
FACTORY = ("ORDER=A B", "A_OK=1", "A_TRY=15", "B_OK=0", "B_TRY=00")


def tool(name: str, *words: str) -> str:
    if shutil.which(name) is None:
        pytest.skip(f"tier: {name} is missing: install the Debian package grub-common")
    done = subprocess.run([name, *words], check=True, capture_output=True, text=True)
    return done.stdout


def listed(path: Path) -> dict[str, str]:
    lines = tool("grub-editenv", str(path), "list").splitlines()
    return dict(line.split("=", 1) for line in lines)


@pytest.fixture
def env(tmp_path: Path) -> Path:
    """A block made by GRUB's own tool."""
    path = tmp_path / "grubenv"
    tool("grub-editenv", str(path), "create")
    tool("grub-editenv", str(path), "set", *FACTORY)
    return path


def board(path: Path, current: str = "A") -> Bootloader:
    return bootloaders.load("grub", {"env": str(path), "slots": ["A", "B"], "current": current})


def test_grubs_tool_reads_what_is_written(env: Path) -> None:
    board(env).arm_trial("B", 3)
    assert listed(env) == {"ORDER": "B A", "A_OK": "1", "A_TRY": "15", "B_OK": "0", "B_TRY": "03"}
    board(env).commit("B")
    assert listed(env)["ORDER"] == "B A"
    assert (listed(env)["B_OK"], listed(env)["B_TRY"]) == ("1", "15")
    board(env).mark_bad("B")
    assert listed(env) == {"ORDER": "A B", "A_OK": "1", "A_TRY": "15", "B_OK": "0", "B_TRY": "00"}


def test_what_grubs_tool_writes_is_read(env: Path) -> None:
    tool("grub-editenv", str(env), "set", "ORDER=B A", "B_TRY=2")
    assert (board(env).state("B"), board(env).tries_left("B")) == ("trial", 2)
    assert board(env).primary() == "A"
    tool("grub-editenv", str(env), "set", "B_TRY=00")
    assert (board(env).state("B"), board(env).tries_left("B")) == ("trial", 0)


def test_variables_of_others_stay_byte_for_byte(env: Path) -> None:
    others = ("a=x=y", "path=C:\\dir", "empty=", "lines=one\ntwo", "hash=#1 # 2", "umlaut=ä")
    tool("grub-editenv", str(env), "set", *others)
    before = tool("grub-editenv", str(env), "list")
    board(env).arm_trial("B", 12)
    board(env).mark_bad("B")
    assert tool("grub-editenv", str(env), "list") == before
    board(env).arm_trial("B", 12)
    assert "B_TRY=12\n" in tool("grub-editenv", str(env), "list")


def test_the_file_keeps_its_blocks_and_its_size(env: Path) -> None:
    before = env.stat()
    other_name = env.with_name("link")
    os.link(env, other_name)
    board(env).arm_trial("B", 3)
    after = env.stat()
    assert (after.st_ino, after.st_size) == (before.st_ino, 1024)
    assert other_name.read_bytes() == env.read_bytes()
    assert sorted(one.name for one in env.parent.iterdir()) == ["grubenv", "link"]


def test_what_is_right_already_is_not_written(env: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[int] = []
    real = os.pwrite

    def counted(handle: int, data: bytes, at: int) -> int:
        writes.append(at)
        return real(handle, data, at)

    monkeypatch.setattr(os, "pwrite", counted)
    board(env).commit("A")
    assert writes == []
    tool("grub-editenv", str(env), "set", "A_TRY=14")
    board(env).commit("A")
    assert writes == [0]


def test_a_change_that_would_span_sectors_is_refused_before_a_byte_is_written(env: Path) -> None:
    # Somebody else's variables first: then ours lie across the border between the sectors.
    tool("grub-editenv", str(env), "create")
    tool("grub-editenv", str(env), "set", "kernelopts=" + "x" * 380, *FACTORY)
    before = env.read_bytes()
    with pytest.raises(DeviceError, match="span sectors"):
        board(env).arm_trial("B", 3)
    assert env.read_bytes() == before


def test_no_room_is_refused_before_a_byte_is_written(env: Path) -> None:
    tool("grub-editenv", str(env), "create")
    tool("grub-editenv", str(env), "set", "ORDER=A B", "A_OK=1", "A_TRY=15", "B_OK=0", "B_TRY=1")
    room = 1024 - len(env.read_bytes().rstrip(b"#"))
    tool("grub-editenv", str(env), "set", "x=" + "y" * (room - len("x=\n")))
    before = env.read_bytes()
    with pytest.raises(DeviceError, match="no room"):
        board(env).arm_trial("B", 12)
    assert env.read_bytes() == before


@pytest.mark.parametrize(
    "changes",
    [
        ("ORDER=A",),
        ("ORDER=A A",),
        ("ORDER=A C",),
        ("A_OK=2",),
        ("A_TRY=16",),
        ("B_TRY=-1",),
        ("B_TRY=",),
        ("B_TRY=three",),
    ],
)
def test_a_value_that_is_none_is_an_error_that_says_what_to_do(
    env: Path, changes: tuple[str, ...]
) -> None:
    tool("grub-editenv", str(env), "set", *changes)
    before = env.read_bytes()
    for ask in (board(env).primary, lambda: board(env).commit("A")):
        with pytest.raises(DeviceError, match="grub-editenv") as caught:
            ask()
        assert caught.value.code == "activate.bootloader"
    assert env.read_bytes() == before


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"#" * 1024,
        grub.HEADER.ljust(1023, b"#"),
        grub.HEADER.ljust(1025, b"#"),
        (grub.HEADER + b"ORDER=A B").ljust(1024, b"#"),
        (grub.HEADER + b"ORDER=A B\\\n").ljust(1024, b"#"),
        bytes(1024),
        b"\xff" * 1024,
    ],
)
def test_a_damaged_block_is_refused_and_left_alone(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "grubenv"
    path.write_bytes(body)
    for ask in (board(path).primary, lambda: board(path).arm_trial("B", 1)):
        with pytest.raises(DeviceError) as caught:
            ask()
        assert caught.value.code == "activate.bootloader"
    assert path.read_bytes() == body


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "grubenv"
    with pytest.raises(DeviceError, match="No such file"):
        board(path).commit("A")
    assert not path.exists()


def test_the_last_good_slot_is_never_given_up(env: Path) -> None:
    with pytest.raises(DeviceError, match="only good one"):
        board(env).mark_bad("A")
    board(env).commit("B")
    board(env).mark_bad("A")
    with pytest.raises(DeviceError, match="nothing to go back to"):
        board(env).arm_trial("B", 3)


def test_settings_that_cannot_work_are_refused() -> None:
    for wrong in (
        {"env": ""},
        {"env": 3},
        {"slots": ["A"]},
        {"slots": ["A", "B B"]},
        {"slots": ["A", "A"]},
    ):
        with pytest.raises(ConfigError):
            bootloaders.load("grub", {"slots": ["A", "B"], **wrong})


@pytest.mark.parametrize("name", ["tidegate.cfg", "grub.cfg"])
def test_grub_takes_the_shipped_script(name: str) -> None:
    tool("grub-script-check", str(SCRIPTS / name))


def test_the_scripts_cascade_counts_down_from_fifteen_to_nothing() -> None:
    text = (SCRIPTS / "tidegate.cfg").read_text()
    steps = re.findall(
        r'if \[ "\$1" = (\d\d)(?: -o "\$1" = (\d))? \]; then\n\t\tset tidegate_less=(\d\d)', text
    )
    assert [(int(one), int(less)) for one, _, less in steps] == [
        (n, n - 1) for n in range(15, 0, -1)
    ]
    assert [(int(one), int(short)) for one, short, _ in steps if short] == [
        (n, n) for n in range(9, 0, -1)
    ]


def test_the_script_writes_the_try_down_before_it_starts_anything() -> None:
    text = (SCRIPTS / "tidegate.cfg").read_text()
    main = text[text.index("load_env ") :]
    assert 0 < main.index("if save_env ") < main.index("tidegate_start ")
    assert text.rstrip().endswith("reboot")


def test_a_committed_slot_that_was_counted_down_is_refilled(env: Path) -> None:
    loader = board(env)
    assert isinstance(loader, CountingBootloader)
    assert not loader.counted_down()
    tool("grub-editenv", str(env), "set", "A_TRY=14")
    assert loader.counted_down()
    tool("grub-editenv", str(env), "set", "ORDER=B A", "B_TRY=01")
    assert not loader.counted_down(), "a trial goes first"
    tool("grub-editenv", str(env), "set", "B_TRY=00")
    assert loader.counted_down(), "it is over, and nothing else would ever refill this slot"
    loader.commit("A")
    assert (listed(env)["ORDER"], listed(env)["A_TRY"]) == ("A B", "15")
