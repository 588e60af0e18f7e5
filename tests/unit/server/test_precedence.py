"""Two rollouts that a device belongs to: who goes first, said beforehand and kept; and never two updates at once."""

import pytest
from tests.unit.server.rig import Rig
from tests.unit.server.test_rollouts_admin import OLGA, ONE_RING, Desk

from tidegate.core.errors import RequestError
from tidegate.server import inquiry, outcomes, why
from tidegate.server.store import hot


@pytest.fixture
def desk(rig: Rig) -> Desk:
    rig.publish_trust()
    for counter in (1, 2, 3):
        rig.release(counter)
    return Desk(rig)


def preview(desk: Desk, release: str, **more: object) -> dict[str, str]:
    data = {**ONE_RING, "release": release, **more}
    found = desk.operations.preview(data, OLGA, desk.now)
    return {one.code: one.text for one in found.lints}


def test_the_newer_release_goes_first_and_both_are_told_before(desk: Desk) -> None:
    for number in range(3):
        desk.rig.device(f"d{number}")
    desk.create("gw1-1.2.0", audience="id != d2")
    told = preview(desk, "gw1-1.1.0")
    assert "2 of these devices are also in gw1-1.2.0 (gw1-1.2.0)" in told["lint.conflict"]
    assert "this one goes first" in preview(desk, "gw1-1.3.0")["lint.goes_first"]
    told = preview(desk, "gw1-1.3.0", audience="id != d2")
    assert "which ends when this one starts" in told["lint.supersedes"]


def test_a_higher_priority_goes_before_a_newer_release(desk: Desk) -> None:
    device = desk.rig.device()
    desk.create("gw1-1.1.0", priority=5)
    told = preview(desk, "gw1-1.2.0")
    assert "which goes first" in told["lint.conflict"]
    desk.create("gw1-1.2.0")
    assert desk.row("gw1-1.1.0")["state"] == "active"
    body = device.assignment()
    assert body.rollout == "gw1-1.1.0"
    assert "gw1-1.1.0" in device.assignment().rollout
    device.run(body)
    body = device.assignment()
    assert body.rollout == "gw1-1.2.0"


def test_a_device_is_in_one_update_at_a_time(desk: Desk) -> None:
    device = desk.rig.device()
    desk.create("gw1-1.1.0", audience="id = d1")
    device.assignment()
    desk.create("gw1-1.2.0", priority=9)
    assert device.assignment().rollout == "gw1-1.2.0"
    desk.create("gw1-1.3.0", audience="rest", priority=1)
    assert device.assignment().rollout == "gw1-1.2.0"
    found = desk.rig.read(lambda conn: hot.updates_of(conn, 1))
    assert sorted(one.state for one in found if one.state in outcomes.OPEN) == ["offered"]


def test_what_a_device_said_of_one_update_is_not_taken_for_why_another_waits(desk: Desk) -> None:
    device = desk.rig.device()
    desk.create("gw1-1.1.0")
    device.tell("staged", device.assignment())
    device.waiting = "wait.manual"
    device.assignment()

    def checks() -> list[str]:
        return [
            one.code for one in desk.rig.read(lambda conn: why.tell(conn, "d1", desk.now)).checks
        ]

    assert "wait.manual" in checks()
    desk.create("gw1-1.2.0")
    desk.tick()
    assert "wait.manual" not in checks()  # it was not heard since
    assert device.assignment().rollout == "gw1-1.2.0"
    assert "wait.manual" not in checks()  # it said so before it knew of the new one
    desk.rig.now += 1
    body = device.assignment()
    assert "wait.manual" in checks()
    device.waiting = ""
    device.run(body)
    # The list and the page of devices do not show it any more, though it says so itself only when it asks next.
    assert desk.rig.read(lambda conn: inquiry.device_row(conn, "d1"))["waiting"] == ""


def test_an_error_keeps_a_rollout_from_being_made(desk: Desk) -> None:
    past = "2020-01-01T00:00:00Z"
    told = preview(desk, "gw1-1.1.0", delivery={"deadline": past})
    assert "lies before the start" in told["lint.deadline_past"]
    with pytest.raises(RequestError, match=r"lint\.deadline_past"):
        desk.create("gw1-1.1.0", delivery={"deadline": past})
