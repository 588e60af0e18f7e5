"""Ask the control plane one thing over a `Transport`: bounded bodies, and every status that is not a success turned into an error with a code.

Used by the loop (poll, events) and by the worker (all the rest). It trusts nothing that it returns.
"""

from typing import Final, TypeVar

import msgspec

from tidegate.agent.net.pacer import GRACE_S, RATE_MIN, Pacer
from tidegate.agent.net.retry_after import wish_s
from tidegate.agent.ports import Clock, Response, Transport
from tidegate.core import codec
from tidegate.core.errors import HINTS, RequestError, TransferError
from tidegate.core.protocol import Problem
from tidegate.core.reasons import REASONS

T = TypeVar("T")

#: Largest answer to a message, in bytes.
ANSWER_MAX: Final = 256 << 10
_PIECE: Final = 64 << 10


class TokenError(RequestError):
    """The session is over; a new one is needed."""


class Reply(msgspec.Struct, frozen=True):
    """A whole answer, within limits. Untrusted."""

    status: int
    headers: dict[str, str]
    body: bytes


def call(
    transport: Transport,
    method: str,
    path: str,
    *,
    clock: Clock,
    token: str | None = None,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    limit: int = ANSWER_MAX,
    timeout_s: float = 30.0,
) -> Reply:
    """Send one request and read the answer whole.

    `clock` measures how fast the answer comes.

    Raises:
        TransferError: the link failed, or the server cannot now (5xx, 429).
        TokenError: 401.
        RequestError: the server refuses, with its own code.
    """
    sent = dict(headers or {})
    if token is not None:
        sent["authorization"] = f"Bearer {token}"
    if body is not None:
        sent["content-type"] = "application/json"
    response = transport.request(method, path, headers=sent, body=body, timeout_s=timeout_s)
    try:
        refuse_encoding(response)
        whole = read_all(response, limit, clock)
    finally:
        response.close()
    reply = Reply(response.status, dict(response.headers), whole)
    _check(reply, clock)
    return reply


def post(
    transport: Transport,
    path: str,
    message: object,
    kind: type[T],
    *,
    clock: Clock,
    token: str | None = None,
) -> T:
    """Post one message and decode the answer (untrusted).

    Raises:
        TransferError, TokenError, RequestError: as `call`; an answer that is no such message is a TransferError.
    """
    reply = call(transport, "POST", path, clock=clock, token=token, body=codec.encode(message))
    return understood(reply.body, kind)


def understood(body: bytes, kind: type[T]) -> T:
    """Decode an answer (untrusted).

    Raises:
        TransferError: `download.refused`: the server speaks another language.
    """
    try:
        return codec.decode(body, kind)
    except RequestError as error:
        raise TransferError("download.refused", f"answer not understood: {error.detail}") from error


def read_all(response: Response, limit: int, clock: Clock) -> bytes:
    """Read a body whole, at most `limit` bytes and not too slowly.

    Raises:
        TransferError: `download.truncated` when it is longer: nobody asked for that much; `download.slow`.
    """
    pacer = Pacer(clock, rate=0, rate_min=RATE_MIN, grace_s=GRACE_S)
    pieces: list[bytes] = []
    count = 0

    while piece := response.read(_PIECE):
        count += len(piece)
        if count > limit:
            raise TransferError("download.truncated", f"answer over {limit} bytes")
        if pieces:  # what comes in one piece is never too slow
            pacer.took(len(pieces[-1]))
        pieces.append(piece)
    return b"".join(pieces)


def refuse_encoding(response: Response) -> None:
    """Refuse a body that would have to be unpacked: nobody asked for one, and unpacking has no bound.

    Raises:
        TransferError: `download.refused`.
    """
    encoding = response.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise TransferError("download.refused", f"content encoding {encoding[:20]!r}")


def _check(reply: Reply, clock: Clock) -> None:
    status = reply.status
    if 200 <= status < 300 or status == 304:
        return
    if 300 <= status < 400:
        # Nobody of ours redirects: a log-in page on the way does (RFC 8952), and it is no word about the request.
        raise TransferError("download.refused", f"server answers {status}, a redirect")
    code, detail = _problem(reply.body)
    if status == 401:
        raise TokenError("session.expired", detail)
    if status >= 500 or status == 429:
        said = f"server answers {status} {code}: {detail}"[:200]
        raise TransferError("download.refused", said, retry_after_s=wish_s(reply.headers, clock))
    known = code if code in HINTS or code in REASONS else "request.invalid"
    raise RequestError(known, f"server answers {status}: {detail}"[:300])


def _problem(body: bytes) -> tuple[str, str]:
    try:
        found = msgspec.json.decode(body, type=Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "", ""
    return found.code, found.detail or found.title
