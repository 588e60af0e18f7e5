"""The guide to a release of one's own is carried out as it stands, on files that it prints itself."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tidegate.server.online import open_keys

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "guides" / "publish-a-release.md").read_text()
ONLINE = ("publish", "rollout")


def _tidegate(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    env = {
        **os.environ,
        "TIDEGATE_KEY_PASSPHRASE_FILE": str(folder / "passphrase"),
        "PYTHONPATH": str(ROOT / "src"),
        "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
    }
    command = [sys.executable, "-m", "tidegate.cli", *words]
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=60
    )


def _typed(folder: Path, words: list[str]) -> list[str]:
    """Add what a person types when asked: a draft's words, read to them by another; a release's version."""
    if words[1] != "sign":
        return words
    if words[0] == "release":
        return [*words, "--version", "2.4.1"]
    shown = _tidegate(folder, words[0], "show", words[2], "--json")
    assert shown.returncode == 0, shown.stderr
    return [*words, "--words", json.loads(shown.stdout)["words"]]


def _calls() -> list[list[str]]:
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)).splitlines()
    calls = [shlex.split(line, comments=True)[1:] for line in lines]
    # What needs a server is carried out by the end-to-end tier.
    return [words for words in calls if words and words[1] not in ONLINE and words[0] not in ONLINE]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the guide says that one has: the server's public keys, and something to make an image of."""
    open_keys(tmp_path / "data", os.urandom)
    (tmp_path / "online.pub.json").write_bytes((tmp_path / "data" / "online.pub.json").read_bytes())
    (tmp_path / "passphrase").write_text("correct horse battery staple\n")
    (tmp_path / "rootfs" / "usr").mkdir(parents=True)
    (tmp_path / "rootfs" / "usr" / "hello.py").write_text("print('hello')\n")
    for name, text in re.findall(r"```toml (\S+)\n(.*?)```", GUIDE, re.DOTALL):
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_guide_ends_in_a_bundle_that_a_device_would_take(folder: Path) -> None:
    calls = _calls()
    assert len(calls) > 15
    for words in calls:
        result = _tidegate(folder, *_typed(folder, words))
        assert result.returncode == 0, f"{words}\n{result.stdout}{result.stderr}"
    assert (folder / "gw1-2.4.1.bundle").stat().st_size > 0


def test_a_bundle_of_the_guide_without_its_signature_is_refused(folder: Path) -> None:
    for words in _calls():
        if words[:2] == ["release", "sign"]:
            continue
        result = _tidegate(folder, *_typed(folder, words))
        if words[:2] == ["release", "check"]:
            assert result.returncode in {3, 7}, result.stderr
        else:
            assert result.returncode == 0, f"{words}\n{result.stdout}{result.stderr}"
