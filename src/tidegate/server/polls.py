"""The poll: is there anything for this device? It touches no database and builds nothing: token, array look-ups, an answer that was encoded before.

A device that stays connected may wait for the answer (`Prefer: wait=SECONDS`, RFC 7240) until there is one; see `wakeup` for who is told when. A poll has no
authority, waited for or not: what a device may do stands in documents that are signed for it alone.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, Protocol

from tidegate.core import codec
from tidegate.core.protocol import PollAnswer
from tidegate.server import ranges
from tidegate.server.load import Load
from tidegate.server.services import Services
from tidegate.server.snapshot import ACCEPTED, Plan
from tidegate.server.store import Change
from tidegate.server.wakeup import Waiters, asked_s

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

#: Answers differ by this many steps of jitter.
_JITTER: Final = 8
#: What of a tag tells how things stood: the gate epoch, and whether there was work.
_TAG: Final = re.compile(rb'"\d+-(\d+)-([01])\d(?:-\d)?"')
_EMPTY_BODY: Final[Message] = {"type": "http.response.body", "body": b""}

#: An answer, ready to send: tag, 200 start and body, 304 start.
Ready = tuple[bytes, Message, Message, Message]


class RowOf(Protocol):
    """Says whose token it is."""

    def __call__(self, authorization: bytes | None, now: int, *, quarantined: bool = False) -> int:
        """Return the row of the device; see `hot.HotApp`."""
        ...


class Polls:
    """Answers polls by the plan in memory, at once or when there is news. Belongs to one event loop."""

    def __init__(self, services: Services, row_of: RowOf, load: Load) -> None:
        """Answer from these parts; `row_of` tells whose token it is, or raises. `load` says by how much polls are spread."""
        self._load = load
        self._settings = services.settings
        self._store = services.store
        self._fleet = services.fleet
        self._clock = services.clock
        self._counters = services.counters
        self._row_of = row_of
        self._ready: list[Ready] = []
        self._ready_for: Plan | None = None
        self._spread = 1
        self.waiters = Waiters(self._settings.poll_waiters_max)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told: Plan = self._fleet.plan
        self._telling: asyncio.Task[None] | None = None
        self._store.subscribe(self._changed)

    async def __call__(self, scope: MutableMapping[str, Any], send: Send) -> None:
        """Answer one poll.

        Raises:
            RequestError: `session.expired`, `device.*`.
        """
        token = tag = preference = None
        for name, value in scope["headers"]:
            if name == b"authorization":
                token = value
            elif name == b"if-none-match":
                tag = value
            elif name == b"prefer":
                preference = value
        etag, start, body, unchanged = self._hint(token)
        self._counters.polls += 1
        if preference is not None and await self._waited(token, tag, etag, asked_s(preference)):
            etag, start, body, unchanged = self._hint(token)
            start, unchanged = _applied(start), _applied(unchanged)
        if tag is not None and ranges.matches(tag, etag):
            self._counters.polls_unchanged += 1
            await send(unchanged)
            await send(_EMPTY_BODY)
            return
        await send(start)
        await send(body)

    def _hint(self, token: bytes | None) -> Ready:
        """Return the answer for whoever has this token, now."""
        now = int(self._clock())
        row = self._row_of(token, now, quarantined=True)
        fleet = self._fleet
        fleet.seen[row] = now
        fleet.dirty.add(row)
        if self._ready_for is not fleet.plan or self._spread != self._load.spread:
            self._prepare(fleet.plan, self._load.spread)
        index = row % _JITTER
        # what another process stopped may not be known here: nothing begins by an old plan
        if self._store.fresh and fleet.has_work(row, now):
            index += _JITTER
        return self._ready[index]

    def _prepare(self, plan: Plan, spread: int) -> None:
        """Encode every answer that a poll can have under this plan, `spread` times as far apart as usual."""
        settings = self._settings
        interval_s = settings.poll_interval_s * spread
        mark = b"-%d" % spread if spread != 1 else b""
        ready: list[Ready] = []
        for work in (False, True):
            for step in range(_JITTER):
                jitter = interval_s * settings.poll_spread_bp * (2 * step - _JITTER + 1)
                after = interval_s + jitter // (2 * 10_000 * _JITTER)
                answer = PollAnswer(
                    work=work, poll_after_s=max(1, after), gate_epoch=plan.gate_epoch
                )
                body = codec.encode(answer)
                etag = b'"%d-%d-%d%d%s"' % (plan.version, plan.gate_epoch, work, step, mark)
                headers = [
                    (b"content-type", b"application/json"),
                    (b"etag", etag),
                    (b"content-length", str(len(body)).encode()),
                ]
                start: Message = {"type": "http.response.start", "status": 200, "headers": headers}
                unchanged: Message = {
                    "type": "http.response.start",
                    "status": 304,
                    "headers": [(b"etag", etag)],
                }
                ready.append((etag, start, {"type": "http.response.body", "body": body}, unchanged))
        self._ready = ready
        self._ready_for, self._spread = plan, spread

    # --- waiting ---

    async def _waited(
        self, token: bytes | None, tag: bytes | None, etag: bytes, seconds: int
    ) -> bool:
        """Hold the poll of a device that knows how things stand, and for which there is nothing. Return whether it was held.

        Plans come and go without concerning it. What it must have seen is the last stop, so a tag of another gate epoch is answered at once.
        """
        known, now = _TAG.search(tag or b""), _TAG.search(etag)
        if not known or not now or now[2] == b"1" or known[1] != now[1]:
            return False
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.call_soon(
                self._tell, []
            )  # what changed since the answer was made was not listened to yet
        row = self._row_of(token, int(self._clock()), quarantined=True)
        self._counters.polls_held += 1
        try:
            return await self.waiters.wait(row, min(seconds, self._settings.poll_wait_max_s))
        finally:
            self._counters.polls_held -= 1

    def _changed(self, changed: tuple[Change, ...]) -> None:
        """Hear (from any thread) what was committed, once plan and arrays are as the database is."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        # by way of the loop, also when nobody waits: somebody may be about to, with an answer from before
        rows = [int(one.key) for one in changed if one.kind == "device" and one.key.isdigit()]
        loop.call_soon_threadsafe(self._tell, rows)

    def _tell(self, rows: list[int]) -> None:
        """Wake single devices that have something now, or are not what they were; see whether the plan is a new one."""
        self.waiters.wake(
            row for row in rows if self._fleet.state[row] != ACCEPTED or self._has_work(row)
        )
        if self._told is not self._fleet.plan and (self._telling is None or self._telling.done()):
            self._telling = asyncio.create_task(self._tell_all())

    async def _tell_all(self) -> None:
        """Wake those for whom a new plan holds something, until the plan stays as it is."""
        while (plan := self._fleet.plan) is not self._told:
            stopped = plan.gate_epoch != self._told.gate_epoch
            self._told = plan
            if stopped:
                await self.waiters.wake_all()
            else:
                await self.waiters.wake_those(self._has_work)

    def _has_work(self, row: int) -> bool:
        return self._fleet.has_work(row, int(self._clock()))


def _applied(start: Message) -> Message:
    """Return the head of an answer that was waited for: whoever asked may ask again at once (RFC 7240, section 3)."""
    return {**start, "headers": [*start["headers"], (b"preference-applied", b"wait")]}
