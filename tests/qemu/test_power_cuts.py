"""The power goes in the middle of everything: download, install, the boot flag, the loader's own write, first boot, warm-up, confirming, reverting.

Every life is a new device from the factory that takes one update, and whose power goes at several moments of it. QEMU is killed, and the disk loses or tears
what the guest had not flushed. After each cut the device must boot by itself to a whole signed image; in the end the update has ended and its outcome was told
and counted exactly once. `--seed N` does the same cuts again; `-k life-3` one life of them.
"""

import random
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from lab import releases, uboot
from lab.device import MARKER, Device, make_uboot_device
from lab.machine import SilentError
from lab.plant import Plant, Release
from lab.report import BRICK, OUTCOME, WRONG_SLOT, Report

MODE = "whole system"
PATIENCE_S = 900.0
_UP = r"^UP slot=(\S+) version=(\S+)"


@dataclass(frozen=True)
class Moment:
    """When the power goes.

    Attributes:
        after: what the console has to say first; a phase is said up to a quarter of a second after it was entered.
        within_s: at random in this long after that; 0: at the next write of the boot partition, which hangs then, neither durable nor lost.
        passed: what the console says when it is too late for this moment; the next one is waited for then.
    """

    name: str
    after: str
    within_s: float
    passed: str = r"^UP slot=B"


DOWNLOAD = Moment("download", r"^PHASE downloading", 6.0)
INSTALL = Moment("install", r"^PHASE installing", 3.0)
FLAG = Moment("boot flag", r"^PHASE (installing|staged)", 0.0)
LOADER = Moment("loader's write", r"RESTART asked for", 0.0)
FIRST_BOOT = Moment("first boot", MARKER.replace("[AB]", "B"), 4.0, r"^PHASE testing")
WARM_UP = Moment("warm-up", r"^PHASE testing", 2.0, r"^PHASE idle")
CONFIRM = Moment("confirming", r"^PHASE testing", 0.0, r"^PHASE idle")
REVERT = Moment("reverting", r"^PHASE testing", 0.0, r"^PHASE idle")
WAY_BACK = Moment("way back", r"^UP slot=B(?s:.*)RESTART asked for", 5.0, r"^PHASE idle")
#: Three or four a life; on trial two at most, of the three tries that a trial has.
PLANS: list[tuple[str, uboot.Style, list[Moment]]] = [
    ("good", "order", [DOWNLOAD, FLAG, LOADER, CONFIRM]),
    ("good", "bootcount", [INSTALL, FLAG, FIRST_BOOT, CONFIRM]),
    ("dead-service", "order", [DOWNLOAD, FLAG, REVERT, WAY_BACK]),
    ("good", "order", [INSTALL, LOADER, FIRST_BOOT, WARM_UP]),
    ("good", "bootcount", [DOWNLOAD, LOADER, WARM_UP, CONFIRM]),
    ("dead-service", "bootcount", [INSTALL, FLAG, FIRST_BOOT, REVERT]),
    ("good", "order", [DOWNLOAD, DOWNLOAD, INSTALL, CONFIRM]),
    ("good", "bootcount", [DOWNLOAD, INSTALL, FLAG, LOADER]),
]


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
        self._boots = 0

    def lead(self, moments: list[Moment]) -> None:
        machine = self.device.machine
        machine.start()
        for moment in moments:
            if not self._wait(moment):
                continue
            loss = self.device.cut(self.chance)
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
        try:
            slot = self.device.machine.expect(MARKER, PATIENCE_S)[1]
        except SilentError:
            self.report.harm(BRICK)
            raise
        wanted = {"A": self.was, "B": self.new}[slot].sha256
        if self.device.image_digest(slot) != wanted:
            self.report.harm(WRONG_SLOT)
            raise AssertionError(f"{self.name}: slot {slot} was started, and is not whole")

    def _wait(self, moment: Moment) -> bool:
        """Return when the moment has come; False when it has passed, or the update has ended."""
        after = re.compile(moment.after, re.MULTILINE)
        passed = re.compile(moment.passed, re.MULTILINE)
        if not self._until(lambda: self._said(after) or self._said(passed)):
            return False
        if not self._said(after):
            return False
        if moment.within_s:
            time.sleep(self.chance.uniform(0.0, moment.within_s))
            return True
        layout = self.device.layout
        sprung = self.device.volume.trap(layout.start(1), layout.size(1))
        return self._until(sprung.is_set)

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
                raise AssertionError(f"{self.name} stands still: {tail}")
            if now > look:
                look = now + 1
                if self.plant.known(self.device.name) and self.plant.outcomes(self.device.name):
                    return False
            time.sleep(0.02)
        return True

    @property
    def name(self) -> str:
        return f"{self.device.name}: {', '.join(self.cuts) or 'no cut yet'}"


