"""Gates in one line of text say what the tables of a policy file say."""

import pytest

from tidegate.core.errors import RequestError
from tidegate.rollout import gate_texts, presets
from tidegate.rollout.model import GateSpec


@pytest.mark.parametrize("name", sorted(presets.PRESETS))
def test_every_gate_of_every_preset_comes_back_as_it_was(name: str) -> None:
    policy = presets.preset(name)
    for specs in (policy.guards, *(ring.gates for ring in policy.rings)):
        read = gate_texts.read(gate_texts.write(specs), "gates")
        assert [GateSpec(gate=one.pop("type"), settings=one) for one in read] == list(specs)


def test_blanks_quotes_and_semicolons() -> None:
    text = ' soak time=24h ;metric name="a b; c" ratio=1.5 clump=3;;approval'
    assert gate_texts.read(text, "gates") == [
        {"type": "soak", "time": "24h"},
        {"type": "metric", "name": "a b; c", "ratio": 1.5, "clump": 3},
        {"type": "approval"},
    ]
    assert gate_texts.read("none", "gates") == gate_texts.read(" ", "gates") == []
    odd = GateSpec(gate="metric", settings={"name": "a b; 'c"})
    assert gate_texts.read(gate_texts.write([odd]), "")[0]["name"] == "a b; 'c"


@pytest.mark.parametrize("text", ["soak 24h", "soak =1", 'soak time="1h', "x" * 3_000])
def test_what_cannot_be_read_is_said(text: str) -> None:
    with pytest.raises(RequestError) as refused:
        gate_texts.read(text, "gates of fleet")
    assert refused.value.code == "request.invalid"
    assert "gates of fleet" in refused.value.detail
