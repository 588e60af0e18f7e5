"""Leave that was given ahead: asked for only where both sides want it, used only where the server cannot be reached, given back in every other case."""

from typing import Any

import msgspec
import pytest
from tests.crash.lab import Device, Order, make_device
from tests.unit.agent.test_machine import NOW, effects, kinds, looked, run, staged, started

from tidegate.agent.ahead import AGAIN_S
from tidegate.agent.events import (
    Arm,
    AskPermit,
    Failed,
    HoldAsked,
    LocalRules,
    Ordered,
    PermitRefused,
    Permitted,
)
from tidegate.agent.state import Activating, Idle, Staged, State
from tidegate.agent.state import Order as Ordering
from tidegate.core.protocol import DeliveryPolicy

HOUR = 3600
WANTED = LocalRules(offline_permit_s=8 * HOUR)
SHUT: dict[str, Any] = {"activate_open": False, "rules": WANTED}
FIRST, SECOND = "ab" * 16, "cd" * 16


def waiting(seconds: int = 10 * HOUR) -> State:
    return staged(policy=DeliveryPolicy(offline_permit_s=seconds))


def given(**more: Any) -> State:
    """Return a device with leave for eight hours, asked for at 100 s of its boot."""
    state = run(waiting(), looked(**SHUT))
    event = Permitted(now=NOW, mono=101.0, nonce=FIRST, permit="p-1", valid_s=8 * HOUR)
    return run(state, msgspec.structs.replace(event, **more))


def returned(state: State) -> list[str | None]:
    return [one.nonce for one in state.outbox if one.kind == "permit_returned"]


def gone(mono: float = 4000.0, **more: Any) -> Any:
    """Return a look at a world without a server, in an open window."""
    return looked(mono, nonce=SECOND, online=False, unreachable=True, rules=WANTED, **more)


@pytest.mark.parametrize(
    ("policy_s", "own_s", "asked_s"),
    [(10 * HOUR, 8 * HOUR, 8 * HOUR), (HOUR, 8 * HOUR, HOUR), (0, 8 * HOUR, 0), (HOUR, 0, 0)],
)
def test_it_is_asked_for_where_both_sides_want_it_for_the_shorter_time(
    policy_s: int, own_s: int, asked_s: int
) -> None:
    state = waiting(policy_s)
    shut = SHUT | {"rules": LocalRules(offline_permit_s=own_s)}
    found = [one.ahead_s for one in effects(state, looked(**shut)) if isinstance(one, AskPermit)]
    assert found == ([asked_s] if asked_s else [])


@pytest.mark.parametrize(
    "change",
    [{"online": False}, {"metered": False, "now": 0, "activate_open": True, "online": False}],
)
def test_it_is_not_asked_for_without_a_server(change: dict[str, Any]) -> None:
    assert effects(waiting(), looked(**SHUT | change)) == ()


def test_it_is_not_asked_for_while_a_person_or_the_server_says_hold() -> None:
    held = run(waiting(), HoldAsked(now=NOW, reason="x", until_at=NOW + HOUR))
    assert effects(held, looked(**SHUT)) == ()
    halted = run(waiting(), Ordered(now=NOW, order=Ordering(epoch=1, seq=2), action="hold"))
    assert effects(halted, looked(**SHUT)) == ()


def test_it_is_used_when_the_server_cannot_be_reached_and_the_window_is_open() -> None:
    state = given()
    assert effects(state, gone(activate_open=False)) == ()
    after = run(state, gone())
    assert isinstance(after.phase, Activating)
    assert after.phase.nonce == FIRST
    assert effects(after, gone(4001.0)) == (Arm(slot="B", tries=3),)


def test_before_the_server_was_tried_it_is_not_used() -> None:
    world = msgspec.structs.replace(gone(), unreachable=False)
    assert isinstance(run(given(), world).phase, Staged)


def test_a_question_that_gets_no_answer_falls_back_on_it() -> None:
    state = run(given(), looked(4000.0, nonce=SECOND, rules=WANTED))
    lost = Failed(now=NOW, mono=4001.0, reason="download.timeout", retryable=True)
    assert isinstance(run(state, lost).phase, Activating)
    # A forged answer is no absence of the server.
    forged = Failed(now=NOW, mono=4001.0, reason="sig.threshold")
    assert isinstance(run(state, forged).phase, Staged)


def test_as_long_as_the_server_answers_its_word_counts() -> None:
    state = run(given(), looked(4000.0, nonce=SECOND, rules=WANTED))
    refusal = PermitRefused(now=NOW, mono=4001.0, because="halted", retry_after_s=60, nonce=SECOND)
    after = run(state, refusal)
    assert returned(after) == [FIRST]
    assert isinstance(run(after, gone(4100.0)).phase, Staged)
    fresh = Permitted(now=NOW, mono=4001.0, nonce=SECOND, permit="p-2", valid_s=900)
    after = run(state, fresh)
    assert isinstance(after.phase, Activating)
    assert (after.phase.nonce, returned(after)) == (SECOND, [FIRST])


