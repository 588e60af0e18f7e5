"""A virtual board's folder: switched on by one command at a time."""

import fcntl
from pathlib import Path

import pytest

from tidegate.cli import run


def test_a_board_that_is_on_is_not_switched_on_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "agent.toml").write_text("")
    with (tmp_path / "power.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert run(["sim", "board", str(tmp_path)]) == 9
    found = capsys.readouterr().err
    assert "error[agent.locked]" in found
    assert "switched on already" in found


def test_a_board_that_is_there_does_not_pretend_to_follow_other_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "agent.toml").write_text("")
    assert run(["sim", "board", str(tmp_path), "--server", "http://127.0.0.1:9"]) == 1
    found = capsys.readouterr().err
    assert "--server would change nothing" in found
    assert "agent.toml" in found
