"""`autoboot.txt`: one sector, the same size, everything of others kept; the trial is in the restart, and is over after one start."""

import subprocess
from pathlib import Path

import pytest
from tests.contract.loaders.rpi_tryboot import SHIPPED, Pi
from tests.crash.blocklog.rigs import AUTOBOOT

from tidegate.agent import bootloaders
from tidegate.agent.board import RealBoard
from tidegate.agent.ports import ArguedReboot, Bootloader
from tidegate.core.errors import ConfigError, DeviceError


@pytest.fixture
def pi(tmp_path: Path) -> Pi:
    return Pi(tmp_path)


def loader(pi: Pi, **more: object) -> Bootloader:
    return bootloaders.load("rpi_tryboot", {**pi.settings, **more})


def argument(pi: Pi) -> str | None:
    found = loader(pi)
    assert isinstance(found, ArguedReboot)
    return found.reboot_argument()


def test_the_restart_is_told_to_try_until_it_has_been(pi: Pi) -> None:
    assert argument(pi) is None
    loader(pi).arm_trial("B", 3)
    assert argument(pi) == "0 tryboot"
    assert pi.restart() == "B"
    assert argument(pi) is None, "or a restart out of the trial would begin it again"
    assert (loader(pi).state("B"), loader(pi).tries_left("B")) == ("trial", 0)
    assert pi.power_on(tryboot=False) == "A"


def test_a_power_cut_before_the_restart_leaves_the_old_slot_and_costs_the_try(pi: Pi) -> None:
    loader(pi).arm_trial("B", 1)
    assert pi.power_on(tryboot=False) == "A"
    assert (loader(pi).state("B"), loader(pi).tries_left("B"), argument(pi)) == ("trial", 0, None)
    loader(pi).arm_trial("B", 1)
    assert argument(pi) == "0 tryboot"


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("systemctl reboot", ["systemctl", "reboot", "--reboot-argument=0 tryboot"]),
        ("/sbin/reboot -f", ["/sbin/reboot", "-f", "0 tryboot"]),
    ],
)
def test_the_board_hands_the_argument_to_its_reboot_command(
    pi: Pi, monkeypatch: pytest.MonkeyPatch, command: str, told: list[str]
) -> None:
    ran: list[list[str]] = []

    def run(words: list[str], **_: object) -> None:
        ran.append(words)

    monkeypatch.setattr(subprocess, "run", run)
    slots = {"A": ("a", None), "B": ("b", None)}
    board = RealBoard(slots, loader(pi), command, str(pi.boot_id.with_name("seen")))
    board.reboot()
    loader(pi).arm_trial("B", 1)
    board.reboot()
    assert ran == [command.split(), told]


def test_the_firmwares_word_on_what_runs_counts_more_than_the_command_line(
    pi: Pi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TIDEGATE_SLOT", raising=False)
    cmdline = tmp_path / "cmdline"
    cmdline.write_text("quiet tidegate.slot=A\n")
    pi.power_on(tryboot=True)
    assert loader(pi, cmdline=str(cmdline)).current() == "B"
    (pi.tree / "chosen" / "bootloader" / "partition").unlink()
    assert loader(pi, cmdline=str(cmdline)).current() == "A"


def test_the_file_keeps_its_size_and_everything_of_others(pi: Pi) -> None:
    text = pi.autoboot.read_text()
    pi.autoboot.write_text("# ours\r\n" + text.replace("[tryboot]", "[none]\nfoo=1\n\n[tryboot]"))
    before = pi.autoboot.stat()
    loader(pi).arm_trial("B", 1)
    loader(pi).commit("B")
    after = pi.autoboot.stat()
    assert (after.st_ino, after.st_size) == (before.st_ino, before.st_size)
    changed = pi.autoboot.read_text()
    assert changed == (
        "# ours\n[all]\ntryboot_a_b=1\nboot_partition=3\n[none]\nfoo=1\n\n"
        "[tryboot]\nboot_partition=2\n# tidegate trial=- bad=- boot=------------\n"
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("tryboot_a_b=1", "tryboot_a_b=0"),
        ("tryboot_a_b=1\n", ""),
        ("boot_partition=2", "boot_partition=4"),
        ("boot_partition=2", "boot_partition=3"),
        ("boot_partition=2", "boot_partition="),
        ("boot_partition=2\n", "boot_partition=2\nboot_partition=2\n"),
        ("[tryboot]", "[other]"),
        ("trial=-", "trial=A"),
        ("trial=-", "trial=C"),
        ("trial=-", "trail=-"),
        ("# tidegate", "# something"),
        ("bad=- ", "bad=-"),
        ("[all]", "x" * 500),
    ],
)
def test_a_file_that_is_not_as_shipped_is_refused_and_left_alone(
    pi: Pi, old: str, new: str
) -> None:
    pi.autoboot.write_text(pi.autoboot.read_text().replace(old, new))
    before = pi.autoboot.read_bytes()
    for ask in (loader(pi).primary, lambda: loader(pi).commit("B")):
        with pytest.raises(DeviceError) as caught:
            ask()
        assert caught.value.code == "activate.bootloader"
    assert pi.autoboot.read_bytes() == before


def test_the_last_good_slot_is_never_given_up(pi: Pi) -> None:
    loader(pi).mark_bad("B")
    with pytest.raises(DeviceError, match="only good one"):
        loader(pi).mark_bad("A")
    loader(pi).arm_trial("B", 1)
    with pytest.raises(DeviceError, match="only good one"):
        loader(pi).mark_bad("A")
    with pytest.raises(DeviceError, match="only good one"):
        loader(pi).arm_trial("A", 1)
    assert loader(pi).primary() == "A"


def test_settings_that_cannot_work_are_refused(pi: Pi) -> None:
    wrong: list[dict[str, object]] = [
        {"partitions": ["2", "2"]},
        {"partitions": ["2", "10"]},
        {"partitions": ["2"]},
        {"partitions": ["0", "1"]},
        {"partitions": ["a", "b"]},
        {"partition": ["2", "3"]},
        {"slots": ["A", "BB"]},
        {"autoboot": ""},
    ]
    for one in wrong:
        with pytest.raises(ConfigError):
            loader(pi, **one)


def test_the_power_cuts_begin_with_the_file_that_is_shipped() -> None:
    assert SHIPPED.read_bytes() == AUTOBOOT
