"""Devices that wait at the server for news: a poll that says `Prefer: wait=SECONDS` (RFC 7240, 4.3) is answered when there is some, or its time is over.

A stop is news for everybody, and everybody who waits hears of it at once. Something to fetch is news for those whom it may concern, and they hear of it
spread over a while: each comes back with a question that costs a transaction. Nothing here has authority, as with every poll; nobody who waits is told more
than a poll would tell him.

One future for each connection, and one timer for all: ten thousand waiting devices cost no more than their sockets. All of it runs on the server's loop.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

T = TypeVar("T")

#: Woken at once, then the loop does other things: a halt must not hold up the permit that is being refused.
SLICE: Final = 500
#: How many a second are told that there is something to fetch, per process.
WOKEN_PER_S: Final = 200
#: Everybody has been told after this, in seconds, however many they are: by then the first of them poll again anyway.
SPREAD_MAX_S: Final = 30.0
_SCATTER: Final = (
    2_654_435_761  # Knuth's multiplicative hash: neighbours in the table are none in time
)


class Waiters:
    """Who waits, by device row: one connection a device, the newest."""

    def __init__(self, most: int) -> None:
        """Let at most `most` devices wait; 0 = nobody."""
        self._most = most
        self._waiting: dict[int, asyncio.Future[bool]] = {}
        self._ends: dict[int, list[asyncio.Future[bool]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(self, row: int, seconds: float) -> bool:
        """Wait until `row` is woken, or for about `seconds`. Return whether it waited at all: there may be too many already.

        A device that asks again while an older question of its waits has lost that connection: the older one is answered.
        """
        older = self._waiting.get(row)
        if self._closed or seconds <= 0 or (older is None and len(self._waiting) >= self._most):
            return False
        if older is not None:
            _wake(older)
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[bool] = loop.create_future()
        self._waiting[row] = mine
        # to the full second, so that one timer serves all of them; spread, so that those who came together do not leave together
        spread = 0.9 + 0.1 * _place(row)
        self._ends.setdefault(int(loop.time() + seconds * spread), []).append(mine)
        if self._timer is None:
            self._timer = loop.call_later(1, self._sweep, loop)
        try:
            return await mine
        finally:
            if self._waiting.get(row) is mine:
                del self._waiting[row]

    async def wake_all(self) -> None:
        """Wake everybody, in slices."""
        await self._in_slices(list(self._waiting.values()), _wake)

    async def wake_those(self, concerned: Callable[[int], bool]) -> None:
        """Wake those for whom there is something, each at a moment of its own; who leaves before is not missed."""
        loop = asyncio.get_running_loop()
        found: list[int] = []

        def look(row: int) -> None:
            if concerned(row):
                found.append(row)

        await self._in_slices(list(self._waiting), look)
        spread_s = min(SPREAD_MAX_S, len(found) / WOKEN_PER_S)
        for row in found:
            waits = self._waiting.get(row)
            if waits is not None:
                loop.call_later(spread_s * _place(row), _wake, waits)

    def wake(self, rows: Iterable[int]) -> None:
        """Wake single devices now."""
        for row in rows:
            waits = self._waiting.get(row)
            if waits is not None:
                _wake(waits)

    def close(self) -> None:
        """Answer everybody, and let nobody wait any more: the server is about to stop."""
        self._closed = True
        for waits in self._waiting.values():
            _wake(waits)

    async def _in_slices(self, them: list[T], act: Callable[[T], None]) -> None:
        for start in range(0, len(them), SLICE):
            for one in them[start : start + SLICE]:
                act(one)
            await asyncio.sleep(0)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer those whose time is over, and look again in a second while anybody waits."""
        now = loop.time()
        for end in [one for one in self._ends if one <= now]:
            for waits in self._ends.pop(end):
                _wake(waits)
        self._timer = loop.call_later(1, self._sweep, loop) if self._ends else None


def _wake(waits: "asyncio.Future[bool]") -> None:
    if not waits.done():
        waits.set_result(True)


def _place(row: int) -> float:
    """Return where between 0 and 1 a device comes; always the same place."""
    return (row * _SCATTER % 2**32) / 2**32


def asked_s(preference: bytes) -> int:
    """Return how long a client would wait by its `Prefer` header (untrusted): `wait=N`, in seconds; 0 = not at all."""
    for one in preference.split(b","):
        name, _, value = one.partition(b";")[0].partition(b"=")
        value = value.strip().strip(b'"')
        if name.strip().lower() == b"wait" and value.isdigit() and len(value) < 6:
            return int(value)
    return 0
