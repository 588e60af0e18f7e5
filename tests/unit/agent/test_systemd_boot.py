"""The entries of systemd-boot: one rename carries order and tries, both ways; what a cut leaves is understood; what would decide instead is refused."""

import os
from pathlib import Path

import pytest
from tests.contract.loaders.systemd_boot import entry, power_on, rig
from tests.contract.rig import Rig

from tidegate.agent import bootloaders
from tidegate.core.errors import ConfigError, DeviceError


@pytest.fixture
def board(tmp_path: Path) -> Rig:
    return rig(tmp_path)


@pytest.fixture
def entries(board: Rig, tmp_path: Path) -> Path:
    return tmp_path / "loader" / "entries"


def names(entries: Path) -> list[str]:
    return sorted(one.name for one in entries.iterdir())


def test_the_order_works_in_both_directions(board: Rig, entries: Path) -> None:
    running = "A"
    for _ in range(6):
        other = "B" if running == "A" else "A"
        board.loader(running).arm_trial(other, 3)
        assert board.loader(running).primary() == running
        assert board.boot() == other
        board.loader(other).commit(other)
        assert [board.boot() for _ in range(4)] == [other] * 4
        assert len(names(entries)) == 2
        running = other


def test_a_change_is_one_rename(board: Rig, entries: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    real = os.rename

    def noted(before: str, after: str) -> None:
        done.append(f"{Path(before).name} {Path(after).name}")
        assert not Path(after).exists()
        real(before, after)

    monkeypatch.setattr(os, "rename", noted)
    loader = board.loader("A")
    loader.arm_trial("B", 3)
    loader.commit("B")
    loader.mark_bad("A")
    loader.arm_trial("A", 2)
    assert done == [
        "tidegate-1-b.conf tidegate-3-b+3.conf",
        "tidegate-3-b+3.conf tidegate-3-b.conf",
        "tidegate-2-a.conf tidegate-2-a+0.conf",
        "tidegate-2-a+0.conf tidegate-4-a+2.conf",
    ]
    assert names(entries) == ["tidegate-3-b.conf", "tidegate-4-a+2.conf"]


def test_what_systemd_boot_counted_is_read(board: Rig, entries: Path) -> None:
    board.loader("A").arm_trial("B", 2)
    board.boot()
    assert "tidegate-3-b+1-1.conf" in names(entries)
    assert (board.loader("B").state("B"), board.loader("B").tries_left("B")) == ("trial", 1)
    board.boot()
    assert (board.loader("B").state("B"), board.loader("B").tries_left("B")) == ("trial", 0)
    assert board.boot() == "A"


def test_arming_again_after_a_boot_gives_the_tries_anew(board: Rig, entries: Path) -> None:
    board.loader("A").arm_trial("B", 2)
    board.boot()
    board.loader("A").arm_trial("B", 2)
    assert names(entries) == ["tidegate-2-a.conf", "tidegate-3-b+2.conf"]


def test_an_empty_name_that_a_cut_left_is_taken_away(board: Rig, entries: Path) -> None:
    (entries / "tidegate-3-b+3.conf").touch()
    assert board.loader("A").state("B") == "good"
    board.loader("A").arm_trial("B", 3)
    assert names(entries) == ["tidegate-2-a.conf", "tidegate-3-b+3.conf"]
    assert (entries / "tidegate-3-b+3.conf").read_text() == entry("B")


def test_a_second_name_for_the_same_bytes_is_set_aside_not_deleted(
    board: Rig, entries: Path
) -> None:
    # On FAT both names may lead to one cluster: deleting one would free what the other needs.
    (entries / "tidegate-3-b+3.conf").write_text(entry("B"))
    assert board.loader("A").state("B") == "trial", "what would be started is what counts"
    board.loader("A").mark_bad("B")
    assert names(entries) == [
        "tidegate-2-a.conf",
        "tidegate-3-b+0.conf",
        "tidegate-left-over-1.old",
    ]
    assert [board.boot() for _ in range(3)] == ["A"] * 3


def test_a_folder_so_full_that_a_rename_could_span_sectors_is_refused(
    board: Rig, entries: Path
) -> None:
    (entries / "rescue.conf").write_text(entry("A"))
    board.loader("A").arm_trial("B", 1)
    (entries / "one-more-of-somebody-else-here.conf").write_text(entry("A"))
    before = names(entries)
    with pytest.raises(DeviceError, match="span sectors"):
        board.loader("A").mark_bad("B")
    assert names(entries) == before


@pytest.mark.parametrize("line", ["default tidegate-2-a*", "default @saved", "preferred x"])
def test_a_default_would_win_over_every_count_and_is_refused(
    board: Rig, tmp_path: Path, line: str
) -> None:
    (tmp_path / "loader" / "loader.conf").write_text(f"timeout 0\n{line}\n")
    with pytest.raises(DeviceError, match="default"):
        board.loader("A").arm_trial("B", 1)


def test_a_default_chosen_in_the_menu_is_refused(board: Rig, tmp_path: Path) -> None:
    choice = tmp_path / "efivars" / "LoaderEntryDefault-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
    choice.parent.mkdir()
    choice.write_bytes(b"\x07\0\0\0a\0\0\0")
    with pytest.raises(DeviceError, match="bootctl set-default"):
        board.loader("A").arm_trial("B", 1)


@pytest.mark.parametrize("line", ["sort-key b", "version 7"])
def test_what_would_sort_before_the_number_is_refused(board: Rig, entries: Path, line: str) -> None:
    (entries / "tidegate-1-b.conf").write_text(entry("B") + line + "\n")
    with pytest.raises(DeviceError, match="take "):
        board.loader("A").arm_trial("B", 1)


def test_an_entry_that_does_not_tell_the_kernel_its_slot_is_refused(
    board: Rig, entries: Path
) -> None:
    (entries / "tidegate-1-b.conf").write_text(entry("A"))
    with pytest.raises(DeviceError, match=r"tidegate\.slot=B"):
        board.loader("A").arm_trial("B", 1)


def test_a_slot_without_an_entry_says_what_to_make(board: Rig, entries: Path) -> None:
    (entries / "tidegate-1-b.conf").unlink()
    with pytest.raises(DeviceError, match=r"make tidegate-1-b\.conf"):
        board.loader("A").primary()


def test_the_last_good_slot_is_never_given_up(board: Rig) -> None:
    board.loader("A").mark_bad("B")
    with pytest.raises(DeviceError, match="only good one"):
        board.loader("A").mark_bad("A")
    board.loader("A").arm_trial("B", 1)
    with pytest.raises(DeviceError, match="nothing to go back to"):
        board.loader("B").arm_trial("A", 1)


def test_numbers_that_are_used_up_say_what_to_do(board: Rig, entries: Path) -> None:
    (entries / "tidegate-2-a.conf").rename(entries / "tidegate-9999-a.conf")
    with pytest.raises(DeviceError, match="by hand"):
        board.loader("A").arm_trial("B", 1)


def test_the_files_of_others_are_left_alone(board: Rig, entries: Path) -> None:
    (entries / "x+1.conf").write_text("title nothing\n")
    board.loader("A").arm_trial("B", 1)
    board.loader("B").commit("B")
    assert (entries / "x+1.conf").read_text() == "title nothing\n"


def test_a_folder_that_is_not_mounted_is_an_error(tmp_path: Path) -> None:
    loader = bootloaders.load("systemd_boot", {"esp": str(tmp_path), "slots": ["A", "B"]})
    with pytest.raises(DeviceError, match="No such file"):
        loader.primary()
    with pytest.raises(DeviceError, match="No such file"):
        loader.commit("A")


def test_names_in_other_cases_are_the_same_names(board: Rig, entries: Path) -> None:
    (entries / "tidegate-1-b.conf").rename(entries / "TIDEGATE-3-B+03.CONF")
    assert board.loader("A").tries_left("B") == 3
    board.loader("A").commit("B")
    assert names(entries) == ["tidegate-2-a.conf", "tidegate-3-b.conf"]
    assert power_on(entries) == "B"


def test_settings_that_cannot_work_are_refused() -> None:
    for wrong in (
        {"esp": ""},
        {"esp": 1},
        {"epS": "/efi"},
        {"slots": ["A"]},
        {"slots": ["a", "A"]},
        {"slots": ["A", "root"]},
    ):
        with pytest.raises(ConfigError):
            bootloaders.load("systemd_boot", {"slots": ["A", "B"], **wrong})


def test_a_trial_ends_when_the_other_slot_is_committed(board: Rig) -> None:
    board.loader("A").arm_trial("B", 3)
    board.loader("A").commit("A")
    loader = board.loader("A")
    assert (loader.state("B"), loader.tries_left("B")) == ("bad", 0)
    assert [board.boot() for _ in range(3)] == ["A"] * 3
