"""The loop's own talk with the server: polls and events, when each is due, and how long to keep quiet after a failure. Signs and verifies nothing."""

from typing import Final, cast

import msgspec

from tidegate.agent.net import api
from tidegate.agent.net.beside import Way, in_place
from tidegate.agent.ports import Clock, Transport
from tidegate.agent.settings import Settings
from tidegate.core import codec
from tidegate.core.errors import TidegateError, TransferError
from tidegate.core.protocol import EventItem, EventsAnswer, EventsRequest, PollAnswer

#: Back-off, in seconds: doubled from the first to the last, with jitter.
RETRY_FIRST_S: Final = 5.0
RETRY_MAX_S: Final = 300.0


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


class Uplink:
    """One device's line to the server.

    Args:
        transport: HTTP to it.
        clock: time and jitter.
        settings: how often, how long.

    Attributes:
        way: how a call is made that waits for the link.
    """

    def __init__(self, transport: Transport, clock: Clock, settings: Settings) -> None:
        self._transport = transport
        self._clock = clock
        self._settings = settings
        self.line = Line()
        self.way: Way = in_place

    def reload(self, settings: Settings) -> None:
        """Go by other settings from the next request on."""
        self._settings = settings

    def poll(self) -> bool | None:
        """Poll. Returns whether there is work; None when the server could not be asked."""
        line = self.line
        line.again = False
        headers = {"if-none-match": line.etag} if line.etag else {}
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
        pause_s = max(line.poll_after_s, float(self._settings.poll_interval_s), 1.0)
        due = self._clock.monotonic() + pause_s * (1 + self._jitter() / 10)
        line.poll_at = 0.0 if line.again else due
        return work

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
        return max([answer.acked_seq, *(seq for seq, _ in answer.refused)])

    def signed_in(self, token: str, expires_in_s: int) -> None:
        """Take a new token; it is renewed in the last tenth of its life."""
        self.line.token = token
        self.line.token_until = self._clock.monotonic() + max(1.0, expires_in_s * 0.9)
        self.contact()

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

    @property
    def poll_due_at(self) -> float:
        """Return when the next poll may be sent."""
        return max(self.line.poll_at, self.line.retry_at)

    def _call(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
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
                timeout_s=self._settings.timeout_s,
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
