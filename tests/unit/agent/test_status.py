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


def test_what_is_kept_beside_the_slots_is_told_with_its_release() -> None:
    runner = next(iter(make_device(1).run()))
    found = describe(runner)
    known = {"state": "confirmed", "release_counter": 7, "version": "1.7.0", "sha256": "ab" * 32}
    never = {**known, "state": "empty", "release_counter": 0}
    said = lines({**found, "components": {"app": known, "maps": never}})
    assert [one for one in said if one.startswith("Beside")] == [
        "Beside    app: 1.7.0 (counter 7), confirmed",
        "Beside    maps: never updated",
    ]
    assert not [one for one in lines(found) if one.startswith("Beside")]
