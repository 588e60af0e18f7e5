"""The power goes in the middle of everything: download, install, the boot flag, the loader's own write, first boot, warm-up, confirming, reverting.

Every life is a new device from the factory that takes one update, and whose power goes at several moments of it. QEMU is killed, and the disk loses or tears
what the guest had not flushed. After each cut the device must boot by itself to a whole signed image; in the end the update has ended and its outcome was told
and counted exactly once. `--seed N` does the same cuts again; `-k life-3` one life of them.
"""

import random
import re
import time
from collections.abc import Callable

import pytest
from lab import releases, uboot
from lab.device import MARKER, Device
from lab.machine import SilentError
from lab.plant import Plant, Release
from lab.report import OUTCOME, WRONG_SLOT, Report
from lab.report import WHOLE_SYSTEM as MODE
from tests.qemu import loader
from tests.qemu.moments import (
    CONFIRM,
    CONFIRM_LOST,
    DOWNLOAD,
    FIRST_BOOT,
    FLAG,
    INSTALL,
    LOADER,
    REVERT,
    WARM_UP,
    WAY_BACK,
    Moment,
)

PATIENCE_S = 900.0
_UP = r"^UP slot=(\S+) version=(\S+)"
#: On trial two at most, of the three tries that a trial has. Five or so a life: one more costs a boot, one more life a whole update.
PLANS: list[tuple[str, uboot.Style, list[Moment]]] = [
    (releases.GOOD, "order", [DOWNLOAD, INSTALL, FLAG, LOADER, CONFIRM]),
    (releases.GOOD, "bootcount", [DOWNLOAD, INSTALL, FLAG, FIRST_BOOT, CONFIRM]),
    ("dead-service", "order", [DOWNLOAD, INSTALL, FLAG, REVERT, WAY_BACK]),
    (releases.GOOD, "bootcount", [DOWNLOAD, DOWNLOAD, INSTALL, LOADER, WARM_UP]),
    ("dead-service", "bootcount", [INSTALL, INSTALL, FLAG, FIRST_BOOT, REVERT]),
    # Whether it is kept is decided by this one write, and that is lost.
    (releases.ONE_TRY, "order", [DOWNLOAD, INSTALL, CONFIRM_LOST]),
]
#: Cuts of a life, with the one at its end: some moments have passed when their turn comes.
CUTS_A_LIFE = 5


