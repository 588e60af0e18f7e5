"""A product with systemd behind GRUB and behind systemd-boot: good images stay, and each thing that can be wrong with one takes it back for that reason.

Every release carries the same health contract, with all kinds of checks in it; a bad image is wrong in one way, and exactly one check may fail. Each device
goes through the updates that were asked for, in the order in which they stand here; devices may be in different lanes.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from _pytest.mark.structures import ParameterSet
from lab import systemd_image
from lab.line import Ended, Line
from lab.plant import Plant, Release
from lab.report import Report
from lab.systemd_device import bite_s, busy, make_efi_device, make_grub_device

from tidegate.core.release import HealthContract
from tidegate.sim.workshop import contract

#: A good image may take as long as a busy machine needs; a bad one is given up soon.
GOOD_TIMEOUT_S: Final = 300
BAD_TIMEOUT_S: Final = 10
#: What is late needs time in which it is not well, and then time in which it is.
LATE_TIMEOUT_S: Final = 16
BAD_TIMEOUT_MAX_S: Final = 120
#: Boots that a loader grants an image of which every try costs time.
TRIES: Final = {"panic": 2, "hang": 1, "agent-hangs": 1}
#: Device, which is also its product, and what is wrong with the image.
Story = tuple[str, str]
GRUB_GOOD: Final[Story] = ("grub", "good")
GRUB_PANIC: Final[Story] = ("grub", "panic")
EFI_GOOD: Final[Story] = ("efi", "good")
EFI_PANIC: Final[Story] = ("efi", "panic")
HANGS: Final[list[Story]] = [("efi", "hang"), ("efi", "agent-hangs")]
#: → the reason that the server is told, and the check that failed.
CHECKS: Final[dict[Story, tuple[str, str]]] = {
    ("grub", "unit"): ("health.boot", "boot"),
    ("grub", "network"): ("health.network", "network"),
    ("grub", "dead"): ("health.service", "services"),
    ("grub-too", "restarts"): ("health.service", "services"),
    ("grub-too", "errors"): ("health.error_rate", "error_rate"),
    ("grub-too", "disk"): ("health.resource", "resource"),
    ("grub-too", "selftest"): ("health.command", "command"),
    ("grub-too", "late"): ("health.timeout", ""),
    ("grub", "memory"): ("health.resource", "resource"),
}
PANIC: Final = "Kernel panic - not syncing: Attempted to kill init"


def promised(server: int, fault: str) -> HealthContract:
    """The contract of every release: all kinds of checks."""
    timeout_s, warmup_s, late_s = GOOD_TIMEOUT_S, 3, 0
    if fault:
        quiet_s = LATE_TIMEOUT_S if fault == "late" else BAD_TIMEOUT_S
        timeout_s = min(BAD_TIMEOUT_MAX_S, int(quiet_s * busy()))
        # Late is when what is left of the time is less than a warm-up, and more than a round of checks.
        warmup_s, late_s = timeout_s * 10 // 16, timeout_s * 9 // 16
    checks: list[dict[str, Any]] = [
        {"type": "boot"},
        {"type": "network", "needs": ["route", f"tcp:10.0.2.2:{server}"]},
        {"type": "services", "units": ["app.service"], "restarts_max": 2},
        {"type": "error_rate", "journal": "err", "units": ["app.service"], "max_per_hour": 10},
        {"type": "resource", "disk": ["/var:4MiB"], "memory": "128MiB"},
        {"type": "command", "run": ["/usr/lib/app/selftest", str(late_s)]},
    ]
    return contract(checks, warmup_s=warmup_s, timeout_s=timeout_s, interval_s=3)


class Lines:
    """The devices of this lane, each with its own product: made when they are asked for, and kept for all of their updates."""

    def __init__(self, folder: Path, plant: Plant, accelerator: str, report: Report) -> None:
        self._folder = folder
        self._plant = plant
        self._accelerator = accelerator
        self._report = report
        self._lines: dict[str, Line] = {}
        self._counters: dict[str, int] = {}
        self._broken: dict[str, BaseException] = {}

    def update(self, story: Story) -> Ended:
        """Let the story's device take its next update. One that did not end leaves the device where nobody knows: it takes no other."""
        group, name = story
        if group in self._broken:
            raise self._broken[group]
        try:
            line = self._line(group)
            with line.device.watched(self._report):
                return line.update(self._release(group, name), TRIES.get(name, 3))
        except BaseException as error:
            self._broken[group] = error
            raise

    def close(self) -> None:
        while self._lines:
            self._lines.popitem()[1].close()

    def _line(self, group: str) -> Line:
        if group in self._lines:
            return self._lines[group]
        self._claim(group)
        installed = self._release(group, "good")
        made = make_efi_device if group == "efi" else make_grub_device
        device = made(
            self._folder / group,
            self._plant,
            group,
            accelerator=self._accelerator,
            installed=installed,
            watchdog_s=bite_s() if group == "efi" else 0,
        )
        mode = "systemd behind " + ("systemd-boot" if group == "efi" else "GRUB")
        line = self._lines[group] = Line(device, self._plant, self._report, mode, installed)
        with device.watched(self._report):
            line.start()
        return line

    def _claim(self, group: str) -> None:
        """Be the only lane that makes this device. Raises FileExistsError where another one has, so that nobody pays for it unknowingly."""
        run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
        if run is not None:
            (self._folder.parents[1] / f"{run}-{group}").mkdir()

    def _release(self, group: str, name: str) -> Release:
        counter = self._counters[group] = self._counters.get(group, 0) + 1
        fault = "" if name == "good" else name
        image = systemd_image.slot(f"1.{counter}.0", fault, kernel=group != "efi")
        health = promised(self._plant.server.port, fault)
        return self._plant.release(counter, image, health, group)


