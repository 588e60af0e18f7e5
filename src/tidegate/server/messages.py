"""A message to the world, what a channel is that carries it, and how long it may take."""

import contextlib
import datetime as dt
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from tidegate.core.codec import canonical

#: What there is to be told. A channel without a list takes all of them; `notify.test` always goes through.
EVENTS: Final = (
    "rollout.halted",
    "rollout.isolated",
    "rollout.held",
    "rollout.fallback",
    "incident.opened",
    "incident.mitigated",
    "incident.closed",
    "incident.reopened",
    "incident.published",
    "audit.forked",
)
TEST: Final = "notify.test"
#: For the whole of one delivery, in seconds.
WHOLE_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Message:
    """What happened. `id` is the same for every try and every channel; `at` unix seconds; `data` is plain JSON."""

    id: str
    event: str
    at: int
    data: Mapping[str, Any]

    def body(self) -> bytes:
        """Return it as JSON: type, timestamp and data, the same bytes for every try."""
        stamp = dt.datetime.fromtimestamp(self.at, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return canonical({"type": self.event, "timestamp": stamp, "data": dict(self.data)})


class UndeliveredError(Exception):
    """It did not arrive. The text says why, without any secret; `final`: trying again is of no use."""

    def __init__(self, text: str, *, final: bool = False) -> None:
        """Say why."""
        super().__init__(text[:300])
        self.final = final


class Channel(Protocol):
    """A way to tell somebody."""

    @property
    def name(self) -> str:
        """The name in the settings."""
        ...

    @property
    def kind(self) -> str:
        """`webhook` or `mail`."""
        ...

    @property
    def place(self) -> str:
        """Where it goes, as much as may be shown: a host, never a path or a password."""
        ...

    @property
    def events(self) -> tuple[str, ...]:
        """What it takes; empty = everything."""
        ...

    def deliver(self, message: Message, now: int) -> None:
        """Deliver a message within half a minute.

        Raises:
            UndeliveredError: it did not arrive, or it is not known whether it did.
        """
        ...


class Deadline:
    """Ends a conversation after `WHOLE_S`: a timeout a step alone would let the other side go on for ever, one byte at a time."""

    def __init__(self, open_socket: Callable[[], object]) -> None:
        """`open_socket` returns the socket of the conversation, or None."""
        self._socket = open_socket
        self._timer = threading.Timer(WHOLE_S, self._end)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _end(self) -> None:
        found = self._socket()
        if isinstance(found, socket.socket):
            # Whoever waits in a read has it end; a close alone would not wake it.
            with contextlib.suppress(OSError):
                found.shutdown(socket.SHUT_RDWR)
