"""A product with systemd behind GRUB and behind systemd-boot: good images stay, and each thing that can be wrong with one takes it back for that reason.

Every release carries the same health contract, with all kinds of checks in it; a bad image is wrong in one way, and exactly one check may fail. Two devices
work at a time, each through the updates that were asked for, in the order in which they stand here.
"""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest
from lab import systemd_image
from lab.line import PATIENCE_S, Ended, Line
from lab.plant import Plant, Release
from lab.report import Report
from lab.systemd_device import bite_s, busy, make_efi_device, make_grub_device

from tidegate.core.release import HealthContract
from tidegate.sim.workshop import contract

#: A good image may take as long as a busy machine needs; a bad one is given up soon.
GOOD_TIMEOUT_S: Final = 300
BAD_TIMEOUT_S: Final = 16
BAD_TIMEOUT_MAX_S: Final = 120
#: Boots that a loader grants an image of which every try costs time.
TRIES: Final = {"panic": 2, "hang": 1, "agent-hangs": 1}
#: Device, which is also its product, and what is wrong with the image. The first two of each go to B and back to A.
Story = tuple[str, str]
GRUB_GOOD: Final[Story] = ("grub", "good")
GRUB_PANIC: Final[Story] = ("grub", "panic")
EFI_GOOD: Final[list[Story]] = [("efi", "good"), ("efi", "good-again")]
EFI_PANIC: Final[Story] = ("efi", "panic")
HANGS: Final[list[Story]] = [("efi", "hang"), ("efi", "agent-hangs")]
#: → the reason that the server is told, and the check that failed.
CHECKS: Final[dict[Story, tuple[str, str]]] = {
    ("grub", "unit"): ("health.boot", "boot"),
    ("grub", "network"): ("health.network", "network"),
    ("grub", "dead"): ("health.service", "services"),
    ("grub", "restarts"): ("health.service", "services"),
    ("grub", "errors"): ("health.error_rate", "error_rate"),
    ("grub", "disk"): ("health.resource", "resource"),
    ("grub", "selftest"): ("health.command", "command"),
    ("grub", "late"): ("health.timeout", ""),
    ("efi", "memory"): ("health.resource", "resource"),
}
STORIES: Final = [GRUB_GOOD, GRUB_PANIC, *EFI_GOOD, EFI_PANIC, *HANGS, *CHECKS]
PANIC: Final = "Kernel panic - not syncing: Attempted to kill init"


def promised(server: int, *, good: bool) -> HealthContract:
    """The contract of every release: all kinds of checks."""
    timeout_s = GOOD_TIMEOUT_S if good else min(BAD_TIMEOUT_MAX_S, int(BAD_TIMEOUT_S * busy()))
    # Late is when what is left of the time is less than a warm-up, and more than a round of checks.
    warmup_s, late_s = (3, 0) if good else (timeout_s * 10 // 16, timeout_s * 9 // 16)
    checks: list[dict[str, Any]] = [
        {"type": "boot"},
        {"type": "network", "needs": ["route", f"tcp:10.0.2.2:{server}"]},
        {"type": "services", "units": ["app.service"], "restarts_max": 2},
        {"type": "error_rate", "journal": "err", "units": ["app.service"], "max_per_hour": 10},
        {"type": "resource", "disk": ["/var:4MiB"], "memory": "128MiB"},
        {"type": "command", "run": ["/usr/lib/app/selftest", str(late_s)]},
    ]
    return contract(checks, warmup_s=warmup_s, timeout_s=timeout_s, interval_s=1)


class Lines:
    """Both devices at work in the background, each with its own product."""

    def __init__(self, folder: Path, accelerator: str, report: Report, wanted: set[Story]) -> None:
        self._folder = folder
        self._accelerator = accelerator
        self._report = report
        self._plant = Plant(folder / "plant", ["grub", "efi"])
        self._closing: list[Callable[[], None]] = [self._plant.stop]
        self._pool = ThreadPoolExecutor(2)
        self._ended: dict[Story, Future[Ended]] = {}
        for group in ("grub", "efi"):
            stories = [one for one in STORIES if one[0] == group and one in wanted]
            self._ended |= {one: Future() for one in stories}
            if stories:
                self._pool.submit(self._work, group, stories)

    def ended(self, story: Story) -> Ended:
        """How that update ended; waits for it."""
        return self._ended[story].result(PATIENCE_S * 2)

    def close(self) -> None:
        while self._closing:
            self._closing.pop()()
        self._pool.shutdown(cancel_futures=True)

    def _work(self, group: str, stories: list[Story]) -> None:
        left = list(stories)
        try:
            line = self._line(group)
            self._closing.append(line.close)
            line.start()
            while left:
                name = left[0][1]
                release = self._release(group, len(stories) - len(left) + 2, name)
                ended = line.update(release, TRIES.get(name, 3))
                self._ended[left.pop(0)].set_result(ended)
        except BaseException as error:  # noqa: BLE001 - told by whoever waits
            for story in left:
                self._ended[story].set_exception(error)

    def _line(self, group: str) -> Line:
        installed = self._release(group, 1, "good")
        make = make_grub_device if group == "grub" else make_efi_device
        device = make(
            self._folder / group,
            self._plant,
            group,
            accelerator=self._accelerator,
            installed=installed,
            watchdog_s=bite_s() if group == "efi" else 0,
        )
        mode = "systemd behind " + ("GRUB" if group == "grub" else "systemd-boot")
        return Line(device, self._plant, self._report, mode, installed)

    def _release(self, group: str, counter: int, name: str) -> Release:
        fault = "" if name.startswith("good") else name
        image = systemd_image.slot(f"1.{counter}.0", fault, kernel=group == "grub")
        health = promised(self._plant.server.port, good=not fault)
        return self._plant.release(counter, image, health, group)


@pytest.fixture(scope="module")
def lines(
    request: pytest.FixtureRequest,
    accelerator: str,
    report: Report,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Lines]:
    """The devices, which do what the chosen tests want to know."""
    params = [getattr(one, "callspec", None) for one in request.session.items]
    wanted = {one.params["ended"] for one in params if one is not None and "ended" in one.params}
    made = Lines(tmp_path_factory.mktemp("systemd"), accelerator, report, wanted)
    yield made
    made.close()


@pytest.fixture
def ended(request: pytest.FixtureRequest, lines: Lines) -> Ended:
    """How the update of a story ended."""
    return lines.ended(request.param)


def of(*stories: Story) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("ended", stories, indirect=True, ids="-".join)


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


@of(*EFI_GOOD)
def test_systemd_boot_starts_a_good_image_whichever_slot_it_is_in(ended: Ended) -> None:
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
    [(story, *what) for story, what in CHECKS.items()],
    indirect=["ended"],
    ids=["-".join(story) for story in CHECKS],
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
