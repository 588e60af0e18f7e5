"""The demo on a server that is there already: what it needs to be told, and where it does not play."""

from pathlib import Path

import pytest

from tidegate.cli import run
from tidegate.sim import cast
from tidegate.sim.story import STEPS, needed


@pytest.mark.parametrize("steps", ["2,3", "1,7", "1,,3", "one", ""])
def test_steps_that_make_no_story_are_refused(
    steps: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["demo", "--exit", "--steps", steps or ","]) == 1
    assert "--steps" in capsys.readouterr().err


def test_nobody_asks_a_server_without_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("TIDEGATE_TOKEN", raising=False)
    assert run(["demo", "--server", "https://ota.example.com"]) == 1
    found = capsys.readouterr().err
    assert "TIDEGATE_TOKEN" in found


def test_a_part_of_the_story_needs_a_part_of_the_releases() -> None:
    assert [one.version for one in needed((1, 3))] == ["1.0.0", "1.1.0", "1.3.0"]
    assert needed(STEPS) == cast.RELEASES
