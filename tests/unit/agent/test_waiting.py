"""Deferral, inhibitors, deadlines: what makes an image wait, what ends the wait, and what nothing gets round."""

from typing import Any

import msgspec
import pytest
from tests.unit.agent.test_machine import NOW, TARGET, effects, kinds, looked, run, staged, update

from tidegate.agent.events import (
    ApplyAsked,
    Arm,
    AskPermit,
    DeferAsked,
    HoldAsked,
    LocalRules,
    Looked,
    Ordered,
    Permitted,
)
from tidegate.agent.state import Activating, Idle, Order, Staged, State
from tidegate.agent.waiting import reasons
from tidegate.core.protocol import DeliveryPolicy

HOUR = 3600
DAY = 24 * HOUR
NONCE = "ab" * 16
SECURITY = msgspec.structs.replace(TARGET, kind="security")


def codes(state: State, event: Looked) -> list[str]:
    return [one.code for one in reasons(state, event)]


def asks(state: State, event: Looked) -> bool:
    return any(isinstance(one, AskPermit) for one in effects(state, event))


def put_off(state: State, hours: float, now: int = NOW, limit_s: int = 7 * DAY) -> State:
    until = int(now + hours * HOUR)
    return run(state, DeferAsked(now=now, until_at=until, limit_s=limit_s))


# --- deferral ---------------------------------------------------------------------------------------------------------


def test_a_deferred_update_waits_so_long_and_goes_on_by_itself() -> None:
    state = put_off(staged(), 3)
    assert codes(state, looked()) == ["wait.deferred"]
    assert codes(state, looked(now=NOW + 3 * HOUR - 1)) == ["wait.deferred"]
    assert asks(state, looked(now=NOW + 3 * HOUR))


