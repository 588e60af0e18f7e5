"""What the guide on metrics of one's own prints is read by what reads it: the agent, and a server's rollout."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.agent.test_config import GOOD, write
from tests.unit.server.light import LightFleet
from tests.unit.server.rig import Rig
from tests.unit.server.test_gatekeeper import POLICY

from tidegate.agent import assemble, config
from tidegate.server.tick import keeper_of

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "guides" / "watch-a-metric.md").read_text()
BLOCKS = dict(re.findall(r"^```toml (\S+)\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL))


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path / "data")
    yield made
    made.close()


def test_the_agent_reads_the_tables(tmp_path: Path) -> None:
    found = config.read(write(tmp_path, f"{GOOD}\n{BLOCKS['agent.toml']}"), {})
    names = ["battery", "frames_lost", "request_ms", "temperature"]
    assert [one.name for one in found.meters] == names
    assert [one.counter for one in found.meters] == [False, True, False, False]
    assert assemble._meters(found) is not None


def test_a_rollout_compares_what_the_policy_names(rig: Rig) -> None:
    fleet = LightFleet(rig, 5)
    fleet.start({**POLICY, **tomllib.loads(BLOCKS["policy"])})
    fleet.look()
    kept = keeper_of(rig.app.services)._kept[fleet.id]
    assert kept.harm.metrics == ("errors", "-battery", "frames_lost")
    assert kept.harm.metric_ppm == 510_000
    assert "metric -battery 168 h" in GUIDE
    assert "metric -battery 168 h" in kept.book.layout.streams
