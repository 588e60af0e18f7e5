"""How fast bytes may come, and how slowly: a throttle that may change while they come, a minimum rate, and the word to stop."""

from collections.abc import Callable
from typing import Final

import msgspec

from tidegate.agent.ports import Clock
from tidegate.core.errors import TransferError

#: For documents and answers: fewest bytes a second, measured over `GRACE_S` each time. A server that gives a byte every now and then keeps each single wait
#: short, and the device busy for hours (slow retrieval).
RATE_MIN: Final = 256
GRACE_S: Final = 5.0
_PIECE_MAX: Final = 256 << 10
_PIECE_MIN: Final = 256
#: How far behind its schedule a throttled transfer may catch up, in seconds. What a stall cost beyond this is gone: the throttle is a promise to whoever
#: shares the link, in every span of time, not an average.
_CREDIT_S: Final = 0.2
#: How often the tap is looked at, in seconds.
_LOOK_S: Final = 0.5


class Tap(msgspec.Struct, frozen=True, kw_only=True):
    """What a transfer is allowed at this moment.

    Attributes:
        rate: most bytes a second; 0 = no limit.
        open: False: stop as soon as what came is kept.
    """

    rate: int = 0
    open: bool = True


class PauseError(TransferError):
    """The transfer was told to stop. No failure: what came is kept, and it goes on when it may."""

    def __init__(self) -> None:
        super().__init__("download.timeout", "told to pause")


class Pacer:
    """Holds a transfer to a rate, stops it when it is told to, and gives up on one slower than `rate_min`.

    In any span of T seconds at most rate * (T + 0.25) bytes are taken; a change counts from the next piece on, half a second later at most.

    Args:
        clock: time and sleep.
        rate: most bytes a second while there is no tap; 0 = no limit.
        rate_min: fewest bytes a second, measured over `grace_s` each time; 0 = no limit.
        grace_s: length of the measure, in seconds.
        tap: what is allowed now, asked twice a second; None = `rate`, for ever.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        rate: int = 0,
        rate_min: int,
        grace_s: float,
        tap: Callable[[], Tap] | None = None,
    ) -> None:
        self._clock = clock
        self._tap = tap
        self._rate = rate
        self._rate_min = rate_min
        self._grace_s = grace_s
        self._due = clock.monotonic()
        self._looked_at = self._due - _LOOK_S
        self.begin()

    def begin(self) -> None:
        """Begin a new measure of the minimum rate: another answer comes from here on. The throttle goes on over it."""
        self._window_began, self._window_bytes = self._clock.monotonic(), 0

    @property
    def piece(self) -> int:
        """Return how many bytes to read at once: a twentieth of a second's worth, so that the throttle is smooth."""
        if not self._rate:
            return _PIECE_MAX
        return max(_PIECE_MIN, min(_PIECE_MAX, self._rate // 20))

    def took(self, count: int) -> None:
        """Account for `count` bytes, then `wait`."""
        self.note(count)
        self.wait()

    def note(self, count: int) -> None:
        """Account for `count` bytes that came."""
        self._window_bytes += count
        if self._rate:
            self._due = max(self._due, self._clock.monotonic() - _CREDIT_S) + count / self._rate

    def wait(self) -> None:
        """Return when the next byte may be taken.

        Raises:
            TransferError: `download.slow`.
            PauseError: the tap was closed.
        """
        self._judge(self._clock.monotonic())
        while True:
            now = self._clock.monotonic()
            if self._tap is not None and now - self._looked_at >= _LOOK_S:
                self._look(now, self._tap())
            early_s = self._due - now if self._rate else 0.0
            if early_s <= 0:
                return
            # In short naps where there is a tap: it may be opened wider, or closed, meanwhile.
            self._clock.sleep(early_s if self._tap is None else min(early_s, _LOOK_S))

    def _look(self, now: float, tap: Tap) -> None:
        self._looked_at = now
        if not tap.open:
            raise PauseError
        if tap.rate != self._rate:
            # What was waited for at the old rate is worth as many bytes at the new one.
            owed = max(0.0, self._due - now) * self._rate
            self._rate = tap.rate
            self._due = now + (owed / tap.rate if tap.rate else 0.0)
            self.begin()

    def _judge(self, now: float) -> None:
        elapsed_s = now - self._window_began
        if elapsed_s < self._grace_s:
            return
        per_s = self._window_bytes / elapsed_s
        # A throttle is no fault of the link.
        least = min(self._rate_min, self._rate // 2) if self._rate else self._rate_min
        if per_s < least:
            detail = f"{per_s:.0f} bytes/s over {elapsed_s:.0f} s; at least {least}"
            raise TransferError("download.slow", detail)
        self.begin()
