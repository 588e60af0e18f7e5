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


def test_accelerated_time_runs_faster_while_the_wall_clock_stays() -> None:
    machine = [10.0]
    slept: list[float] = []
    timeline = AcceleratedTimeline(
        60.0, monotonic=lambda: machine[0], wall=lambda: 1000.0 + machine[0], sleep=slept.append
    )
    machine[0] = 11.0
    assert (timeline.at(), timeline.wall()) == (60.0, 1011.0)
    timeline.wait_until(63.0)
    timeline.wait_until(600.0)
    timeline.wait_until(1.0)
    assert [round(one, 3) for one in slept] == [0.05, 0.1]


def test_the_same_seed_gives_the_same_bytes() -> None:
    first, second = (DeviceClock(VirtualTimeline(), Random(9)) for _ in range(2))
    assert first.random_bytes(16) == second.random_bytes(16)
