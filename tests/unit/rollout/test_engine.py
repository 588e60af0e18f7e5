"""The planner, one decision at a time."""

import msgspec
import pytest
from tests.unit.rollout.stage import (
    HOUR,
    begun,
    carried_out,
    known,
    metrics,
    more,
    policy,
    said,
    states,
)

from tidegate.core.errors import RequestError
from tidegate.rollout import engine
from tidegate.rollout.model import (
    Approval,
    Evidence,
    GateSpec,
    Policy,
    RingProgress,
    RingSpec,
    Rollout,
    RolloutState,
)

FLEET = known(
    ("matched", "pilot", "r3", 10),
    ("matched", "pilot", "r4", 10),
    ("matched", "fleet", "r3", 400),
    ("matched", "fleet", "r4", 400),
)


def _in_fleet(evidence: Evidence, step: int = 0) -> Rollout:
    """A rollout whose pilot has passed."""
    rings = (
        RingProgress(state="passed", step=0),
        RingProgress(state="open", step=step, opened_at=0),
    )
    assert evidence.tallies
    return msgspec.structs.replace(begun(), rings=rings)


# --- rings --------------------------------------------------------------------------------------


def test_the_first_plan_opens_the_first_ring_only() -> None:
    plan = engine.plan(begun(), FLEET, 5)
    assert plan.verdict == "advance"
    assert [("open", 0), ("waiting", -1)] == states(plan)
    assert plan.rings[0].opened_at == 5
    assert plan.parent_generation == 7
    assert plan.changed
    assert "ring pilot opens" in said(plan)


def test_a_ring_waits_for_its_gate_and_says_for_which() -> None:
    rollout = carried_out(begun(), engine.plan(begun(), FLEET, 0))
    evidence = more(FLEET, ("permitted", "pilot", "r3", 5), ("confirmed", "pilot", "r3", 4))
    plan = engine.plan(rollout, evidence, 60)
    assert plan.verdict == "hold"
    assert not plan.changed
    assert plan.because[0].text == "ring pilot waits for minimum_sample"
    assert plan.because[1].text == "minimum_sample 5 healthy: has 4"


def test_a_ring_that_passes_opens_the_next_at_its_first_step() -> None:
    rollout = carried_out(begun(), engine.plan(begun(), FLEET, 0))
    evidence = more(FLEET, ("permitted", "pilot", "r3", 5), ("confirmed", "pilot", "r3", 5))
    plan = engine.plan(rollout, evidence, 60)
    assert plan.verdict == "advance"
    assert [("passed", 0), ("open", 0)] == states(plan)
    assert "ring fleet at 10 % opens" in said(plan)


def test_a_ring_in_which_nothing_was_tried_is_not_said_to_have_passed() -> None:
    # The order to go back has one ring, which asks for no proof.
    cohort = known(("matched", "cohort", "r3", 6), ("matched", "other", "r3", 6))
    rollout = begun(policy(ring=[{"name": "cohort"}]))
    rollout = carried_out(rollout, engine.plan(rollout, cohort, 0))
    untried = engine.plan(rollout, cohort, 60)
    assert (untried.verdict, states(untried)) == ("advance", [("passed", 0)])
    assert "ring cohort holds nothing back any more, though nothing was tried in it yet" in said(
        untried
    )
    assert "passed" not in said(untried)
    # What devices outside it did is no proof of this one.
    elsewhere = more(cohort, ("permitted", "other", "r3", 1), ("confirmed", "other", "r3", 1))
    assert "passed" not in said(engine.plan(rollout, elsewhere, 60))
    tried = more(cohort, ("permitted", "cohort", "r3", 1), ("confirmed", "cohort", "r3", 1))
    assert "ring cohort has passed" in said(engine.plan(rollout, tried, 60))


