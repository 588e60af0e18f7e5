"""One update after the other, through the real U-Boot in both styles: what a good image, and each kind of bad one, leads to, and why."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from lab import releases, uboot
from lab.device import MARKER, Device
from lab.plant import Plant, Release
from lab.report import OUTCOME, WRONG_SLOT, Report

MODE = "one update each"
#: Time for a whole update with its way back, on a machine that has other work.
PATIENCE_S = 900.0
TRIES = releases.TRIES


@dataclass(frozen=True)
class Ended:
    """What there is to judge when a device has told how its update ended, and was switched off and on again."""

    device: Device
    was: Release
    new: Release
    outcomes: list[dict[str, Any]]
    console: str
    running: int

    @property
    def picks(self) -> list[str]:
        """The slots that the loader started, in order."""
        return [found[0] for found in re.findall(MARKER, self.console, re.MULTILINE)]

    def count(self, text: str) -> int:
        """Count lines of the console that hold a text."""
        return sum(text in line for line in self.console.splitlines())


@dataclass(frozen=True)
class Fault:
    """What an image of this kind must lead to.

    Attributes:
        reason: what the device reports; empty: it confirms.
        shown: what the console shows, and how often.
        boots: how often the loader starts the candidate before the device goes back.
    """

    reason: str
    shown: dict[str, int]
    boots: int


FAULTS = {
    "good": Fault("", {"Kernel panic": 0, "softdog: Initiating": 0, "did not start": 0}, 1),
    "panic": Fault("boot.counter_exhausted", {"Kernel panic - not syncing: Attempted to kill init": TRIES}, TRIES),
    "hang": Fault("boot.counter_exhausted", {"softdog: Initiating system reboot": TRIES, "INIT hangs": TRIES}, TRIES),
    "no-kernel": Fault("boot.counter_exhausted", {"tidegate: slot B did not start": TRIES}, TRIES),
    "dead-service": Fault("health.service", {"APP cannot start": 1, "Kernel panic": 0}, 1),
    "errors": Fault("health.error_rate", {"Kernel panic": 0}, 1),
}  # fmt: skip
#: What both styles do with a good image is told by the lives of test_power_cuts, too.
STORIES: list[tuple[str, uboot.Style]] = [
    ("hang", "order"),
    ("panic", "bootcount"),
    ("no-kernel", "order"),
    ("good", "order"),
    ("dead-service", "order"),
    ("errors", "bootcount"),
]


@pytest.mark.parametrize("story", STORIES, ids="-".join)
def test_an_update_ends_as_its_image_deserves_and_tells_why(
    make_device: Callable[..., Device],
    plant: Plant,
    newest: Callable[[str], Release],
    story: tuple[str, uboot.Style],
    report: Report,
) -> None:
    fault, style = story
    new, was, name = newest(fault), releases.factory(fault), "-".join(story)
    device = make_device(MODE, name, style, was)
    with device.watched(report):
        device.machine.start()
        plant.wait_outcome(name, PATIENCE_S)
        # The power goes once more when all is said: the device comes back to where it was.
        device.cut(random.Random(0))
        device.machine.start()
        device.machine.expect("^READY")
    device.machine.kill()
    running = next(one for one in plant.devices() if one["id"] == name)
    counter = int(running["running_counter"])
    ended = Ended(device, was, new, plant.outcomes(name), device.machine.text, counter)
    expected = FAULTS[fault]
    _loader_did(ended, expected, style)
    _device_is(ended, expected, report)
    _server_knows(ended, expected, report)
    told, counted = plant.counted(new)
    if told != counted:
        report.harm(OUTCOME)
    assert told == counted
    report.update(expected.reason or "confirmed")


def _loader_did(ended: Ended, expected: Fault, style: uboot.Style) -> None:
    """The loader started the candidate as often as it deserved, and spent its tries one by one."""
    assert ended.picks[0] == "A"
    assert ended.picks.count("B") == expected.boots + (1 if not expected.reason else 0)
    if style == "order":
        left = re.findall(r"^tidegate: pick=B .* B=(\d)$", ended.console, re.MULTILINE)
        wanted = [str(TRIES - 1 - number) for number in range(expected.boots)]
    else:
        left = re.findall(r"^tidegate: pick=B count=(\d) .*trial=1$", ended.console, re.MULTILINE)
        wanted = [str(number + 1) for number in range(expected.boots)]
        gave_up = expected.reason == "boot.counter_exhausted"
        assert ended.count("tidegate: slot B is given up") == int(gave_up)
    assert left[: expected.boots] == wanted
    for text, times in expected.shown.items():
        assert ended.count(text) == times, text


def _device_is(ended: Ended, expected: Fault, report: Report) -> None:
    """After all that, and after one more power cut, it runs what it should, and slot A was never touched."""
    slot = "A" if expected.reason else "B"
    came_up = re.findall(r"^UP slot=(\S+) version=(\S+)", ended.console, re.MULTILINE)
    wanted = ended.was if expected.reason else ended.new
    if came_up[-1] != (slot, wanted.version) or ended.picks[-1] != slot:
        report.harm(WRONG_SLOT)
    assert came_up[-1] == (slot, wanted.version)
    assert ended.device.image_digest(slot) == wanted.sha256
    assert ended.device.image_digest("A") == ended.was.sha256


def _server_knows(ended: Ended, expected: Fault, report: Report) -> None:
    """One outcome, told once, counted once, with its reason."""
    kind = "reverted" if expected.reason else "confirmed"
    told = [(one["kind"], one["reason"] or "") for one in ended.outcomes]
    if len(told) != 1:
        report.harm(OUTCOME)
    assert told == [(kind, expected.reason)]
    assert ended.running == (ended.was if expected.reason else ended.new).counter
