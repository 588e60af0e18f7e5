"""One update after the other, through the real U-Boot in both styles: what a good image, and each kind of bad one, leads to, and why."""

import random
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from lab import releases, uboot
from lab.device import MARKER, Device, make_uboot_device
from lab.plant import Plant, Release
from lab.report import BRICK, OUTCOME, WRONG_SLOT, Report

MODE = "one update each"
#: Time for a whole update with its way back, on a machine that has other work.
PATIENCE_S = 900.0
TRIES = 3


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
STORIES: list[tuple[str, uboot.Style]] = [
    ("hang", "order"),
    ("panic", "bootcount"),
    ("panic", "order"),
    ("no-kernel", "order"),
    ("good", "order"),
    ("good", "bootcount"),
    ("dead-service", "order"),
    ("errors", "bootcount"),
]


class Stories:
    """Runs the stories that were asked for, two at a time."""

    def __init__(
        self,
        plant: Plant,
        newest: Callable[[str], Release],
        accelerator: str,
        tmp: pytest.TempPathFactory,
        report: Report,
    ) -> None:
        self._plant = plant
        self._newest = newest
        self._accelerator = accelerator
        self._folder = tmp.mktemp("stories")
        self._report = report
        self._pool = ThreadPoolExecutor(2)
        self._runs: dict[tuple[str, str], Future[Ended]] = {}

    def begin(self, wanted: list[tuple[str, uboot.Style]]) -> None:
        new = {fault: self._newest(fault) for fault, _ in wanted}
        for fault, style in wanted:
            self._runs[(fault, style)] = self._pool.submit(self._run, new[fault], fault, style)

    def ended(self, fault: str, style: uboot.Style) -> Ended:
        return self._runs[(fault, style)].result()

    def faults(self) -> set[str]:
        for run in self._runs.values():
            run.result()
        return {fault for fault, _ in self._runs}

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _run(self, new: Release, fault: str, style: uboot.Style) -> Ended:
        name = f"{fault}-{style}"
        was = releases.factory(fault)
        device = make_uboot_device(
            self._folder / name,
            self._plant,
            name,
            style=style,
            accelerator=self._accelerator,
            installed=was,
        )
        machine = device.machine
        try:
            machine.start()
            self._plant.wait_outcome(name, PATIENCE_S)
            # The power goes once more when all is said: the device comes back to where it was.
            device.cut(random.Random(0))
            machine.start()
            machine.expect("^READY")
        finally:
            device.close()
            self._report.boots(MODE, len(re.findall(MARKER, machine.text, re.MULTILINE)))
            self._report.used(machine.cpu_s)
        running = next(one for one in self._plant.devices() if one["id"] == name)
        return Ended(
            device,
            was,
            new,
            self._plant.outcomes(name),
            machine.text,
            int(running["running_counter"]),
        )


@pytest.fixture(scope="module")
def stories(
    request: pytest.FixtureRequest,
    plant: Plant,
    newest: Callable[[str], Release],
    accelerator: str,
    tmp_path_factory: pytest.TempPathFactory,
    report: Report,
) -> Iterator[Stories]:
    made = Stories(plant, newest, accelerator, tmp_path_factory, report)
    chosen = [item for item in request.session.items if item.path == request.path]
    names = {item.name for item in chosen}
    made.begin([one for one in STORIES if any("-".join(one) in name for name in names)])
    yield made
    made.close()


@pytest.mark.parametrize("story", STORIES, ids="-".join)
def test_an_update_ends_as_its_image_deserves_and_tells_why(
    stories: Stories, story: tuple[str, uboot.Style], report: Report
) -> None:
    fault, style = story
    try:
        ended = stories.ended(fault, style)
    except AssertionError:
        report.harm(BRICK)
        raise
    expected = FAULTS[fault]
    _loader_did(ended, expected, style)
    _device_is(ended, expected, report)
    _server_knows(ended, expected, report)
    report.update(expected.reason or "confirmed")


def test_the_server_counted_each_outcome_once(
    stories: Stories, plant: Plant, newest: Callable[[str], Release], report: Report
) -> None:
    for fault in stories.faults():
        told, counted = plant.counted(newest(fault))
        if told != counted:
            report.harm(OUTCOME)
        assert told == counted, fault


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
