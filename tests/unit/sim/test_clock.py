"""Simulated clocks: a device that sleeps runs ahead of the timeline, and never back."""

from random import Random

from tidegate.sim.clock import EPOCH, AcceleratedTimeline, DeviceClock, VirtualTimeline


def test_sleep_takes_no_time_of_anybody_else() -> None:
    timeline = VirtualTimeline()
    clock = DeviceClock(timeline, Random(1), skew_s=5.0)
    clock.sleep(100)
    assert (timeline.at(), clock.monotonic(), clock.now()) == (0.0, 100.0, EPOCH + 105)
    timeline.wait_until(30)
    clock.wake()
    assert clock.monotonic() == 100.0
    timeline.wait_until(250)
    clock.wake()
    assert clock.monotonic() == 250.0


def test_monotonic_starts_afresh_at_boot() -> None:
    clock = DeviceClock(VirtualTimeline(), Random(1))
    clock.sleep(40)
    clock.restart()
    clock.sleep(2)
    assert clock.monotonic() == 2.0


class Machine:
    """A machine's clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.at = 10.0

    def sleep(self, seconds: float) -> None:
        self.at += seconds


def _accelerated(machine: Machine) -> AcceleratedTimeline:
    return AcceleratedTimeline(
        60.0, monotonic=lambda: machine.at, wall=lambda: 1000.0 + machine.at, sleep=machine.sleep
    )


def test_accelerated_time_runs_faster_while_the_wall_clock_stays() -> None:
    machine = Machine()
    timeline = _accelerated(machine)
    timeline.wait_until(3.0)
    assert (timeline.at(), round(machine.at, 3), round(timeline.wall(), 3)) == (3.0, 10.05, 1010.05)
    timeline.wait_until(600.0)
    assert (round(timeline.at(), 3), round(machine.at, 3)) == (9.0, 10.15)


def test_accelerated_time_waits_for_a_machine_that_cannot_keep_up() -> None:
    machine = Machine()
    timeline = _accelerated(machine)
    machine.at += 100.0
    timeline.wait_until(5.0)
    assert timeline.at() == 5.0
    timeline.wait_until(600.0)
    assert round(timeline.at(), 6) == 11.0


def test_the_same_seed_gives_the_same_bytes() -> None:
    first, second = (DeviceClock(VirtualTimeline(), Random(9)) for _ in range(2))
    assert first.random_bytes(16) == second.random_bytes(16)
