"""The guide to the API is carried out as it stands, on a real server: each block in one shell, and what it prints is what is printed."""

import re
import subprocess
from pathlib import Path

import pytest
from tests.e2e.served import serving

pytestmark = pytest.mark.e2e

GUIDE = (Path(__file__).resolve().parents[2] / "docs/guides/use-the-api.md").read_text()
BLOCK = re.compile(r"```sh\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)


@pytest.mark.timeout(200)
def test_the_guide_prints_what_it_says(tmp_path: Path) -> None:
    blocks = BLOCK.findall(GUIDE)
    assert len(blocks) > 7
    script = "set -o pipefail\n"
    for commands, _ in blocks:
        script += f"{commands}echo '=====' \n"
    with serving(tmp_path / "data") as served:
        token = (served.data / "bootstrap.token").read_text().strip()
        done = subprocess.run(
            ["/bin/bash", "-c", script],
            env={
                "PATH": "/usr/bin:/bin",
                "TIDEGATE": f"http://127.0.0.1:{served.port}",
                "TOKEN": token,
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=150,
        )
    printed = re.sub(r"INC-\d{4}-", "INC-YEAR-", done.stdout).split("=====\n")
    assert printed[:-1] == [shown for _, shown in blocks], done.stderr
    assert "Traceback" not in done.stderr
