"""How fast bytes may come, and how slowly: a throttle and a minimum rate."""

from typing import Final

from tidegate.agent.ports import Clock
from tidegate.core.errors import TransferError

#: For documents and answers: fewest bytes a second, measured over `GRACE_S` each time. A server that gives a byte every now and then keeps each single wait
#: short, and the device busy for hours (slow retrieval).
RATE_MIN: Final = 256
GRACE_S: Final = 5.0
_PIECE_MAX: Final = 64 << 10


class Pacer:
    """Holds a transfer to `rate` bytes a second, and gives up on one slower than `rate_min`.

    Args:
        clock: time and sleep.
        rate: most bytes a second; 0 = no limit.
        rate_min: fewest bytes a second, measured over `grace_s` each time; 0 = no limit.
        grace_s: length of the measure, in seconds.
    """

    def __init__(self, clock: Clock, *, rate: int, rate_min: int, grace_s: float) -> None:
        self._clock = clock
        self._rate = rate
        self._rate_min = min(rate_min, rate // 2) if rate else rate_min
        self._grace_s = grace_s
        self._began = clock.monotonic()
        self._bytes = 0
        self._window_began = self._began
        self._window_bytes = 0

    @property
    def piece(self) -> int:
        """Return how many bytes to read at once: a twentieth of a second's worth, so that the throttle is smooth."""
        if not self._rate:
            return _PIECE_MAX
        return max(256, min(_PIECE_MAX, self._rate // 20))

    def took(self, count: int) -> None:
        """Account for `count` bytes; wait as the throttle wants.

        Raises:
            TransferError: `download.slow`.
        """
        self._bytes += count
        self._window_bytes += count
        now = self._clock.monotonic()
        self._judge(now)
        if self._rate:
            early_s = self._began + self._bytes / self._rate - now
            if early_s > 0:
                self._clock.sleep(early_s)

    def _judge(self, now: float) -> None:
        elapsed_s = now - self._window_began
        if elapsed_s < self._grace_s:
            return
        per_s = self._window_bytes / elapsed_s
        if per_s < self._rate_min:
            detail = f"{per_s:.0f} bytes/s over {elapsed_s:.0f} s; at least {self._rate_min}"
            raise TransferError("download.slow", detail)
        self._window_began, self._window_bytes = now, 0
