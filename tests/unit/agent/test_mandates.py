"""The rollout mandate on a device: a director, however it came by its key, reaches nobody before his turn."""

import pytest
from tests.crash.lab import Device, make_device
from tests.unit.agent.test_runner import forget, live, tell

from tidegate.agent.state import Idle, State
from tidegate.agent.waiting import reasons
from tidegate.core.authority import Mandate, MandateStep
from tidegate.core.mandate import place

SALT = "5a" * 16
DAY = 86_400


def staged(device: Device, *steps: tuple[int, int], counter: int = 2) -> int:
    """Sign a mandate whose steps are told in seconds from now; returns now."""
    now = int(device.plane.clock.wall())
    made = tuple(MandateStep(not_before=now + at, bucket_max=most) for at, most in steps)
    device.plane.mandates = (Mandate(counter=counter, salt=SALT, steps=made),)
    device.plane.publish()
    return now


def mine() -> int:
    step = (MandateStep(not_before=0, bucket_max=1),)
    return place(Mandate(counter=1, salt=SALT, steps=step), "dev-1")


def run(device: Device, seconds: float) -> State:
    """Let it live on for so long; returns what it knows then."""
    state = State()
    for runner in device.run(seconds):
        state = runner.state
        looked = runner.lookout.look()
        device.because = [one.code for one in reasons(state, looked)]  # type: ignore[attr-defined]
    return state


def test_a_device_in_an_open_step_installs() -> None:
    device = make_device(1, 2)
    staged(device, (-10, mine() + 1))
    tell(device, "install", 1, "u-1")
    live(device)
    assert device.plane.outcomes() == [("confirmed", None)]


@pytest.mark.parametrize("most", [1, 100], ids=["one bucket", "up to its own"])
def test_a_device_outside_the_open_step_waits_and_says_so(most: int) -> None:
    device = make_device(1, 2)
    staged(device, (-10, mine() if most > 1 else 1))
    tell(device, "install", 1, "u-1")
    state = run(device, 4000)
    assert isinstance(state.phase, Idle)
    assert device.runs == 1
    assert device.because == ["wait.mandate"]  # type: ignore[attr-defined]
    assert state.refused == ()
    assert state.ended == ()
    assert state.order.seq == device.plane.orders > 1
    assert not [path for path in device.plane.requests if "/blobs/" in path]
    told = [one for one in device.plane.events.values() if one.kind == "security"]
    assert {one.reason for one in told} == {"compat.mandate"}
    assert len(told) <= 2, "at most once an hour"
    assert device.plane.outcomes() == []


def test_it_takes_the_release_when_its_turn_has_come() -> None:
    device = make_device(1, 2)
    staged(device, (-10, 1), (2000, 10_000))
    tell(device, "install", 1, "u-1")
    run(device, 1900)
    assert device.runs == 1
    forget(device)
    live(device)
    assert device.plane.outcomes() == [("confirmed", None)]
    assert device.runs == 2


def test_a_director_that_lies_about_the_time_opens_no_step() -> None:
    device = make_device(1, 2)
    staged(device, (3 * DAY, 10_000))
    device.plane.skew_s = 4 * DAY
    tell(device, "install", 1, "u-1")
    run(device, 4000)
    assert device.runs == 1
    assert not [path for path in device.plane.requests if "/blobs/" in path]


def test_a_way_back_is_not_hindered() -> None:
    device = make_device(1, 2)
    device.plane.floor = 1
    device.plane.publish()
    tell(device, "install", 1, "u-1")
    live(device)
    forget(device)
    staged(device, (DAY, 1), counter=1)
    tell(device, "fallback", 0, "u-2")
    live(device)
    assert device.plane.outcomes() == [("confirmed", None)]
    assert device.runs == 1
