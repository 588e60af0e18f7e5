"""`tidegate sim run` on batched scenarios: what is printed, and how it exits."""

import builtins
import json
from pathlib import Path
from types import ModuleType

import pytest

from tidegate.cli import run

STORY = """
schema = 1
mode = "batched"
name = "boot"
policy = "hawk80"
[fleet]
devices = 2000
classes = { always = "100%" }
[[fault]]
kind = "boot_failure"
rate = "30%"
[[expect]]
state = "halted"
exposed_at_most = MOST
"""


def _path(tmp_path: Path, most: int = 40) -> str:
    path = tmp_path / "boot.scenario.toml"
    path.write_text(STORY.replace("MOST", str(most)))
    return str(path)


def test_what_came_true_exits_with_nothing_and_what_did_not_with_ten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["sim", "run", _path(tmp_path), "--expect"]) == 0
    assert "Everything that was expected came true." in capsys.readouterr().out
    assert run(["sim", "run", _path(tmp_path, 3), "--expect"]) == 10
    assert "NOT MET  exposed is 20, not at most 3" in capsys.readouterr().out
    assert run(["sim", "run", _path(tmp_path, 3)]) == 0


def test_json_holds_the_figures_and_the_same_digest_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for _ in range(2):
        assert run(["sim", "run", _path(tmp_path), "--json", "--quiet", "--seed", "4"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["schema"] == "tidegate.sim-fleet-run/1"
    assert found[0]["digest"] == found[1]["digest"]
    assert found[0]["outcome"]["exposed_end"] == 20
    assert found[0]["outcome"]["seed"] == 4


def test_without_numpy_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object, **more: object) -> ModuleType:
        if name.partition(".")[0] == "numpy":
            raise ImportError(name)
        return real(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    assert run(["sim", "run", _path(tmp_path)]) == 1
    assert "pip install 'tidegate[sim]'" in capsys.readouterr().err


def test_a_policy_of_its_own_belongs_to_exact_scenarios(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "exact.scenario.toml"
    path.write_text("schema = 1\n")
    assert run(["sim", "run", str(path), "--policy", "hawk80"]) == 1
    assert "[policy]" in capsys.readouterr().err
