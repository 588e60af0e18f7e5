"""The guide to the API is carried out as it stands, on a real server: each block in one shell, and what it prints is what is printed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.served import serving

pytestmark = pytest.mark.e2e

GUIDE = (Path(__file__).resolve().parents[2] / "docs/guides/use-the-api.md").read_text()
PYTHON = re.compile(r"```python\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)
BLOCK = re.compile(r"```sh\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)


@pytest.mark.timeout(200)
def test_the_guide_prints_what_it_says(tmp_path: Path) -> None:
    blocks = BLOCK.findall(GUIDE)
    assert len(blocks) > 7
    python = PYTHON.findall(GUIDE)
    assert len(python) == GUIDE.count("```python") > 3
    script = "set -o pipefail\n"
    for commands, _ in blocks:
        script += f"{commands}echo '=====' \n"
    with serving(tmp_path / "data") as served:
        token = (served.data / "bootstrap.token").read_text().strip()
        place = {"TIDEGATE": f"http://127.0.0.1:{served.port}", "TOKEN": token}
        done = _run(["/bin/bash", "-c", script], tmp_path, place)
        # the client stands on what the blocks before it made, as its reader does
        lines = "".join(f"{code}print('=====')\n" for code, _ in python)
        asked = _run([sys.executable, "-c", lines], tmp_path, place)
    printed = re.sub(r"INC-\d{4}-", "INC-YEAR-", done.stdout).split("=====\n")
    assert printed[:-1] == [shown for _, shown in blocks], done.stderr
    assert "Traceback" not in done.stderr
    assert asked.stdout.split("=====\n")[:-1] == [shown for _, shown in python], asked.stderr


def _run(
    command: list[str], folder: Path, place: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", **place},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
