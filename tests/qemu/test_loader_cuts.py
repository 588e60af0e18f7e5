"""The real U-Boot and nothing behind it: the agent's own code writes the environment into the image, the loader reads and counts, and the power goes.

Each round writes one change through the shipped back end (what that had not flushed when it returned is lost; half of the time the write is torn at a
sector), starts U-Boot, and takes the power at one of
three moments: at its marker, at random, or in its own write of the environment. After each, the environment is what it was before or what it was to
become, and the loader started the slot that follows from it. `--seed N` does the same rounds again.
"""

import os
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from lab import images, uboot
from lab.device import MARKER
from lab.machine import Hardware, Machine, SilentError
from lab.report import BRICK, SILENT, WRONG_SLOT, Report
from lab.report import LOADER_ALONE as MODE
from lab.volume import SECTOR, Volume
from tests.qemu import loader

from tidegate.agent.bootloaders import load
from tidegate.agent.ports import Bootloader

LAYOUT = images.Layout(boot=16, slot=1, data=1)
LOADER_S = 60.0
_CHANGES = {
    "good": ("arm", "arm", "commit", "mark bad", "nothing"),
    "trial": ("commit", "give up", "nothing"),
    "bad": ("nothing",),
}


class Cache:
    """What a disk holds that was told to flush, and what it may lose: writes of this process, as the back end makes and flushes them."""

    def __init__(self) -> None:
        self._unflushed: dict[int, list[tuple[Path, int, bytes]]] = {}
        self._real = os.pwrite
        self._patch = pytest.MonkeyPatch()
        self.lost: list[tuple[Path, int, bytes]] = []

    def __enter__(self) -> Self:
        self._patch.setattr(os, "pwrite", self._write)
        self._patch.setattr(os, "fsync", self._flush)
        self._patch.setattr(os, "fdatasync", self._flush)
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()
        self.lost = [one for writes in self._unflushed.values() for one in reversed(writes)]

    def _write(self, handle: int, data: bytes | memoryview, offset: int) -> int:
        old = os.pread(handle, memoryview(data).nbytes, offset)
        path = Path(f"/proc/self/fd/{handle}").readlink()
        self._unflushed.setdefault(handle, []).append((path, offset, old))
        return self._real(handle, data, offset)

    def _flush(self, handle: int) -> None:
        self._unflushed.pop(handle, None)


