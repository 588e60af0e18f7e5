"""The agent's small files on a file system that keeps no more than POSIX promises: after a cut at any call each is the old one or the new one."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.crash.posix import Folder
from tests.crash.stories import STORIES
from tests.crash.tally import TALLY

from tidegate.agent import bootloaders
from tidegate.agent.files import StateDirectory
from tidegate.agent.journal import Journal
from tidegate.agent.ports import Bootloader
from tidegate.agent.state import State

pytestmark = pytest.mark.crash


def _seen(held: dict[str, bytes]) -> dict[str, bytes]:
    """Leave out what was on its way to a name: nobody reads it."""
    return {name: body for name, body in held.items() if not name.endswith(".new")}


def _judge(folder: Path, calls: list[Callable[[], None]]) -> tuple[int, int]:
    """Make calls one after the other; return how many states were old, and how many new."""
    held = Folder(str(folder))
    olds = news = 0
    for call in calls:
        before = _seen(held.now())
        held.left.clear()
        with held.watched():
            call()
        after = _seen(held.now())
        found = [_seen(one) for one in held.left]
        assert [one for one in found if one not in (before, after)] == []
        assert [one for one in held.states() if _seen(one) != after] == []
        olds += sum(one == before for one in found)
        news += sum(one == after != before for one in found)
    return olds, news


def test_a_file_of_the_state_directory_is_old_or_new(tmp_path: Path) -> None:
    state = StateDirectory(str(tmp_path))
    calls: list[Callable[[], None]] = [
        lambda: state.write("one", b"first"),
        lambda: state.write("one", b"longer " * 900),
        lambda: state.write("two", b"another"),
        lambda: state.write("one", b"short"),
        lambda: state.write("one", b""),
        lambda: state.delete("one"),
        lambda: state.delete("one"),
    ]
    olds, news = _judge(tmp_path, calls)
    assert olds > news > len(calls)
    TALLY.promised("state directory", olds, news)


def test_the_file_boot_loader_decides_as_before_or_as_told(tmp_path: Path) -> None:
    settings = {"path": str(tmp_path / "boot.json"), "slots": ("A", "B"), "current": "A"}
    loader: Bootloader = bootloaders.load("file", settings)
    calls: list[Callable[[], None]] = [
        lambda: loader.arm_trial("B", 3),
        lambda: loader.commit("B"),
        lambda: loader.mark_bad("A"),
        lambda: loader.arm_trial("A", 2),
        lambda: loader.mark_bad("A"),
    ]
    olds, news = _judge(tmp_path, calls)
    assert olds > news > len(calls)
    TALLY.promised("file boot loader", olds, news)


def test_a_step_of_the_journal_is_taken_or_not(tmp_path: Path) -> None:
    device = STORIES["a good release"].prepare(1)
    written: list[State] = []
    for _, runner in zip(range(120), device.run(4000), strict=False):
        if not written or written[-1] != runner.state:
            written.append(runner.state)
    state = StateDirectory(str(tmp_path))
    journal = Journal(state)
    held = Folder(str(tmp_path))
    copy = tmp_path.parent / "copy"
    copy.mkdir()
    counted = 0
    for one in written[:40]:
        before = journal.read()[0]
        held.left.clear()
        with held.watched():
            journal.write(one)
        after = journal.read()[0]
        states = {tuple(sorted(_seen(left).items())) for left in held.left}
        for left in states:
            for old in copy.iterdir():
                old.unlink()
            for name, body in left:
                (copy / name).write_bytes(body)
            assert Journal(StateDirectory(str(copy))).read() in ((before, False), (after, False))
        counted += len(states)
    assert counted > 50
    TALLY.promised("journal", counted, 0)
