"""A part of the fleet is kept not updated until the watch ends: who, for how long, and who says so."""

from typing import Any

import pytest
from tests.unit.rollout.stage import begun, carried_out, more, policy

from tidegate.core.errors import RequestError
from tidegate.rollout import cohort, engine, holdback
from tidegate.rollout.evidence.settings import DAY_S, PRESETS
from tidegate.rollout.model import Evidence, Policy, Rollout, Tally

FLEET = {
    "name": "fleet",
    "steps": ["10%", "100%"],
    "gates": [{"type": "minimum_sample", "healthy": 5}],
}
GUARDS = [
    {"type": "evidence", "preset": "fast", "replaces": "failure_rate"},
    {"type": "failure_rate", "max": "5%", "sample": 20, "healthy": 5},
]
WATCH_S = PRESETS["fast"].watch_s


def held(share: str = "2%", **said: Any) -> Policy:
    plain = {"guards": GUARDS, "ring": [FLEET], "flow": {"first": 0, "holdback": share}}
    return policy(**{**plain, **said})


def at_the_part(chosen: Policy) -> tuple[Rollout, Evidence]:
    """A rollout whose others have all been served, at day 1."""
    evidence = Evidence(tallies={("fleet", "r3"): Tally(audience=500)})
    rollout = begun(chosen)
    for step, count in enumerate((50, 440)):
        rollout = carried_out(rollout, engine.plan(rollout, evidence, DAY_S * step + 1))
        evidence = more(
            evidence,
            ("permitted", "fleet", "r3", count),
            ("confirmed", "fleet", "r3", count),
            at=DAY_S,
        )
    return rollout, evidence


def test_the_last_of_the_order_are_the_last_step_of_the_last_ring() -> None:
    chosen = held()
    assert chosen.rings[-1].shares == (1_000, 9_800, 10_000)
    assert chosen.holdback_bp == 200
    assert held("none").rings[-1].shares == (1_000, 10_000)
    ring = {**FLEET, "steps": ["10%", "99%", "100%"]}
    assert held("5%", ring=[ring]).rings[-1].shares == (1_000, 9_500, 10_000)


def test_a_part_drawn_by_chance_waits_until_the_watch_of_the_others_is_over() -> None:
    rollout, evidence = at_the_part(held())
    share = cohort.share_of(rollout, 0)
    assert share == 9_800
    waiting = [one for one in range(5_000) if not cohort.step_admits(share, "ab" * 32, f"d{one}")]
    assert 60 < len(waiting) < 140
    until = holdback.until(rollout.policy, 0, rollout.rings[0])
    assert until == rollout.rings[0].opened_at + WATCH_S
    plan = engine.plan(rollout, evidence, until - 1)
    assert plan.verdict == "hold"
    assert plan.rings[0].state == "soaking"
    (said,) = [one for one in plan.because if one.gate == "holdback"]
    assert said.text == "holdback: 2 % of the devices are not updated while the others are watched"
    assert said.opens_at == until
    plan = engine.plan(carried_out(rollout, plan), evidence, until)
    assert plan.verdict == "advance"
    after = carried_out(rollout, plan)
    assert cohort.share_of(after, 0) == 10_000
    assert holdback.until(after.policy, 0, after.rings[0]) is None


def test_a_person_may_let_it_go_at_any_time() -> None:
    rollout, evidence = at_the_part(held())
    rings = engine.passed_by_hand(rollout, evidence, 2 * DAY_S)
    assert rings[0].step == 2


def test_earlier_steps_wait_for_nothing_but_their_own_gates() -> None:
    chosen = held()
    rollout, evidence = begun(chosen), Evidence(tallies={("fleet", "r3"): Tally(audience=500)})
    rollout = carried_out(rollout, engine.plan(rollout, evidence, 1))
    assert holdback.until(chosen, 0, rollout.rings[0]) is None
    plain, evidence = at_the_part(held("none"))
    assert not [
        one for one in engine.plan(plain, evidence, 2 * DAY_S).because if one.gate == "holdback"
    ]


@pytest.mark.parametrize(
    ("said", "part"),
    [
        ({"flow": {"holdback": "60%"}}, "at most 50%"),
        ({"flow": {"holdback": "0%"}}, "over 0%"),
        ({"flow": {"holdback": 7}}, "flow.holdback"),
        ({"flow": {"holdbak": "1%"}}, "holdback"),
        ({"guards": GUARDS[1:]}, "no evidence guard"),
        ({"ring": [{**FLEET, "steps": ["10%", "50%"]}]}, "must end at 100%"),
    ],
)
def test_what_makes_no_sense_is_refused(said: dict[str, Any], part: str) -> None:
    with pytest.raises(RequestError, match=part):
        held(**said)


def test_a_single_step_needs_no_gate_of_its_own_to_hold_it_back() -> None:
    assert held(ring=[{"name": "fleet"}]).rings[-1].shares == (9_800, 10_000)
