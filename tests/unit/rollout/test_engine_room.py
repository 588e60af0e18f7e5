"""How many permits a plan leaves room for: the tightest admission decides."""

import msgspec
from tests.unit.rollout.stage import begun, known, more, policy, said

from tidegate.rollout import engine
from tidegate.rollout.model import Evidence, Finding, RingProgress, Rollout

FLEET = known(
    ("matched", "pilot", "r3", 10),
    ("matched", "pilot", "r4", 10),
    ("matched", "fleet", "r3", 400),
    ("matched", "fleet", "r4", 400),
)
#: A rollout whose pilot has passed.
IN_FLEET = msgspec.structs.replace(
    begun(),
    rings=(RingProgress(state="passed", step=0), RingProgress(state="open", step=0, opened_at=0)),
)


def test_room_is_what_at_once_leaves_after_open_outcomes_of_all_variants() -> None:
    chosen = policy(flow={"in_flight": 20, "first": 0})
    rollout = msgspec.structs.replace(IN_FLEET, policy=chosen, isolated=("r4",))
    evidence = more(
        FLEET,
        ("permitted", "fleet", "r3", 12), ("confirmed", "fleet", "r3", 5),
        ("permitted", "fleet", "r4", 6),
    )  # fmt: skip
    assert engine.plan(rollout, evidence, 0).room == 20 - 7 - 6
    full = more(evidence, ("permitted", "fleet", "r3", 40))
    assert engine.plan(rollout, full, 0).room == 0


def test_the_first_permits_are_few_and_grow_with_what_is_confirmed() -> None:
    chosen = policy(flow={"first": 8})
    rollout = msgspec.structs.replace(IN_FLEET, policy=chosen)
    assert engine.plan(rollout, FLEET, 0).room == 8
    eight = more(FLEET, ("permitted", "fleet", "r3", 8))
    assert engine.plan(rollout, eight, 0).room == 0
    proved = more(eight, ("confirmed", "fleet", "r3", 8))
    assert engine.plan(rollout, proved, 0).room == 12
    assert "limited by feedback" in said(engine.plan(rollout, proved, 0))


def test_the_tightest_admission_decides_and_is_named() -> None:
    chosen = policy(flow={"first": 8, "in_flight": 5})
    plan = engine.plan(msgspec.structs.replace(IN_FLEET, policy=chosen), FLEET, 0)
    assert plan.room == 5
    assert "at most 5 at once" in said(plan)
    assert "limited by feedback" not in said(plan)


def test_another_admission_drops_in_without_a_change_of_the_engine() -> None:
    class Nobody:
        def room(self, rollout: Rollout, evidence: Evidence, now: int) -> int | None:
            return 0

        def because(self, room: int) -> Finding:
            return Finding(gate="evidence", passed=False, text="38 : 1 that it is worse")

    plan = engine.plan(IN_FLEET, FLEET, 0, (Nobody(),))
    assert plan.room == 0
    assert "38 : 1" in said(plan)