@pytest.fixture(scope="module")
def lines(
    plant: Plant, accelerator: str, report: Report, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lines]:
    """The devices with systemd."""
    made = Lines(tmp_path_factory.mktemp("systemd"), plant, accelerator, report)
    yield made
    made.close()


@pytest.fixture
def ended(request: pytest.FixtureRequest, lines: Lines) -> Ended:
    """How the update of a story ended."""
    return lines.update(request.param)


def told(story: Story, *more: str) -> ParameterSet:
    """A story as a parameter. All of a device stay in one lane (`tests.qemu.lanes`)."""
    return pytest.param(story, *more, id="-".join(story))


def of(*stories: Story) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("ended", [told(one) for one in stories], indirect=True)


@of(GRUB_GOOD)
def test_grub_starts_a_good_image_once_and_it_stays(ended: Ended) -> None:
    assert ended.outcome["kind"] == "confirmed"
    assert f"tidegate: slot={ended.slot} left=02" in ended.console
    assert f"\nORDER={ended.slot} " in ended.record
    assert {f"{ended.slot}_OK=1", f"{ended.slot}_TRY=15"} <= set(ended.record.split())


@of(GRUB_PANIC)
def test_grub_goes_back_from_an_image_that_panics_and_the_panic_comes_home(ended: Ended) -> None:
    assert ended.reason == "boot.counter_exhausted"
    counted = re.findall(rf"tidegate: slot={ended.slot} left=(\d+)$", ended.console, re.MULTILINE)
    assert counted == ["01", "00"]
    assert ended.console.count(PANIC) == 2
    assert {f"{ended.slot}_OK=0", f"{ended.slot}_TRY=00"} <= set(ended.record.split())
    # In memory that outlives a reset (ramoops).
    assert "Attempted to kill init" in ended.log


@of(EFI_GOOD)
def test_systemd_boot_starts_a_good_image_once_and_it_stays(ended: Ended) -> None:
    assert ended.outcome["kind"] == "confirmed"
    entries = _entries(ended)
    highest = max(entries, key=lambda slot: entries[slot][0])
    assert highest == ended.slot
    assert entries[ended.slot][1] == ""
    assert len(ended.boots) == 1


@of(EFI_PANIC)
def test_systemd_boot_counts_an_image_that_panics_down_and_goes_back(ended: Ended) -> None:
    assert ended.reason == "boot.counter_exhausted"
    assert ended.console.count(PANIC) == 2
    assert _entries(ended)[ended.slot][1].startswith("+0")
    # In EFI variables.
    assert "Attempted to kill init" in ended.log


@of(*HANGS)
def test_the_watchdog_ends_what_hangs_and_is_named_for_it(ended: Ended) -> None:
    assert ended.reason == "boot.watchdog"
    assert "Kernel panic" not in ended.console
    hung_early = "INIT hangs" in ended.console
    assert len(ended.boots) == (1 if hung_early else 2)


@pytest.mark.parametrize(
    ("ended", "reason", "check"),
    [told(story, *what) for story, what in CHECKS.items()],
    indirect=["ended"],
)
def test_an_image_with_one_thing_wrong_is_taken_back_for_that_reason(
    ended: Ended, reason: str, check: str
) -> None:
    assert ended.reason == reason, ended.outcome
    assert ended.failed_checks == ({check} if check else set())
    assert "Kernel panic" not in ended.console
    # Once up, once back: no try was lost on the way.
    assert len(ended.boots) == 2


def _entries(ended: Ended) -> dict[str, tuple[int, str]]:
    """Read the names of systemd-boot's entries: slot → number, and what is counted."""
    found = re.findall(r"tidegate-(\d+)-([ab])(\S*)\.conf", ended.record)
    assert len(found) == 2, ended.record
    return {slot.upper(): (int(number), count) for number, slot, count in found}