def test_each_step_is_judged_by_its_own_devices() -> None:
    evidence = more(FLEET, ("permitted", "fleet", "r3", 40), ("confirmed", "fleet", "r3", 40))
    plan = engine.plan(_in_fleet(evidence), evidence, 60)
    assert [("passed", 0), ("open", 1)] == states(plan)
    assert {"r3": (40, 40, 40)} == plan.rings[1].before
    # The forty of the step before do not open the next one as well.
    again = engine.plan(carried_out(_in_fleet(evidence), plan), evidence, 61)
    assert again.verdict == "hold"
    more_evidence = more(
        evidence, ("permitted", "fleet", "r4", 10), ("confirmed", "fleet", "r4", 10)
    )
    third = engine.plan(carried_out(_in_fleet(evidence), plan), more_evidence, 62)
    assert [("passed", 0), ("open", 2)] == states(third)


def test_only_one_step_opens_in_one_plan() -> None:
    evidence = more(FLEET, ("permitted", "fleet", "r3", 400), ("confirmed", "fleet", "r3", 400))
    assert [("passed", 0), ("open", 1)] == states(engine.plan(_in_fleet(evidence), evidence, 9))


def test_a_ring_that_only_time_holds_is_soaking_and_says_when_it_opens() -> None:
    chosen = policy(ring=[{"name": "pilot", "soak": "4h"}, {"name": "fleet", "soak": "1h"}])
    evidence = known(("matched", "pilot", "r3", 9), ("permitted", "pilot", "r3", 3), at=100)
    rings = (RingProgress(state="open", step=0, opened_at=50), RingProgress())
    rollout = msgspec.structs.replace(begun(chosen), rings=rings)
    plan = engine.plan(rollout, evidence, 200)
    assert plan.rings[0].state == "soaking"
    assert plan.because[0].opens_at == 100 + 4 * HOUR
    assert engine.plan(rollout, evidence, 100 + 4 * HOUR - 1).verdict == "hold"
    assert engine.plan(rollout, evidence, 100 + 4 * HOUR).verdict == "advance"


def test_a_soaking_ring_stays_soaking_so_that_plans_do_not_flap() -> None:
    chosen = policy(ring=[{"name": "pilot", "soak": "4h", "gates": ["minimum_sample"]}])
    evidence = known(("matched", "pilot", "r3", 30), ("permitted", "pilot", "r3", 3), at=100)
    soaking = (RingProgress(state="soaking", step=0, opened_at=50),)
    rollout = msgspec.structs.replace(begun(chosen), rings=soaking)
    plan = engine.plan(rollout, evidence, 200)
    assert plan.rings[0].state == "soaking"
    assert not plan.changed


def test_a_ring_without_devices_is_skipped_and_the_next_opens() -> None:
    evidence = known(("matched", "fleet", "r3", 400))
    plan = engine.plan(begun(), evidence, 0)
    assert [("skipped", -1), ("open", 0)] == states(plan)
    assert "ring pilot is skipped" in said(plan)


def test_nothing_is_skipped_before_devices_were_counted() -> None:
    assert [("open", 0), ("waiting", -1)] == states(engine.plan(begun(), Evidence(), 0))


def test_a_ring_whose_variant_was_isolated_is_skipped() -> None:
    rollout = msgspec.structs.replace(begun(), isolated=("r7",))
    evidence = known(("matched", "pilot", "r7", 5), ("matched", "fleet", "r3", 400))
    assert [("skipped", -1), ("open", 0)] == states(engine.plan(rollout, evidence, 0))


def test_approval_counts_for_its_own_step_and_by_different_people() -> None:
    ring = {"name": "fleet", "steps": ["10%", "100%"], "gates": [{"type": "approval", "people": 2}]}
    chosen = policy(ring=[ring])
    rings = (RingProgress(state="open", step=0),)
    rollout = msgspec.structs.replace(begun(chosen), rings=rings)

    def given(*names: str, step: int = 0) -> Rollout:
        approvals = tuple(Approval(ring="fleet", step=step, by=name, at=0) for name in names)
        return msgspec.structs.replace(rollout, approvals=approvals)

    evidence = known(("matched", "fleet", "r3", 400))
    assert engine.plan(given("pia"), evidence, 0).verdict == "hold"
    assert engine.plan(given("pia", "pia"), evidence, 0).verdict == "hold"
    assert engine.plan(given("pia", "quinn", step=1), evidence, 0).verdict == "hold"
    assert engine.plan(given("pia", "quinn"), evidence, 0).verdict == "advance"


