"""The evidence guard in a plan: odds halt, one variant is isolated, room follows what is proved, plain guards give way only to real odds."""

import msgspec
import pytest
from tests.unit.rollout.stage import begun, known, more, policy, said

from tidegate.core.errors import RequestError
from tidegate.rollout import engine, gates, presets
from tidegate.rollout.evidence.baseline import Baseline
from tidegate.rollout.evidence.book import Book
from tidegate.rollout.evidence.decide import Decision, decide
from tidegate.rollout.evidence.facts import Fail, Ok, Permit, Silent
from tidegate.rollout.evidence.settings import PRESETS
from tidegate.rollout.evidence.strata import Profile, divide
from tidegate.rollout.model import Evidence, Plan, Rollout, RolloutState

WEIGHED = policy(
    guards=[
        {"type": "evidence", "replaces": "failure_rate"},
        {"type": "failure_rate", "max": "1%", "sample": 20, "healthy": 5},
    ]
)
FLEET = known(("matched", "fleet", "r3", 400), ("matched", "fleet", "r4", 100))


def decision(
    *, r3: tuple[int, int, int] = (0, 0, 0), r4: tuple[int, int, int] = (0, 0, 0)
) -> Decision:
    """Weigh (confirmed, failed, silent) devices of two variants."""
    census: dict[Profile, int] = {("r3", "eu", "always"): 400, ("r4", "eu", "always"): 100}
    book = Book(divide(census), PRESETS["normal"], Baseline())
    for variant, (ok, failed, silent) in (("r3", r3), ("r4", r4)):
        profile = (variant, "eu", "always")
        book.fold(Permit(at=0, profile=profile, count=ok + failed + silent))
        book.fold(Ok(at=9, profile=profile, count=ok, granted_at=0))
        book.fold(Fail(at=9, profile=profile, count=failed, granted_at=0))
        book.fold(Silent(at=9, profile=profile, count=silent, granted_at=0))
    return decide(book, 10)


def weigh(evidence: Evidence, weighed: Decision) -> Evidence:
    return msgspec.structs.replace(evidence, weighed=weighed)


def rollout(state: RolloutState = "active") -> Rollout:
    return begun(WEIGHED, state)


@pytest.mark.parametrize("state", ["active", "paused", "completed"])
def test_odds_halt_a_rollout_also_after_completion(state: RolloutState) -> None:
    plan = engine.plan(rollout(state), weigh(FLEET, decision(r3=(0, 0, 4), r4=(0, 0, 4))), 10)
    assert plan.verdict == "halt"
    assert plan.room == 0
    assert plan.because[0].gate == "evidence"
    assert "halts at 1,000 : 1" in plan.because[0].text
    assert "silence" in plan.because[0].text


def test_the_variant_that_carries_the_evidence_is_isolated_and_nothing_opens() -> None:
    plan = engine.plan(rollout(), weigh(FLEET, decision(r3=(60, 0, 0), r4=(2, 8, 0))), 10)
    assert (plan.verdict, plan.isolate, plan.room) == ("isolate", ("r4",), 0)
    assert "variant=r4" in plan.because[0].text
    after = msgspec.structs.replace(rollout(), isolated=("r4",))
    again = engine.plan(after, weigh(FLEET, decision(r3=(60, 0, 0), r4=(2, 8, 0))), 11)
    assert again.verdict == "advance"


def _against(**part: str) -> Plan:
    """Plan with evidence against a part of the fleet."""
    found = decision(r3=(60, 0, 0), r4=(2, 8, 0))
    assert found.blame is not None
    names = {"attributes": tuple(part), "values": tuple(part.values())}
    other = msgspec.structs.replace(found, blame=msgspec.structs.replace(found.blame, **names))
    return engine.plan(rollout(), weigh(FLEET, other), 10)


def test_any_part_that_a_query_finds_can_leave_alone() -> None:
    assert _against(region="eu").isolate == ("where region = eu",)
    both = {"variant": "r4", "class": "always", "from": "gw1-2.4.0"}
    assert _against(**both).isolate == (
        "where variant = r4 and connectivity = always and release = gw1-2.4.0",
    )


def test_evidence_against_a_part_that_no_query_finds_halts_all() -> None:
    assert _against(variant="other").verdict == "halt"
    assert _against(variant="r4", region="other").verdict == "halt"
    assert _against(region="e" * 80).verdict == "halt"


def test_room_is_what_the_evidence_leaves_and_says_why() -> None:
    weighed = decision(r3=(4, 0, 0))
    plan = engine.plan(rollout(), weigh(FLEET, weighed), 10)
    assert plan.rooms == weighed.permits
    assert plan.room == sum(weighed.permits.values()) > 0
    assert "limit: " in said(plan)
    assert "would be lost" in said(plan) or "on their way" in said(plan)


def test_other_bounds_stay() -> None:
    few = msgspec.structs.replace(WEIGHED, at_once=1)
    plan = engine.plan(begun(few), weigh(FLEET, decision(r3=(4, 0, 0))), 10)
    assert plan.room == 1


def test_plain_guards_stand_in_while_nobody_weighs_and_give_way_only_where_named() -> None:
    bad = more(FLEET, ("permitted", "fleet", "r3", 100), ("reverted", "fleet", "r3", 4))
    assert engine.plan(rollout(), bad, 10).verdict == "halt"
    weighed = weigh(bad, decision(r3=(96, 4, 0)))
    assert engine.plan(rollout(), weighed, 10).verdict != "halt"
    both = policy(guards=["evidence", {"type": "failure_rate", "max": "1%", "sample": 20}])
    assert engine.plan(begun(both), weighed, 10).verdict == "halt"


def test_evidence_that_no_guard_asks_for_decides_nothing() -> None:
    weighed = weigh(FLEET, decision(r3=(0, 0, 4), r4=(0, 0, 4)))
    plan = engine.plan(begun(), weighed, 10)
    assert plan.verdict == "advance"
    assert plan.rooms is None


@pytest.mark.parametrize("name", ["careful", "normal", "fast", "emergency"])
def test_ready_policies_weigh_evidence_by_the_settings_of_their_name(name: str) -> None:
    guard = presets.preset(name).guards[0]
    loaded = gates.of_spec(guard)
    assert getattr(loaded, "harm", None) == PRESETS[name]


@pytest.mark.parametrize(
    "wrong", [{"preset": "norml"}, {"odds": 1}, {"failures": "0%"}, {"silence": "60%"}]
)
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(RequestError) as caught:
        gates.load("evidence", wrong)
    assert caught.value.code == "request.invalid"


@pytest.mark.parametrize(("preset", "odds"), [("careful", 300), ("normal", 1000), ("fast", 1000)])
def test_a_preset_has_odds_of_its_own_unless_others_are_written(preset: str, odds: int) -> None:
    own = gates.load("evidence", {"preset": preset})
    other = gates.load("evidence", {"preset": preset, "odds": 5000})
    assert (getattr(own, "harm", None), getattr(other, "harm", None)) == (
        PRESETS[preset],
        msgspec.structs.replace(PRESETS[preset], odds=5000),
    )
    assert PRESETS[preset].odds == odds
