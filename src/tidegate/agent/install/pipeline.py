"""Steps that run beside their caller, in threads, and are over in the order in which they began: hashing, decoding and writing next to the link.

So much and no more is under way, and none outlives its pipeline. Without threads each step is over when it has begun, for media that record an order.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from tidegate.agent.ports import SlotDevice

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

T = TypeVar("T")

#: Most threads. What they do is bound by processors and by one medium; the caller has work, too.
_THREADS_MAX: Final = 2
_PIECE: Final = 1 << 20


def threads() -> int:
    """Return how many threads are worth having on this machine."""
    return min(_THREADS_MAX, len(os.sched_getaffinity(0)))


class Pipeline(Generic[T]):
    """Runs steps.

    Args:
        count: threads; 0 = none: a step is run where it begins.
        room_bytes: how much may be under way before `over` waits; one step may be, however large.
    """

    def __init__(self, count: int, room_bytes: int) -> None:
        self._pool = _pool(count) if count else None
        self._room_bytes = room_bytes
        self._begun: deque[tuple[Future[T] | _Over[T], int]] = deque()
        self._bytes = 0

    def begin(self, step: Callable[[], T], size_bytes: int = 0) -> None:
        """Begin a step as soon as there is a thread for it.

        Args:
            step: what it returns is given out by `over`.
            size_bytes: what it holds in memory until it is over.
        """
        self._put(step, size_bytes)

    def begin_after(self, step: Callable[[], T]) -> None:
        """Begin a step when all that began before it are over; where one of them failed, it fails alike."""
        before = [one for one, _ in self._begun]

        def last() -> T:
            # They were all begun before this one, so each of them is over, or has a thread of its own.
            for one in before:
                one.result()
            return step()

        self._put(last, 0)

    def over(self, *, wait: bool = False) -> Iterator[T]:
        """Give what the steps returned that are over, in their order.

        Args:
            wait: for all of them; else only until there is room again.

        Raises:
            Exception: what a step raised, in its place.
        """
        while self._begun:
            first, size_bytes = self._begun[0]
            if not (wait or first.done() or self._bytes > self._room_bytes):
                return
            found = first.result()
            self._begun.popleft()
            self._bytes -= size_bytes
            yield found

    def close(self) -> None:
        """Wait for the steps that run; those that have not begun do not. Safe to repeat."""
        self._begun.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _put(self, step: Callable[[], T], size_bytes: int) -> None:
        begun = _Over(step()) if self._pool is None else self._pool.submit(step)
        self._begun.append((begun, size_bytes))
        self._bytes += size_bytes


def _pool(count: int) -> "ThreadPoolExecutor":
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(count, "install")


class _Over(Generic[T]):
    """A step that was over when it had begun; looks like a `Future`."""

    def __init__(self, found: T) -> None:
        self._found = found

    def done(self) -> bool:
        return True

    def result(self) -> T:
        return self._found


def pieces(device: SlotDevice, size: int) -> Iterator[bytes]:
    """Yield the first `size` bytes of a device, from its medium, the next piece being read while the caller is busy with one."""
    with closing(Pipeline[bytes](1 if device.concurrent else 0, _PIECE)) as steps:
        for offset in range(0, size, _PIECE):
            length = min(_PIECE, size - offset)
            steps.begin(partial(device.read_at, offset, length), length)
            yield from steps.over()
        yield from steps.over(wait=True)
