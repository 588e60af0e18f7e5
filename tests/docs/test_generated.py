"""Generated pages say what the code says, and every code has its words."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tidegate.core.errors import HINTS
from tidegate.core.reasons import REASONS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "reference").glob("*.md"))


def test_generated_pages_are_what_the_code_would_write() -> None:
    command = [sys.executable, str(ROOT / "tools" / "docs"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("code", sorted({*REASONS, *HINTS}))
def test_every_code_is_documented(code: str) -> None:
    assert f"`{code}`" in (ROOT / "docs" / "reference" / "errors.md").read_text()


def test_every_code_says_what_it_means_or_what_to_do() -> None:
    silent = {code for code in {*REASONS, *HINTS} if not (REASONS.get(code) or HINTS.get(code))}
    assert silent == set()


def test_no_help_shows_markup() -> None:
    text = (ROOT / "docs" / "reference" / "cli.md").read_text()
    # click's "do not wrap this" mark, in a raw docstring where it is no mark at all
    assert "\\b" not in text
