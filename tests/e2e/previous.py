"""The version before the newest migration, as it was: a tree of this repository's own history, that runs beside the present one.

Git itself says which: the last commit that did not have the newest step of the schema. So it stays true as steps come. A clone without history cannot say it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from tests.e2e.served import environment

_ROOT: Final = Path(__file__).resolve().parents[2]
_STEPS: Final = "src/tidegate/server/store/migrations/versions"
#: Where the history is, for a copy of the tree that has none (`make breakit`).
_HISTORY: Final = Path(os.environ.get("TIDEGATE_HISTORY", _ROOT))
_PARTS: Final = ("src", "tests/e2e", "tests/unit/server", "tests/postgres.py", "tests/stores.py")
_PREPARE: Final = """
import json, sys
from pathlib import Path
from tests.e2e import faults, halts
folder, count, url = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
known = faults.prepare(folder, url, count) if url else halts.prepare(folder, count)
json.dump(known, sys.stdout)
"""


def newest_step() -> str:
    """Return the number of the newest step of the schema."""
    return max(one.name for one in (_ROOT / _STEPS).glob("[0-9]*.py"))[:4]


def commit() -> str:
    """Return the last commit without the newest step; skips where this clone does not know it."""
    (step,) = (_ROOT / _STEPS).glob(f"{newest_step()}_*.py")
    found, known = "", list[str]()
    try:
        added = _git("log", "--diff-filter=A", "--format=%H", "--", f"{_STEPS}/{step.name}").split()
        # one that is not committed yet: what is, is the version before
        found = _git("rev-parse", "--verify", f"{added[-1]}^" if added else "HEAD").strip()
        known = _git("ls-tree", "--name-only", f"{found}:{_STEPS}").split()
    except (OSError, subprocess.CalledProcessError) as error:
        found = str(error)
    if (
        not known or step.name in known
    ):  # the root of a shallow clone seems to have added everything
        pytest.skip("tier: the version before: this clone has no history; git fetch --unshallow")
    return found


def tree(folder: Path) -> Path:
    """Put the code of the version before, and what tests it, into an empty folder; returns that."""
    folder.mkdir()
    made = subprocess.run(
        ["git", "archive", "--format=tar", commit(), *_PARTS],
        cwd=_HISTORY, stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    subprocess.run(["tar", "--extract", "--directory", str(folder)], input=made.stdout, check=True)
    used = run(folder, "-c", "import tidegate; print(tidegate.__file__)")
    assert used.startswith(str(folder)), used
    return folder


def prepare(code: Path, data: Path, count: int, url: str) -> list[tuple[str, str]]:
    """Have the code of a tree make a data directory with a release and `count` devices; return their names and tokens."""
    found = run(code, "-c", _PREPARE, str(data), str(count), url)
    return [(name, token) for name, token in json.loads(found)]


def upgrade(code: Path | None, url: str) -> None:
    """Bring a PostgreSQL schema to what a tree, or (None) the present code, knows."""
    run(code, "-m", "tidegate.cli", "db", "upgrade", TIDEGATE_DATABASE_URL=url)


def run(code: Path | None, *arguments: str, **environ: str) -> str:
    """Run the interpreter with the code of a tree, and return what it prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True, text=True, env={**environment(code), **environ}, cwd=code or _ROOT,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=_HISTORY, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout
