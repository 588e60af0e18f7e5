"""What the resident loop asks a worker for, and what a worker answers: msgspec messages, one JSON line each on a pipe, or plain objects in one process.

Whatever must be verified or signed is a job; the loop itself verifies nothing. A worker does one job at a time and may answer several times.
"""

from collections.abc import Callable, Iterator
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from tidegate.agent.events import (
    Answer,
    AskPermit,
    Change,
    Download,
    ReadBack,
    Refresh,
)
from tidegate.agent.net.pacer import Tap
from tidegate.agent.state import (
    State,
)
from tidegate.core.protocol import EventBody, EventItem


class Enrol(msgspec.Struct, frozen=True, kw_only=True, tag="enrol"):
    """Make a device key if there is none, and ask to join."""

    claim: str | None = None


class MakeSession(msgspec.Struct, frozen=True, tag="make_session"):
    """Sign the server's nonce and get a token."""


class Rekey(msgspec.Struct, frozen=True, tag="rekey"):
    """Make a new device key, or go on with the one that waits, and have the server take it."""


class Sign(msgspec.Struct, frozen=True, kw_only=True, tag="sign"):
    """Sign those events that count only when signed."""

    events: Annotated[tuple[EventBody, ...], Meta(max_length=256)]


class OpenBundle(msgspec.Struct, frozen=True, kw_only=True, tag="open_bundle"):
    """Verify an offline bundle, or a mirror directory, and everything that a server would have been asked for."""

    path: str


Job = (
    Enrol
    | MakeSession
    | Rekey
    | Sign
    | OpenBundle
    | Refresh
    | Download
    | ReadBack
    | AskPermit
    | Change
)


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A job with what it needs to know: the bearer token and the machine's state.

    Attributes:
        waiting: what the device waits for, for the server to show.
        inhibitors: names of what says "not now".
        tap: what a transfer is allowed when it begins; `TAP_MARK` lines on the same pipe change it.
        mirrors: where a transfer begins, in order, before the server.
    """

    job: Job
    state: State
    token: str | None = None
    waiting: str = ""
    inhibitors: tuple[str, ...] = ()
    tap: Tap = Tap()
    mirrors: tuple[str, ...] = ()


#: Begins a line to a worker that is no task: the tap as it is from now on.
TAP_MARK: Final = b"tap "


class Enrolled(msgspec.Struct, frozen=True, kw_only=True, tag="enrolled"):
    """What the server made of the request; `fingerprint` (the key's digest, 64 hex digits) is for the person who compares."""

    state: str
    fingerprint: str
    poll_after_s: int = 300


class Rekeyed(msgspec.Struct, frozen=True, kw_only=True, tag="rekeyed"):
    """`done`, or `pending`: a person has to approve the new key of this fingerprint first."""

    state: str
    fingerprint: str


class SessionMade(msgspec.Struct, frozen=True, kw_only=True, tag="session_made"):
    """A new token, and the highest event that the server holds."""

    token: str
    expires_in_s: int
    acked_seq: int


class Signed(msgspec.Struct, frozen=True, kw_only=True, tag="signed"):
    """The same events, those that need it in envelopes."""

    items: tuple[EventItem, ...]


class TokenRefused(msgspec.Struct, frozen=True, tag="token_refused"):
    """The server does not take the token any more: make a new session, then ask again."""


class Struck(msgspec.Struct, frozen=True, kw_only=True, tag="struck"):
    """A mirror that is left out for the rest of a download, and why."""

    mirror: str
    reason: str
    detail: str
    retry_after_s: int = 0


class Quiet(msgspec.Struct, frozen=True, tag="quiet"):
    """Nothing yet; the worker is still at it."""


Reply = Answer | Enrolled | Rekeyed | SessionMade | Signed | TokenRefused | Struck | Quiet
#: Performs one task: in this process, or in another one. Each reply is handled, and made durable, before the next is asked for.
Perform = Callable[[Task], Iterator[Reply]]
