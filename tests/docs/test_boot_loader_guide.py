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

DRIVE = """
from tidegate.agent import bootloaders
from tidegate.core.errors import DeviceError
assert "bootsel" in bootloaders.names()
board = bootloaders.load("bootsel", {"program": PROGRAM, "cmdline": CMDLINE, "slots": ["A", "B"]})
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
    bootloaders.load("bootsel", {"program": PROGRAM + "-gone", "slots": ["A", "B"]}).primary()
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
    loader, rig = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    (tmp_path / "tidegate" / "agent" / "bootloaders" / "bootsel.py").write_text(loader)
    loaders = tmp_path / "tests" / "contract" / "loaders"
    loaders.mkdir(parents=True)
    for name in ("rig.py", "test_bootloader.py"):
        shutil.copy(ROOT / "tests" / "contract" / name, loaders.parent)
    (loaders / "bootsel.py").write_text(rig)
    return tmp_path


def test_the_boot_loader_of_the_guide_works_as_printed(tree: Path) -> None:
    cmdline = tree / "cmdline"
    cmdline.write_text("quiet tidegate.slot=A root=/dev/mmcblk0p2")
    script = (
        "import pathlib, tests.contract.loaders.bootsel as rig\n"
        f"folder, CMDLINE = pathlib.Path({str(tree)!r}), {str(cmdline)!r}\n"
        f"PROGRAM = rig.rig(folder).settings['program']\n{DRIVE}"
    )
    env = {**os.environ, "PYTHONPATH": str(tree)}
    env.pop("TIDEGATE_SLOT", None)
    result = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False
    )
    assert (result.stdout, result.returncode) == ("driven\n", 0), result.stderr


def test_the_boot_loader_of_the_guide_holds_the_contract_on_the_guides_board(tree: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "bootsel"]
    result = subprocess.run(
        [*command, "--rootdir", str(tree), "tests/contract/test_bootloader.py"],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed is not None
    assert int(passed[1]) > 10, result.stdout


def test_the_boot_loader_of_the_guide_keeps_the_rules_of_the_house(tree: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tree)
    file = tree / "tidegate" / "agent" / "bootloaders" / "bootsel.py"
    rig = tree / "tests" / "contract" / "loaders" / "bootsel.py"
    ruff = [sys.executable, "-m", "ruff"]
    for command in (
        [*ruff, "check", "--no-cache", str(file), str(rig)],
        [*ruff, "format", "--no-cache", "--check", str(file), str(rig)],
        [sys.executable, "-m", "mypy", "--cache-dir", str(tree / "cache"), str(file), str(rig)],
    ):
        env = {**os.environ, "MYPYPATH": str(tree), "PYTHONPATH": str(tree)}
        result = subprocess.run(
            command, cwd=tree, env=env, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
