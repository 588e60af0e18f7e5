"""Simulated time: one timeline for all devices, and each device's own clock on it.

A device's `sleep` only notes the time: the device runs ahead of the timeline by what it slept, and is not woken before the timeline has caught up. So one
thread carries thousands of devices, and nothing in a simulated hour takes an hour.
"""

import time
from collections.abc import Callable
from random import Random
from typing import Protocol

from tidegate.agent.ports import Proof

#: Where virtual time begins: 2026-01-05 00:00 UTC, a Monday.
EPOCH: float = 1_767_571_200.0


class Timeline(Protocol):
    """Simulated time, in seconds since the simulation began, and what a right clock would show."""

    def at(self) -> float:
        """Seconds since the beginning."""
        ...

    def wall(self) -> float:
        """Unix seconds, as a clock that is right would show them."""
        ...

    def wait_until(self, at: float) -> None:
        """Return when the timeline has reached `at`."""
        ...


class VirtualTimeline:
    """Time that moves only when it is told to; the server in the same process reads the same clock."""

    def __init__(self, start: float = EPOCH) -> None:
        """Begin at `start`, unix seconds."""
        self._start = start
        self._at = 0.0

    def at(self) -> float:
        """Seconds since the beginning."""
        return self._at

    def wall(self) -> float:
        """Unix seconds."""
        return self._start + self._at

    def wait_until(self, at: float) -> None:
        """Jump forward to `at`; never back."""
        self._at = max(self._at, at)


class AcceleratedTimeline:
    """Time that runs up to `speed` times as fast as the wall clock; `wall` stays the wall clock, so that signed times keep their meaning.

    Time never runs ahead of the work: while the machine cannot keep up, it goes slower, and no simulated device misses a deadline for want of a real processor.
    """

    def __init__(
        self,
        speed: float,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Begin now. `speed` > 0."""
        self._speed = speed
        self._monotonic = monotonic
        self._wall = wall
        self._sleep = sleep
        self._at = 0.0
        self._since = monotonic()

    def at(self) -> float:
        """Accelerated seconds since the beginning."""
        return self._at

    def wall(self) -> float:
        """Unix seconds of the machine's own clock."""
        return self._wall()

    def wait_until(self, at: float) -> None:
        """Go on to `at`, no faster than `speed`; sleeps a tenth of a second at most and may end earlier: the caller looks around in between."""
        if at <= self._at:
            return
        now = self._monotonic()
        reach = self._at + (now - self._since) * self._speed
        if reach < at:
            self._sleep(min((at - reach) / self._speed, 0.1))
            now = self._monotonic()
            reach = self._at + (now - self._since) * self._speed
        self._at, self._since = min(at, reach), now


class DeviceClock:
    """`agent.ports.ProvenClock` of one simulated device.

    Attributes:
        skew_s: by how much its wall time is wrong.
        vouched: what vouches for it.
        settable: whether the agent may set it.
    """

    def __init__(self, timeline: Timeline, random: Random, *, skew_s: float = 0.0) -> None:
        """Make a clock whose wall time is wrong by `skew_s`; `random` is this device's own and makes its nonces and keys."""
        self._timeline = timeline
        self._random = random
        self.skew_s = skew_s
        self.vouched: Proof = "synced"
        self.settable = True
        self._ahead = 0.0
        self._last = timeline.at()
        self._booted_at = timeline.at()

    def at(self) -> float:
        """Where this device is on the timeline: the timeline's time and what it slept since it was woken."""
        self._last = max(self._last, self._timeline.at() + self._ahead)
        return self._last

    def wake(self) -> None:
        """Come back to the timeline; never back in time."""
        self._ahead = max(0.0, self._last - self._timeline.at())

    def restart(self) -> None:
        """Start the monotonic clock afresh: the device boots."""
        self._booted_at = self.at()

    def now(self) -> float:
        """Unix seconds by the device's own clock."""
        return self._timeline.wall() + self._ahead + self.skew_s

    def monotonic(self) -> float:
        """Seconds since this boot."""
        return self.at() - self._booted_at

    def sleep(self, seconds: float) -> None:
        """Note that time passes for this device."""
        self._ahead += max(0.0, seconds)
        self.at()

    def random_bytes(self, count: int) -> bytes:
        """Bytes from the device's seeded generator: the same seed, the same story."""
        return self._random.randbytes(count)

    def proof(self) -> Proof:
        """Say what vouches for `now`."""
        return self.vouched

    def set(self, at: float) -> bool:
        """Set the device's own clock, if that is allowed here. Nothing vouches for a clock that was set by hand."""
        if not self.settable:
            return False
        self.skew_s += at - self.now()
        self.vouched = "none" if self.vouched == "synced" else self.vouched
        return True
