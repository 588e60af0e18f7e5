"""The server offers nothing that a device would refuse, and says for each why."""

from typing import Any

import pytest
from tests.unit.server.rig import Rig
from tests.unit.server.test_rollouts_admin import OLGA, Desk

from tidegate.core.hardware import HardwareRange
from tidegate.core.release import Component, Requirement
from tidegate.server import why

IMAGE = "ab" * 32
NEEDS = (Requirement(component="mcu", counter_min=40, sha256=(IMAGE,)),)


@pytest.mark.parametrize(
    ("says", "code"),
    [
        ({"hardware": (HardwareRange("gw1", 2, 7),)}, "compat.hardware"),
        ({"hardware": (HardwareRange("gw1", 0, 7, (1,)),)}, "compat.hardware"),
        ({"channels": ("pilot",)}, "compat.channel"),
        ({"from_counters": ((1, 1),)}, "compat.waypoint"),
        ({"min_agent": "999"}, "compat.agent"),
        ({"requires": NEEDS}, "compat.requires"),
    ],
)
def test_what_does_not_fit_is_not_offered_and_why_says_so(
    rig: Rig, says: dict[str, Any], code: str
) -> None:
    rig.publish_trust()
    device = rig.device()
    desk = Desk(rig)
    rig.release(2, **says)
    desk.create("gw1-1.2.0")
    assert device.assignment().action == "none"
    told = rig.read(lambda conn: why.tell(conn, "d1", desk.now))
    assert next(one.code for one in told.checks if not one.ok) == code
    data = {"preset": "lab", "release": "gw1-1.2.0", "ring": [{"name": "all"}], "name": "again"}
    reach = desk.operations.preview(data, OLGA, desk.now)
    assert [(one.code, one.count) for one in reach.skipped] == [(code, 1)]


def test_a_device_that_has_what_is_required_is_offered_the_release(rig: Rig) -> None:
    rig.publish_trust()
    device = rig.device()
    rig.release(1, requires=NEEDS)
    desk = Desk(rig)
    desk.create()
    for components in (
        {"mcu": Component(counter=40)},
        {"mcu": Component(counter=39, sha256=IMAGE)},
        {"mcu": Component(counter=40, sha256="cd" * 32)},
        {"radio": Component(counter=40, sha256=IMAGE)},
    ):
        assert device.assignment(components=components).action == "none"
    fits = {"mcu": Component(counter=40, sha256=IMAGE)}
    assert device.assignment(components=fits).action == "install"
    told = rig.read(lambda conn: why.tell(conn, "d1", desk.now))
    assert "compat.requires" not in [one.code for one in told.checks]