def test_all_deferrals_of_one_image_together_are_no_longer_than_the_limit() -> None:
    state = staged()
    for day in range(10):
        state = put_off(state, 24, now=NOW + day * DAY // 2, limit_s=2 * DAY)
    assert state.defer is not None
    assert state.defer.until_at == NOW + 2 * DAY
    assert asks(state, looked(now=NOW + 2 * DAY))


def test_a_deferral_is_taken_back_and_a_person_who_says_now_means_it() -> None:
    state = put_off(put_off(staged(), 3), 0)
    assert asks(state, looked())
    state = run(put_off(staged(), 3), ApplyAsked(now=NOW))
    assert asks(state, looked(activate_open=False))
    # And the other way round.
    assert codes(put_off(state, 3), looked()) == ["wait.deferred"]


def test_a_deferral_is_of_one_image_and_forgotten_with_it() -> None:
    state = put_off(staged(), 3)
    assert state.defer is not None
    other = msgspec.structs.replace(
        state, defer=msgspec.structs.replace(state.defer, sha256="0" * 64)
    )
    assert asks(other, looked())
    ended = msgspec.structs.replace(state, phase=Idle())
    assert run(ended, looked()).defer is None


def test_a_clock_that_was_set_back_stretches_neither_hold_nor_deferral() -> None:
    back = NOW - 300 * DAY
    for state in (
        put_off(staged(), 3),
        run(staged(), HoldAsked(now=NOW, reason="x", until_at=NOW + 3 * HOUR)),
    ):
        after = run(state, looked(now=back))
        assert asks(after, looked(now=back + 7 * DAY))


# --- inhibitors between question and restart -----------------------------------------------------------------------


def test_an_inhibitor_that_comes_while_leave_is_asked_for_stops_the_restart() -> None:
    granted = run(staged(), looked(), Permitted(now=NOW, mono=101.0, nonce=NONCE, permit="p-1"))
    assert isinstance(granted.phase, Activating)
    after = run(granted, looked(101.5, inhibitors=("surgery",)))
    assert isinstance(after.phase, Staged)
    assert kinds(after)[-1] == "permit_returned"
    assert effects(granted, looked(101.5)) == (Arm(slot="B", tries=3),)


# --- security releases ------------------------------------------------------------------------------------------------


def urgent(**policy: Any) -> State:
    return staged(release=SECURITY, policy=DeliveryPolicy(**policy))


def overdue(after_s: int = HOUR, **more: Any) -> dict[str, Any]:
    rules = LocalRules(security_deadline_s=DAY, inhibitors_after_s=after_s)
    return {"now": NOW + DAY, "rules": rules, **more}


@pytest.mark.parametrize("policy", [{"activate": "manual"}, {}])
def test_an_overdue_security_release_skips_window_manual_start_and_deferral(
    policy: dict[str, Any],
) -> None:
    state = put_off(urgent(**policy), 100)
    closed = {"activate_open": False}
    assert codes(state, looked(**closed))
    early = overdue() | {"now": NOW + DAY - 1}
    assert codes(state, looked(**early, **closed))
    assert asks(state, looked(**overdue(), **closed))
    # The order's own deadline does the same, whichever comes first.
    state = put_off(urgent(deadline=NOW + 60, **policy), 100)
    assert asks(state, looked(now=NOW + 60, **closed))


def test_a_deadline_is_advice_only_for_what_is_no_security_release() -> None:
    state = staged(policy=DeliveryPolicy(deadline=NOW + 60))
    assert codes(state, looked(**overdue(activate_open=False))) == ["wait.window"]


def test_inhibitors_hold_an_overdue_release_for_the_grace_and_not_longer() -> None:
    state = urgent()
    said: dict[str, Any] = {"inhibitors": ("surgery",)}
    assert codes(state, looked(**overdue(overdue_s=HOUR - 1.0), **said)) == ["wait.inhibitor"]
    assert asks(state, looked(**overdue(overdue_s=float(HOUR)), **said))
    # Where the configuration does not say so, they hold it for ever.
    never: dict[str, Any] = {**overdue(overdue_s=1e6), "rules": LocalRules(security_deadline_s=DAY)}
    assert codes(state, looked(**never, **said)) == ["wait.inhibitor"]
    # And for what is no security release, too.
    assert codes(staged(), looked(**overdue(overdue_s=1e6), **said)) == ["wait.inhibitor"]


def test_a_wall_clock_that_jumps_does_not_overrule_an_inhibitor() -> None:
    state = urgent()
    jumped: dict[str, Any] = {
        **overdue(),
        "now": NOW + 1000 * DAY,
        "overdue_s": 5.0,
        "inhibitors": ("surgery",),
    }
    assert codes(state, looked(**jumped)) == ["wait.inhibitor"]


def test_a_deadline_gets_round_no_hold_no_server_and_no_missing_leave() -> None:
    long_after = overdue(overdue_s=1e6)
    held = run(urgent(), HoldAsked(now=NOW + DAY, reason="x", until_at=NOW + 2 * DAY))
    assert codes(held, looked(**long_after)) == ["wait.hold"]
    halted = run(urgent(), Ordered(now=NOW, order=Order(epoch=1, seq=2), action="hold"))
    assert codes(halted, looked(**long_after)) == ["wait.halted"]
    later = urgent(not_before=NOW + 2 * DAY)
    assert codes(later, looked(**long_after)) == ["wait.not_before"]
    assert codes(urgent(), looked(**long_after, online=False)) == ["wait.server"]
    assert effects(urgent(), looked(**long_after)) == (
        AskPermit(update=update(release=SECURITY), nonce=NONCE),
    )


def test_giving_leave_back_does_not_begin_the_wait_anew() -> None:
    granted = run(staged(), looked(), Permitted(now=NOW + 9, mono=101.0, nonce=NONCE, permit="p"))
    after = run(granted, looked(102.0, now=NOW + 10, inhibitors=("x",)))
    assert isinstance(after.phase, Staged)
    assert after.phase.staged_at == NOW


# --- waited long enough -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"activate_open": False}, "activate.window_missed"),
        ({"inhibitors": ("surgery",)}, "activate.inhibited"),
        ({"hold": True}, "user.held"),
        ({"hold": True, "inhibitors": ("surgery",), "activate_open": False}, "user.held"),
    ],
)
def test_an_update_that_waits_too_long_is_declined_with_what_it_waited_for(
    change: dict[str, Any], reason: str
) -> None:
    state = staged()
    if change.pop("hold", False):
        state = run(state, HoldAsked(now=NOW, reason="field test", until_at=NOW + 7 * DAY))
    rules = LocalRules(give_up_s=2 * DAY)
    at: dict[str, Any] = {"now": NOW + 2 * DAY, "staged_s": 2.0 * DAY, "rules": rules, **change}
    assert isinstance(run(state, looked(**at | {"now": NOW + 2 * DAY - 1})).phase, Staged)
    assert isinstance(run(state, looked(**at | {"staged_s": 60.0})).phase, Staged)
    assert isinstance(run(state, looked(**at | {"rules": LocalRules()})).phase, Staged)
    after = run(state, looked(**at))
    assert isinstance(after.phase, Idle)
    assert (after.outbox[-1].kind, after.outbox[-1].reason) == ("declined", reason)
    # Nothing is held against the image: it may come again.
    assert after.refused == ()


def test_what_waits_for_the_server_alone_is_not_given_up() -> None:
    rules = LocalRules(give_up_s=DAY)
    at: dict[str, Any] = {"now": NOW + 9 * DAY, "staged_s": 9.0 * DAY, "rules": rules}
    assert isinstance(run(staged(), looked(**at, online=False)).phase, Staged)
    halted = run(staged(), Ordered(now=NOW, order=Order(epoch=1, seq=2), action="hold"))
    assert isinstance(run(halted, looked(**at, activate_open=False)).phase, Staged)