@pytest.mark.parametrize("mono", [100.0 + 8 * HOUR - 29, 1e9])
def test_it_is_not_used_at_the_end_of_its_time_and_given_back(mono: float) -> None:
    after = run(given(), gone(mono))
    assert isinstance(after.phase, Staged)
    assert returned(after) == [FIRST]
    # The server gave less than was asked for.
    after = run(given(valid_s=HOUR), gone(100.0 + HOUR))
    assert returned(after) == [FIRST]


def test_a_restart_voids_it() -> None:

    state = run(given(), started("A", marks={"A": "good", "B": "bad"}, boot_id="boot-2"))
    after = run(state, gone(50.0))
    assert isinstance(after.phase, Staged)
    assert returned(after) == [FIRST]


def test_a_hold_keeps_it_from_being_used() -> None:
    held = run(given(), HoldAsked(now=NOW, reason="x", until_at=NOW + 9 * HOUR))
    assert isinstance(run(held, gone()).phase, Staged)
    lost = Failed(now=NOW, mono=4001.0, reason="download.timeout", retryable=True)
    assert isinstance(run(held, lost).phase, Staged)


def test_an_inhibitor_at_the_last_moment_gives_it_back() -> None:
    after = run(run(given(), gone()), gone(4001.0, inhibitors=("surgery",)))
    assert isinstance(after.phase, Staged)
    assert returned(after) == [FIRST]


@pytest.mark.parametrize("action", ["hold", "none"])
def test_the_servers_word_gives_it_back(action: Any) -> None:
    after = run(given(), Ordered(now=NOW, order=Ordering(epoch=1, seq=2), action=action))
    assert returned(after) == [FIRST]
    assert isinstance(after.phase, Staged if action == "hold" else Idle)


def test_a_refusal_stops_nothing_and_is_asked_about_again_after_an_hour() -> None:
    state = run(waiting(), looked(**SHUT))
    no = PermitRefused(now=NOW, mono=101.0, because="no", retry_after_s=3600, nonce=FIRST)
    state = run(state, no)
    assert effects(state, looked(200.0, **SHUT)) == ()
    (again,) = effects(state, looked(101.0 + AGAIN_S, **SHUT | {"nonce": SECOND}))
    assert isinstance(again, AskPermit)
    assert again.nonce == SECOND
    # The real question is asked when its time comes.
    (asked,) = effects(state, looked(200.0, nonce=SECOND, rules=WANTED))
    assert isinstance(asked, AskPermit)
    assert asked.ahead_s == 0


def test_an_answer_that_got_lost_is_asked_for_with_the_same_question() -> None:
    state = run(waiting(), looked(**SHUT))
    lost = Failed(now=NOW, mono=101.0, reason="download.timeout", retryable=True)
    state = run(state, lost)
    assert effects(state, looked(110.0, **SHUT)) == ()
    (again,) = effects(state, looked(170.0, **SHUT | {"nonce": SECOND}))
    assert isinstance(again, AskPermit)
    assert again.nonce == FIRST


# --- a whole device ---------------------------------------------------------------------------------------------------


def alone(**given: Any) -> Device:
    """Return a device that is staged, waits for three o'clock, and whose server goes away before that."""
    device = make_device(1, 2, activate_windows=("03:00-04:00",), **given)
    policy = DeliveryPolicy(offline_permit_s=10 * HOUR)
    device.plane.order = Order("install", device.plane.releases[1], "u-1", policy=policy)
    for _ in device.run(HOUR):
        pass
    assert device.plane.kinds() == ["downloading", "staged"]
    device.plane.down = True
    return device


def test_a_device_out_of_reach_activates_in_its_window_and_tells_later() -> None:
    device = alone(offline_permit_s=8 * HOUR)
    assert len(device.plane.permits) == 1
    for _ in device.run(5 * HOUR):
        pass
    assert device.runs == 2
    device.plane.down = False
    for _ in device.run(HOUR):
        if device.plane.outcomes():
            break
    assert device.plane.outcomes() == [("confirmed", None)]
    assert "permit_returned" not in device.plane.kinds()


def test_without_its_own_consent_it_stays_inert() -> None:
    device = alone()
    assert device.plane.permits == {}
    for _ in device.run(5 * HOUR):
        pass
    assert device.runs == 1
    assert kinds(device.runner.state)[-1:] != ["rebooting"]  # type: ignore[union-attr]


def test_a_power_cut_before_the_window_voids_the_leave() -> None:
    device = alone(offline_permit_s=8 * HOUR)
    device.runner = None
    for _ in device.run(5 * HOUR):
        pass
    assert device.runs == 1
    device.plane.down = False
    for _ in device.run(HOUR):
        pass
    assert "permit_returned" in device.plane.kinds()
