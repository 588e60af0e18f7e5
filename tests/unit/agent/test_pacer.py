"""The throttle on simulated time: exact, smooth, changed while bytes come, never caught up in a burst; and the word to stop."""

from random import Random

import pytest

from tidegate.agent.net.pacer import Pacer, PauseError, Tap
from tidegate.core.errors import TransferError


class FakeClock:
    """Time that passes only by sleeping, and by what a link takes."""

    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += seconds

    def random_bytes(self, count: int) -> bytes:
        return bytes(count)


class Load:
    """A link that gives `link_rate` bytes a second, read through a pacer; remembers when each piece came."""

    def __init__(self, pacer: Pacer, clock: FakeClock, link_rate: int = 400_000_000) -> None:
        self.pacer = pacer
        self.clock = clock
        self.link_rate = link_rate
        self.taken: list[tuple[float, int]] = []

    def until(self, at: float, largest: int = 1 << 20) -> None:
        while True:
            self.pacer.wait()
            if self.clock.at >= at:
                return
            count = min(self.pacer.piece, largest)
            self.clock.at += count / self.link_rate
            self.pacer.note(count)
            self.taken.append((self.clock.at, count))

    def between(self, first: float, last: float) -> int:
        return sum(count for at, count in self.taken if first < at <= last)


@pytest.mark.parametrize("rate", [500, 20_000, 1_000_000, 50_000_000])
@pytest.mark.parametrize("largest", [1 << 20, 700])
def test_the_throttle_is_exact_within_a_twentieth_over_ten_seconds(rate: int, largest: int) -> None:
    clock = FakeClock()
    load = Load(Pacer(clock, rate=rate, rate_min=0, grace_s=60), clock)
    load.until(1010.0, largest)
    assert 0.95 * rate * 10 <= load.between(1000.0, 1010.0) <= 1.05 * rate * 10


def test_a_change_is_exact_from_then_on_in_both_directions() -> None:
    clock, tap = FakeClock(), [Tap(rate=100_000)]
    load = Load(Pacer(clock, rate_min=0, grace_s=60, tap=lambda: tap[0]), clock)
    load.until(1010.0)
    for rate in (20_000, 500_000, 0, 30_000):
        tap[0], changed = Tap(rate=rate), clock.at
        # Half a second is the longest that a change may take to be noticed.
        load.until(changed + 0.6, 65_536)
        began = clock.at
        load.until(began + 10.0, 65_536)
        if rate:
            taken = load.between(began, began + 10.0)
            assert 0.95 * rate * 10 <= taken <= 1.05 * rate * 10, rate
        else:
            assert load.between(began, began + 10.0) > 100_000_000


def test_after_a_stall_nothing_is_caught_up_in_a_burst() -> None:
    clock, rate = FakeClock(), 100_000
    load = Load(Pacer(clock, rate=rate, rate_min=0, grace_s=600), clock)
    load.until(1005.0)
    clock.at += 60.0
    began = clock.at
    load.until(began + 10.0)
    assert 0.95 * rate * 10 <= load.between(began, began + 10.0) <= 1.05 * rate * 10
    assert load.between(began, began + 1.0) <= 1.3 * rate


def test_no_span_of_time_sees_more_than_the_rate_on_a_link_that_comes_and_goes() -> None:
    clock, rate, random = FakeClock(), 50_000, Random(4)
    load = Load(Pacer(clock, rate=rate, rate_min=0, grace_s=600), clock)
    for _ in range(60):
        load.link_rate = random.choice((2_000, 60_000, 10_000_000))
        load.until(clock.at + random.uniform(0.05, 2.0), random.choice((700, 65_536)))
        clock.at += random.choice((0.0, 0.0, 0.1, 1.5))
    times = [at for at, _ in load.taken]
    for span in (0.5, 2.0, 10.0):
        most = max(load.between(at - span, at) for at in times)
        assert most <= rate * (span + 0.25) + load.pacer.piece, span


def test_a_closed_tap_stops_the_transfer_within_half_a_second_even_in_a_long_wait() -> None:
    clock, tap = FakeClock(), [Tap(rate=256)]
    pacer = Pacer(clock, rate_min=0, grace_s=60, tap=lambda: tap[0])
    pacer.wait()
    pacer.note(25_600)  # worth a hundred seconds
    began = clock.at
    tap[0] = Tap(rate=256, open=False)
    with pytest.raises(PauseError):
        pacer.wait()
    assert clock.at - began <= 0.5


def test_a_rate_that_is_raised_in_a_long_wait_ends_it() -> None:
    clock, tap = FakeClock(), [Tap(rate=256)]
    pacer = Pacer(clock, rate_min=0, grace_s=60, tap=lambda: tap[0])
    pacer.wait()
    pacer.note(25_600)
    began = clock.at
    tap[0] = Tap(rate=1_000_000)
    pacer.wait()
    assert clock.at - began < 1.0


def test_a_throttle_below_the_minimum_rate_does_not_trip_over_itself() -> None:
    clock = FakeClock()
    pacer = Pacer(clock, rate=400, rate_min=1024, grace_s=10)
    while clock.at < 1100.0:
        pacer.took(256)


def test_a_link_slower_than_the_minimum_rate_is_given_up_also_under_a_throttle() -> None:
    clock = FakeClock()
    load = Load(Pacer(clock, rate=10_000, rate_min=1024, grace_s=10), clock, link_rate=500)
    with pytest.raises(TransferError) as caught:
        load.until(1100.0)
    assert caught.value.code == "download.slow"
    assert clock.at < 1030.0
