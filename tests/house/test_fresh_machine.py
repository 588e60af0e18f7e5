"""What a fresh machine lacks is named; nothing is installed behind the back of whoever is not root."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _fake(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The set-up scripts and lists in a place of their own; `bin` comes first on PATH, and says that we are not root."""
    for name in ("tools", "requirements"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    _fake(tmp_path / "bin", "id", "echo 1000")
    return tmp_path


def _run(clone: Path, script: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    path = f"{clone / 'bin'}:{env.pop('path', os.environ['PATH'])}"
    return subprocess.run(
        ["/bin/bash", str(clone / "tools" / script), *arguments],
        env={**os.environ, "PATH": path, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_a_python_without_venv_is_answered_with_the_package_that_brings_it(clone: Path) -> None:
    body = f'case "$2" in *ensurepip*) exit 1;; esac\nexec {sys.executable} "$@"'
    _fake(clone / "bin", "python-bare", body)
    result = _run(clone, "setup", "server", PYTHON="python-bare")
    assert result.returncode == 1
    assert "install the Debian package python3-venv" in result.stderr
    assert not (clone / ".venv").exists()


def test_an_old_python_is_refused_with_the_version_that_is_needed(clone: Path) -> None:
    _fake(clone / "bin", "python-old", '[ "$1" = --version ] && echo "Python 3.9.2" || exit 1')
    result = _run(clone, "setup", "dev", PYTHON="python-old")
    assert result.returncode == 1
    assert "Python 3.9.2 is too old: Python 3.11 or later is needed" in result.stderr


def test_no_python_at_all_is_named(clone: Path) -> None:
    result = _run(clone, "setup", PYTHON="python-nowhere")
    assert result.returncode == 1
    assert "install Python 3.11 or later" in result.stderr


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
def test_a_missing_program_is_named_and_an_error_only_in_ci(
    clone: Path, ci: str, code: int
) -> None:
    # A PATH that holds the shell's own needs and neither Chromium nor apt-get.
    for tool in ("awk", "sort", "xargs", "echo", "mke2fs"):
        found = shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        (clone / "bin" / tool).symlink_to(found or "/bin/true")
    result = _run(clone, "apt-needs", path="/nonexistent", CI=ci)
    assert result.returncode == code
    assert "NO chromium: the browser tier cannot run" in result.stderr
    assert "Install the Debian package chromium" in result.stderr
