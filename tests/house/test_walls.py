"""The walls stand: a wrong import, seeded into a copy of the tree, turns `make check` red, by the contract meant for it."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTRACTS = [
    contract["name"]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
]

AGENT = "the agent never needs the rollout engine, nor the client of the API"
# Which contract; the file that the wrong line goes to; the line.
SEEDS = [
    ("layers", "agent/ports.py", "import tidegate.server"),
    ("layers", "server/store/tables.py", "import tidegate.agent.ports"),
    ("layers", "core/release.py", "from tidegate.rollout import model"),
    ("layers", "newcomer/__init__.py", "X = 1"),
    (AGENT, "agent/ports.py", "import tidegate.rollout.model"),
    (AGENT, "agent/ports.py", "import tidegate.client.link"),
    ("layers", "client/tag.py", "import tidegate.publisher.publish"),
    ("decisions are pure: no I/O, clock or randomness", "rollout/model.py", "import time"),
    ("decisions are pure: no I/O, clock or randomness", "core/release.py", "import random"),
    (
        "decisions are pure: no I/O, clock or randomness",
        "core/codec.py",
        "from pathlib import Path",
    ),
    ("decisions are pure: no I/O, clock or randomness", "agent/machine.py", "import os"),
    ("decisions are pure: no I/O, clock or randomness", "agent/state.py", "import socket"),
    ("door: sqlalchemy", "server/newcomer.py", "import sqlalchemy"),
    ("door: psycopg, of the extra postgres", "server/store/raw.py", "import psycopg"),
    ("door: alembic", "server/store/sqlite.py", "import alembic"),
    ("door: tuf", "core/keys.py", "import tuf.api.metadata"),
    ("door: click", "core/keys.py", "import click"),
    ("door: litestar and jinja2", "server/newcomer.py", "from litestar import get"),
    ("door: securesystemslib and cryptography", "core/codec.py", "import cryptography"),
    ("door: boto3, of the extra s3", "server/blobs/local.py", "import boto3"),
    ("door: joserfc", "server/auth.py", "import joserfc.jwt"),
    ("door: segno", "server/auth.py", "import segno"),
    ("door: uvicorn", "server/app.py", "import uvicorn"),
    ("door: numpy, of the extra sim", "rollout/evidence/wealth.py", "import numpy"),
    (
        "the idle loop imports neither tuf nor cryptography",
        "agent/bootloaders/file.py",
        "import tidegate.core.verify",
    ),
    (
        "the idle loop imports neither tuf nor cryptography",
        "agent/loop.py",
        "from tidegate.agent import worker",
    ),
    (
        "the hot path knows no framework and no database layer",
        "server/hot.py",
        "import sqlite3",
    ),
    ("back ends do not know each other", "rollout/gates/newcomer.py", "from . import neighbour"),
]


def _copy(folder: Path) -> Path:
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder / "src" / "tidegate"


def _lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-c",
        "import sys; from importlinter.cli import lint_imports_command as run; sys.exit(run())",
        "--no-cache",
    ]
    env = {**os.environ, "PYTHONPATH": str(folder / "src"), "NO_COLOR": "1"}
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=100
    )


def test_the_tree_as_it_is_keeps_every_contract(tmp_path: Path) -> None:
    _copy(tmp_path)
    result = _lint_imports(tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(CONTRACTS)} kept, 0 broken" in result.stdout


def test_every_contract_has_a_seeded_fault() -> None:
    assert {name for name, _, _ in SEEDS} == set(CONTRACTS)


@pytest.mark.parametrize(("contract", "file", "line"), SEEDS)
def test_a_wrong_import_breaks_the_contract_meant_for_it(
    contract: str, file: str, line: str, tmp_path: Path
) -> None:
    package = _copy(tmp_path)
    target = package / file
    target.parent.mkdir(exist_ok=True)
    before = target.read_text() if target.exists() else ""
    (package / "rollout" / "gates" / "neighbour.py").touch()
    target.write_text(f"{before}\n{line}\n")
    result = _lint_imports(tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    assert f"{contract} BROKEN" in result.stdout


@pytest.mark.parametrize(
    ("file", "banned"),
    [
        ("core/release.py", True),
        ("rollout/model.py", True),
        ("agent/machine.py", True),
        ("agent/ports.py", False),
    ],
)
def test_reading_the_clock_is_refused_where_decisions_are_made(
    file: str, banned: bool, tmp_path: Path
) -> None:
    package = _copy(tmp_path)
    clock = "\nfrom datetime import datetime as _hidden\n\n_X = _hidden.now()\n"
    (package / file).write_text((package / file).read_text() + clock)
    ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "TID251", "."]
    result = subprocess.run(ruff, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode == 1) == banned, result.stdout + result.stderr
    assert ("TID251" in result.stdout) == banned
