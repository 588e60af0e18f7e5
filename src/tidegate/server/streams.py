"""What the bytes of one device may cost: a pace over all its connections (`[egress] device_rate`), and so many connections at a time, the newest ones.

A device that lost its line comes back while we still hold the older connection, so it is the oldest that ends. One whose other end takes nothing is ended, too:
it holds a file and a piece in memory for as long as somebody likes. Each process counts for itself. Belongs to one event loop.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any, Final

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
#: Ends a connection at once.
Abort = Callable[[], None]

#: Streams of one device at a time.
STREAMS_MAX: Final = 8
#: How long one piece may take to be taken, in seconds: a line of 500 bytes a second carries the largest one in that.
STALL_S: Final = 600.0
#: Under which key of a scope a connection says how it is ended (`connections`).
ABORT: Final = "tidegate.abort"
_LEAST_BYTES: Final = 4_096
_MOST_NAMES: Final = 20_000


class Streams:
    """Bytes on their way to devices, by row."""

    def __init__(self, rate: int) -> None:
        """Send one device at most `rate` bytes a second; 0 = no bound."""
        self.rate = rate
        self._open: dict[int, list[Abort]] = {}
        self._free_at: OrderedDict[int, float] = OrderedDict()

    def piece(self, usual: int) -> int:
        """Return how many bytes are sent at once: at most a second's worth, so that a paced line never looks dead."""
        return min(usual, max(_LEAST_BYTES, self.rate)) if self.rate else usual

    @contextlib.contextmanager
    def opened(self, row: int, abort: Abort) -> Iterator[None]:
        """Count a stream of a device, and end its oldest where that is one too many."""
        mine = self._open.setdefault(row, [])
        mine.append(abort)
        if len(mine) > STREAMS_MAX:
            mine.pop(0)()
        try:
            yield
        finally:
            if abort in mine:
                mine.remove(abort)
            if not mine:
                self._open.pop(row, None)

    async def send(self, row: int, piece: bytes, send: Send, abort: Abort) -> None:
        """Send a piece when it is its turn."""
        loop = asyncio.get_running_loop()
        if self.rate:
            now = loop.time()
            at = max(now, self._free_at.pop(row, 0.0))
            self._free_at[row] = at + len(piece) / self.rate
            if len(self._free_at) > _MOST_NAMES:
                self._free_at.popitem(last=False)
            await asyncio.sleep(at - now)
        ending = loop.call_later(STALL_S, abort)
        try:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        finally:
            ending.cancel()
