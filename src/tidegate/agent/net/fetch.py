"""One document over a link that lies: a bound on its size before it is read, a minimum rate, no encodings, no redirects."""

from collections.abc import Iterator
from typing import Final

from tidegate.agent.net.api import refuse_encoding
from tidegate.agent.net.pacer import GRACE_S, RATE_MIN, Pacer
from tidegate.agent.net.retry_after import wish_s
from tidegate.agent.ports import Clock, Response, Transport
from tidegate.core.errors import PublisherError, TransferError

_PIECE: Final = 64 << 10
#: What a file server says of a file that is not there (S3 says 403).
_ABSENT: Final = frozenset({403, 404, 410})


def document(
    transport: Transport, path: str, *, limit: int, clock: Clock, timeout_s: float = 30.0
) -> bytes | None:
    """Fetch a whole document (untrusted); None when the server says that there is none.

    Args:
        transport: the way to the server.
        path: absolute path, quoted.
        limit: most bytes that are read.
        clock: measures the rate.
        timeout_s: for each wait on the link.

    Raises:
        PublisherError: `sig.oversized`: it promises or sends more than `limit`.
        TransferError: `download.*`.
    """
    response = transport.request("GET", path, timeout_s=timeout_s)
    try:
        if response.status in _ABSENT:
            return None
        _check(response, path, limit, clock)
        return b"".join(_pieces(response, path, limit, clock))
    finally:
        response.close()


def _check(response: Response, path: str, limit: int, clock: Clock) -> None:
    if response.status != 200:
        said = f"{path[:200]}: server answers {response.status}"
        raise TransferError("download.refused", said, retry_after_s=wish_s(response.headers, clock))
    refuse_encoding(response)
    promised = response.headers.get("content-length", "")
    if promised.isdigit() and (len(promised) > 12 or int(promised) > limit):
        raise PublisherError("sig.oversized", f"{path[:200]}: over {limit} bytes")


def _pieces(response: Response, path: str, limit: int, clock: Clock) -> Iterator[bytes]:
    pacer = Pacer(clock, rate=0, rate_min=RATE_MIN, grace_s=GRACE_S)
    count = last = 0
    while piece := response.read(min(_PIECE, limit - count + 1)):
        count += len(piece)
        if count > limit:
            raise PublisherError("sig.oversized", f"{path[:200]}: over {limit} bytes")
        if last:  # what comes in one piece is never too slow
            pacer.took(last)
        last = len(piece)
        yield piece
