"""The hardware watchdog: fed from the loop alone, starved from the moment that a trial is lost."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.unit.agent.test_machine import checked, idle, on_trial, run

from tidegate.agent.checkup.watchdog import NEVER, Kernel, Watchdog, care
from tidegate.agent.settings import WatchdogSettings
from tidegate.agent.state import State

SETTINGS = WatchdogSettings(device="/dev/watchdog", timeout_s=120, least_s=110)


class Fake:
    """A watchdog: bites when it is not fed, stops for the magic byte alone."""

    def __init__(self, *, most_s: int = 1000, nowayout: str = "0", busy: bool = False) -> None:
        self.most_s, self.nowayout, self.busy = most_s, nowayout, busy
        self.runs = False
        self.fed = 0
        self.asked: list[tuple[int, int]] = []
        self.opened = 0
        self._magic = False

    def open(self, path: str) -> int:
        assert path == "/dev/watchdog"
        if self.busy:
            raise OSError(errno.EBUSY, "Device or resource busy")
        self.opened += 1
        self.runs, self._magic = True, False
        return 7

    def request(self, handle: int, number: int, value: int) -> int:
        assert handle == 7
        self.asked.append((number, value))
        return min(value, self.most_s)

    def write(self, handle: int, data: bytes) -> None:
        self._magic = data == b"V"
        self.fed += not self._magic

    def close(self, handle: int) -> None:
        # Closed without the magic byte it goes on, as the kernel does.
        self.runs = self.runs and not (self._magic and self.nowayout == "0")

    def attribute(self, path: str, name: str) -> str:
        return self.nowayout if name == "nowayout" else ""


def lost() -> State:
    return run(on_trial(), checked(10.0, ok=False), checked(66.0, ok=False))


def test_it_is_fed_while_an_image_is_on_trial_and_stopped_afterwards() -> None:
    fake = Fake()
    dog = Watchdog(SETTINGS, fake)
    dog.tend(idle())
    assert (fake.opened, dog.interval_s) == (0, NEVER)
    for _ in range(3):
        dog.tend(on_trial())
    assert (fake.fed, dog.interval_s, fake.asked[0][1]) == (3, 40.0, 120)
    dog.tend(idle())
    assert (fake.runs, dog.interval_s) == (False, NEVER)


def test_it_starves_from_the_moment_that_the_trial_is_lost() -> None:
    fake = Fake()
    dog = Watchdog(SETTINGS, fake)
    dog.tend(on_trial())
    for _ in range(5):
        dog.tend(lost())
    assert (fake.fed, fake.runs) == (1, True)
    dog.release(lost())
    assert fake.runs


def test_back_on_the_old_slot_it_is_not_wanted() -> None:
    home = msgspec.structs.replace(lost(), current="A")
    assert (care(lost(), always=True), care(home, always=False)) == ("starved", "off")


def test_an_agent_that_is_stopped_in_a_trial_leaves_it_running() -> None:
    fake = Fake()
    dog = Watchdog(SETTINGS, fake)
    dog.tend(on_trial())
    dog.release(on_trial())
    assert fake.runs


def test_an_agent_that_is_stopped_outside_a_trial_stops_it() -> None:
    fake = Fake()
    dog = Watchdog(msgspec.structs.replace(SETTINGS, always=True), fake)
    dog.tend(idle())
    assert (fake.runs, fake.fed) == (True, 1)
    dog.release(idle())
    assert not fake.runs


def test_a_device_that_is_about_to_restart_is_not_fed() -> None:
    fake = Fake()
    dog = Watchdog(msgspec.structs.replace(SETTINGS, always=True), fake)
    dog.tend(idle())
    dog.tend(idle(), ending=True)
    assert (fake.fed, fake.runs) == (1, True)


@pytest.mark.parametrize("said", ["1", ""])
def test_one_that_cannot_be_stopped_is_fed_on(said: str) -> None:
    fake = Fake(nowayout=said)
    dog = Watchdog(SETTINGS, fake)
    dog.tend(on_trial())
    dog.tend(idle())
    dog.tend(idle())
    assert (fake.fed, fake.runs) == (3, True)


def test_one_that_somebody_else_holds_is_told_once_and_asked_for_once() -> None:
    fake = Fake(busy=True)
    dog = Watchdog(SETTINGS, fake)
    dog.tend(on_trial())
    assert "RuntimeWatchdogSec=off" in dog.problem
    dog.problem = ""
    dog.tend(on_trial())
    assert (dog.problem, fake.opened) == ("", 0)


def test_one_that_would_bite_a_healthy_agent_is_not_used() -> None:
    fake = Fake(most_s=16)
    dog = Watchdog(SETTINGS, fake)
    dog.tend(on_trial())
    assert "bites after 16 s" in dog.problem
    assert not fake.runs
    dog.tend(on_trial())
    assert fake.fed == 0


def test_a_pretimeout_is_asked_for() -> None:
    fake = Fake()
    Watchdog(msgspec.structs.replace(SETTINGS, pretimeout_s=20), fake).tend(on_trial())
    assert [value for _, value in fake.asked] == [120, 20]


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    path = tmp_path / "watchdog"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    yield path, reader
    os.close(reader)


def test_the_kernels_side_is_written_byte_by_byte(pipe: tuple[Path, int]) -> None:
    """Over a named pipe, which takes no request: what is read says what a driver would have seen."""
    path, reader = pipe
    settings = WatchdogSettings(device=str(path), timeout_s=120, least_s=0)
    dog = Watchdog(settings, Kernel())
    dog.tend(on_trial())
    dog.tend(on_trial())
    assert os.read(reader, 64) == b"\0\0"
    dog.release(idle())
    assert os.read(reader, 64) == b"V"
    assert dog.problem == ""
