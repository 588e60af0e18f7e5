"""The power goes away while U-Boot's environment is written: after every possible part of every write, the real `fw_printenv` reads the old or the new one.

What is recorded here is what the back end asks of the operating system (`pwrite`, `fsync`); what a kernel makes of it is in the block logs.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

import pytest
from tests.crash.blocklog.log import SECTOR, Entry, Flush, Write
from tests.crash.blocklog.states import Disk, Overlay, epochs, states
from tests.ubootenv import SIZE, Tools

from tidegate.agent import bootloaders
from tidegate.agent.ports import Bootloader

pytestmark = pytest.mark.crash

#: Sectors of a write that arrived in any combination, drawn at random.
SCATTERED = 40
VENDOR = {f"vendor{number:02}": "x" * 45 for number in range(60)}
BOARDS: dict[str, dict[str, str]] = {
    "order": {"BOOT_ORDER": "A B", "BOOT_A_LEFT": "2", "BOOT_B_LEFT": "3"},
    "bootcount": {"tidegate_slot": "A", "upgrade_available": "0", "bootcount": "0"},
}
#: An update that is confirmed, one that reverts, and the refill after a healthy start: each one write.
CALLS: tuple[tuple[str, Callable[[Bootloader], None]], ...] = (
    ("refill", lambda loader: loader.commit("A")),
    ("mark bad", lambda loader: loader.mark_bad("B")),
    ("arm", lambda loader: loader.arm_trial("B", 3)),
    ("commit", lambda loader: loader.commit("B")),
    ("mark bad again", lambda loader: loader.mark_bad("A")),
    ("arm again", lambda loader: loader.arm_trial("A", 15)),
    ("revert", lambda loader: loader.mark_bad("A")),
)


@dataclass
class Verdict:
    """What the states of one call were read as."""

    old: int = 0
    new: int = 0
    lost: int = 0


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Entry]:
    """Note what is asked of the operating system."""
    entries: list[Entry] = []
    pwrite, fsync = os.pwrite, os.fsync

    def noting_write(handle: int, data: bytes, at: int) -> int:
        entries.append(Write(at, bytes(data)))
        return pwrite(handle, data, at)

    def noting_sync(handle: int) -> None:
        entries.append(Flush())
        fsync(handle)

    monkeypatch.setattr("os.pwrite", noting_write)
    monkeypatch.setattr("os.fsync", noting_sync)
    return entries


def _loader(tools: Tools, style: str) -> Bootloader:
    settings = {
        "config": str(tools.config),
        "lock": str(tools.lock),
        "style": style,
        "slots": ("A", "B"),
        "current": "A",
        "accept_single_copy": len(tools.offsets) == 1,
    }
    return bootloaders.load("uboot", settings)


def _overlays(writes: Overlay) -> Iterator[Overlay]:
    """Every tear at a sector, and sectors in any combination: a disk promises no order."""
    yield from states(writes)
    random = Random(len(writes))
    for one in writes:
        sectors = range(0, len(one.data), SECTOR)
        for _ in range(SCATTERED):
            yield tuple(
                Write(one.offset + at, one.data[at : at + SECTOR])
                for at in sectors
                if random.random() < 0.5
            )


def _judge(
    tools: Tools, before: bytes, entries: list[Entry], again: Callable[[], None] | None = None
) -> Verdict:
    """Put the disk into every state that the entries may leave, and have it read by the real tool."""
    new = tools.printed()
    tools.disk.write_bytes(before)
    old = tools.printed()
    verdict, disk, seen = Verdict(), Disk(before), set()
    for epoch in epochs(entries):
        disk.apply(epoch.settled)
        for overlay in _overlays(epoch.writes):
            difference = disk.difference(overlay)
            if difference in seen:
                continue
            seen.add(difference)
            with disk.tried(overlay) as image:
                tools.disk.write_bytes(image)
            found = tools.printed()
            verdict.old += found == old
            verdict.new += found == new and new != old
            verdict.lost += found not in (old, new)
            if found is not None and again is not None:
                again()
                assert tools.printed() == new, "repeated after the cut, it is as it was to be"
    return verdict


def _spoil_the_other_copy(tools: Tools) -> None:
    whole, good = tools.disk.read_bytes(), tools.printed()
    for offset in tools.offsets:
        tools.disk.write_bytes(whole[:offset] + b"\xee" * SIZE + whole[offset + SIZE :])
        if tools.printed() == good:
            return
    raise AssertionError("there is only one copy")


def _again(call: Callable[[Bootloader], None], tools: Tools, style: str) -> None:
    call(_loader(tools, style))


@pytest.mark.parametrize("style", BOARDS)
def test_every_part_of_every_write_leaves_the_old_or_the_new_environment(
    tmp_path: Path, written: list[Entry], style: str
) -> None:
    tools = Tools(tmp_path, 2)
    tools.create(BOARDS[style] | VENDOR)
    for name, call in CALLS:
        # Another cut came before: the copy that does not count is rubbish, and every sector of the next write differs from it.
        _spoil_the_other_copy(tools)
        before = tools.disk.read_bytes()
        written.clear()
        call(_loader(tools, style))
        entries, after = list(written), tools.disk.read_bytes()
        changed = before != after
        assert [type(one) for one in entries] == ([Write, Flush] if changed else [Flush]), name
        verdict = _judge(tools, before, entries, partial(_again, call, tools, style))
        assert verdict.lost == 0, name
        if changed:
            assert verdict.old > 40, name
            assert verdict.new == 1, name
        tools.disk.write_bytes(after)
        printed = tools.printed()
        assert printed is not None
        assert VENDOR.items() <= printed.items(), name


def test_a_single_copy_is_lost_which_is_why_it_is_refused(
    tmp_path: Path, written: list[Entry]
) -> None:
    tools = Tools(tmp_path, 1)
    tools.create(BOARDS["order"] | VENDOR)
    before = tools.disk.read_bytes()
    _loader(tools, "order").arm_trial("B", 3)
    verdict = _judge(tools, before, list(written))
    assert verdict.lost > 0
    assert (verdict.old, verdict.new) == (1, 1)