class Life:
    """One device from the factory to the end of its update."""

    def __init__(
        self, device: Device, plant: Plant, was: Release, new: Release, chance: random.Random, report: Report
    ) -> None:  # fmt: skip
        self.device = device
        self.plant = plant
        self.was, self.new = was, new
        self.chance = chance
        self.report = report
        self.cuts: list[str] = []

    def lead(self, planned: list[Moment]) -> None:
        machine = self.device.machine
        machine.start()
        for moment in planned:
            if not self._wait(moment):
                continue
            loss = self.device.cut(self.chance, all_lost=moment.all_lost)
            self.cuts.append(f"{moment.name} ({loss.unflushed} unflushed, {loss.lost} lost, {loss.torn} torn)")  # fmt: skip
            self.report.cut(MODE, moment.name)
            machine.start()
            self._starts_what_is_whole()
        self.plant.wait_outcome(self.device.name, PATIENCE_S)
        # A while longer, so that an outcome could be told twice; then once more without power.
        time.sleep(2)
        self.device.cut(self.chance)
        self.report.cut(MODE, "at the end")
        machine.start()
        machine.expect("^READY", PATIENCE_S)
        machine.kill()

    def _starts_what_is_whole(self) -> None:
        """After a cut the loader starts a slot by itself, and that slot holds every byte of what was signed."""
        slot = self.device.machine.expect(MARKER, PATIENCE_S)[1]
        wanted = {"A": self.was, "B": self.new}[slot].sha256
        if self.device.image_digest(slot) != wanted:
            self.report.harm(WRONG_SLOT)
            raise AssertionError(f"{self.name}: slot {slot} was started, and is not whole")

    def _wait(self, moment: Moment) -> bool:
        """Return when the moment has come; False when it has passed, or the update has ended."""
        after = re.compile(moment.after, re.MULTILINE)
        passed = re.compile(moment.passed, re.MULTILINE)
        self.device.volume.trap()
        if not self._until(lambda: self._said(after) or self._said(passed)):
            return False
        if not self._said(after):
            return False
        if moment.within_s:
            time.sleep(self.chance.uniform(0.0, moment.within_s))
            return True
        sprung = self.device.volume.trap(*self._places(moment), reads=moment.slot == "read")
        gone = moment.slot and passed
        self._until(lambda: sprung.is_set() or bool(gone and self._said(gone)))
        return sprung.is_set()

    def _places(self, moment: Moment) -> list[tuple[int, int]]:
        """Return where the write or read that the moment waits for will be."""
        volume, layout = self.device.volume, self.device.layout
        if moment.slot:
            skipped = int(self.chance.uniform(0.02, 0.9) * self.new.image.stat().st_size)
            return [(layout.start(3) + skipped, layout.size(3) - skipped)]
        if moment.loader:
            return [(layout.start(1), layout.size(1))]
        return [(at, uboot.ENV_BYTES) for at in loader.find_copies(volume.image, layout)]

    def _said(self, pattern: re.Pattern[str]) -> bool:
        """Say whether the console holds that, since the power came back."""
        console = self.device.machine.text.rpartition("--- power on")[2]
        return pattern.search(console) is not None

    def _until(self, condition: Callable[[], bool]) -> bool:
        """Wait for something; False when the update's outcome was told first."""
        until = time.monotonic() + PATIENCE_S
        look = time.monotonic() + 1
        while not condition():
            now = time.monotonic()
            if now > until:
                tail = self.device.machine.text[-3000:]
                raise SilentError(f"{self.name} stands still: {tail}")
            if now > look:
                look = now + 1
                if self.plant.known(self.device.name) and self.plant.outcomes(self.device.name):
                    return False
            time.sleep(0.02)
        return True

    @property
    def name(self) -> str:
        return f"{self.device.name}: {', '.join(self.cuts) or 'no cut yet'}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "number" in metafunc.fixturenames:
        count = max(1, -(-metafunc.config.getoption("--cuts") // CUTS_A_LIFE))
        metafunc.parametrize("number", range(count), ids=[f"life-{one}" for one in range(count)])


def test_a_device_survives_every_cut(
    make_device: Callable[..., Device],
    plant: Plant,
    newest: Callable[[str], Release],
    number: int,
    seed: int,
    report: Report,
) -> None:
    kind, style, planned = PLANS[number % len(PLANS)]
    new, was = newest(kind), releases.factory(kind)
    device = make_device(MODE, f"life-{number}", style, was)
    life = Life(device, plant, was, new, random.Random(f"{seed} {number}"), report)
    with device.watched(report):
        life.lead(planned)
    console = device.machine.text
    outcomes = plant.outcomes(device.name)
    if len(outcomes) != 1:
        report.harm(OUTCOME)
    assert len(outcomes) == 1, f"{life.name}: {outcomes}"
    ending, reason = outcomes[0]["kind"], outcomes[0]["reason"]
    report.update(reason or ending)

    # Every start led to a slot that the loader named, with the image that belongs there.
    contents = {"A": was, "B": new}
    for slot, version in re.findall(_UP, console, re.MULTILINE):
        if contents[slot].version != version:
            report.harm(WRONG_SLOT)
        assert contents[slot].version == version, life.name
    slot, _ = re.findall(_UP, console, re.MULTILINE)[-1]
    wanted = "B" if ending == "confirmed" else "A"
    if slot != wanted:
        report.harm(WRONG_SLOT)
    assert slot == wanted, f"{life.name}: it told that it {ending}, and runs slot {slot}"
    assert device.image_digest(slot) == contents[slot].sha256, life.name
    assert device.image_digest("A") == was.sha256, life.name

    # A good image is given up only when the cuts spent its tries; a bad one never stays.
    spent = re.findall(r"^tidegate: pick=B .*(?:B=0|trial=1)$", console, re.MULTILINE)
    if kind in (releases.GOOD, releases.ONE_TRY):
        assert ending == "confirmed" or (reason == "boot.counter_exhausted" and spent), life.name
    else:
        assert (ending, reason) in {
            ("reverted", "health.service"),
            ("reverted", "boot.counter_exhausted"),
        }, life.name
    running = next(one for one in plant.devices() if one["id"] == device.name)
    assert int(running["running_counter"]) == contents[slot].counter, life.name
    told, counted = plant.counted(new)
    if told != counted:
        report.harm(OUTCOME)
    assert told == counted, life.name
