"""What a boot leaves behind: pstore's records whatever holds them, put together, told once, without secrets."""

from pathlib import Path

import pytest

from tidegate.agent import board
from tidegate.agent.checkup import evidence, journald

PANIC = "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100"


@pytest.fixture(autouse=True)
def no_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no journal of this machine have a say."""
    monkeypatch.setattr(journald, "boot_before", lambda: "")
    monkeypatch.setattr(journald, "tail", lambda _boot, _lines=300: "")


@pytest.fixture
def pstore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    places = (tmp_path / "pstore", tmp_path / "systemd")
    for one in places:
        one.mkdir()
    monkeypatch.setattr(evidence, "PSTORE", tuple(str(one) for one in places))
    monkeypatch.setattr(board, "PSTORE", tuple(str(one) for one in places))
    return places[0]


def put(folder: Path, **records: str) -> None:
    for name, text in records.items():
        (folder / name.replace("__", "-")).write_text(text)


@pytest.mark.parametrize(
    "names",
    [
        ("dmesg-ramoops-0", "dmesg-ramoops-1"),
        ("dmesg-efi_pstore-170000000000001", "dmesg-efi_pstore-170000000000002"),
        ("dmesg-efi-157470001001", "dmesg-efi-157470002001"),
        ("dmesg-erst-7000000000000001", "dmesg-erst-7000000000000002"),
    ],
)
def test_a_panic_is_put_together_whatever_kept_it(
    pstore: Path, tmp_path: Path, names: tuple[str, str]
) -> None:
    # Part 1 is the end of what was said.
    (pstore / names[0]).write_text(f"Panic#1 Part1\n<0>[ 2.1] {PANIC}\n")
    (pstore / names[1]).write_text("Panic#1 Part2\n<6>[ 2.0] Run /sbin/init as init process\n")
    found = evidence.previous(str(tmp_path / "seen"), "")
    assert found.startswith("--- kernel Panic#1 ---\n")
    assert found.index("Run /sbin/init") < found.index(PANIC)


def test_what_systemd_put_away_is_found_as_well(pstore: Path, tmp_path: Path) -> None:
    away = pstore.parent / "systemd" / "1700000000" / "000"
    away.mkdir(parents=True)
    (away / "dmesg.txt").write_text("ignored: put together by systemd from what is beside it\n")
    (away / "dmesg-efi_pstore-170000000000001").write_text(f"Panic#2 Part1\n{PANIC}\n")
    (away / "dmesg-efi_pstore-170000000000002.enc.z").write_bytes(b"\x78\x9c still compressed")
    found = evidence.previous(str(tmp_path / "seen"), "")
    assert found.count(PANIC) == 1
    assert "compressed" not in found


def test_a_console_is_told_beside_the_panic(pstore: Path, tmp_path: Path) -> None:
    put(pstore, console__ramoops__0="[ 1.0] booting\npassword=hunter2\n")
    found = evidence.previous(str(tmp_path / "seen"), "")
    assert "--- kernel console-ramoops-0 ---" in found
    assert "hunter2" not in found


def test_a_record_is_told_once(pstore: Path, tmp_path: Path) -> None:
    seen = str(tmp_path / "seen")
    put(pstore, dmesg__ramoops__0=f"Panic#1 Part1\n{PANIC}\n")
    assert PANIC in evidence.previous(seen, "")
    # Not remembered yet: a cut before the report was written down costs nothing.
    assert PANIC in evidence.previous(seen, "")
    evidence.remember(seen)
    assert evidence.previous(seen, "") == ""
    put(pstore, dmesg__ramoops__1="Oops#1 Part1\nanother\n")
    assert "another" in evidence.previous(seen, "")
    assert PANIC not in evidence.previous(seen, "")


def test_it_is_bounded(pstore: Path, tmp_path: Path) -> None:
    for index in range(80):
        (pstore / f"console-ramoops-{index}").write_text(f"{index} " + "x" * 100_000)
    assert len(evidence.previous(str(tmp_path / "seen"), "")) <= evidence.LOG_MAX


def test_the_journal_of_the_boot_that_armed_the_trial_is_not_the_trials(
    pstore: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del pstore
    monkeypatch.setattr(journald, "boot_before", lambda: "ab" * 16)
    monkeypatch.setattr(journald, "tail", lambda boot, _lines=300: f"log of {boot}")
    seen = str(tmp_path / "seen")
    dashed = "abababab-abab-abab-abab-abababababab"
    assert evidence.previous(seen, dashed) == ""
    assert f"log of {'ab' * 16}" in evidence.previous(seen, "boot-1")
    # A journal in memory shows this boot when it is asked for the one before.
    this = Path(board.BOOT_ID).read_text().strip().replace("-", "")
    monkeypatch.setattr(journald, "boot_before", lambda: this)
    assert evidence.previous(seen, "boot-1") == ""


def test_a_board_says_that_it_panicked_once_and_of_nothing_else(
    pstore: Path, tmp_path: Path
) -> None:
    real = board.RealBoard({}, None, "exit:1", str(tmp_path / "seen"))  # type: ignore[arg-type]
    assert real.last_words() == ""
    put(pstore, dmesg__ramoops__0="Oops#1 Part1\nBUG: something that it survived\n")
    put(pstore, console__ramoops__0="the console says Panic#1 Part1\n")
    assert real.last_words() == ""
    put(pstore, dmesg__ramoops__1=f"Panic#2 Part1\n{PANIC}\n")
    assert real.last_words() == "panic"
    real.log_kept()
    assert real.last_words() == ""