def test_a_person_may_let_a_step_pass_without_its_gates() -> None:
    rollout = _in_fleet(FLEET)
    rings = engine.passed_by_hand(rollout, FLEET, 99)
    assert [(ring.state, ring.step) for ring in rings] == [("passed", 0), ("open", 1)]
    assert rings[1].opened_at == 99
    for state in ("paused", "halted", "completed"):
        resting = msgspec.structs.replace(rollout, state=state)
        with pytest.raises(RequestError):
            engine.passed_by_hand(resting, FLEET, 99)
    with pytest.raises(RequestError):
        engine.passed_by_hand(begun(), FLEET, 99)


# --- completion ---------------------------------------------------------------------------------


def _all_passed() -> Rollout:
    rings = (RingProgress(state="passed"), RingProgress(state="passed", step=2, opened_at=1000))
    return msgspec.structs.replace(begun(), rings=rings)


def test_it_is_complete_at_once_when_everybody_has_an_outcome() -> None:
    evidence = known(
        ("matched", "fleet", "r3", 30), ("permitted", "fleet", "r3", 28), ("confirmed", "fleet", "r3", 28),
        ("declined", "fleet", "r3", 1), ("failed_before", "fleet", "r3", 1, "compat.waypoint"), at=1000,
    )  # fmt: skip
    plan = engine.plan(_all_passed(), evidence, 1001)
    assert (plan.verdict, plan.state) == ("complete", "completed")


def test_devices_that_stay_away_hold_completion_up_only_for_the_time_of_silence() -> None:
    evidence = known(
        ("matched", "fleet", "r3", 900),
        ("permitted", "fleet", "r3", 28),
        ("confirmed", "fleet", "r3", 28),
        at=5000,
    )
    waits = engine.plan(_all_passed(), evidence, 5000 + 2 * HOUR - 1)
    assert waits.verdict == "hold"
    assert waits.because[0].opens_at == 5000 + 2 * HOUR
    # Both ways to its end are told: it may be complete long before the silence is over.
    assert "complete when all have, or when nobody has activated for 2 h" in said(waits)
    assert engine.plan(_all_passed(), evidence, 5000 + 2 * HOUR).state == "completed"


def _with(evidence: Evidence, **counts: int) -> Evidence:
    """Return evidence of one ring and variant with counters of those that are on their way."""
    tallies = {key: msgspec.structs.replace(one, **counts) for key, one in evidence.tallies.items()}
    return msgspec.structs.replace(evidence, tallies=tallies)


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({}, "4 devices have not come yet"),
        (
            {"staged": 2, "downloading": 1},
            "1 devices have not come yet, 1 are downloading, 2 have it staged and wait",
        ),
        ({"unstarted": 4}, "4 devices never began or never finished"),
        ({"failed_before": 4, "transfer": 4}, "4 devices failed to download it"),
    ],
)
def test_nothing_is_complete_while_nobody_has_activated(counts: dict[str, int], words: str) -> None:
    four = known(("matched", "fleet", "r3", 4))
    plan = engine.plan(_all_passed(), _with(four, **counts), 10**9)
    assert (plan.verdict, plan.state) == ("hold", "active")
    assert f"nobody has activated yet: {words}" in said(plan)
    answered = more(four, ("declined", "fleet", "r3", 4, "user.declined"))
    assert engine.plan(_all_passed(), answered, 10**9).state == "completed"


def test_who_has_it_staged_is_not_said_to_be_unseen_when_a_rollout_completes() -> None:
    tried = known(
        ("matched", "fleet", "r3", 9),
        ("permitted", "fleet", "r3", 1),
        ("confirmed", "fleet", "r3", 1),
    )
    plan = engine.plan(_all_passed(), _with(tried, staged=3), 10**9)
    assert plan.state == "completed"
    assert "5 devices have not come yet, 3 have it staged and wait" in said(plan)


