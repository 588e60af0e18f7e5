"""Why a rollout waits, and why a device is (not) updating."""

from typing import Any

import msgspec
import pytest
from tests.unit.rollout.stage import begun, carried_out, known

from tidegate.rollout import engine, explain
from tidegate.rollout.explain import DeviceFacts
from tidegate.rollout.model import Finding

NOW = 1_764_149_530
GOOD = DeviceFacts(
    device="gw1-01f77b",
    last_seen=NOW - 240,
    runs="gw1-2.4.0",
    rollout="gw1-2.4.1",
    release="gw1-2.4.1",
    rollout_state="active",
    ring="fleet",
    ring_state="open",
    share_bp=5_000,
    place=3_720,
    variant="gw1-r3",
)


def _with(**changes: Any) -> DeviceFacts:
    return msgspec.structs.replace(GOOD, **changes)


@pytest.mark.parametrize(
    ("changes", "code", "part"),
    [
        ({"device_state": "pending"}, "device.pending", "nobody has accepted it yet"),
        ({"device_state": "quarantined"}, "device.quarantined", "it is quarantined"),
        ({"last_seen": 0}, "device.seen", "never heard"),
        ({"last_seen": NOW - 3 * 86_400}, "device.seen", "offline: last heard 3 d ago"),
        ({"refusal": "compat.hardware"}, "compat.hardware", "made for other hardware"),
        ({"refused": "boot.counter_exhausted"}, "refused", "it failed here: boot.counter_exhausted"),
        ({"refused": explain.LEFT}, "refused", "by itself or ordered back"),
        ({"rollout_state": "halted", "rollout_because": "6 of 23"}, "rollout.halted", "is halted: 6 of 23"),
        ({"rollout_state": "paused"}, "rollout.paused", "is paused by a person"),
        ({"isolated": True}, "isolated", "gw1-r3 is isolated in gw1-2.4.1"),
        ({"ring": ""}, "ring", "in no ring"),
        ({"ring_state": "waiting"}, "ring.waiting", "ring fleet, which is waiting"),
        ({"ring_state": "failed"}, "ring.failed", "which is failed"),
        ({"share_bp": 1_000}, "step", "at 37.2 % in this rollout's order: only 10 % is open yet"),
        (
            {"share_bp": 3_000, "held_back_until": NOW + 3600},
            "holdback",
            "at 37.2 % in this rollout's order, and held back until 10:32 UTC, in 1 h",
        ),
        ({"held_by": "olga"}, "user.held", "held by olga"),
        ({"inhibitors": ("dialysis.service",)}, "activate.inhibited", '"not now": dialysis.service'),
        (
            {"window": "02:00-05:00", "zone": "Europe/Lisbon", "opens_at": NOW + 3600},
            "window",
            "02:00-05:00 Europe/Lisbon, which opens 10:32 UTC, in 1 h",
        ),
        ({"update_state": "staged", "room": 0, "rollout_because": "at most 8"}, "activate.no_permit", "(at most 8)"),
        ({"update_state": "staged", "waiting": "activate.inhibited"}, "activate.inhibited", "said not now"),
        ({"update_state": "reverted", "update_reason": "health.boot"}, "update", "ended: reverted: health.boot"),
        ({"update_state": "lost", "update_reason": "lost.return"}, "update", "never heard again"),
    ],
)  # fmt: skip
def test_the_first_check_that_is_not_passed_is_the_verdict(
    changes: dict[str, Any], code: str, part: str
) -> None:
    facts = _with(**changes)
    first = next(check for check in explain.why(facts, NOW) if not check.ok)
    assert code == first.code
    assert part in first.text
    assert explain.verdict(facts, NOW) == f"gw1-01f77b is not updating, because {first.text}"


def test_checks_come_in_the_order_in_which_a_device_passes_them() -> None:
    everything = _with(
        refusal="compat.floor", refused="x", rollout_state="paused", isolated=True, ring_state="waiting",
        share_bp=0, held_by="olga", inhibitors=("a",), window="Sat", zone="UTC", opens_at=NOW + 9,
        update_state="",
    )  # fmt: skip
    failed = [check.code for check in explain.why(everything, NOW) if not check.ok]
    assert failed == [
        "compat.floor", "refused", "rollout.paused", "isolated", "ring.waiting", "step", "user.held",
        "activate.inhibited", "window",
    ]  # fmt: skip


