"""`rollout edit`: a whole file, or single parts in the words of one."""

from pathlib import Path
from typing import Any

import click
import pytest

from tidegate.cli import _edit

NOTHING: dict[str, Any] = {
    "preset": None, "steps": (), "in_flight": None, "first": None,
    "audience": None, "ring_audience": (), "gates": (), "guards": None,
    "priority": None, "activate": None, "download": None, "rate": None,
}  # fmt: skip


def test_parts_are_the_words_of_a_policy_file() -> None:
    given = {
        **NOTHING,
        "steps": ("fleet=1%, 10%,100%", "pilot=100%"),
        "audience": "site = lab",
        "ring_audience": ("pilot=revision = 1",),
        "gates": ("fleet=soak time=24h; approval", "pilot=none"),
        "guards": "failure_rate max=2% sample=50",
        "in_flight": "50",
        "first": "none",
        "priority": 0,
        "activate": "Sat 02:00-05:00; Sun 02:00-05:00",
        "download": "any",
        "rate": "1MiB/s",
    }
    method, body = _edit.body_of(None, given)
    assert method == "PATCH"
    assert body == {
        "steps": {"fleet": ["1%", "10%", "100%"], "pilot": ["100%"]},
        "audience": "site = lab",
        "audiences": {"pilot": "revision = 1"},
        "gates": {"fleet": [{"type": "soak", "time": "24h"}, {"type": "approval"}], "pilot": []},
        "guards": [{"type": "failure_rate", "max": "2%", "sample": 50}],
        "flow": {"in_flight": 50, "first": "none"},
        "priority": 0,
        "windows": {"activate": ["Sat 02:00-05:00", "Sun 02:00-05:00"], "download": "any"},
        "delivery": {"rate": "1MiB/s"},
    }


def test_a_file_replaces_all(tmp_path: Path) -> None:
    file = tmp_path / "rollout.toml"
    file.write_text('preset = "careful"\n')
    assert _edit.body_of(file, NOTHING) == ("PUT", {"preset": "careful"})
    with pytest.raises(click.UsageError, match="a policy file, or what is to change"):
        _edit.body_of(file, {**NOTHING, "priority": 1})


@pytest.mark.parametrize(
    "given", [{}, {"steps": ("fleet",)}, {"steps": ("=1%",)}, {"gates": ("fleet=",)}]
)
def test_what_says_nothing_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(click.UsageError):
        _edit.body_of(None, {**NOTHING, **given})
