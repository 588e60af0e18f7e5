"""The patches that break Tidegate on purpose stay usable: each still fits the code and names tests that exist."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATCHES = sorted((ROOT / "tests" / "breakit").glob("*.patch"))
#: Their tests are the boot lab's, with options.
LAB_PATCHES = sorted((ROOT / "tests" / "breakit" / "lab").glob("*.patch"))


def _header(patch: Path, word: str) -> list[str]:
    return re.findall(rf"^# {word}: (.+)$", patch.read_text(), re.MULTILINE)


@pytest.mark.parametrize("patch", [*PATCHES, *LAB_PATCHES], ids=lambda patch: patch.stem)
def test_a_patch_still_fits_the_code(patch: Path) -> None:
    result = subprocess.run(
        ["git", "apply", "--check", str(patch)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_a_patch_names_tests_that_exist(patch: Path) -> None:
    nodes = _header(patch, "test")
    assert nodes
    assert len(_header(patch, "breaks")) == 1
    for node in nodes:
        file, _, name = node.partition("::")
        function = name.rpartition("::")[2].partition("[")[0]
        assert f"def {function}(" in (ROOT / file).read_text()


def test_a_patch_of_the_boot_lab_names_its_tests_and_what_they_say() -> None:
    assert LAB_PATCHES
    for patch in LAB_PATCHES:
        assert len(_header(patch, "breaks")) == 1
        assert len(_header(patch, "says")) == 1
        for test in _header(patch, "test"):
            assert (ROOT / test.split()[0]).is_file()
