"""A tier that was skipped is never taken for one that passed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

IN_A_TEST = """
import pytest
def test_needs_a_browser():
    pytest.skip("tier: browser: install the Debian package chromium")
"""
IN_A_MODULE = """
import pytest
pytest.skip("tier: browser: install the Debian package chromium", allow_module_level=True)
"""
ORDINARY = """
import pytest
def test_not_here():
    pytest.skip("only on big-endian machines")
def test_passes():
    pass
"""


WORKERS = [(), ("-n", "1")]


def _run(folder: Path, text: str, strict: str, *more: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "tests" / "conftest.py", folder)
    (folder / "test_it.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *more, "."]
    env = {**os.environ, "TIDEGATE_STRICT_TIERS": strict}
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("text", [IN_A_TEST, IN_A_MODULE])
def test_a_skipped_tier_fails_where_none_may_be_missing(
    text: str, workers: tuple[str, ...], tmp_path: Path
) -> None:
    result = _run(tmp_path, text, "1", *workers)
    assert result.returncode not in (0, 5)
    assert "install the Debian package chromium" in result.stdout


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("text", [IN_A_TEST, IN_A_MODULE])
def test_a_skipped_tier_is_named_loudly_elsewhere(
    text: str, workers: tuple[str, ...], tmp_path: Path
) -> None:
    result = _run(tmp_path, text, "0", *workers)
    assert result.returncode in (0, 5)
    assert "TIERS NOT RUN" in result.stdout
    assert "install the Debian package chromium" in result.stdout


def test_an_ordinary_skip_stays_a_skip(tmp_path: Path) -> None:
    assert _run(tmp_path, ORDINARY, "1").returncode == 0
