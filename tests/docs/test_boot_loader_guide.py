"""The guide's boot loader works as printed: dropped into the folder, found by its name, driven against a fake program."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "guides" / "add-a-boot-loader.md"

# The vendor's program of the guide: keeps its record in one file that it replaces in one step.
BOOTSEL = f"""#!{sys.executable}
import json, os, sys
path = os.environ["BOOTSEL_RECORD"]
held = json.load(open(path)) if os.path.exists(path) else dict(primary="A", trial="", tries=0, bad=[])
verb, words = sys.argv[1], sys.argv[2:]
if verb == "try":
    held.update(trial=words[0], tries=int(words[1]), bad=[s for s in held["bad"] if s != words[0]])
elif verb == "keep":
    held.update(primary=words[0], trial="", tries=0)
elif verb == "bad":
    held.update(bad=[words[0]], trial="", tries=0)
elif verb == "status":
    print(f"primary={{held['primary']}}\\ntrial={{held['trial']}}\\ntries={{held['tries']}}")
    print("bad=" + ",".join(held["bad"]))
else:
    sys.exit(2)
with open(path + ".new", "w") as new:
    json.dump(held, new)
os.replace(path + ".new", path)
"""

DRIVE = """
from tidegate.agent import bootloaders
from tidegate.core.errors import DeviceError
assert "bootsel" in bootloaders.names()
board = bootloaders.load("bootsel", {"program": PROGRAM, "cmdline": CMDLINE})
assert (board.current(), board.primary(), board.state("B")) == ("A", "A", "good")
board.arm_trial("B", 3)
board.arm_trial("B", 3)
assert (board.state("B"), board.tries_left("B"), board.tries_left("A")) == ("trial", 3, 0)
assert board.primary() == "A"
board.commit("B")
assert (board.primary(), board.state("B"), board.tries_left("B")) == ("B", "good", 0)
board.mark_bad("A")
assert board.state("A") == "bad"
try:
    bootloaders.load("bootsel", {"program": PROGRAM + "-gone", "cmdline": CMDLINE}).primary()
except DeviceError as error:
    assert error.code == "activate.bootloader"
else:
    raise AssertionError("a program that is gone was not noticed")
print("driven")
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the device's packages with the guide's file in its place."""
    for name in ("core", "agent"):
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(
            ROOT / "src" / "tidegate" / name, tmp_path / "tidegate" / name, ignore=unwanted
        )
    shutil.copy(ROOT / "src" / "tidegate" / "__init__.py", tmp_path / "tidegate")
    shutil.copy(ROOT / "src" / "tidegate" / "py.typed", tmp_path / "tidegate")
    code = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(code) == 1
    (tmp_path / "tidegate" / "agent" / "bootloaders" / "bootsel.py").write_text(code[0])
    return tmp_path


def test_the_boot_loader_of_the_guide_works_as_printed(tree: Path) -> None:
    program, cmdline = tree / "bootsel", tree / "cmdline"
    program.write_text(BOOTSEL)
    program.chmod(0o755)
    cmdline.write_text("quiet slot=A root=/dev/mmcblk0p2")
    script = f"PROGRAM, CMDLINE = {str(program)!r}, {str(cmdline)!r}\n{DRIVE}"
    env = {**os.environ, "PYTHONPATH": str(tree), "BOOTSEL_RECORD": str(tree / "record")}
    result = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False
    )
    assert (result.stdout, result.returncode) == ("driven\n", 0), result.stderr


def test_the_boot_loader_of_the_guide_keeps_the_rules_of_the_house(tree: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tree)
    file = tree / "tidegate" / "agent" / "bootloaders" / "bootsel.py"
    ruff = [sys.executable, "-m", "ruff"]
    for command in (
        [*ruff, "check", "--no-cache", str(file)],
        [*ruff, "format", "--no-cache", "--check", str(file)],
        [sys.executable, "-m", "mypy", "--cache-dir", str(tree / "cache"), str(file)],
    ):
        env = {**os.environ, "MYPYPATH": str(tree), "PYTHONPATH": str(tree)}
        result = subprocess.run(
            command, cwd=tree, env=env, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