def test_an_open_outcome_holds_completion_up_whatever_the_time() -> None:
    evidence = known(("matched", "fleet", "r3", 9), ("permitted", "fleet", "r3", 1), at=1000)
    plan = engine.plan(_all_passed(), evidence, 10**9)
    assert plan.verdict == "hold"
    assert "the outcome of 1 permit is open" in said(plan)


def test_a_trickle_of_devices_holds_completion_up_for_a_month_at_most() -> None:
    month = 30 * 24 * HOUR
    evidence = known(
        ("matched", "fleet", "r3", 900),
        ("permitted", "fleet", "r3", 28),
        ("confirmed", "fleet", "r3", 28),
        at=1000 + month - 1,
    )
    assert engine.plan(_all_passed(), evidence, 1000 + month - 1).verdict == "hold"
    assert engine.plan(_all_passed(), evidence, 1000 + month).verdict == "complete"


# --- harm ---------------------------------------------------------------------------------------


def test_eight_of_eight_that_never_come_back_halt_before_any_sample_is_full() -> None:
    rollout = carried_out(begun(), engine.plan(begun(), FLEET, 0))
    evidence = more(
        FLEET,
        ("permitted", "pilot", "r3", 4), ("permitted", "pilot", "r4", 4),
        ("lost", "pilot", "r3", 4, "lost.return"), ("lost", "pilot", "r4", 4, "lost.return"),
    )  # fmt: skip
    plan = engine.plan(rollout, evidence, 9000)
    assert (plan.verdict, plan.state, plan.room) == ("halt", "halted", 0)
    assert [("failed", 0), ("waiting", -1)] == states(plan)
    assert "4 of 4 attempts ended badly (100 %)" in said(plan)


def test_a_failing_pilot_does_not_hide_behind_a_large_healthy_ring() -> None:
    # r3 fails in the pilot alone, so neither the variant nor the whole is over 5 %.
    evidence = known(
        ("matched", "pilot", "r3", 10), ("matched", "fleet", "r3", 900),
        ("permitted", "fleet", "r3", 500), ("confirmed", "fleet", "r3", 500),
        ("permitted", "pilot", "r3", 8), ("lost", "pilot", "r3", 8, "lost.return"),
    )  # fmt: skip
    plan = engine.plan(_in_fleet(evidence), evidence, 0)
    assert plan.verdict == "halt"
    assert plan.because[0].text.startswith("ring pilot: 8 of 8 attempts")


def test_the_limit_is_strict_and_its_denominator_is_attempts() -> None:
    evidence = more(
        FLEET, ("permitted", "fleet", "r3", 99), ("reverted", "fleet", "r3", 5, "boot.watchdog")
    )
    # 5 of 99 is over 5 %, 5 of 100 is not; 800 devices of the ring have nothing to do with it.
    assert engine.plan(_in_fleet(evidence), evidence, 0).verdict == "halt"
    evidence = more(evidence, ("permitted", "fleet", "r3", 1))
    assert engine.plan(_in_fleet(evidence), evidence, 0).verdict != "halt"


def test_permits_whose_outcome_is_open_are_attempts_and_not_failures() -> None:
    evidence = more(FLEET, ("permitted", "fleet", "r3", 200))
    assert engine.plan(_in_fleet(evidence), evidence, 0).verdict == "hold"


def test_silence_counts_like_failure() -> None:
    for what in ("lost", "reverted", "failed_after"):
        evidence = more(FLEET, ("permitted", "fleet", "r3", 40), (what, "fleet", "r3", 3))
        assert engine.plan(_in_fleet(evidence), evidence, 0).verdict == "halt", what


def test_failed_downloads_and_refusals_never_halt() -> None:
    evidence = more(
        FLEET,
        ("failed_before", "fleet", "r3", 300, "download.timeout"),
        ("failed_before", "fleet", "r4", 300, "compat.hardware"),
    )
    assert engine.plan(_in_fleet(evidence), evidence, 0).verdict == "hold"


def test_failed_installs_halt() -> None:
    evidence = more(FLEET, ("failed_before", "fleet", "r3", 30, "install.write"))
    assert engine.plan(_in_fleet(evidence), evidence, 0).verdict == "halt"