def test_a_device_that_was_admitted_is_not_asked_whose_turn_it_is() -> None:
    codes = [check.code for check in explain.why(_with(update_state="staged", share_bp=0), NOW)]
    assert "step" not in codes
    assert "ring.open" not in codes


def test_a_device_that_something_keeps_out_is_not_about_to_be_offered_anything() -> None:
    said = [check.text for check in explain.why(_with(refusal="compat.hardware"), NOW)]
    assert not [text for text in said if "about to be offered" in text or "permit" in text]
    assert "the update is about to be offered" in explain.why(GOOD, NOW)[-1].text


def test_past_the_permit_only_the_update_counts() -> None:
    facts = _with(update_state="verifying", window="Sat", opens_at=NOW + 9, inhibitors=("a",))
    assert explain.verdict(facts, NOW) == "gw1-01f77b is updating to gw1-2.4.1: verifying"


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "gw1-01f77b is updating to gw1-2.4.1: about to be offered it"),
        ({"update_state": "downloading"}, "gw1-01f77b is updating to gw1-2.4.1: downloading"),
        ({"rollout": ""}, "gw1-01f77b has nothing to do: no rollout has anything for it"),
        (
            {"up_to_date": True, "runs": "gw1-2.4.1"},
            "gw1-01f77b has nothing to do: it runs gw1-2.4.1, and no rollout offers it anything newer",
        ),
        (
            {"rollout_state": "completed"},
            "gw1-01f77b is updating to gw1-2.4.1: about to be offered it",
        ),
        (
            {"window": "Sat", "opens_at": NOW},
            "gw1-01f77b is updating to gw1-2.4.1: about to be offered it",
        ),
    ],
)
def test_a_device_on_its_way_says_how_far_it_is(changes: dict[str, Any], verdict: str) -> None:
    assert verdict == explain.verdict(_with(**changes), NOW)


def test_a_waiting_ring_is_explained_by_the_ring_that_holds_it_up() -> None:
    evidence = known(("matched", "pilot", "r3", 10), ("matched", "fleet", "r3", 100))
    rollout = carried_out(begun(), engine.plan(begun(), evidence, 0))
    plan = engine.plan(rollout, evidence, 60)
    lines = explain.explain(
        rollout, plan.because, now=60, ring="fleet", room=3, decided_at=60, position=9
    )
    assert lines[0] == "fleet is waiting, because"
    assert " 1 ring pilot waits for minimum_sample" in lines
    assert " 2 then fleet opens at 10 %" in lines
    assert "     permits: room for 3 more now" in lines
    assert lines[-1] == "Decided at 1970-01-01 00:01:00 UTC, generation 8, replayable from event 9."


def test_the_next_change_is_named_where_it_is_known() -> None:
    because = (
        Finding(
            gate="ring", passed=False, text="ring pilot waits for soak", ring="pilot", opens_at=7260
        ),
    )
    lines = explain.explain(begun(), because, now=60, decided_at=60)
    assert (
        lines[-1]
        == "If nothing changes, the next change is at 02:01 UTC, in 2 h (ring pilot may pass)."
    )


def test_a_halted_rollout_says_what_a_person_may_do() -> None:
    because = (Finding(gate="failure_rate", passed=False, text="6 of 23 attempts ended badly"),)
    rollout = msgspec.structs.replace(begun(state="halted"), isolated=("r7",))
    text = "\n".join(explain.explain(rollout, because, now=0))
    assert "gw1-2.5.0 is halted, because\n\n  6 of 23 attempts ended badly" in text
    assert "Isolated: r7" in text
    for verb in ("fallback", "recall", "resume"):
        assert verb in text


def test_an_unknown_ring_is_said_to_be_unknown() -> None:
    assert explain.explain(begun(), (), now=0, ring="nope")[0].startswith(
        "gw1-2.5.0 has no ring nope"
    )
