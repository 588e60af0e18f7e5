"""A device's own rules hold whatever its director orders: each refused under its own code, before a byte is fetched."""

from typing import Any

import msgspec
import pytest
from tests.crash.lab import make_device
from tests.crash.releases import make_release
from tests.unit.agent.test_runner import live, tell

from tidegate.core.hardware import HardwareRange
from tidegate.core.release import Component, Requirement

IMAGE = "ab" * 32


def needs(*digests: str) -> tuple[Requirement, ...]:
    return (Requirement(component="mcu", counter_min=40, sha256=digests),)


@pytest.mark.parametrize(
    ("says", "code"),
    [
        ({"hardware": (HardwareRange("gw1", 4, 7),)}, "compat.hardware"),
        ({"hardware": (HardwareRange("gw1", 2, 7, (3,)),)}, "compat.hardware"),
        ({"channels": ("pilot",)}, "compat.channel"),
        ({"from_counters": ((2, 9),)}, "compat.waypoint"),
        ({"min_agent": "999"}, "compat.agent"),
        ({"requires": (Requirement(component="mcu", counter_min=41),)}, "compat.requires"),
        ({"requires": (Requirement(component="radio", counter_min=1),)}, "compat.requires"),
        ({"requires": needs("cd" * 32)}, "compat.requires"),
        ({"requires": needs("cd" * 32, IMAGE)}, None),
        ({"from_counters": ((1, 1),)}, None),
    ],
)
def test_a_director_cannot_talk_a_device_into_what_does_not_fit(
    says: dict[str, Any], code: str | None
) -> None:
    device = make_device(1, 2)
    device.plane.releases = (device.plane.releases[0], make_release(2, **says))
    device.plane.publish()
    device.board.truth.behaviours.clear()
    device.settings = msgspec.structs.replace(
        device.settings, components={"mcu": Component(counter=40, sha256=IMAGE)}
    )
    tell(device, "install", 1, "u-1")
    live(device)
    if code is None:
        assert device.plane.outcomes() == [("confirmed", None)]
        return
    assert device.plane.outcomes() == [("failed", code)]
    assert device.runs == 1
    assert not [path for path in device.plane.requests if "/blobs/" in path]
