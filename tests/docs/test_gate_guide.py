"""The guide that guards another system's rollout, carried out as printed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "guides" / "guard-another-rollout.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


def test_the_export_of_a_bad_rollout_ends_in_a_halt(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    here = Path(sys.executable).parent
    env = {**os.environ, "PATH": f"{here}{os.pathsep}{os.environ['PATH']}"}
    (script,) = blocks("sh")
    done = subprocess.run(
        ["sh", "-ec", script],
        check=False,
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 10, done.stderr
    *_, halt, end = [json.loads(line) for line in done.stdout.splitlines()]
    assert (halt["verdict"], end["verdict"]) == ("halt", "halt")
    permitted = (tmp_path / "lines.jsonl").read_text().count('"permit"')
    assert permitted == 12


def test_the_lines_that_are_shown_are_lines_of_the_gate() -> None:
    from tidegate.rollout.lines import Gate

    gate = Gate()
    (shown,) = blocks("json")
    for line in shown.splitlines():
        list(gate.read(line))
    assert list(gate.end())[-1]["ignored"] == {}


def test_the_program_does_what_it_says() -> None:
    (program,) = blocks("python")
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