def test_a_refunded_permit_was_no_attempt() -> None:
    evidence = more(FLEET, ("permitted", "fleet", "r3", 3), ("refunded", "fleet", "r3", 3))
    plan = engine.plan(_in_fleet(evidence), evidence, 0)
    assert "no attempt yet" in said(plan)


def test_a_degraded_metric_halts() -> None:
    chosen = policy(guards=["failure_rate", "metric"])
    rollout = msgspec.structs.replace(_in_fleet(FLEET), policy=chosen)
    well = metrics(FLEET, (20, 200.0), (20, 200.0))
    bad = metrics(FLEET, (100, 200.0), (20, 200.0))
    assert engine.plan(rollout, well, 0).verdict == "hold"
    plan = engine.plan(rollout, bad, 0)
    assert plan.verdict == "halt"
    assert "5 times, limit 1.5" in said(plan)


def test_late_evidence_halts_a_completed_rollout() -> None:
    rollout = msgspec.structs.replace(_all_passed(), state="completed")
    evidence = more(FLEET, ("permitted", "fleet", "r3", 90), ("confirmed", "fleet", "r3", 90))
    assert engine.plan(rollout, evidence, 0).state == "completed"
    late = more(evidence, ("reverted_late", "fleet", "r3", 9, "boot.watchdog"))
    plan = engine.plan(rollout, late, 0)
    assert (plan.verdict, plan.state) == ("halt", "halted")
    assert [("passed", -1), ("passed", 2)] == states(plan)


def test_a_gate_of_a_ring_that_finds_harm_halts_by_that_ring_alone() -> None:
    ring = {
        "name": "pilot",
        "soak": "1h",
        "gates": [{"type": "failure_rate", "max": "1%", "sample": 10}],
    }
    chosen = policy(guards=[], ring=[ring, {"name": "fleet"}])
    rollout = msgspec.structs.replace(
        begun(chosen), rings=(RingProgress(state="open", step=0), RingProgress())
    )
    evidence = more(FLEET, ("permitted", "pilot", "r3", 10), ("reverted", "pilot", "r3", 1))
    assert engine.plan(rollout, evidence, 0).verdict == "halt"
    elsewhere = more(FLEET, ("permitted", "fleet", "r3", 10), ("reverted", "fleet", "r3", 1))
    assert engine.plan(rollout, elsewhere, 0).verdict == "hold"


# --- isolation ----------------------------------------------------------------------------------

THREE = known(
    ("matched", "fleet", "r3", 300), ("matched", "fleet", "r4", 300), ("matched", "fleet", "r7", 60),
    ("permitted", "fleet", "r3", 20), ("permitted", "fleet", "r4", 20), ("permitted", "fleet", "r7", 6),
    ("reverted", "fleet", "r7", 4, "health.network"),
)  # fmt: skip


def test_nothing_is_permitted_while_it_is_open_who_is_to_blame() -> None:
    plan = engine.plan(_in_fleet(THREE), THREE, 0)
    assert (plan.verdict, plan.state, plan.room, plan.isolate) == ("hold", "active", 0, ())
    assert not plan.changed
    assert "the outcome of 40 other devices" in said(plan)


def test_the_one_bad_variant_is_isolated_when_the_others_are_well() -> None:
    evidence = more(THREE, ("confirmed", "fleet", "r3", 20), ("confirmed", "fleet", "r4", 20))
    plan = engine.plan(_in_fleet(THREE), evidence, 0)
    assert (plan.verdict, plan.state, plan.isolate, plan.room) == ("isolate", "active", ("r7",), 0)
    assert [("passed", 0), ("open", 0)] == states(plan)
    assert plan.because[0].variant == "r7"
    after = engine.plan(carried_out(_in_fleet(THREE), plan), evidence, 1)
    assert after.verdict == "advance"
    assert after.room is None


def test_an_isolated_variants_further_failures_change_nothing() -> None:
    evidence = more(
        THREE,
        ("confirmed", "fleet", "r3", 20), ("confirmed", "fleet", "r4", 20),
        ("reverted", "fleet", "r7", 2), ("permitted", "fleet", "r7", 50), ("lost", "fleet", "r7", 50),
    )  # fmt: skip
    rollout = msgspec.structs.replace(_in_fleet(THREE), isolated=("r7",))
    assert engine.plan(rollout, evidence, 0).verdict == "advance"


