"""Where a payload's bytes come from, and how fast: mirrors in their order, then the server; all of it through one pacer.

It stands between an installer and the link and looks like the link, so that no installer has to know about it. A mirror is trusted with nothing: it sees the
digest that is asked for, never a token, an ETag of the server's or the device's name, and what it gives is held against the signed digests like everything
else. One that fails in any way is left out for the rest of the job.

The server may send a device on (307) for a payload, and for nothing else: to an object store, say. Whom it names is trusted as little as a mirror, and told as
little: HTTPS only (plain HTTP to this machine itself), a few times at most. The link may be a secret, so no error repeats it. Imported by the worker only.
"""

import ipaddress
import re
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
from tidegate.core.protocol import FOLLOWS_HEADER

#: How often in a row a device lets itself be sent on.
HOPS_MAX: Final = 3
#: Longest address that it is sent to; links that are signed have about a thousand characters.
LINK_MAX: Final = 8192
_SENT_ON: Final = 307
#: Tells the server that this device lets itself be sent on; earlier agents did not.
FOLLOWS: Final = {FOLLOWS_HEADER: str(_SENT_ON)}
_LINK: Final = re.compile(r"[\x21-\x7e]+")
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
                method, path, headers={**(headers or {}), **FOLLOWS}, body=body, timeout_s=timeout_s
            )
            own = response.status != _SENT_ON
            if not own:
                response = self._sent_on(response, headers or {}, timeout_s)
        else:
            response = self._from_mirror(self._serving, path, headers or {}, timeout_s)
            own = False
        self._pacer.begin()
        return _Paced(response, self._pacer, own=own)

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
        where = f"{parts.path.rstrip('/')}/blobs/{path.removeprefix(BLOBS)}"
        origin = f"{parts.scheme}://{parts.netloc}"
        return self._require_bytes(self._ask(origin, where, headers, timeout_s))

    def _sent_on(
        self, response: Response, headers: Mapping[str, str], timeout_s: float
    ) -> Response:
        """Go where the server says, as far as that is allowed.

        Raises:
            TransferError: `download.refused`: it is not; or whatever the link raises.
        """
        for _ in range(HOPS_MAX):
            location = response.headers.get("location", "")
            response.close()
            origin, where = _target(location)
            response = self._ask(origin, where, headers, timeout_s)
            if response.status != _SENT_ON:
                return self._require_bytes(response)
        response.close()
        raise TransferError("download.refused", f"sent on more than {HOPS_MAX} times")

    def _ask(
        self, origin: str, where: str, headers: Mapping[str, str], timeout_s: float
    ) -> Response:
        """Ask another server for bytes, and tell it nothing else."""
        if self._way is None or self._way[0] != origin:
            self._way = (origin, self._connect(origin))
        told = {name: value for name, value in headers.items() if name in _FOR_MIRRORS}
        return self._way[1].request("GET", where, headers=told, timeout_s=timeout_s)

    def _require_bytes(self, response: Response) -> Response:
        if response.status not in (200, 206):
            response.close()
            wish = wish_s(response.headers, self._clock)
            raise TransferError("download.refused", f"status {response.status}", retry_after_s=wish)
        return response


def _target(location: str) -> tuple[str, str]:
    """Return origin, and path with query, of an address that the server (not trusted for that) sends a device to.

    Raises:
        TransferError: `download.refused`. It does not repeat the address.
    """
    try:
        parts = urlsplit(location)
        port = parts.port
    except ValueError:
        raise TransferError("download.refused", "sent on to what is no address") from None
    host = parts.hostname or ""
    if (
        not _LINK.fullmatch(location)
        or len(location) > LINK_MAX
        or not host
        or parts.username is not None
        or port == 0
    ):
        raise TransferError("download.refused", "sent on to what is no address")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_this_machine(host)):
        raise TransferError("download.refused", f"sent on to {parts.scheme[:10]}, not https")
    if parts.path.startswith("/d/v1/"):
        # The link is lenient with certificates for some of these (`agent.net.link`).
        raise TransferError("download.refused", "sent on to a path of a device's server")
    where = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    return f"{parts.scheme}://{parts.netloc}", where


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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
