"""Without the libraries of an extra a command says which one to install, with a code and an exit code, and no stack trace."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tidegate.cli._missing import EXTRA_OF, missing

ROOT = Path(__file__).resolve().parents[3]
#: Runs `tidegate` in an interpreter to which the named libraries are not there: as after `pip install tidegate`, with nothing to be built.
_WITHOUT = """
import sys
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {gone!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Gone())
sys.argv = ["tidegate", *{arguments!r}]
from tidegate.cli import main
main()
"""


def tidegate(gone: set[str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    script = _WITHOUT.format(gone=gone, arguments=list(arguments))
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, input=""
    )


@pytest.mark.parametrize("command", ["gate", "--help", "serve"])
def test_the_base_install_says_which_extra_brings_the_command_line(command: str) -> None:
    done = tidegate({"click", "rich"}, command)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "error[config.missing]: this command needs click, which is not installed",
        "  do    pip install 'tidegate[publisher]'; a server wants 'tidegate[server]'",
    ]


def test_the_same_is_said_in_json_where_json_is_asked_for() -> None:
    done = tidegate({"click"}, "gate", "--json")
    said = json.loads(done.stderr)
    assert (said["code"], said["exit"], done.returncode) == ("config.missing", 1, 1)
    assert "tidegate[publisher]" in said["hint"]


def test_the_gate_needs_nothing_of_the_server() -> None:
    bare = {name for name, extra in EXTRA_OF.items() if extra != "publisher"} - {"urllib3"}
    done = tidegate(bare, "gate")
    assert "Traceback" not in done.stderr
    assert "config.missing" not in done.stderr


def test_a_server_without_its_libraries_says_so() -> None:
    done = tidegate({"litestar", "sqlalchemy", "uvicorn"}, "serve", "--data", "/nowhere")
    assert done.returncode == 1
    assert "pip install 'tidegate[server]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_library_that_no_extra_brings_is_a_bug() -> None:
    assert missing(ModuleNotFoundError("x", name="tidegate.nothing")) is None
    assert missing(ImportError("x")) is None


def test_every_extra_that_is_named_is_one_of_the_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(EXTRA_OF.values()) <= set(project["optional-dependencies"])