def test_too_few_others_confirmed_is_a_halt_not_an_isolation() -> None:
    evidence = known(
        ("permitted", "fleet", "r3", 4), ("confirmed", "fleet", "r3", 4),
        ("permitted", "fleet", "r7", 6), ("reverted", "fleet", "r7", 6, "health.boot"),
    )  # fmt: skip
    plan = engine.plan(_in_fleet(evidence), evidence, 0)
    assert plan.verdict == "halt"
    assert "not proved well enough" in said(plan)


def test_the_only_variant_is_never_isolated() -> None:
    evidence = known(
        ("permitted", "fleet", "r3", 40),
        ("confirmed", "fleet", "r3", 30),
        ("lost", "fleet", "r3", 9),
    )
    plan = engine.plan(_in_fleet(evidence), evidence, 0)
    assert (plan.verdict, plan.isolate) == ("halt", ())


def test_two_bad_variants_of_three_are_the_release() -> None:
    evidence = more(
        THREE,
        ("confirmed", "fleet", "r3", 20), ("reverted", "fleet", "r4", 20, "health.network"),
    )  # fmt: skip
    plan = engine.plan(_in_fleet(THREE), evidence, 0)
    assert plan.verdict == "halt"
    assert "too many variants to blame one (r4, r7)" in said(plan)


def test_a_second_bad_variant_after_an_isolation_is_the_release() -> None:
    evidence = more(
        THREE, ("confirmed", "fleet", "r3", 20), ("reverted", "fleet", "r4", 20, "health.network")
    )
    rollout = msgspec.structs.replace(_in_fleet(THREE), isolated=("r7",))
    assert engine.plan(rollout, evidence, 0).verdict == "halt"


def test_two_of_eight_variants_may_be_isolated_together() -> None:
    good = [f"r{n}" for n in range(1, 7)]
    evidence = known(
        *[("permitted", "fleet", one, 20) for one in good],
        *[("confirmed", "fleet", one, 20) for one in good],
        *[("permitted", "fleet", one, 5) for one in ("r8", "r9")],
        *[("reverted", "fleet", one, 5) for one in ("r8", "r9")],
    )
    plan = engine.plan(_in_fleet(evidence), evidence, 0)
    assert (plan.verdict, plan.isolate) == ("isolate", ("r8", "r9"))


def test_others_that_are_over_the_limit_too_are_a_halt_at_once() -> None:
    evidence = more(THREE, ("reverted", "fleet", "r3", 2), ("reverted", "fleet", "r4", 2))
    # 4 of 40 others: over 5 % together, though neither variant is by itself.
    plan = engine.plan(_in_fleet(THREE), evidence, 0)
    assert plan.verdict == "halt"


def test_a_metric_that_only_one_variant_shows_isolates_it() -> None:
    chosen = policy(guards=["metric"])
    base = known(
        *[("permitted", "fleet", one, 30) for one in ("r3", "r4", "r6", "r7")],
        *[("confirmed", "fleet", one, 30) for one in ("r3", "r4", "r6", "r7")],
    )
    rollout = msgspec.structs.replace(_in_fleet(base), policy=chosen)
    for one in ("r3", "r4", "r6"):
        base = metrics(base, (30, 300.0), (31, 300.0), one)
    plan = engine.plan(rollout, metrics(base, (300, 300.0), (30, 300.0), "r7"), 0)
    assert (plan.verdict, plan.isolate) == ("isolate", ("r7",))


# --- states -------------------------------------------------------------------------------------

RESTING: list[RolloutState] = [
    "draft",
    "awaiting_approval",
    "scheduled",
    "halted",
    "falling_back",
    "cancelled",
    "superseded",
]


@pytest.mark.parametrize("state", RESTING)
def test_a_resting_rollout_is_left_as_it_is_and_gives_no_permit(state: RolloutState) -> None:
    evidence = more(FLEET, ("permitted", "pilot", "r3", 9), ("confirmed", "pilot", "r3", 9))
    plan = engine.plan(begun(state=state), evidence, 10**6)
    assert (plan.verdict, plan.state, plan.room, plan.changed) == ("hold", state, 0, False)
    assert plan.because