class Bench:
    """A disk with nothing but an environment, and a machine that has nothing to boot."""

    def __init__(self, folder: Path, style: uboot.Style, accelerator: str) -> None:
        self.style = style
        disk = folder / "disk"
        files = uboot.boot_files(style)
        images.make_disk(disk, layout=LAYOUT, boot=files, slots=(None, None), data={})
        self.disk = disk
        self.volume = Volume(disk, folder / "s")
        hardware = Hardware(
            firmware=("-bios", str(uboot.rom(style))), accelerator=accelerator, network=False
        )
        self.machine = Machine(hardware, self.volume, folder / "console.log")
        self.copies = loader.find_copies(disk, LAYOUT)

    def variables(self) -> loader.Variables | None:
        self.copies = loader.find_copies(self.disk, LAYOUT)
        return loader.counting(self.disk, self.copies)

    def back_end(self, running: str) -> Bootloader:
        """The shipped back end over the image itself."""
        env = [f"{self.disk} {at:#x} {uboot.ENV_BYTES:#x}" for at in self.copies]
        lock = str(self.disk.with_name("lock"))
        settings = {"slots": ["A", "B"], "current": running, "env": env, "lock": lock}
        return load("uboot", {**settings, "style": self.style})

    def change(self, running: str, chance: random.Random) -> str:
        """Make one change as the agent would, half of the time torn. Returns what it was.

        On trial, the running slot is kept or given up, and one that was given up waits for its restart; else the other one is written anew and armed.
        """
        before = [images.read(self.disk, at, uboot.ENV_BYTES) for at in self.copies]
        other = "B" if running == "A" else "A"
        back_end = self.back_end(running)
        what = chance.choice(_CHANGES[back_end.state(running)])
        with Cache() as cache:
            match what:
                case "arm":
                    back_end.arm_trial(other, chance.randint(1, 4))
                case "commit":
                    back_end.commit(running)
                case "mark bad":
                    back_end.mark_bad(other)
                case "give up":
                    back_end.mark_bad(running)
                case _:
                    return what
        wanted = self.variables()
        for path, at, old in cache.lost:
            with path.open("r+b") as file:
                file.seek(at)
                file.write(old)
        kept = self.variables()
        assert wanted is not None
        assert kept is not None
        assert loader.same(kept, wanted), f"{what} had returned, and was lost with the power"
        if chance.random() < 0.5:
            return what
        with self.disk.open("r+b") as file:
            for at, old in zip(self.copies, before, strict=True):
                new = images.read(self.disk, at, uboot.ENV_BYTES)
                if new != old:
                    keep = chance.randrange(uboot.ENV_BYTES // SECTOR + 1) * SECTOR
                    torn = (new[:keep] + old[keep:]) if chance.random() < 0.5 else (old[:keep] + new[keep:])  # fmt: skip
                    file.seek(at)
                    file.write(torn)
        return f"{what}, torn"


@pytest.fixture(params=uboot.STYLES)
def bench(
    request: pytest.FixtureRequest, tmp_path: Path, accelerator: str, report: Report
) -> Iterator[Bench]:
    made = Bench(tmp_path, request.param, accelerator)
    yield made
    made.machine.kill()
    report.used(made.machine.cpu_s)
    made.volume.close()


def test_the_environment_is_old_or_new_whenever_the_power_goes(
    bench: Bench, request: pytest.FixtureRequest, seed: int, report: Report
) -> None:
    chance = random.Random(seed)
    rounds = -(-request.config.getoption("--loader-cuts") // len(uboot.STYLES))
    running = "A"
    for number in range(rounds):
        running = _round(bench, chance, running, f"seed {seed}, round {number}", report)


def _round(bench: Bench, chance: random.Random, running: str, name: str, report: Report) -> str:
    """One change and one cut; returns which slot would run now."""
    old = bench.variables()
    assert old is not None
    what = bench.change(running, chance)
    begun = bench.variables()
    if begun is None:
        report.harm(BRICK)
    assert begun is not None, f"{name}: {what} lost the environment"
    _boot_and_cut(bench, chance, report)
    picks = _decisions(bench.machine.text.rpartition("--- power on")[2])
    expected, states = begun, [begun]
    for slot, line in picks:
        pick, expected = loader.started(bench.style, expected)
        while pick == "none":
            pick, expected = loader.started(bench.style, expected)
        if pick != slot:
            report.harm(WRONG_SLOT)
        assert pick == slot, f"{name}: after {what} the loader started {slot}{line}: {begun}"
        states = [expected]
    states += loader.written(bench.style, expected)
    left = bench.variables()
    if left is None:
        report.harm(BRICK)
    assert left is not None, f"{name}: the loader's own write lost the environment"
    assert any(loader.same(left, one) for one in states), f"{name}: {what}: {left} of {states}"
    return picks[-1][0] if picks else running


def _decisions(console: str) -> list[tuple[str, str]]:
    """Return what the loader decided at each of its starts. What it tries after that, since no slot holds a kernel here, is no decision of the environment."""
    starts = re.split(r"^U-Boot \d", console, flags=re.MULTILINE)[1:]
    found = (re.search(MARKER, one, re.MULTILINE) for one in starts)
    return [(one[1], one[2]) for one in found if one is not None]


def _boot_and_cut(bench: Bench, chance: random.Random, report: Report) -> None:
    moment = chance.choice(loader.MOMENTS)
    machine = bench.machine
    if moment == loader.IN_ITS_WRITE:
        sprung = bench.volume.trap((LAYOUT.start(1), LAYOUT.size(1)))
        machine.start()
        # A confirmed slot is not counted in style bootcount, so that nothing is written: the marker comes instead.
        until = time.monotonic() + LOADER_S
        while not sprung.wait(0.02) and time.monotonic() < until:
            if re.search(MARKER, machine.text.rpartition("--- power on")[2], re.MULTILINE):
                break
    else:
        machine.start()
        if moment == loader.AT_RANDOM:
            time.sleep(chance.uniform(0.0, 0.6))
        else:
            try:
                machine.expect(MARKER, LOADER_S)
            except SilentError:
                report.harm(SILENT)
                raise
    machine.kill()
    bench.volume.cut(chance)
    report.boots(MODE)
    report.cut(MODE, moment)
