"""What `status` says of a trial: each check with its last word, who asked for it, and what of the device's policy had no say."""

import msgspec
from tests.crash.lab import Device, make_device
from tests.unit.agent.test_runner import tell

from tidegate.agent.checkup.contract import HealthPolicy
from tidegate.agent.runner import Runner
from tidegate.agent.state import Testing as OnTrial
from tidegate.agent.status import describe, lines
from tidegate.core.release import HealthCheck


def on_trial(device: Device) -> Runner:
    for runner in device.run():
        phase = runner.state.phase
        if isinstance(phase, OnTrial) and phase.last:
            return runner
    raise AssertionError("no trial")


def test_a_trial_is_told_check_by_check() -> None:
    device = make_device(1, 2)
    own = HealthCheck(name="site", kind="services")
    policy = HealthPolicy(warmup_s=3000, drop=("core",), checks=(own,))
    device.settings = msgspec.structs.replace(device.settings, health=policy)
    tell(device, "install", 1, "u-1")
    found = describe(on_trial(device))
    told = found["update"]["health"]
    assert [(one["name"], one["ok"], one["by"]) for one in told["checks"]] == [
        ("core", True, "release"),
        ("site", True, "device"),
    ]
    assert (told["warm_up_s"], told["passing"], told["flaps"]) == (3000, True, 0)
    # The release does not call it optional.
    assert (told["left_out"], told["not_left_out"]) == ([], ["core"])
    said = next(line for line in lines(found) if line.startswith("Health"))
    assert said == "Health    2 of 2 checks pass; core is not optional, and stays"
