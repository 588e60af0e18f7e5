"""What is said against a rollout before it starts."""

import math
from collections.abc import Mapping
from typing import Any

import pytest

from tidegate.rollout import presets
from tidegate.rollout.evidence.settings import Harm
from tidegate.rollout.lint import (
    Conflict,
    Scope,
    devices_until_seen,
    least_seen,
    lint,
    soak_s,
)

NOW = 1_764_000_000
DAY = 86_400
NORMAL = presets.preset("normal")
WHOLE = {"internal": {"r3": 5, "r4": 2}, "pilot": {"r3": 80, "r4": 20}, "fleet": {"r3": 90_000}}


def found(
    offered: Mapping[str, Mapping[str, int]] = WHOLE, policy: Any = NORMAL, **more: Any
) -> dict[str, str]:
    scope = Scope(offered=offered, starts_at=NOW, **more)
    return {one.code: f"{one.level}: {one.text}" for one in lint(policy, scope)}


def test_a_sound_rollout_is_told_what_it_could_not_see_and_nothing_else() -> None:
    assert found() == {
        "lint.detection": "note: devices that a brick rate would reach before it is stopped: "
        f"1% about {_two(devices_until_seen(0.01, Harm())):,}, "
        f"10% about {_two(devices_until_seen(0.1, Harm())):,}, 100% about 2"
    }


def _two(number: float) -> int:
    step: int = 10 ** (int(math.log10(number)) - 1)
    return round(number / step) * step


def test_a_one_per_cent_brick_rate_reaches_about_three_thousand() -> None:
    # The page of the theory counts 10.6 nats at its own weights; ours are a little thinner.
    assert 2_500 < devices_until_seen(0.01, Harm()) < 3_500
    allowed, actual = 0.0055, 0.013
    kl = actual * math.log(actual / allowed) + (1 - actual) * math.log((1 - actual) / (1 - allowed))
    assert devices_until_seen(0.01, Harm()) * kl == pytest.approx(10.6, rel=0.15)
    assert devices_until_seen(0.002, Harm()) == math.inf


def test_small_fleets_are_told_what_cannot_be_told_from_chance() -> None:
    told = found({"fleet": {"r3": 300}})
    assert told["lint.small"].startswith("note: with 300 devices, fewer bricks than about ")
    least = least_seen(300, Harm())
    assert least is not None
    assert 0.03 < least < 0.07
    assert devices_until_seen(least, Harm()) == pytest.approx(300, rel=0.01)
    assert "1 devices are too few" in found({"fleet": {"r3": 1}})["lint.small"]


def test_a_variant_without_a_canary_is_named_with_its_devices() -> None:
    told = found({"internal": {"r3": 5}, "pilot": {"r3": 10}, "fleet": {"r3": 900, "r6": 120}})
    assert told["lint.no_canary"] == "warning: r6: ring fleet is their first, with 120 devices"
    told = found({"fleet": {"r3": 900, "r6": 120}})
    assert "lint.no_canary" not in told
    assert told["lint.ring_empty"].startswith("note: ring ")


def test_nobody_is_a_warning_since_devices_may_come() -> None:
    assert found({}) == {"lint.nobody": "warning: no device would be offered this release"}


def test_what_cannot_be_in_time_is_an_error_and_what_hardly_can_a_warning() -> None:
    assert "error: " in found(deadline=NOW)["lint.deadline_past"]
    late: dict[str, Any] = {"deadline": NOW + DAY, "opens_at": NOW + 2 * DAY}
    assert found(**late)["lint.window_late"].startswith("warning: ")
    # Past its date a security release waits for no window.
    said = found(**late, security=True)["lint.window_late"]
    assert said.startswith("note: ")
    assert said.endswith("at that date all activate, outside of it")
    assert soak_s(NORMAL, WHOLE) == 4 * DAY, "the evidence gate's, longer than those of the rings"
    told = found(deadline=NOW + 3 * DAY)
    assert "it takes at least 4 d, and delivery.deadline is in 3 d" in told["lint.deadline_short"]
    assert "lint.deadline_short" not in found(deadline=NOW + 5 * DAY)


def test_a_warm_up_as_long_as_the_deadline_of_confirming_would_halt_a_good_release() -> None:
    confirm_s = NORMAL.deadlines.confirm_s
    assert "lint.confirm_short" not in found(warm_up_s=confirm_s - 1)
    told = found(warm_up_s=confirm_s)["lint.confirm_short"]
    assert "warning: a healthy device confirms after a warm-up of 1 d" in told


def test_bytes_and_the_budget_say_how_long_it_takes() -> None:
    told = found(payload=100_000_000, rate=1_000_000)
    assert "at 1 MB/s" in told["lint.duration"]
    assert told["lint.egress"].startswith("warning: the budget of bytes carries it in no less than")
    assert "lint.egress" not in found(payload=100_000_000, rate=100_000_000)


@pytest.mark.parametrize(
    ("one", "code", "part"),
    [
        ({"first": True}, "lint.conflict", "warning: 7 of these devices are also in other (gw1-1)"),
        ({"first": False}, "lint.goes_first", "this one goes first"),
        ({"first": False, "ends": True}, "lint.supersedes", "which ends when this one starts"),
    ],
)
def test_conflicts_say_who_goes_first(one: dict[str, Any], code: str, part: str) -> None:
    conflict = Conflict(rollout="other", release="gw1-1", devices=7, **one)
    assert part in found(conflicts=(conflict,))[code]


def test_a_rollout_that_nothing_stops_or_slows_is_warned_of() -> None:
    bare = presets.policy_from_dict(
        {"guards": [], "flow": {"first": "none"}, "ring": [{"name": "fleet"}]}
    )
    told = found({"fleet": {"r3": 5_000}}, bare)
    assert "nothing stops it by itself" in told["lint.no_guard"]
    assert "lets 5,000 devices go before anything is known" in told["lint.big_step"]
    assert "lint.big_step" not in found({"fleet": {"r3": 500}}, bare)


def test_errors_come_first() -> None:
    levels = [
        one.level for one in lint(NORMAL, Scope(offered=WHOLE, starts_at=NOW, deadline=NOW - 1))
    ]
    assert levels == sorted(levels, key=("error", "warning", "note").index)


def test_groups_that_there_are_not_are_named() -> None:
    policy = presets.policy_from_dict(
        {
            "ring": [
                {"name": "a", "audience": "group:pilot", "gates": ["soak"]},
                {"name": "b", "audience": "model = gw1 and not group:frzen"},
            ]
        }
    )
    offered = {"a": {"r3": 2}, "b": {"r3": 9}}
    told = found(offered, policy, groups=frozenset({"frozen", "pilot"}))
    assert told["lint.no_group"] == (
        "warning: there is no group frzen (ring b): nobody is in it, and `not group:frzen` keeps nobody out; "
        'did you mean "frozen"?'
    )
    assert "lint.no_group" not in found(offered, policy)
    empty = found({"b": {"r3": 9}}, policy, groups=frozenset({"frzen"}))
    assert empty["lint.ring_empty"] == "note: ring a has no device: there is no group pilot"
    assert "lint.no_group" not in empty