class Lives:
    """Leads lives two at a time."""

    def __init__(
        self,
        plant: Plant,
        newest: Callable[[str], Release],
        accelerator: str,
        tmp: pytest.TempPathFactory,
        report: Report,
        seed: int,
    ) -> None:
        self._plant = plant
        self._newest = newest
        self._accelerator = accelerator
        self._folder = tmp.mktemp("lives")
        self._report = report
        self._seed = seed
        self._pool = ThreadPoolExecutor(2)
        self._runs: dict[int, Future[Life]] = {}

    def begin(self, numbers: list[int]) -> None:
        for number in numbers:
            new = self._newest(PLANS[number % len(PLANS)][0])
            self._runs[number] = self._pool.submit(self._lead, new, number)

    def led(self, number: int) -> Life:
        return self._runs[number].result()

    def faults(self) -> set[str]:
        for run in self._runs.values():
            run.result()
        return {PLANS[number % len(PLANS)][0] for number in self._runs}

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _lead(self, new: Release, number: int) -> Life:
        fault, style, moments = PLANS[number % len(PLANS)]
        was = releases.factory(fault)
        device = make_uboot_device(
            self._folder / f"life-{number}",
            self._plant,
            f"life-{number}",
            style=style,
            accelerator=self._accelerator,
            installed=was,
        )
        chance = random.Random(f"{self._seed} {number}")
        life = Life(device, self._plant, was, new, chance, self._report)  # fmt: skip
        try:
            life.lead(moments)
        finally:
            device.close()
            self._report.used(device.machine.cpu_s)
            self._report.boots(MODE, len(re.findall(MARKER, device.machine.text, re.MULTILINE)))
        return life


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "number" in metafunc.fixturenames:
        # Three or four cuts a life, and one at its end; some moments have passed when their turn comes.
        count = max(1, -(-metafunc.config.getoption("--cuts") // 4))
        metafunc.parametrize("number", range(count), ids=[f"life-{one}" for one in range(count)])


@pytest.fixture(scope="module")
def lives(
    request: pytest.FixtureRequest,
    plant: Plant,
    newest: Callable[[str], Release],
    accelerator: str,
    tmp_path_factory: pytest.TempPathFactory,
    report: Report,
) -> Iterator[Lives]:
    given = request.config.getoption("--seed")
    seed = given if given is not None else random.SystemRandom().randrange(1 << 31)
    report.seed(f"seed of {MODE}: {seed}")
    made = Lives(plant, newest, accelerator, tmp_path_factory, report, seed)
    names = [item.name for item in request.session.items if item.path == request.path]
    made.begin([int(name.rpartition("life-")[2].rstrip("]")) for name in names if "life-" in name])
    yield made
    made.close()


def test_a_device_survives_every_cut(lives: Lives, number: int, report: Report) -> None:
    try:
        life = lives.led(number)
    except AssertionError:
        report.harm(BRICK)
        raise
    device, console = life.device, life.device.machine.text
    outcomes = life.plant.outcomes(device.name)
    if len(outcomes) != 1:
        report.harm(OUTCOME)
    assert len(outcomes) == 1, f"{life.name}: {outcomes}"
    kind, reason = outcomes[0]["kind"], outcomes[0]["reason"]
    report.update(reason or kind)

    # Every start led to a slot that the loader named, with the image that belongs there.
    contents = {"A": life.was, "B": life.new}
    for slot, version in re.findall(_UP, console, re.MULTILINE):
        if contents[slot].version != version:
            report.harm(WRONG_SLOT)
        assert contents[slot].version == version, life.name
    slot, _ = re.findall(_UP, console, re.MULTILINE)[-1]
    wanted = "B" if kind == "confirmed" else "A"
    if slot != wanted:
        report.harm(WRONG_SLOT)
    assert slot == wanted, life.name
    assert device.image_digest(slot) == contents[slot].sha256, life.name
    assert device.image_digest("A") == life.was.sha256, life.name

    # A good image is given up only when the cuts spent its tries; a bad one never stays.
    spent = re.findall(r"^tidegate: pick=B .*(?:B=0|trial=1)$", console, re.MULTILINE)
    if life.new.product == releases.product(releases.GOOD):
        assert kind == "confirmed" or (reason == "boot.counter_exhausted" and spent), life.name
    else:
        assert (kind, reason) in {
            ("reverted", "health.service"),
            ("reverted", "boot.counter_exhausted"),
        }, life.name
    running = next(one for one in life.plant.devices() if one["id"] == device.name)
    assert int(running["running_counter"]) == contents[slot].counter, life.name


def test_the_server_counted_each_outcome_once(
    lives: Lives, plant: Plant, newest: Callable[[str], Release], report: Report
) -> None:
    for fault in lives.faults():
        told, counted = plant.counted(newest(fault))
        if told != counted:
            report.harm(OUTCOME)
        assert told == counted, fault
