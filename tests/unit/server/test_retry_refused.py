"""A release that a device went back from is not tried there again, unless the rollout says so explicitly."""

import msgspec
import pytest
from tests.unit.server.rig import Device, Rig
from tests.unit.server.test_rollouts_admin import OLGA, ONE_RING, Desk

from tidegate.core.errors import RequestError
from tidegate.core.protocol import DeliveryPolicy
from tidegate.server import why
from tidegate.server.drafts import delivery_of


def gone_back(rig: Rig) -> Device:
    """Return a device that tried the release and went back."""
    rig.publish_trust()
    device = rig.device()
    target = rig.release(1)
    rollout = rig.rollout(target, name="first")
    body = device.assignment()
    device.tell("staged", body)
    assert device.permit(body).envelope is not None
    device.tell("reverted", body, reason="health.service")
    device.refuses = (target.digest,)
    rig.set_rollout(rollout, state="cancelled")
    rig.rollout(target, name="second")
    return device


def test_another_rollout_of_it_leaves_the_device_alone(rig: Rig) -> None:
    device = gone_back(rig)
    assert device.assignment().action == "none"


def test_a_rollout_that_says_so_has_it_tried_again(rig: Rig) -> None:
    device = gone_back(rig)
    again = msgspec.to_builtins(DeliveryPolicy(retry_refused=True))
    rig.set_rollout(2, delivery=again)
    body = device.assignment()
    assert (body.action, body.allow_refused) == ("install", True)


def test_the_preview_counts_it_where_the_policy_says_so(rig: Rig) -> None:
    device = gone_back(rig)
    device.assignment()
    desk = Desk(rig)
    release = {**ONE_RING, "release": "gw1-1.1.0"}
    found = [
        desk.operations.preview({**release, "name": "third", **more}, OLGA, desk.now).offered
        for more in ({}, {"delivery": {"retry_refused": True}})
    ]
    assert found == [0, 1]


def test_who_was_ordered_back_is_not_said_to_have_failed(rig: Rig) -> None:
    """By hand: after a way back, the same bytes published again were refused *since it failed here*, which nothing had."""
    rig.publish_trust()
    device = rig.device()
    first, second = rig.release(1), rig.release(2, fallback_to=(1,), payload=b"same")
    rig.rollout(first)
    device.run(device.assignment())
    bad = rig.rollout(second)
    device.run(device.assignment())
    rig.set_rollout(bad, state="falling_back")
    rig.rollout(first, name="back", kind="fallback", parent=bad)
    device.run(device.assignment())
    rig.rollout(rig.release(3, payload=b"same"), name="again")
    found = rig.read(lambda conn: why.tell(conn, "d1", int(rig.now)))
    assert "it left this image before, by itself or ordered back" in str(found)


def test_only_yes_or_no_is_understood() -> None:
    assert delivery_of({"delivery": {"retry_refused": True}}).retry_refused
    assert not delivery_of({}).retry_refused
    with pytest.raises(RequestError):
        delivery_of({"delivery": {"retry_refused": "yes"}})
