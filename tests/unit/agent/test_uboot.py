"""The U-Boot back end: what its settings may be, and what the variables mean in each style."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.contract.uboot_board import UbootBoard

from tidegate.agent import bootloaders
from tidegate.agent.boot.uboot_styles import TRIAL
from tidegate.agent.bootloaders import BootSettings
from tidegate.agent.ports import Bootloader, CountingBootloader, TellingBootloader
from tidegate.core.errors import ConfigError, DeviceError

SLOTS = ["A", "B"]
ORDER = {"BOOT_ORDER": "A B", "BOOT_A_LEFT": "3", "BOOT_B_LEFT": "3"}
COUNT = {"tidegate_slot": "A", "upgrade_available": "0", "bootcount": "0", "bootlimit": "3"}


@pytest.fixture
def board(tmp_path: Path) -> UbootBoard:
    """A board with two copies that nobody has saved to."""
    return UbootBoard(tmp_path, copies=2)


def _loader(board: UbootBoard, held: Mapping[str, str], **settings: object) -> Bootloader:
    board.save(dict(held))
    given: BootSettings = board.settings() | {"slots": SLOTS, "current": "A"} | settings
    return bootloaders.load("uboot", given)


# --- settings -----------------------------------------------------------------------------------------------------------


def test_a_single_copy_is_refused_with_the_reason_and_the_remedy(tmp_path: Path) -> None:
    settings = UbootBoard(tmp_path, copies=1).settings() | {"slots": SLOTS}
    for answer in ({}, {"accept_single_copy": False}):
        with pytest.raises(ConfigError, match="CONFIG_SYS_REDUNDAND_ENVIRONMENT") as caught:
            bootloaders.load("uboot", settings | answer)
        assert caught.value.code == "config.invalid"
        assert "power cut" in caught.value.detail
    bootloaders.load("uboot", settings | {"accept_single_copy": True})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"styl": "order"}, 'did you mean "style"'),
        ({"style": "grub"}, "order, bootcount"),
        ({"env": "/dev/vda 0 0x4000"}, "env"),
        ({"env": [1]}, "env"),
        ({"left": "BOOT_LEFT"}, "{slot}"),
        ({"full": 0}, "1 to 15"),
        ({"full": True}, "full"),
        ({"tries_max": 16}, "1 to 15"),
        ({"accept_single_copy": "yes"}, "accept_single_copy"),
        ({"style": "bootcount", "select": ["A: slot=1"]}, "both slots"),
        ({"style": "bootcount", "select": ["A: slot=1", "B: slot=1"]}, "not alike"),
        ({"style": "bootcount", "select": ["A: slot=1", "C: slot=2"]}, "C: slot=2"),
        ({"style": "bootcount", "select": ["A: slot", "B: slot=2"]}, "A: slot"),
        ({"slots": ["A", "B C"]}, "letters and digits"),
        ({"order": "BOOT ORDER"}, "BOOT ORDER"),
        ({"left": "BOOT={slot}"}, "BOOT={slot}"),
        ({"style": "bootcount", "select": ["A: =1", "B: =2"]}, "names no variable"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    board: UbootBoard, settings: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        _loader(board, ORDER, **settings)
    assert caught.value.code == "config.invalid"
    assert words in caught.value.detail


def test_the_places_come_from_fw_env_config(board: UbootBoard, tmp_path: Path) -> None:
    board.save(ORDER)
    given = board.settings()
    lines = given.pop("env")
    assert isinstance(lines, list)
    path = tmp_path / "fw_env.config"
    settings = given | {"config": str(path), "slots": SLOTS, "current": "A"}
    with pytest.raises(ConfigError, match="fw_printenv") as caught:
        bootloaders.load("uboot", settings)
    assert caught.value.code == "config.unreadable"
    path.write_text("# U-Boot\n" + "\n".join(lines))
    assert bootloaders.load("uboot", settings).primary() == "A"


# --- order --------------------------------------------------------------------------------------------------------------


def test_a_rescue_system_keeps_its_place_in_the_order(board: UbootBoard) -> None:
    loader = _loader(board, ORDER | {"BOOT_ORDER": "A B R", "BOOT_R_LEFT": "3"})
    loader.arm_trial("B", 3)
    assert board.load()["BOOT_ORDER"] == "B A R"
    loader.mark_bad("B")
    assert board.load()["BOOT_ORDER"] == "A R"
    assert board.load()["BOOT_R_LEFT"] == "3"


def test_a_slot_on_trial_goes_back_to_one_with_all_of_its_tries(board: UbootBoard) -> None:
    loader = _loader(board, ORDER | {"BOOT_A_LEFT": "0"})
    loader.arm_trial("B", 12)
    assert board.load() == ORDER | {"BOOT_ORDER": "B A", "BOOT_B_LEFT": "c", TRIAL: "B"}
    assert loader.tries_left("B") == 12


def test_filling_up_does_not_bring_a_bad_slot_back(board: UbootBoard) -> None:
    loader = _loader(board, ORDER)
    loader.mark_bad("B")
    assert board.load()["BOOT_ORDER"] == "A"
    # A script that fills up knows both counters; only the order keeps a half-written slot from being booted.
    board.save(board.load() | {"BOOT_A_LEFT": "3", "BOOT_B_LEFT": "3"})
    assert loader.state("B") == "bad"


def test_no_more_tries_than_the_script_can_count(board: UbootBoard) -> None:
    loader = _loader(board, ORDER, tries_max=9)
    loader.arm_trial("B", 15)
    assert board.load()["BOOT_B_LEFT"] == "9"


def test_a_confirmed_slot_that_the_script_gave_up_is_bad_and_what_runs_is_the_primary(
    board: UbootBoard,
) -> None:
    loader = _loader(board, ORDER | {"BOOT_ORDER": "B A", "BOOT_A_LEFT": "2", "BOOT_B_LEFT": "0"})
    assert (loader.state("B"), loader.state("A"), loader.primary()) == ("bad", "good", "A")


def test_a_trial_that_is_spent_does_not_keep_the_old_slot_from_its_tries(board: UbootBoard) -> None:
    """The journal was lost, say: nobody marks it bad, and the script counts the old slot down."""
    spent = {"BOOT_ORDER": "B A", "BOOT_A_LEFT": "1", "BOOT_B_LEFT": "0", TRIAL: "B"}
    loader = _loader(board, ORDER | spent)
    assert isinstance(loader, CountingBootloader)
    assert loader.counted_down()
    loader.commit("A")
    assert board.load() == {"BOOT_ORDER": "A", "BOOT_A_LEFT": "3", "BOOT_B_LEFT": "0"}
    assert not loader.counted_down()
    loader.arm_trial("B", 1)
    board.save(board.load() | {"BOOT_A_LEFT": "1"})
    assert not loader.counted_down()


def test_other_names_of_variables(board: UbootBoard) -> None:
    env = {"order": "A B", "A_try": "3", "B_try": "3"}
    loader = _loader(board, env, order="order", left="{slot}_try", full=5)
    loader.commit("A")
    assert board.load() == env | {"A_try": "5"}


@pytest.mark.parametrize("style", ["order", "bootcount"])
def test_the_last_slot_that_can_be_booted_is_never_given_up(board: UbootBoard, style: str) -> None:
    loader = _loader(board, ORDER | COUNT, style=style)
    loader.mark_bad("B")
    before = board.load()
    with pytest.raises(DeviceError, match="nothing would be") as caught:
        loader.mark_bad("A")
    assert caught.value.code == "activate.bootloader"
    assert board.load() == before


@pytest.mark.parametrize(
    "env",
    [
        {"BOOT_ORDER": ""},
        {"BOOT_ORDER": "X Y"},
        {"BOOT_A_LEFT": ""},
        {"BOOT_A_LEFT": "many"},
        {"BOOT_A_LEFT": "-1"},
        {"BOOT_A_LEFT": "10000"},
    ],
)
def test_values_that_make_no_sense_are_an_error_that_says_what_to_do(
    board: UbootBoard, env: dict[str, str]
) -> None:
    loader = _loader(board, ORDER | env)
    with pytest.raises(DeviceError, match="fw_setenv") as caught:
        loader.primary()
    assert caught.value.code == "activate.bootloader"


def test_a_slot_that_is_not_there_is_refused(board: UbootBoard) -> None:
    loader = _loader(board, ORDER)
    for ask in (loader.state, loader.commit, loader.mark_bad, loader.tries_left):
        with pytest.raises(DeviceError, match="no slot 'C'"):
            ask("C")


def test_what_a_report_of_a_trial_tells_of_the_environment(board: UbootBoard) -> None:
    loader = _loader(board, ORDER | COUNT | {"ethaddr": "02:00:00:00:00:01"})
    assert isinstance(loader, TellingBootloader)
    loader.arm_trial("B", 2)
    assert loader.told() == "BOOT_ORDER=B A BOOT_A_LEFT=3 BOOT_B_LEFT=2 tidegate_trial=B"
    counted = _loader(board, COUNT, style="bootcount")
    assert isinstance(counted, TellingBootloader)
    assert counted.told() == "tidegate_slot=A upgrade_available=0 bootcount=0 bootlimit=3"


# --- bootcount ----------------------------------------------------------------------------------------------------------


def test_the_variables_of_other_scripts_select_the_slot(board: UbootBoard) -> None:
    select = [
        "A: mender_boot_part=2 mender_boot_part_hex=2",
        "B: mender_boot_part=3 mender_boot_part_hex=3",
    ]
    env = {"mender_boot_part": "2", "mender_boot_part_hex": "2", "bootcount": "1"}
    loader = _loader(board, env, style="bootcount", select=select)
    assert (loader.primary(), loader.state("B")) == ("A", "good")
    loader.arm_trial("B", 3)
    assert board.load() == {
        "mender_boot_part": "3",
        "mender_boot_part_hex": "3",
        "upgrade_available": "1",
        "bootcount": "0",
        "bootlimit": "3",
        TRIAL: "B",
    }
    # Its altbootcmd knows nothing of us; that it gave the slot up is seen all the same.
    board.save(board.load() | env | {"upgrade_available": "0"})
    assert (loader.primary(), loader.state("B"), loader.tries_left("B")) == ("A", "trial", 0)


def test_a_slot_that_somebody_else_put_on_trial_is_on_trial(board: UbootBoard) -> None:
    loader = _loader(
        board,
        COUNT | {"tidegate_slot": "B", "upgrade_available": "1", "bootcount": "1"},
        style="bootcount",
    )
    assert (loader.primary(), loader.state("B"), loader.tries_left("B")) == ("A", "trial", 2)


def test_a_selection_that_is_no_slot_is_an_error(board: UbootBoard) -> None:
    loader = _loader(board, COUNT | {"tidegate_slot": "C"}, style="bootcount")
    with pytest.raises(DeviceError, match="selects no slot"):
        loader.primary()


def test_nothing_is_armed_that_could_only_go_back_to_a_bad_slot(board: UbootBoard) -> None:
    loader = _loader(board, COUNT | {"tidegate_bad": "A", "tidegate_slot": "B"}, style="bootcount")
    with pytest.raises(DeviceError, match="nothing would be"):
        loader.arm_trial("B", 3)
