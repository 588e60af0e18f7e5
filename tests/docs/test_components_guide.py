"""What the guide on components says in TOML is read by the programs that it is for."""

import re
from pathlib import Path

from tests.unit.agent.test_config import GOOD, write

from tidegate.agent import config
from tidegate.core.content import keep_of
from tidegate.publisher.bundle import build
from tidegate.publisher.manifest import read_release

GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "components.md").read_text()
BLOCKS = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
HEAD = 'product = "gw1"\nversion = "1.0.0"\ncounter = 1\n[hardware]\nmodel = "gw1"\n'


def block(word: str) -> str:
    """Return the one block that holds a word."""
    (found,) = (one for one in BLOCKS if word in one)
    return str(found)


def test_the_device_of_the_guide_keeps_two_components(tmp_path: Path) -> None:
    found = config.read(write(tmp_path, GOOD + block("[component.app]")), {})
    assert set(found.beside) == {"app", "motd"}
    assert found.beside["app"] == "/opt/app"


def test_the_release_of_the_guide_is_one_target_of_three(tmp_path: Path) -> None:
    for name in ("app", "motd"):
        (tmp_path / "build" / name).mkdir(parents=True)
        (tmp_path / "build" / name / "file").write_text(name)
    (tmp_path / "build" / "rootfs.ext4").write_bytes(bytes(8192))
    path = tmp_path / "release.toml"
    path.write_text(HEAD + block('with = "rootfs"'))
    (target,) = build(read_release(path), tmp_path / "out", previous=None, now=1).targets
    pieces = [(one.component, one.format) for one in target.release.pieces]
    assert pieces == [("rootfs", "raw_image"), ("app", "archive"), ("motd", "module")]


def test_what_may_be_kept_is_all_there_is() -> None:
    words = re.findall(r'"(\w+)"', block("keep = "))
    assert keep_of({"keep": words}) == frozenset(words)
    assert 'rollback = "none"' in block("rollback")
