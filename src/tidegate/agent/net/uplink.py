"""The loop's own talk with the server: polls and events, when each is due, and how long to keep quiet after a failure. Signs and verifies nothing.

A device that stays connected has its poll held by the server until there is news (`Prefer: wait=`, RFC 7240). Whatever it has to do itself cuts that short.
"""

from collections.abc import Callable
from typing import Final, cast

import msgspec

from tidegate.agent.net import api
from tidegate.agent.net.beside import Way, in_place
from tidegate.agent.net.link import HttpTransport
from tidegate.agent.ports import Clock, Transport
from tidegate.agent.settings import Settings
from tidegate.core import codec
from tidegate.core.errors import TidegateError, TransferError
from tidegate.core.protocol import (
    EventItem,
    EventsAnswer,
    EventsRequest,
    LogRequest,
    LogWish,
    PollAnswer,
)

#: Back-off, in seconds: doubled from the first to the last, with jitter.
RETRY_FIRST_S: Final = 5.0
RETRY_MAX_S: Final = 300.0
#: How long a poll is held, in seconds. Many a router forgets a connection that was idle for a minute: where one is lost, half as long, down to the least.
HOLD_MAX_S: Final = 55
HOLD_MIN_S: Final = 7
#: How often it is tried to send a log.
LOG_TRIES: Final = 3
#: Between two held polls, in seconds: a server that answers at once is not asked without a pause.
HELD_PAUSE_S: Final = 1.0


class Line(msgspec.Struct):
    """When the link is used next, and what is known of the other end. All instants are of the monotonic clock."""

    poll_at: float = 0.0
    retry_at: float = 0.0
    #: Until then the server asked to be left alone.
    wish_until: float = 0.0
    failures: int = 0
    poll_after_s: float = 60.0
    etag: str | None = None
    gate_epoch: int = -1
    token: str | None = None
    token_until: float = 0.0
    enrolled: str = ""
    contact_at: int | None = None
    problem: str = ""
    #: Somebody asked for a poll while one was under way.
    again: bool = False
    hold_s: int = HOLD_MAX_S
    #: From then on a device that stays connected may ask to be held.
    hold_at: float = 0.0
    #: Polls in a row that asked to be held and were answered at once, and that were told of work.
    unheld: int = 0
    offers: int = 0
    #: When the device itself is due to tell that it lives; a held poll comes back more often than that.
    beat_at: float = 0.0
    #: The log that the server would like to see, and how often it was tried to send it.
    wish: LogWish | None = None
    wish_tries: int = 0


