"""The power goes away before each thing that a boot loader's back end does to the world: what starts then is what would have started before or after.

Every back end with a rig is cut here, those included whose change is several steps (EFI variables, calls of a board's program). What a disk makes of one
write in flight is in the block logs; that a back end has only one in flight is asserted here.
"""

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from unittest.mock import patch

import pytest
from tests.contract.rig import SLOTS, Rig
from tests.contract.test_bootloader import NAMES

from tidegate.agent.boot import tool as boot_tool
from tidegate.agent.boot.inplace import SECTOR
from tidegate.agent.ports import Bootloader, PowerCut
from tidegate.core.errors import DeviceError

pytestmark = pytest.mark.crash

#: An update that is confirmed, one that reverts, and the refill after it. Each is made from the slot that runs then.
CALLS: tuple[tuple[str, str, Callable[[Bootloader], None]], ...] = (
    ("mark B bad", "A", lambda loader: loader.mark_bad("B")),
    ("arm B", "A", lambda loader: loader.arm_trial("B", 2)),
    ("commit B", "B", lambda loader: loader.commit("B")),
    ("mark A bad", "B", lambda loader: loader.mark_bad("A")),
    ("arm A", "B", lambda loader: loader.arm_trial("A", 1)),
    ("revert A", "B", lambda loader: loader.mark_bad("A")),
    ("commit B again", "B", lambda loader: loader.commit("B")),
    ("commit A unasked", "B", lambda loader: loader.commit("A")),
    ("mark the primary bad", "A", lambda loader: loader.mark_bad("A")),
)
POWER_ONS = 5
#: What may start where a change takes two calls: a slot that is committed without ever having been armed is on trial between them.
HARMLESS = {("custom", "commit A unasked"): [["A", "B", "B", "B", "B"]]}


@dataclass
class World:
    """Counts what is done to the world, and ends it before step `cut_at`."""

    cut_at: int | None = None
    done: list[tuple[str, ...]] = field(default_factory=list)

    def step(self, *what: str) -> None:
        """Note one thing that is about to be done."""
        if len(self.done) == self.cut_at:
            raise PowerCut
        self.done.append(what)


def _path_of(handle: int) -> str:
    return str(Path(f"/proc/self/fd/{handle}").readlink())


@contextmanager
def watched(world: World) -> Iterator[None]:
    """Have everything that changes the world go through `world`."""
    pwrite, write, rename, unlink = os.pwrite, os.write, os.rename, os.unlink
    fsync, fdatasync, run = os.fsync, os.fdatasync, boot_tool.run

    def noted_pwrite(handle: int, data: bytes, at: int) -> int:
        world.step("pwrite", _path_of(handle), str(at), str(len(data)))
        return pwrite(handle, data, at)

    def noted_write(handle: int, data: bytes) -> int:
        world.step("write", _path_of(handle), str(len(data)))
        return write(handle, data)

    def noted_rename(before: str, after: str) -> None:
        world.step("rename", before, after, "free" if not Path(after).exists() else "taken")
        rename(before, after)

    def noted_unlink(path: str) -> None:
        world.step("unlink", path)
        unlink(path)

    def noted_fsync(handle: int) -> None:
        world.step("fsync", _path_of(handle))
        fsync(handle)

    def noted_fdatasync(handle: int) -> None:
        world.step("fsync", _path_of(handle))
        fdatasync(handle)

    def noted_run(words: list[str], timeout_s: float) -> str:
        if {"-s", "set-primary", "set-state"} & set(words):
            world.step("call", *words)
        return run(words, timeout_s)

    with (
        patch.object(os, "pwrite", noted_pwrite),
        patch.object(os, "write", noted_write),
        patch.object(os, "rename", noted_rename),
        patch.object(os, "unlink", noted_unlink),
        patch.object(os, "fsync", noted_fsync),
        patch.object(os, "fdatasync", noted_fdatasync),
        patch.object(boot_tool, "run", noted_run),
    ):
        yield


