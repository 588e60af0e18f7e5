"""Where a payload's bytes come from, and how fast: mirrors in their order, then the server; all of it through one pacer.

It stands between an installer and the link and looks like the link, so that no installer has to know about it. A mirror is trusted with nothing: it sees the
digest that is asked for, never a token, an ETag of the server's or the device's name, and what it gives is held against the signed digests like everything
else. One that fails in any way is left out for the rest of the job. Imported by the worker only.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

import msgspec

from tidegate.agent.jobs import Struck
from tidegate.agent.net.download import BLOBS
from tidegate.agent.net.pacer import Pacer, PauseError
from tidegate.agent.net.retry_after import wish_s
from tidegate.agent.ports import Board, Clock, Response, Storage, Transport, World
from tidegate.core.errors import TransferError

#: What a mirror is told of a request.
_FOR_MIRRORS: Final = frozenset({"accept-encoding", "range"})


class OtherWay(msgspec.Struct, frozen=True, kw_only=True):
    """A device's ports with another way to the bytes in the place of the server's."""

    clock: Clock
    storage: Storage
    board: Board
    transport: Transport


def through(world: World, transport: Transport) -> World:
    """Return the same device with `transport` in the place of its own."""
    return OtherWay(
        clock=world.clock, storage=world.storage, board=world.board, transport=transport
    )


class Delivery:
    """`agent.ports.Transport` for the bytes of one job.

    Args:
        server: the way to the server, the last resort.
        mirrors: base addresses, tried in this order; a payload is at `<base>/blobs/<sha256>`.
        connect: opens the way to the origin (scheme, host, port) of a mirror.
        pacer: throttle, minimum rate, pause.
        clock: draws how much longer than asked for a busy mirror is left alone.
    """

    def __init__(
        self,
        server: Transport,
        mirrors: Sequence[str],
        connect: Callable[[str], Transport],
        pacer: Pacer,
        clock: Clock,
    ) -> None:
        self._server = server
        self._left = list(mirrors)
        self._connect = connect
        self._pacer = pacer
        self._clock = clock
        self._serving: str | None = None
        self._way: tuple[str, Transport] | None = None

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 30.0,
    ) -> Response:
        """Ask the first source that is left. What is no payload goes to the server, as it is."""
        if not path.startswith(BLOBS):
            return self._server.request(
                method, path, headers=headers, body=body, timeout_s=timeout_s
            )
        self._pacer.wait()
        self._serving = self._left[0] if self._left else None
        if self._serving is None:
            response = self._server.request(
                method, path, headers=headers, body=body, timeout_s=timeout_s
            )
        else:
            response = self._from_mirror(self._serving, path, headers or {}, timeout_s)
        self._pacer.begin()
        return _Paced(response, self._pacer, own=self._serving is None)

    def strike(self, error: TransferError) -> Struck | None:
        """Leave out the mirror that served last, if it was one: the job can go on at once. None: the server itself failed, or nobody did."""
        mirror, self._serving = self._serving, None
        if mirror is None or isinstance(error, PauseError):
            return None
        self._left.remove(mirror)
        # What it gave, and how fast, is not held against the next one.
        self._pacer.begin()
        return Struck(
            mirror=mirror,
            reason=error.code,
            detail=error.detail,
            retry_after_s=error.retry_after_s,
        )

    def _from_mirror(
        self, mirror: str, path: str, headers: Mapping[str, str], timeout_s: float
    ) -> Response:
        parts = urlsplit(mirror)
        if self._way is None or self._way[0] != mirror:
            self._way = (mirror, self._connect(f"{parts.scheme}://{parts.netloc}"))
        told = {name: value for name, value in headers.items() if name in _FOR_MIRRORS}
        where = f"{parts.path.rstrip('/')}/blobs/{path.removeprefix(BLOBS)}"
        response = self._way[1].request("GET", where, headers=told, timeout_s=timeout_s)
        if response.status not in (200, 206):
            response.close()
            wish = wish_s(response.headers, self._clock)
            raise TransferError("download.refused", f"status {response.status}", retry_after_s=wish)
        return response


class _Paced:
    """`agent.ports.Response` whose body comes through the pacer. The ETag of a mirror is none of the server's."""

    def __init__(self, inner: Response, pacer: Pacer, *, own: bool) -> None:
        self._inner = inner
        self._pacer = pacer
        self.status = inner.status
        self.headers: Mapping[str, str] = (
            inner.headers
            if own
            else {name: value for name, value in inner.headers.items() if name != "etag"}
        )

    def read(self, count: int) -> bytes:
        """Read on, as fast as is allowed. Raises PauseError and `download.slow` before anything is read, so that nothing is lost by it."""
        self._pacer.wait()
        piece = self._inner.read(min(count, self._pacer.piece))
        self._pacer.note(len(piece))
        return piece

    def close(self) -> None:
        """Let go."""
        self._inner.close()
