"""Ask for a payload's bytes from an exact offset on, over a link that lies and breaks.

What it gives is still untrusted; `core.payload` holds every segment against its signed digest. Where the bytes come from, and how fast, is the business of
`agent.net.delivery`.
"""

import re
from typing import Final

from tidegate.agent.net.api import TokenError
from tidegate.agent.net.retry_after import wish_s
from tidegate.agent.ports import Clock, Response, Transport
from tidegate.core.errors import TransferError

BLOBS: Final = "/d/v1/blobs/"
_PIECE: Final = 256 << 10
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})")


class Stream:
    """One open answer, from `offset` of the payload on.

    Args:
        response: checked by `open_stream`.

    Attributes:
        etag: what the server said of this copy; "" for nothing.
        count: bytes that were read.
    """

    def __init__(self, response: Response) -> None:
        self._response = response
        self.etag = response.headers.get("etag", "")
        self.count = 0

    def read_on(self, buffer: bytearray, count: int) -> None:
        """Read on, once, until `buffer` holds at most `count` bytes.

        Raises:
            TransferError: `download.truncated` when the body ends before; `download.slow`; whatever the link raises. What came is in `buffer`.
        """
        piece = self._response.read(min(_PIECE, count - len(buffer)))
        if not piece:
            raise TransferError(
                "download.truncated", f"{len(buffer)} of {count} bytes, then the end"
            )
        buffer += piece
        self.count += len(piece)

    def read_exactly(self, count: int) -> bytes:
        """Read `count` bytes.

        Raises:
            TransferError: see `read_on`; what came is gone.
        """
        buffer = bytearray()
        while len(buffer) < count:
            self.read_on(buffer, count)
        return bytes(buffer)

    def close(self) -> None:
        """Let the connection go."""
        self._response.close()


def open_stream(
    transport: Transport,
    sha256: str,
    *,
    length: int,
    offset: int,
    etag: str,
    token: str | None,
    timeout_s: float,
    clock: Clock,
) -> Stream:
    """Ask for a blob from `offset` to its end.

    Args:
        transport: the way to the server.
        sha256: name of the blob.
        length: its signed length, in bytes.
        offset: first byte wanted; 0 asks without a Range.
        etag: what an earlier answer said, for If-Range; "" for none.
        token: bearer token.
        timeout_s: for each wait on the link.
        clock: draws how much longer than asked for a busy server is left alone.

    Raises:
        TransferError: `download.range` for any other range than asked for, `download.refused` for an encoding, a redirect or an error status.
        TokenError: 401.
    """
    headers = {"accept-encoding": "identity"}
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    if offset:
        headers["range"] = f"bytes={offset}-{length - 1}"
        if etag:
            headers["if-range"] = etag
    path = f"{BLOBS}{sha256}"
    response = transport.request("GET", path, headers=headers, timeout_s=timeout_s)
    try:
        _check(response, length, offset, clock)
    except BaseException:
        response.close()
        raise
    return Stream(response)


def _check(response: Response, length: int, offset: int, clock: Clock) -> None:
    status = response.status
    if status == 401:
        raise TokenError("session.expired")
    if status == 416 or (offset and status == 200):
        raise TransferError("download.range", f"status {status} to a range from {offset}")
    if status != (206 if offset else 200):
        wish = wish_s(response.headers, clock)
        raise TransferError("download.refused", f"status {status}", retry_after_s=wish)
    encoding = response.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise TransferError("download.refused", f"content encoding {encoding[:20]!r}")
    if offset:
        found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        if found is None or tuple(map(int, found.groups())) != (offset, length - 1, length):
            raise TransferError("download.range", "another range than asked for")
    promised = response.headers.get("content-length")
    if promised is not None and promised != str(length - offset):
        raise TransferError("download.range", f"{promised[:20]} bytes instead of {length - offset}")