class Uplink:
    """One device's line to the server.

    Args:
        transport: HTTP to it.
        clock: time and jitter.
        settings: how often, how long.
        log: gives the end of this device's log; None = it has none.

    Attributes:
        way: how a call is made that waits for the link.
    """

    def __init__(
        self,
        transport: Transport,
        clock: Clock,
        settings: Settings,
        log: Callable[[], str] | None = None,
    ) -> None:
        self._transport = transport
        self._log = log
        self._clock = clock
        self._settings = settings
        self.line = Line()
        self.way: Way = in_place
        self._holding = self._cut = False

    def reload(self, settings: Settings) -> None:
        """Go by other settings from the next request on."""
        self._settings = settings

    def poll(self, idle_s: float = 0.0) -> bool | None:
        """Poll. Returns whether there is work; None when the server could not be asked.

        Args:
            idle_s: for how long this device has nothing else to do: so long it may wait for the answer, if it stays connected.
        """
        line = self.line
        line.again = False
        headers = {"if-none-match": line.etag} if line.etag else {}
        hold_s = int(min(line.hold_s, idle_s)) if line.etag and self._settings.stay_connected else 0
        if hold_s >= HOLD_MIN_S:
            headers["prefer"] = f"wait={hold_s}"
            reply = self._held(headers, hold_s)
        else:
            reply = self._call("GET", "/d/v1/poll", headers=headers)
        if reply is None:
            return None
        work = False
        if reply.status != 304:
            try:
                answer = api.understood(reply.body, PollAnswer)
            except TidegateError as error:
                self.trouble(str(error))
                return None
            line.poll_after_s, work = float(answer.poll_after_s), answer.work
            line.gate_epoch = answer.gate_epoch
            # "Nothing new" to an answer that offered work would hide the offer: only quiet answers are remembered.
            line.etag = None if work else reply.headers.get("etag")
        line.wish_until = 0.0
        self.contact()
        due = self._clock.monotonic() + self._pause_s * (1 + self._jitter() / 10)
        line.poll_at = 0.0 if line.again else due
        self._hold_next("prefer" in headers, reply)
        if idle_s and not work:
            self._send_log()
        return work

    def _send_log(self) -> None:
        """Send the log that is wanted, now that there is nothing else to do. Tried a few times; whoever restarts meanwhile forgets it."""
        line = self.line
        if line.wish is None or self._log is None:
            return
        from tidegate.agent.net.failure_log import packed

        wish, line.wish_tries = line.wish, line.wish_tries + 1
        body = codec.encode(
            LogRequest(update=wish.update, attempt=wish.attempt, data=packed(self._log()))
        )
        if self._call("POST", "/d/v1/log", body=body) or line.wish_tries >= LOG_TRIES:
            line.wish = None

    def _hold_next(self, asked: bool, reply: api.Reply) -> None:
        """Note when to ask to be held: soon, or, where the server does not hold (any more), when the next poll is due anyway.

        An answer with news (200) to a poll that might have been held is no refusal, unless it comes again and again.
        """
        line, mono = self.line, self._clock.monotonic()
        held = not asked or "preference-applied" in reply.headers
        line.unheld = 0 if held else line.unheld + 1
        if line.unheld > (0 if reply.status == 304 else 1):
            line.hold_at = line.poll_at
        elif line.etag:
            line.offers, line.hold_at = 0, mono + HELD_PAUSE_S
        else:
            # Work was offered. Once it is done, or turned out to be none, how do things stand? More and more rarely, where the offer is not for us.
            line.offers += 1
            line.hold_at = mono + RETRY_FIRST_S * 2 ** min(line.offers - 1, 10)

    def beat_due(self) -> bool:
        """Say whether to tell that this device lives, once a usual pause between polls, and count from now if so."""
        mono = self._clock.monotonic()
        if mono < self.line.beat_at:
            return False
        self.line.beat_at = mono + 0.9 * self._pause_s if self._settings.stay_connected else 0.0
        return True

    def hurry(self) -> None:
        """Cut a poll short that the server holds: there is something to do here. From any thread; safe to repeat."""
        if self._holding and not self._cut and isinstance(self._transport, HttpTransport):
            self._cut = True
            self._transport.interrupt()

    def _allow(self) -> None:
        if isinstance(self._transport, HttpTransport):
            self._transport.interrupted = False

    @property
    def _pause_s(self) -> float:
        return max(self.line.poll_after_s, float(self._settings.poll_interval_s), 1.0)

    def _held(self, headers: dict[str, str], hold_s: int) -> api.Reply | None:
        """Poll, and wait for the answer. One that was cut short is no failure of the link: the next poll is due at once."""
        line, failures = self.line, self.line.failures
        self._allow()
        self._holding, self._cut = True, False
        try:
            reply = self._call(
                "GET", "/d/v1/poll", headers=headers, timeout_s=self._settings.timeout_s + hold_s
            )
        finally:
            self._holding = False
            self._allow()
        if reply is None and line.failures > failures:
            if self._cut:
                line.failures, line.problem, line.retry_at = failures, "", line.wish_until
                line.hold_at = self._clock.monotonic() + HELD_PAUSE_S
            else:
                line.hold_s = max(HOLD_MIN_S, line.hold_s // 2)
        return reply

    def post(self, items: tuple[EventItem, ...]) -> int | None:
        """Send events. Returns up to which number the server is done with them; None when it could not be told."""
        body = codec.encode(EventsRequest(events=items))
        reply = self._call("POST", "/d/v1/events", body=body)
        if reply is None:
            return None
        try:
            answer = api.understood(reply.body, EventsAnswer)
        except TidegateError as error:
            self.trouble(str(error))
            return None
        self.line.wish_until = 0.0
        self.contact()
        if answer.want_log and self._settings.send_logs:
            self.line.wish, self.line.wish_tries = answer.want_log, 0
        return max([answer.acked_seq, *(seq for seq, _ in answer.refused)])

    def signed_in(self, token: str, expires_in_s: int) -> None:
        """Take a new token; it is renewed in the last tenth of its life."""
        self.line.token = token
        self.line.token_until = self._clock.monotonic() + max(1.0, expires_in_s * 0.9)
        self.contact()

    def signed_out(self, *, opening: bool) -> None:
        """Drop a token that is not taken. Where the server opens no new session either (`opening`), wait: it would be asked without end, as fast as can be."""
        self.line.token = None
        if opening:
            self.trouble("session.expired: the server opened no session")

    def contact(self) -> None:
        """Note that the server answered. What it asked for before holds all the same: other answers may come on the way."""
        line = self.line
        line.failures, line.retry_at, line.problem = 0, line.wish_until, ""
        line.contact_at = max(0, int(self._clock.now()))

    def trouble(self, problem: str, wish_s: int = 0) -> None:
        """Note a failure, and keep quiet for a while: not shorter than the server wishes."""
        line = self.line
        pause_s = min(RETRY_MAX_S, RETRY_FIRST_S * 2 ** min(line.failures, 10))
        line.failures += 1
        line.problem = problem
        pause_s *= 0.75 + self._jitter() / 2
        mono = self._clock.monotonic()
        line.wish_until = mono + wish_s if wish_s else 0.0
        line.retry_at = max(mono + pause_s, line.wish_until)

    def poll_due_at(self, idle_s: float = 0.0) -> float:
        """Return when the next poll may be sent; `idle_s` as in `poll`."""
        line, due = self.line, self.line.poll_at
        if self._settings.stay_connected and idle_s >= HOLD_MIN_S:
            due = min(due, line.hold_at)
        return max(due, line.retry_at)

    def _call(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float | None = None,
    ) -> api.Reply | None:
        token = self.line.token

        def call() -> api.Reply:
            return api.call(
                self._transport,
                method,
                path,
                clock=self._clock,
                token=token,
                headers=headers,
                body=body,
                timeout_s=timeout_s or self._settings.timeout_s,
            )

        try:
            return cast("api.Reply", self.way(call))
        except api.TokenError:
            self.line.token = None
        except TransferError as error:
            self.trouble(str(error), error.retry_after_s)
        except TidegateError as error:
            self.trouble(str(error))
        return None

    def _jitter(self) -> float:
        return int.from_bytes(self._clock.random_bytes(2), "big") / 65536
