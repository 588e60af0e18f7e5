"""Policies: the ready ones, and what is refused with which words."""

from typing import Any

import pytest

from tidegate.core.errors import RequestError
from tidegate.rollout import presets
from tidegate.rollout.model import Deadlines, GateSpec


@pytest.mark.parametrize("name", sorted(presets.PRESETS))
def test_every_preset_is_a_whole_policy(name: str) -> None:
    policy = presets.preset(name)
    assert [ring.name for ring in policy.rings] == ["internal", "pilot", "fleet"]
    assert all(ring.shares[-1] == 10_000 for ring in policy.rings)
    assert {"failure_rate", "metric"} <= {spec.gate for spec in policy.guards}
    assert name == "lab" or policy.guards[0].gate == "evidence"
    assert all({g.gate for g in ring.gates} == {"minimum_sample", "soak"} for ring in policy.rings)


def test_a_file_says_what_differs_from_its_preset() -> None:
    policy = presets.policy_from_dict(
        {
            "schema": 1,
            "preset": "careful",
            "dynamic": False,
            "guards": [{"type": "failure_rate", "max": "3%"}],
            "deadlines": {"return": "10m"},
            "flow": {"in_flight": 5},
            "ring": [
                {"name": "one", "audience": "group:a and seen < 1h", "gates": ["soak"]},
                {
                    "name": "rest",
                    "steps": ["25%", "100%"],
                    "soak": "1h",
                    "gates": ["go", "approval"],
                },
            ],
            "gate": [{"name": "go", "type": "approval", "people": 2}],
        }
    )
    assert not policy.dynamic
    assert policy.guards == (GateSpec(gate="failure_rate", settings={"max": "3%"}),)
    week = 7 * 86_400
    assert policy.deadlines == Deadlines(
        start_s=week, finish_s=week, return_s=600, confirm_s=86_400
    )
    assert (policy.at_once, policy.first) == (5, 4)
    assert policy.rings[0].audience == "group:a and seen < 1h"
    assert policy.rings[0].gates == (GateSpec(gate="soak", settings={}),)
    assert policy.rings[1].shares == (2_500, 10_000)
    assert policy.rings[1].audience == ""
    assert policy.rings[1].gates == (
        GateSpec(gate="approval", settings={"people": 2}),
        GateSpec(gate="approval", settings={}),
        GateSpec(gate="soak", settings={"time": "1h"}),
    )


def test_keys_of_the_caller_are_passed_over_and_others_are_not() -> None:
    presets.policy_from_dict({"name": "x", "release": "y"}, also={"name", "release"})
    with pytest.raises(RequestError, match="unknown key"):
        presets.policy_from_dict({"name": "x"})


@pytest.mark.parametrize(
    ("data", "part"),
    [
        ({"presett": 1}, 'unknown key "presett"; did you mean "preset"?'),
        ({"preset": "nrmal"}, 'did you mean "normal"?'),
        ({"schema": 2}, "this version reads schema 1"),
        ({"dynamic": "yes"}, "dynamic: true or false"),
        ({"ring": []}, "1 to 32 rings"),
        ({"ring": {"name": "a"}}, "ring: a list was expected"),
        ({"ring": ["a"]}, "ring: a table was expected"),
        ({"ring": [{"name": "a", "soak": 4}]}, 'ring a, soak: 4 has no unit: "4s", "4m", "4h"?'),
        ({"ring": [{"name": "a", "sok": "4h"}]}, 'did you mean "soak"?'),
        ({"ring": [{"name": "a", "audience": "grop:x"}]}, 'did you mean "group"?'),
        ({"ring": [{"name": "a", "audience": 3}]}, "a query in quotes"),
        ({"ring": [{"name": "a", "audience": "state = lost"}]}, "changes with every update"),
        ({"ring": [{"name": "a", "steps": ["50%", "10%"]}]}, "steps must rise"),
        ({"ring": [{"name": "a", "steps": ["0%", "10%"]}]}, "steps must rise"),
        ({"ring": [{"name": "a", "steps": "10%"}]}, "steps: shares"),
        ({"ring": [{"name": "a", "steps": ["110%"]}]}, "more than 100%"),
        ({"ring": [{"name": "a b"}]}, "ring a b"),
        ({"ring": [{"name": "a", "soak": "1h"}, {"name": "a"}]}, 'ring "a" stands there twice'),
        ({"ring": [{"name": "a", "gates": ["soack"]}]}, 'did you mean "soak"?'),
        ({"ring": [{"name": "a", "gates": [{"time": "4h"}]}]}, "a gate has a type"),
        ({"guards": ["soak"]}, "guards must find harm"),
        ({"guards": [{"type": "failure_rate", "mx": "1%"}]}, 'did you mean "max"?'),
        ({"guards": [{"type": "failure_rate", "max": 2}]}, 'has no unit: "2%"?'),
        ({"guards": [{"type": "failure_rate", "sample": "9"}]}, "not a whole number"),
        ({"guards": [{"type": "metric", "ratio": 0.5}]}, "not a number from 1 on"),
        ({"gate": [{"type": "soak"}]}, "has a name of its own"),
        ({"deadlines": {"retrn": "1h"}}, 'did you mean "return"?'),
        ({"deadlines": {"return": 60}}, "deadlines.return: 60 has no unit"),
        ({"deadlines": 3}, "deadlines: a table was expected"),
        ({"flow": {"first": "x"}}, 'a whole number of devices, or "none"'),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(data: dict[str, Any], part: str) -> None:
    with pytest.raises(RequestError) as caught:
        presets.policy_from_dict(data)
    assert caught.value.code == "request.invalid"
    assert part in caught.value.detail
