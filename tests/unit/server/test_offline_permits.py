"""Leave given ahead: only where the rollout says so, counted as exposed from the grant on, and silence measured from its end."""

import msgspec
import pytest
from tests.unit.server.rig import Rig

from tidegate.core.errors import RequestError
from tidegate.core.protocol import OFFLINE_PERMIT_MAX_S, DeliveryPolicy
from tidegate.server import telemetry
from tidegate.server.drafts import delivery_of

HOUR = 3600


def allowing(rig: Rig, seconds: int = 10 * HOUR, room: int | None = None) -> int:
    rig.publish_trust()
    rollout = rig.rollout(rig.release(1), room=room)
    delivery = msgspec.to_builtins(DeliveryPolicy(offline_permit_s=seconds))
    rig.set_rollout(rollout, delivery=delivery)
    return rollout


def sweep(rig: Rig) -> None:
    rig.write(lambda conn: telemetry.sweep_lost(conn, int(rig.now)))


def test_a_rollout_that_does_not_say_so_gives_no_leave_ahead(rig: Rig) -> None:
    rig.publish_trust()
    device = rig.device()
    rollout = rig.rollout(rig.release(1), room=1)
    body = device.assignment()
    device.tell("staged", body)
    answer = device.permit(body, ahead_s=HOUR)
    assert (answer.envelope, answer.because) == (None, "this rollout gives no leave ahead")
    assert "exposed" not in rig.tallies(rollout)
    assert device.permit(body).envelope is not None


def test_leave_ahead_is_exposed_at_once_and_good_for_no_longer_than_the_rollout_says(
    rig: Rig,
) -> None:
    device, other = rig.device("d1"), rig.device("d2")
    rollout = allowing(rig, room=1)
    body, second = device.assignment(), other.assignment()
    assert body.policy.offline_permit_s == 10 * HOUR
    device.tell("staged", body)
    permit = device.open_permit(device.permit(body, nonce="aa" * 16, ahead_s=100 * HOUR))
    assert permit.valid_s == 10 * HOUR
    assert rig.tallies(rollout)["exposed"] == 1
    other.tell("staged", second)
    assert "room" in other.permit(second, ahead_s=HOUR).because
    # Asked again at the end, with another question: the same device takes no second place.
    assert device.open_permit(device.permit(body, nonce="bb" * 16)).valid_s == 900
    assert rig.tallies(rollout)["exposed"] == 1


def test_what_is_given_back_unused_is_not_exposed_and_makes_room(rig: Rig) -> None:
    device = rig.device()
    rollout = allowing(rig, room=1)
    body = device.assignment()
    device.tell("staged", body)
    device.open_permit(device.permit(body, nonce="aa" * 16, ahead_s=HOUR))
    device.tell("permit_returned", body, nonce="aa" * 16)
    assert rig.tallies(rollout).get("exposed", 0) == 0
    assert device.permit(body, ahead_s=HOUR).envelope is not None


def test_silence_counts_from_the_last_moment_at_which_it_may_be_used(rig: Rig) -> None:
    device = rig.device()
    rollout = allowing(rig)
    body = device.assignment()
    device.tell("staged", body)
    assert device.permit(body, ahead_s=HOUR).envelope is not None
    rig.now += HOUR + 99
    sweep(rig)
    assert "lost" not in rig.tallies(rollout)
    rig.now += 2
    sweep(rig)
    assert rig.tallies(rollout)["lost"] == 1
    # It was out of reach, and is heard at last.
    device.confirm(body)
    found = rig.tallies(rollout)
    assert (found["confirmed"], found["exposed"], found.get("lost", 0)) == (1, 1, 0)


def test_a_device_that_is_in_reach_hears_of_a_halt(rig: Rig) -> None:
    device = rig.device()
    rollout = allowing(rig)
    body = device.assignment()
    device.tell("staged", body)
    assert device.permit(body, ahead_s=HOUR).envelope is not None
    rig.set_rollout(rollout, state="halted")
    assert device.poll().work is True
    assert device.assignment().action == "hold"
    assert "halted" in device.permit(body).because


@pytest.mark.parametrize(("text", "seconds"), [("72h", 72 * HOUR), ("none", 0), ("7d", 168 * HOUR)])
def test_a_policy_says_for_how_long(text: str, seconds: int) -> None:
    assert delivery_of({"delivery": {"offline_permit": text}}).offline_permit_s == seconds


def test_a_policy_cannot_say_for_ever() -> None:
    assert OFFLINE_PERMIT_MAX_S == 7 * 24 * HOUR
    with pytest.raises(RequestError) as caught:
        delivery_of({"delivery": {"offline_permit": "8d"}})
    assert "at most 7 d" in caught.value.detail