def test_a_paused_rollout_opens_nothing_and_can_still_be_halted() -> None:
    paused = msgspec.structs.replace(_in_fleet(FLEET), state="paused")
    good = more(FLEET, ("permitted", "fleet", "r3", 40), ("confirmed", "fleet", "r3", 40))
    plan = engine.plan(paused, good, 0)
    assert (plan.verdict, plan.state, plan.room, plan.changed) == ("hold", "paused", 0, False)
    bad = more(FLEET, ("permitted", "fleet", "r3", 40), ("lost", "fleet", "r3", 40))
    assert engine.plan(paused, bad, 0).state == "halted"


def test_a_resumed_ring_is_open_at_its_step_and_soaks_anew() -> None:
    before = {"r3": (4, 4, 4)}
    rings = (
        RingProgress(state="passed", step=0),
        RingProgress(state="failed", step=1, opened_at=5, before=before),
    )
    resumed = engine.reopened(rings, 99)
    assert resumed[0] == rings[0]
    assert resumed[1] == RingProgress(state="open", step=1, opened_at=99, before=before)


def test_a_rollout_stored_without_rings_begins_all_the_same() -> None:
    rollout = msgspec.structs.replace(begun(), rings=())
    assert [("open", 0), ("waiting", -1)] == states(engine.plan(rollout, FLEET, 0))


TABLE = {
    "submit": {"draft": "awaiting_approval"},
    "approve": {"awaiting_approval": "scheduled"},
    "start": {"draft": "active", "scheduled": "active"},
    "pause": {"active": "paused", "paused": "paused"},
    "resume": {"paused": "active", "halted": "active"},
    "halt": dict.fromkeys(("active", "paused", "completed", "falling_back", "halted"), "halted"),
    "cancel": dict.fromkeys(
        ("draft", "awaiting_approval", "scheduled", "paused", "halted", "cancelled"), "cancelled"
    ),
    "fallback": {"halted": "falling_back"},
    "complete": {"active": "completed", "falling_back": "completed"},
}
STATES: list[RolloutState] = [*RESTING, "active", "paused", "completed"]


@pytest.mark.parametrize("verb", sorted(TABLE))
@pytest.mark.parametrize("state", STATES)
def test_a_verb_leads_where_the_table_says_or_is_a_conflict(verb: str, state: RolloutState) -> None:
    expected = TABLE[verb].get(state)
    if expected is not None:
        assert expected == engine.transition(state, verb)
        return
    with pytest.raises(RequestError) as caught:
        engine.transition(state, verb)
    assert caught.value.code == "request.conflict"
    assert state in caught.value.detail


def test_an_unknown_verb_names_the_nearest() -> None:
    with pytest.raises(RequestError, match='did you mean "halt"') as caught:
        engine.transition("active", "hault")
    assert caught.value.code == "request.invalid"


def test_what_ended_can_do_nothing() -> None:
    assert engine.verbs_of("cancelled") == ()
    assert engine.verbs_of("superseded") == ()


# --- policies -----------------------------------------------------------------------------------


def _bare(*rings: RingSpec) -> Policy:
    return Policy(rings=rings)


@pytest.mark.parametrize(
    ("bad", "part"),
    [
        (_bare(RingSpec(name="a", shares=(5000, 1000))), "steps must rise"),
        (_bare(RingSpec(name="a", shares=(0, 1000))), "steps must rise"),
        (_bare(RingSpec(name="a"), RingSpec(name="b")), "nothing holds its next step back"),
        (_bare(RingSpec(name="a", gates=(GateSpec(gate="nope"),))), "no such gate"),
        (
            Policy(rings=(RingSpec(name="a"),), guards=(GateSpec(gate="approval"),)),
            "guards must find harm",
        ),
    ],
)
def test_a_policy_that_cannot_work_is_refused(bad: Policy, part: str) -> None:
    with pytest.raises(RequestError, match=part):
        engine.check(bad)
