"""Payload bytes to devices, by one of three ways: `[delivery] artifacts`.

- `stream`: we read and send them, from either back end; ranges, tags, and nothing more for who is revoked in the middle.
- `redirect`: 307 to a link into the object store that lives for minutes, to devices that say that they follow it; others are streamed to. The link is the
  leave: it stands in no log.
- `accel`: nginx in front of us reads the folder (`X-Accel-Redirect`), ranges included; it is told the tag, so that a device resumes by either way.

What a device gets is untrusted by all of them: it holds every segment against signed digests. A store that is asked over a network is asked in threads of its
own, so that a slow one holds up nobody's poll.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

from tidegate.core.errors import ConfigError, RequestError, TidegateError
from tidegate.core.protocol import FOLLOWS_HEADER
from tidegate.server import ranges
from tidegate.server.asgi import (
    Headers,
    Receive,
    Scope,
    Send,
    header_of,
    headers_of,
    send_all,
    send_problem,
)
from tidegate.server.blobs import Blob, Blobs
from tidegate.server.config import Settings
from tidegate.server.services import Services
from tidegate.server.snapshot import ACCEPTED
from tidegate.server.streams import ABORT, Abort, Streams

P = ParamSpec("P")
T = TypeVar("T")

#: Read and sent at once, in bytes: from a folder, and from a store, where each one is a hop to a thread.
_PIECE: Final = 256 << 10
_REMOTE_PIECE: Final = 1 << 20
#: Reads from a store at one time. A stream holds a thread only while it waits for its next piece.
_THREADS: Final = 32
_FIXED: Final[Headers] = [
    (b"content-type", b"application/octet-stream"),
    (b"cache-control", b"public, max-age=31536000, immutable"),
    (b"accept-ranges", b"bytes"),
]
_log = logging.getLogger("tidegate.delivery")


def require_way(settings: Settings, blobs: Blobs) -> None:
    """Refuse a way that the place of the blobs does not have.

    Raises:
        ConfigError: `config.invalid`.
    """
    if settings.artifacts == ("accel" if blobs.remote else "redirect"):
        where = "an object store" if blobs.remote else "a folder"
        raise ConfigError(
            "config.invalid",
            f'[delivery] artifacts: "{settings.artifacts}" does not go with {where}',
        )


class Delivery:
    """Answers `GET /d/v1/blobs/SHA256` of devices that were let in."""

    def __init__(self, services: Services) -> None:
        """Serve from these parts.

        Raises:
            ConfigError: `config.invalid`: not by this way from there.
        """
        require_way(services.settings, services.blobs)
        self._blobs = services.blobs
        self._settings = services.settings
        self._counters = services.counters
        self._fleet = services.fleet
        remote = services.blobs.remote
        self._streams = Streams(services.settings.egress_device_rate)
        self._piece = self._streams.piece(_REMOTE_PIECE if remote else _PIECE)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="blobs") if remote else None

    async def answer(
        self, sha256: str, row: int, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer a request for a blob (untrusted digest text).

        Args:
            sha256: the blob's name.
            row: of the device that asks, in the fleet.
            scope: of ASGI, as the other two.
            receive: of ASGI.
            send: of ASGI.

        Raises:
            RequestError: `request.not_found`.
            TidegateError: `blobs.*`, before anything was sent.
        """
        self._counters.blob_requests += 1
        if self._settings.artifacts == "redirect" and _follows(scope):
            await self._redirect(sha256, send)
            return
        blob = await self._call(self._blobs.open, sha256)
        if blob is None:
            raise _absent()
        try:
            etag = b'"%s"' % sha256.encode()
            common: Headers = [(b"etag", etag), *_FIXED]
            found = headers_of(scope, b"range", b"if-range", b"if-none-match")
            if ranges.matches(found[b"if-none-match"], etag):
                await send_all(send, 304, b"", common)
                return
            if self._settings.artifacts == "accel":
                inside = f"{self._settings.accel_prefix.rstrip('/')}/{sha256[:2]}/{sha256}"
                told = [*common, (b"x-accel-redirect", inside.encode())]
                if self._streams.rate:
                    told.append((b"x-accel-limit-rate", b"%d" % self._streams.rate))
                await send_all(send, 200, b"", told)
                return
            asked = ranges.window(blob.size, found[b"range"], found[b"if-range"], etag)
            if asked is None:
                extent = (b"content-range", b"bytes */%d" % blob.size)
                await send_problem(
                    send, RequestError("download.range", f"{blob.size} bytes"), [extent]
                )
                return
            await self._send_window(blob, asked, common, row, scope, receive, send)
        finally:
            await self._call(blob.close)

    async def _redirect(self, sha256: str, send: Send) -> None:
        link = await self._call(self._blobs.link, sha256, self._settings.link_s)
        if link is None:
            raise _absent()
        told: Headers = [(b"location", link.encode()), (b"cache-control", b"no-store")]
        await send_all(send, 307, b"", told)

    async def _send_window(
        self,
        blob: Blob,
        asked: ranges.Window,
        common: Headers,
        row: int,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        told = [*common, (b"content-length", str(asked.stop - asked.start).encode())]
        if asked.partial:
            extent = b"bytes %d-%d/%d" % (asked.start, asked.stop - 1, blob.size)
            told.append((b"content-range", extent))
        status = 206 if asked.partial else 200
        offset = asked.stop if scope["method"] == "HEAD" else asked.start
        # read before anything is said: a store that fails at once is an answer, not a cut
        piece = await self._read(blob, offset, asked.stop)
        await send({"type": "http.response.start", "status": status, "headers": told})
        abort: Abort = scope.get(ABORT) or (lambda: None)
        gone = asyncio.ensure_future(_gone(receive)) if asked.stop - offset > self._piece else None
        state = self._fleet.state
        try:
            with self._streams.opened(row, abort):
                while piece:
                    offset += len(piece)
                    self._counters.blob_bytes += len(piece)
                    await self._streams.send(row, piece, send, abort)
                    # who is revoked in the middle of a long download does not get the rest of it
                    if (gone is not None and gone.done()) or state[row] != ACCEPTED:
                        break
                    piece = await self._read(blob, offset, asked.stop)
            # where it is shorter than it said, the connection is closed and the device resumes
            await send({"type": "http.response.body", "body": b""})
        except TidegateError as error:
            _log.warning("a download was cut off: %s", error)
        finally:
            if gone is not None:
                gone.cancel()

    async def _read(self, blob: Blob, offset: int, stop: int) -> bytes:
        count = min(self._piece, stop - offset)
        if not count:
            return b""
        if self._threads is None:
            return blob.read_at(offset, count)
        return await self._call(blob.read_at, offset, count)

    async def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the place of the blobs: here where it is a folder, else in a thread."""
        if self._threads is None:
            return function(*args, **kwargs)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: function(*args, **kwargs))


def _follows(scope: Scope) -> bool:
    """Say whether whoever asks can be sent on: an agent of before there were such ways has to get its bytes all the same."""
    return scope["method"] == "GET" and header_of(scope, FOLLOWS_HEADER.encode()) == b"307"


def _absent() -> RequestError:
    return RequestError("request.not_found", "no such blob")


async def _gone(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
