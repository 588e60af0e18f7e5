"""What is fetched ahead: everybody downloads, nobody gets leave before it is let go, and then ring by ring."""

from typing import Any

import pytest
from tests.unit.server.rig import Device, Rig
from tests.unit.server.test_rollouts_admin import OLGA, ONE_RING, Desk

from tidegate.core.errors import TidegateError
from tidegate.core.protocol import HELD_UNTIL, AssignmentBody
from tidegate.server import why

NAME = "gw1-1.1.0"
AHEAD: dict[str, Any] = {
    **ONE_RING,
    "ring": [{"name": "first", "audience": "id = d1", "soak": "1h"}, {"name": "rest"}],
    "delivery": {"level": "prefetch"},
}


@pytest.fixture
def desk(rig: Rig) -> Desk:
    rig.publish_trust()
    rig.release(1)
    return Desk(rig)


def fetched(device: Device) -> AssignmentBody:
    """Have a device download and stage what it is offered."""
    assert device.poll().work is True
    body = device.assignment()
    assert (body.action, body.policy.not_before) == ("install", 0)
    device.tell("downloading", body)
    device.tell("staged", body, bytes=4096)
    return body


def test_no_leave_before_it_is_let_go_and_then_ring_by_ring(desk: Desk) -> None:
    first, other = desk.rig.device("d1"), desk.rig.device("d2")
    desk.create(**AHEAD)
    bodies = [fetched(one) for one in (first, other)]
    for device, body in zip((first, other), bodies, strict=True):
        answer = device.permit(body)
        assert answer.envelope is None
        assert answer.because == f"activation is held: tidegate rollout activate {NAME}"
        # It need not ask again and again.
        assert device.assignment().policy.not_before == HELD_UNTIL
    desk.rig.now += 7200
    desk.tick()
    assert desk.act("activate").reach == 2
    desk.tick()
    assert first.assignment().policy.not_before == 0
    assert first.permit(bodies[0]).envelope is not None
    first.tell("rebooting", bodies[0])
    first.tell("verifying", bodies[0])
    first.confirm(bodies[0])
    desk.rig.now += 60
    desk.tick()  # the ring soaks from when it was let go, however long it had held what it fetched
    answer = other.permit(bodies[1])
    assert (answer.envelope, answer.because) == (None, "ring rest is not open for it yet")
    assert other.assignment().policy.not_before == HELD_UNTIL


def test_what_explains_the_rollout_says_that_it_is_held(desk: Desk) -> None:
    fetched(desk_device(desk))
    lines = desk.rig.read(lambda conn: why.tell_rollout(conn, NAME, "rest", desk.now))
    assert f"     activation is held: tidegate rollout activate {NAME}" in lines


def desk_device(desk: Desk) -> Device:
    """Return the device of the first ring, in a rollout that fetches ahead."""
    device = desk.rig.device("d1")
    desk.create(**AHEAD)
    return device


def test_a_halt_ends_what_was_fetched_ahead(desk: Desk) -> None:
    device = desk_device(desk)
    body = fetched(device)
    desk.act("halt")
    assert device.assignment().action == "hold"
    with pytest.raises(TidegateError, match="is halted activate"):
        desk.act("activate")
    assert device.permit(body).envelope is None


def test_only_what_fetches_ahead_is_let_go(desk: Desk) -> None:
    desk.rig.device("d1")
    desk.create()
    with pytest.raises(TidegateError, match="does not fetch ahead"):
        desk.operations.act(NAME, "activate", OLGA, "", desk.now)
