"""What changed, told to whoever watches: each watcher has a short queue; one that falls behind is told to look at everything anew."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator
from typing import Final

from tidegate.core.errors import BusyError
from tidegate.server.store import Change, Store

WATCHERS_MAX: Final = 200
_QUEUE_MAX: Final = 256
#: Kinds that are told; the rest is inner business of the server.
KINDS: Final = frozenset(
    {"rollout", "release", "device", "group", "incident", "gate", "update", "because", "job"}
)
#: What a watcher gets that fell behind.
RESYNC: Final = Change("resync", "")


class _Watcher:
    """One queue, filled from the writer's thread and read on an event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.queue: asyncio.Queue[Change] = asyncio.Queue(_QUEUE_MAX)

    def put(self, changes: tuple[Change, ...]) -> None:
        """Take in changes, on the loop."""
        for change in changes:
            if self.queue.full():
                while not self.queue.empty():
                    self.queue.get_nowait()
                self.queue.put_nowait(RESYNC)
                return
            self.queue.put_nowait(change)


class Live:
    """Hands the store's changes to watchers. Safe to call from any thread."""

    def __init__(self, store: Store) -> None:
        """Listen to a store."""
        self._watchers: set[_Watcher] = set()
        self._guard = threading.Lock()
        store.subscribe(self._changed)

    @property
    def watchers(self) -> int:
        """How many watch now."""
        return len(self._watchers)

    def _changed(self, changed: tuple[Change, ...]) -> None:
        told = tuple(one for one in changed if one.kind in KINDS)
        if not told:
            return
        with self._guard:
            watchers = list(self._watchers)
        for watcher in watchers:
            with contextlib.suppress(
                RuntimeError
            ):  # its loop has ended; the stream's own end removes it
                watcher.loop.call_soon_threadsafe(watcher.put, told)

    async def stream(self, heartbeat_s: float) -> AsyncGenerator[Change | None]:
        """Yield changes as they happen; None when nothing happened for `heartbeat_s` seconds.

        Raises:
            BusyError: `server.busy`: too many watch already.
        """
        watcher = _Watcher(asyncio.get_running_loop())
        with self._guard:
            if len(self._watchers) >= WATCHERS_MAX:
                raise BusyError("server.busy", f"{WATCHERS_MAX} watch already")
            self._watchers.add(watcher)
        try:
            while True:
                try:
                    yield await asyncio.wait_for(watcher.queue.get(), heartbeat_s)
                except TimeoutError:
                    yield None
        finally:
            with self._guard:
                self._watchers.discard(watcher)
