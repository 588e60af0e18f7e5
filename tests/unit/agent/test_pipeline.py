"""Steps beside their caller: over in their order, so many and no more, and none that outlives them."""

import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tidegate.agent.install.pipeline import Pipeline, pieces
from tidegate.agent.install.slot_file import SlotFile

LIMIT_S = 20.0
COUNTS = pytest.mark.parametrize("count", [0, 1, 2])


def waiting(gate: threading.Event, value: int) -> int:
    assert gate.wait(LIMIT_S)
    return value


def threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("install")]


def failing(error: Exception) -> Callable[[], int]:
    def step() -> int:
        raise error

    return step


@COUNTS
def test_steps_are_over_in_the_order_in_which_they_began(count: int) -> None:
    with closing(Pipeline[int](count, 1 << 20)) as steps:
        found: list[int] = []
        for number in range(50):
            steps.begin(partial(int, number), 1 << 10)
            found += steps.over()
        found += steps.over(wait=True)
    assert found == list(range(50))
    assert threads() == []


def test_a_later_step_that_is_quicker_waits_for_its_turn() -> None:
    gate = threading.Event()
    with closing(Pipeline[int](2, 1 << 20)) as steps:
        steps.begin(partial(waiting, gate, 1))
        steps.begin(partial(int, 2))
        assert list(steps.over()) == []
        gate.set()
        assert list(steps.over(wait=True)) == [1, 2]


def test_no_more_is_under_way_than_there_is_room_for() -> None:
    most = [0]
    under_way: set[int] = set()
    lock = threading.Lock()

    def step(number: int) -> int:
        with lock:
            under_way.discard(number)
        return number

    with closing(Pipeline[int](2, 3000)) as steps:
        for number in range(40):
            with lock:
                under_way.add(number)
                most[0] = max(most[0], len(under_way))
            steps.begin(partial(step, number), 1000)
            for _ in steps.over():
                pass
        list(steps.over(wait=True))
    assert most[0] <= 4


def test_one_step_that_is_larger_than_the_room_goes_through() -> None:
    with closing(Pipeline[int](1, 10)) as steps:
        steps.begin(partial(int, 7), 1000)
        assert list(steps.over(wait=True)) == [7]


def test_a_step_that_comes_after_the_others_begins_when_they_are_over() -> None:
    gate, seen = threading.Event(), []

    def note(what: str, value: int) -> int:
        seen.append(what)
        return value

    with closing(Pipeline[int](2, 1 << 20)) as steps:
        steps.begin(lambda: note("first", waiting(gate, 1)))
        steps.begin_after(partial(note, "after", 2))
        steps.begin(partial(int, 3))
        assert seen == []
        gate.set()
        assert list(steps.over(wait=True)) == [1, 2, 3]
    assert seen == ["first", "after"]


@COUNTS
def test_what_a_step_raises_comes_out_in_its_place_and_what_comes_after_it_fails_alike(
    count: int,
) -> None:
    error, after = OSError("a medium"), []
    found: list[int] = []

    def note() -> int:
        after.append(1)
        return 2

    def run() -> None:
        with closing(Pipeline[int](count, 1 << 20)) as steps:
            steps.begin(partial(int, 1))
            found.extend(steps.over(wait=True))
            steps.begin(failing(error))
            steps.begin_after(note)
            found.extend(steps.over(wait=True))

    with pytest.raises(OSError, match="a medium") as caught:
        run()
    assert caught.value is error
    assert found == [1]
    assert after == []
    assert threads() == []


def test_closing_waits_for_what_runs_and_leaves_out_what_has_not_begun() -> None:
    gate, ran = threading.Event(), []

    def note(number: int) -> int:
        ran.append(number)
        return number

    steps = Pipeline[int](1, 1 << 20)
    steps.begin(partial(waiting, gate, 1))
    for number in range(5):
        steps.begin(partial(note, number))
    threading.Timer(0.05, gate.set).start()
    steps.close()
    steps.close()
    assert ran == []
    assert threads() == []


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (5 << 20) + 17])
def test_a_device_is_read_piece_by_piece_to_its_length(tmp_path: Path, size: int) -> None:
    content = bytes(range(256)) * ((6 << 20) // 256)
    (tmp_path / "slot").write_bytes(content)
    with closing(SlotFile(str(tmp_path / "slot"), None)) as slot:
        assert b"".join(pieces(slot, size)) == content[:size]
    assert threads() == []


def test_a_reader_that_stops_early_leaves_no_thread_behind(tmp_path: Path) -> None:
    (tmp_path / "slot").write_bytes(bytes(8 << 20))
    with closing(SlotFile(str(tmp_path / "slot"), None)) as slot:
        reading = pieces(slot, 8 << 20)
        next(reading)
        reading.close()  # type: ignore[attr-defined]
        assert threads() == []
