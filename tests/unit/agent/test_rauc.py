"""`rauc` against a program that stands in for it: what the real one does only when a board is set up wrongly. The real one is in `tests/e2e`."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.agent.test_download import Bench, serving, settings, whole
from tests.unit.agent.test_spool import package_job

from tidegate.agent import bootloaders, installers
from tidegate.agent.installers import rauc
from tidegate.core.errors import ConfigError, TidegateError

STATUS: dict[str, Any] = {
    "booted": "A",
    "slots": [
        {"rootfs.0": {"bootname": "A", "state": "booted"}},
        {"rootfs.1": {"bootname": "B", "state": "inactive"}},
    ],
}


class Board(Bench):
    """A bench with a boot loader, and a program in RAUC's place."""

    def __init__(self, url: str, folder: Path, install: str, status: str) -> None:
        super().__init__(url, str(folder))
        self.bootloader = bootloaders.load(
            "file", {"path": str(folder / "boot.json"), "slots": ("A", "B"), "current": "A"}
        )
        self.bootloader.mark_bad("B")
        self.program = folder / "rauc"
        self.program.write_text(
            f"#!/bin/sh\ncase $1 in status) cat <<'X'\n{status}\nX\n;;\ninstall) {install}\n;; esac\n"
        )
        self.program.chmod(0o755)
        self.config = folder / "system.conf"
        self.config.write_text("[system]\nactivate-installed=false\n")


def attempt(
    folder: Path, *, install: str = "true", status: object = STATUS, **options: Any
) -> tuple[Board, TidegateError | None]:
    with serving(whole) as url:
        board = Board(url, folder, install, json.dumps(status) if status else "no service")
        mine = {"program": str(board.program), "config": str(board.config), **options}
        told = settings(spool=str(folder / "spool"), installers={"rauc": mine})
        try:
            list(rauc.download(board, told, package_job(), None))  # type: ignore[arg-type]
        except TidegateError as error:
            return board, error
        return board, None


def refused(folder: Path, **how: Any) -> str:
    board, error = attempt(folder, **how)
    assert error is not None
    assert (board.bootloader.primary(), board.bootloader.state("B")) == ("A", "bad")
    return f"{error.code} {error.detail}"


def test_an_installation_that_keeps_its_hands_off_the_boot_loader_is_taken(tmp_path: Path) -> None:
    board, error = attempt(tmp_path)
    assert error is None
    assert board.bootloader.state("B") == "bad"


@pytest.mark.parametrize("verb", ["commit", "arm_trial"])
def test_an_activation_without_leave_is_undone(
    tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tmp_path / "left"
    left.mkdir()
    loader = bootloaders.load(
        "file", {"path": str(left / "boot.json"), "slots": ("A", "B"), "current": "A"}
    )
    if verb == "commit":
        loader.commit("B")
    else:
        loader.arm_trial("B", 3)
    said = refused(tmp_path, install=f"cp {left}/boot.json {tmp_path}/boot.json")
    assert said == "install.installer rauc activated the slot without leave; undone"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (None, "is the rauc service running?"),
        ({**STATUS, "slots": STATUS["slots"][:1]}, "no slot with bootname=B; it has: A"),
        (
            {"booted": "B", "slots": [{"r.1": {"bootname": "B", "state": "booted"}}]},
            "rauc runs from 'B', and Tidegate from 'A'",
        ),
    ],
)
def test_a_board_that_rauc_sees_otherwise_is_refused_before_anything_is_fetched(
    tmp_path: Path, status: object, words: str
) -> None:
    assert words in refused(tmp_path, status=status)
    assert not (tmp_path / "spool").exists()


def test_a_rauc_that_is_still_at_it_is_waited_for(tmp_path: Path) -> None:
    _, error = attempt(tmp_path, install="echo Already processing a different method; exit 1")
    assert error is not None
    assert (error.code, error.retryable) == ("install.installer", True)
    assert len(list((tmp_path / "spool").iterdir())) == 1


def test_its_own_words_are_the_detail(tmp_path: Path) -> None:
    said = refused(tmp_path, install="echo 'LastError: it is for another board'; echo idle; exit 1")
    assert said == "install.installer rauc: it is for another board"


def test_an_option_that_is_not_known_is_refused(tmp_path: Path) -> None:
    assert "programme" in refused(tmp_path, programme="rauc")
    with pytest.raises(ConfigError, match="programme"):
        installers.check(settings(installers={"rauc": {"programme": "rauc"}}))
