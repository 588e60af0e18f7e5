"""The TUF project's own suite against the agent's workflow, where a check-out of it is at hand.

Set TUF_CONFORMANCE_DIR to a check-out of https://github.com/theupdateframework/tuf-conformance (tried with commit eec841c, 113 cases, four minutes), and
TUF_CONFORMANCE_PYTHON to an interpreter that has what it needs when this one has not: `tuf`, `securesystemslib[crypto]`, `pytest`. It wants the program
`faketime`. What it tries is tried without it too: `test_scenarios*.py`.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tidegate

FOLDER = os.environ.get("TUF_CONFORMANCE_DIR", "")


@pytest.mark.timeout(1800)
def test_the_tuf_projects_own_suite_passes(tmp_path: Path) -> None:
    if not FOLDER:
        pytest.skip("foreign: tuf-conformance: set TUF_CONFORMANCE_DIR to a check-out of it")
    if shutil.which("faketime") is None:
        pytest.skip("foreign: tuf-conformance: install the Debian package faketime")
    suite = Path(FOLDER).resolve()
    source = Path(tidegate.__file__).parents[1]
    python = os.environ.get("TUF_CONFORMANCE_PYTHON", sys.executable)
    entrypoint = f"{sys.executable} -m tidegate.agent.conformance"
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tuf_conformance"]
    env = {
        **os.environ,
        "PYTHONPATH": f"{suite}{os.pathsep}{source}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(tmp_path),
    }
    result = subprocess.run(
        [*command, "--entrypoint", entrypoint],
        cwd=suite,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=1700,
    )
    passed = re.search(r"(\d+) passed", result.stdout)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
    assert passed is not None
    assert int(passed[1]) >= 113
    assert not re.search(r"skipped|xfailed|deselected", result.stdout.splitlines()[-1])
