"""Scenario files: what is read, and how a mistake is told."""

from pathlib import Path

import pytest

from tidegate.core.errors import ConfigError
from tidegate.sim.fleet.reader import parse_scenario, read_mode, read_scenario
from tidegate.sim.fleet.spec import FAULTS, NUISANCES

EXAMPLES = Path(__file__).parents[4] / "examples" / "scenarios"
BATCHED = sorted(path for path in EXAMPLES.rglob("*.scenario.toml") if path.parent != EXAMPLES)

WHOLE = """
schema = 1
mode = "batched"
name = "all"
lasts = "14d"
starts = "fri 18:30"
seed = 9
policy = "careful"
harmless = true
[fleet]
devices = 5000
daily = "8h"
download = "30m"
variants = { a = "70%", b = "30%" }
from_versions = { "1.0" = "50%", "1.1" = "50%" }
classes = { always = "60%", weekly = "40%" }
[fleet.regions.eu]
share = "100%"
utc = 1
[fleet.sites]
share = "20%"
most = 40
kinds = { shop = "100%" }
[world]
failures = { a = "1%", "*" = "2%" }
silence = "0.5%"
weekend = -0.3
[[fault]]
kind = "metric_slope"
by = 0.1
where = { variant = "b", site_kind = "shop" }
[[nuisance]]
kind = "bad_site"
count = 2
[[expect]]
state = "halted"
exposed_at_most = 40
"""


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "all.scenario.toml"
    path.write_text(WHOLE)
    assert read_mode(path) == "batched"
    found = read_scenario(path)
    assert (found.days, found.starts_h, found.seed, found.policy) == (
        14,
        4 * 24 + 18.5,
        9,
        "careful",
    )
    assert found.harmless
    assert not found.bad
    assert found.fleet.variants == {"a": 0.7, "b": 0.3}
    assert found.fleet.sites.most == 40
    assert found.world.failures == {"a": 0.01, "*": 0.02}
    assert found.world.silence == {"*": 0.005}
    assert found.faults[0].where == {"variant": "b", "site_kind": "shop"}
    assert found.expectations[0].bounds == {"exposed_at_most": 40}


@pytest.mark.parametrize(
    ("plain", "word"),
    [
        ({"polcy": "x"}, "policy"),
        ({"schema": 2}, "schema 1"),
        ({"mode": "batch"}, "batched"),
        ({"starts": "monday 9"}, "mon 09:00"),
        ({"lasts": "36h"}, "whole days"),
        ({"fleet": {"devices": 0}}, "1 to"),
        ({"fleet": {"device": 5}}, "devices"),
        ({"fleet": {"variants": {"a": "50%"}}}, "add up"),
        ({"fleet": {"classes": {"dayly": "100%"}}}, "daily"),
        ({"fleet": {"sites": {"share": 5}}}, "5%"),
        ({"world": {"failures": {"v9": "1%"}}}, "v9"),
        ({"world": {"drift": "much"}}, "number"),
        ({"fault": [{}]}, "kind"),
        ({"fault": [{"kind": "bricks"}]}, "brick"),
        ({"fault": [{"kind": "brick", "where": {"varant": "v1"}}]}, "variant"),
        ({"fault": [{"kind": "brick", "where": {"variant": "v11"}}]}, "v1"),
        ({"fault": [{"kind": "brick", "by": 1.0}]}, "by"),
        ({"fault": {"kind": "brick"}}, "[[...]]"),
        ({"nuisance": [{"kind": "bad_site"}]}, "needs sites"),
        ({"nuisance": [{"kind": "isp_outage", "region": "moon"}]}, "moon"),
        ({"expect": [{"state": "halt"}]}, "halted"),
        ({"expect": [{"exposed_at_mots": 4}]}, "exposed_at_most"),
    ],
)
def test_a_mistake_is_named_with_its_place(plain: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_scenario(plain, "x.toml")
    assert word in str(error.value)
    assert "x.toml" in str(error.value)


def test_every_kind_of_fault_and_nuisance_can_be_written() -> None:
    fleet = {"sites": {"share": "10%"}}
    faults = [{"kind": kind} for kind in FAULTS]
    nuisances = [{"kind": kind} for kind in NUISANCES]
    found = parse_scenario({"fleet": fleet, "fault": faults, "nuisance": nuisances}, "x.toml")
    assert [one.kind for one in found.faults] == list(FAULTS)
    assert [one.kind for one in found.nuisances] == list(NUISANCES)


@pytest.mark.parametrize("path", BATCHED, ids=lambda path: path.name.partition(".")[0])
def test_every_example_can_be_read(path: Path) -> None:
    assert read_mode(path) == "batched"
    assert read_scenario(path).name == path.name.partition(".")[0]
