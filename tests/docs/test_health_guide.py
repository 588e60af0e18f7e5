"""Every block of the guide on health contracts is read by what reads it on a device or at a publisher's, and each check in it can be made."""

import re
from pathlib import Path

import pytest
from tests.unit.agent.test_config import GOOD, write

from tidegate.agent import config, health
from tidegate.agent.checkup import health_files
from tidegate.agent.checkup.contract import in_force
from tidegate.publisher.manifest import read_health

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "guides" / "health-contract.md").read_text()
BLOCKS = re.findall(r"^```toml (\S+)\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


def blocks(kind: str) -> list[str]:
    return [text for name, text in BLOCKS if name == kind]


def test_the_guide_has_blocks_of_every_kind() -> None:
    assert {name for name, _ in BLOCKS} == {"health.toml", "agent.toml", "health.d"}


@pytest.mark.parametrize("text", blocks("health.toml"))
def test_a_contract_is_read_and_its_checks_can_be_made(tmp_path: Path, text: str) -> None:
    path = tmp_path / "health.toml"
    path.write_text(text)
    contract = read_health(path)
    assert contract.checks
    for check in contract.checks:
        reason, probe = health.load(check, health.Place(server="http://server"))
        assert reason.startswith("health.")
        assert not isinstance(probe, health.Broken), check


@pytest.mark.parametrize("text", blocks("agent.toml"))
def test_a_configuration_is_read(tmp_path: Path, text: str) -> None:
    found = config.read(write(tmp_path, f"{GOOD}\n{text}"), {})
    source = found.errors
    named = [source.file, source.metrics, source.journal]
    assert any(one is not None for one in named) or found.watchdog is not None


def test_the_sites_file_narrows_the_release_that_allows_it(tmp_path: Path) -> None:
    folder = tmp_path / "health.d"
    folder.mkdir()
    (folder / "site.toml").write_text(blocks("health.d")[0])
    values = {
        "health.dir": (str(folder),),
        "health.warm_up": 0,
        "health.errors_per_hour": None,
        "health.drop": (),
    }
    policy = health_files.policy(values)
    path = tmp_path / "health.toml"
    path.write_text(blocks("health.toml")[-1])
    found = in_force(read_health(path), policy)
    assert (found.contract.warmup_s, found.dropped) == (1800, ("cloud",))
    assert [one.name for one in found.own] == ["valve"]


def test_no_check_that_is_shipped_is_unknown_to_its_page() -> None:
    page = (ROOT / "docs" / "reference" / "health-checks.md").read_text()
    for name in health.names():
        assert f"## `{name}`" in page