class Board:
    """A rig that has been through some calls, and can be put back there."""

    def __init__(self, name: str, folder: Path, calls: int) -> None:
        folder.mkdir()
        self._folder = folder
        self.rig: Rig = importlib.import_module(f"tests.contract.loaders.{name}").rig(folder)
        for _, current, call in CALLS[:calls]:
            call(self.rig.loader(current))
        self._kept = {one: one.read_bytes() for one in self._files()}

    def put_back(self) -> Rig:
        """Return the rig as it was made."""
        for one in self._files():
            if one not in self._kept:
                one.unlink()
        for one, body in self._kept.items():
            if not one.exists() or one.read_bytes() != body:
                one.write_bytes(body)
        return self.rig

    def _files(self) -> list[Path]:
        return [one for one in self._folder.rglob("*") if one.is_file()]


def starts(rig: Rig) -> list[str]:
    """Switch on and off, and return what was started each time."""
    return [rig.boot() for _ in range(POWER_ONS)]


def held(rig: Rig, current: str) -> list[object]:
    """Return what the back end makes of its record."""
    loader = rig.loader(current)
    marks = [(loader.state(slot), loader.tries_left(slot)) for slot in SLOTS]
    return [loader.primary(), marks]


@pytest.mark.parametrize("number", range(len(CALLS)), ids=[one[0] for one in CALLS])
@pytest.mark.parametrize("name", NAMES)
def test_a_cut_before_any_step_starts_what_was_or_what_was_to_be(
    name: str, number: int, tmp_path: Path
) -> None:
    title, current, call = CALLS[number]
    board = Board(name, tmp_path / "board", number)
    old = starts(board.put_back())
    call(board.put_back().loader(current))
    wanted = held(board.rig, current)
    new = starts(board.rig)
    harmless = [old, new, *HARMLESS.get((name.partition("-")[0], title), [])]
    for cut_at in count():
        rig = board.put_back()
        world = World(cut_at)
        with watched(world):
            try:
                call(rig.loader(current))
            except PowerCut:
                pass
            else:
                break
        assert starts(rig) in harmless, f"cut after {world.done}"
        # The agent that was ended there comes back, and does it again.
        with watched(World(cut_at)), pytest.raises(PowerCut):
            call(board.put_back().loader(current))
        call(rig.loader(current))
        assert held(rig, current) == wanted, f"cut after {world.done}, then done again"
    assert starts(board.rig) == new


@pytest.mark.parametrize("name", ["grub", "rpi_tryboot"])
def test_a_file_that_a_loader_finds_by_its_place_is_written_in_one_sector_and_flushed(
    name: str, tmp_path: Path
) -> None:
    for number, (_, current, call) in enumerate(CALLS):
        rig = Board(name, tmp_path / str(number), number).rig
        path = str(rig.settings["env" if name == "grub" else "autoboot"])
        world = World()
        with watched(world):
            call(rig.loader(current))
        *writes, flush = world.done
        assert flush == ("fsync", path), "what an agent that was killed left in the cache counts"
        for kind, where, at, length in writes:
            assert (kind, where) == ("pwrite", path)
            assert int(at) // SECTOR == (int(at) + int(length) - 1) // SECTOR
        assert len(writes) <= 1


def test_systemd_boots_entries_are_renamed_to_free_names_file_before_folder(tmp_path: Path) -> None:
    for number, (_, current, call) in enumerate(CALLS):
        rig = Board("systemd_boot", tmp_path / str(number), number).rig
        world = World()
        with watched(world):
            call(rig.loader(current))
        *renames, file, folder = world.done
        for _, before, after, free in renames:
            assert (Path(before).parent, free) == (Path(after).parent, "free")
            assert file == ("fsync", after)
        assert len(renames) <= 1
        assert (file[0], Path(file[1]).suffix) == ("fsync", ".conf")
        assert folder == ("fsync", str(Path(file[1]).parent))


def test_what_a_killed_agent_left_in_the_cache_is_flushed_by_doing_it_again(tmp_path: Path) -> None:
    for name in ("grub", "rpi_tryboot", "systemd_boot"):
        rig = Board(name, tmp_path / name, 2).rig
        world = World()
        with watched(world):
            rig.loader("A").arm_trial("B", 2)
        assert {one[0] for one in world.done} == {"fsync"}, name


def test_a_disk_that_fails_is_an_error_and_not_a_success(tmp_path: Path) -> None:
    for name in ("grub", "rpi_tryboot", "systemd_boot"):
        rig = Board(name, tmp_path / name, 1).rig

        def broken(handle: int) -> None:
            raise OSError(5, "Input/output error")

        with patch.object(os, "fsync", broken), pytest.raises(DeviceError, match="Input/output"):
            rig.loader("A").arm_trial("B", 2)
