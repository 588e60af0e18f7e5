"""HTTP to the control plane over the standard library: one connection, kept alive; every failure becomes a TransferError (`download.*`).

Redirects are answers, not followed: the server is who the configuration says. Bodies are handed out as they arrive, so that the caller can judge their rate.

A device whose clock is wrong takes every certificate for expired, or for not valid yet, and could never ask what time it is. So where the authority is pinned,
the validity period alone is overlooked for what is signed or checked by other means (`_TIMELESS`), never for payload bytes, nor for a claim token.

Where large packets vanish without a word (a tunnel whose MTU nobody tells: RFC 2923), connections come about, small answers come, large ones never do. So
after a silence on a connection that stood, the next one asks for small segments; after another silence, for usual ones again.
"""

import contextlib
import functools
import http.client
import io
import select
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, cast
from urllib.parse import urlsplit

from tidegate.agent.ports import Response
from tidegate.core.errors import ConfigError, TransferError

#: What may be asked over a connection whose certificate is out of its time: the time itself, metadata, sessions, and what goes with those.
_TIMELESS: Final = frozenset(
    f"/d/v1/{one}" for one in ("time", "nonce", "session", "assignment", "permit", "poll", "events")
)
_TIMELESS_FOLDER: Final = "/d/v1/repo/"
#: OpenSSL `x509_vfy.h`: X509_V_FLAG_NO_CHECK_TIME, X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED.
_NO_CHECK_TIME: Final = 0x200000
_OUT_OF_TIME: Final = (9, 10)
_READ_MAX: Final = 1 << 20
_SAFE: Final = ("GET", "HEAD")
#: What may be asked once more where a kept connection turns out to be closed: it carries a nonce or numbers of its own, so that done twice is done once. A
#: session and a new key use up a nonce of the server's, and who joins may use up a claim: those are asked once.
_KEYED: Final = frozenset(
    f"/d/v1/{one}" for one in ("nonce", "time", "assignment", "permit", "events")
)
#: Bytes of payload in a segment that pass where an IPv6 packet of the least MTU (1280, RFC 8200) does.
NARROW_BYTES: Final = 1220
#: Most bytes around a body: status line and headers, or the framing of one chunk and its trailers. http.client alone takes 100 headers of 64 KiB and any number
#: of interim answers and trailers.
FRAMING_MAX: Final = 64 << 10
#: Once its first byte is there, a head must be whole within this, in seconds; so must a chunk's framing.
FRAMING_S: Final = 10.0


class HttpTransport:
    """`agent.ports.Transport` to one server.

    Args:
        url: `http://host:port` or `https://host:port`; nothing behind the port.
        ca: file with the certificates of the authorities that are believed; None = the system's.
        timeout_s: to connect, and for each wait.
        monotonic: seconds, for the time that a head may take.
        narrow: begin with small segments.

    Raises:
        ConfigError: `config.invalid`: not such a URL.
    """

    def __init__(
        self,
        url: str,
        *,
        ca: str | None = None,
        timeout_s: float = 30.0,
        monotonic: Callable[[], float] = time.monotonic,
        narrow: bool = False,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
            raise ConfigError("config.invalid", f"[server] url {url[:200]!r} is no server")
        self._tls = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port or (443 if self._tls else 80)
        self._ca = ca
        self._timeout_s = timeout_s
        self._monotonic = monotonic
        self._connection: http.client.HTTPConnection | None = None
        self._open: _Answer | None = None
        self._timeless = False
        self._narrow = narrow
        self._reached = False
        #: Set from another thread: no answer is waited for until somebody sets it back.
        self.interrupted = False

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 30.0,
    ) -> Response:
        """Send one request. An answer that was not read to its end costs the connection.

        Where a kept connection breaks before it gave an answer, what may be repeated is asked once more, over a new one (RFC 9110, 9.2.2).
        """
        if self._open is not None:
            self._open.close()
        if self._connection is not None and (
            _is_over(self._connection) or (self._timeless and not _may_be_timeless(path))
        ):
            self.close()
        kept, sent = self._connection is not None, dict(headers or {})
        try:
            return self._once(method, path, sent, body, timeout_s)
        except (OSError, http.client.HTTPException) as error:
            self.failed(error)
            again = kept and _broke(error) and (method in _SAFE or path in _KEYED)
            if self.interrupted or not again:
                raise _translated(error) from error
        try:
            return self._once(method, path, sent, body, timeout_s)
        except (OSError, http.client.HTTPException) as error:
            self.failed(error)
            raise _translated(error) from error

    def failed(self, error: Exception) -> None:
        """Let go of a connection that failed; after a silence on one that stood, the next is tried with the other size of segments."""
        if self._reached and isinstance(error, TimeoutError):
            self._narrow = not self._narrow
        self.close()

    def interrupt(self) -> None:
        """End the wait for an answer, from another thread: whoever waits gets `download.truncated`, and the request is not sent again.

        It may not have been sent yet: then it ends before its answer is waited for.
        """
        self.interrupted = True
        sock = None if self._connection is None else self._connection.sock
        if sock is not None:
            with contextlib.suppress(OSError):
                # not SSLSocket's own, which would take its state away from under the thread that reads
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Let the connection go."""
        connection, self._connection, self._open = self._connection, None, None
        self._reached = False
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()

    def _once(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes | None,
        timeout_s: float,
    ) -> Response:
        if self._connection is None:
            self._connection = self._connect(timeout_s, timeless=_may_be_timeless(path))
        connection = self._connection
        if connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        headers.setdefault("accept-encoding", "identity")
        connection.request(method, path, body=body, headers=headers)
        if self.interrupted:
            raise ConnectionResetError("interrupted")
        self._open = _Answer(self, cast("_Bounded", connection.getresponse()))
        return self._open

    def _connect(self, timeout_s: float, *, timeless: bool) -> http.client.HTTPConnection:
        """Connect; once more without the certificate's time, if that is all that is wrong and `timeless` allows it."""
        self._timeless = False
        timeout = min(timeout_s, self._timeout_s) or self._timeout_s
        if not self._tls:
            return self._opened(http.client.HTTPConnection(self._host, self._port, timeout=timeout))
        import ssl

        context = ssl.create_default_context(cafile=self._ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        make = functools.partial(
            http.client.HTTPSConnection, self._host, self._port, timeout=timeout, context=context
        )
        try:
            return self._opened(make())
        except ssl.SSLCertVerificationError as error:
            # Among the system's many authorities there are some whose old keys nobody guards any more.
            if not timeless or self._ca is None or error.verify_code not in _OUT_OF_TIME:
                raise
        context.verify_flags |= _NO_CHECK_TIME
        made = self._opened(make())
        self._timeless = True
        return made

    def _opened(self, made: http.client.HTTPConnection) -> http.client.HTTPConnection:
        made.response_class = cast("Any", functools.partial(_Bounded, monotonic=self._monotonic))
        # http.client keeps it in an attribute to be replaced.
        cast("Any", made)._create_connection = self._dial  # noqa: SLF001 - as it says itself
        made.connect()
        return made

    def _dial(self, address: tuple[str, int], timeout_s: float, _source: object) -> socket.socket:
        """Connect to the first of a host's addresses that lets us. Note that it did: what is silent from then on is not away."""
        self._reached = False
        failure: OSError = ConnectionRefusedError(f"{address[0]} has no address")
        for family, kind, protocol, _, place in socket.getaddrinfo(
            *address, type=socket.SOCK_STREAM
        ):
            made = socket.socket(family, kind, protocol)
            try:
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._narrow:
                    # Before connecting: it is what the other end is told.
                    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, NARROW_BYTES)
                made.settimeout(timeout_s)
                made.connect(place)
            except OSError as error:
                made.close()
                failure = error
            else:
                self._reached = True
                return made
        raise failure


def _is_over(connection: http.client.HTTPConnection) -> bool:
    """Say whether a kept connection was closed meanwhile. Nothing else can have come: nobody asked."""
    if connection.sock is None:
        return False
    ready, _, _ = select.select([connection.sock], [], [], 0)
    return bool(ready)


def _broke(error: Exception) -> bool:
    """Say whether a connection was closed in the place of an answer."""
    return isinstance(error, ConnectionError) or type(error).__name__ == "SSLEOFError"


def _may_be_timeless(path: str) -> bool:
    return path in _TIMELESS or path.startswith(_TIMELESS_FOLDER)


class _Meter(io.RawIOBase):
    """A socket's bytes, of which so many may be read, and not for long once they begin to come.

    Args:
        raw: the socket.
        monotonic: seconds.
    """

    def __init__(
        self, raw: io.RawIOBase, sock: socket.socket, monotonic: Callable[[], float]
    ) -> None:
        self._raw = raw
        self._sock = sock
        self._monotonic = monotonic
        self._wait_s = sock.gettimeout() or FRAMING_S
        self.allow(0)

    def allow(self, count: int) -> None:
        """Begin a measure: `count` bytes and the framing around them."""
        self._left = count + FRAMING_MAX
        self._until: float | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        now = self._monotonic()
        left_s = self._wait_s if self._until is None else self._until - now
        if left_s <= 0:
            raise TimeoutError(f"not whole after {FRAMING_S:.0f} s")
        if self._left <= 0:
            raise http.client.LineTooLong("headers or trailers")
        self._sock.settimeout(min(left_s, self._wait_s))
        count: int | None = self._raw.readinto(buffer)
        if self._until is None:
            self._until = self._monotonic() + FRAMING_S
        self._left -= count or 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Bounded(http.client.HTTPResponse):
    """An answer that is read through a meter."""

    def __init__(
        self, sock: socket.socket, *, method: str | None, monotonic: Callable[[], float]
    ) -> None:
        super().__init__(sock, method=method)
        raw = self.fp.detach()
        self.meter = _Meter(raw, sock, monotonic)
        self.fp = io.BufferedReader(self.meter)


class _Answer:
    """`agent.ports.Response` of http.client."""

    def __init__(self, transport: HttpTransport, inner: _Bounded) -> None:
        self._transport = transport
        self._inner = inner
        self.status = inner.status
        self.headers: Mapping[str, str] = {
            name.lower(): value for name, value in inner.getheaders()
        }
        # What http.client made of it: None for a chunked body, and for one that ends with the connection.
        self._left = inner.length
        self._done = False

    def read(self, count: int) -> bytes:
        """Read what is there, at most `count` bytes; b"" at the end of a whole body only."""
        if self._done:
            return b""
        try:
            self._inner.meter.allow(min(count, _READ_MAX))
            piece = self._inner.read1(min(count, _READ_MAX))
        except (OSError, http.client.HTTPException) as error:
            self._transport.failed(error)
            raise _translated(error) from error
        if piece:
            if self._left is not None:
                self._left -= len(piece)
            return piece
        self._done = True
        if self._left:
            self._transport.close()
            raise TransferError("download.truncated", f"{self._left} bytes are missing")
        return b""

    def close(self) -> None:
        """Give the connection back if the body was read to its end, else away."""
        if self._done or self._left == 0 or self._inner.isclosed():
            self._inner.close()
        else:
            self._transport.close()


def _translated(error: Exception) -> TransferError:
    """Name the way in which the link failed."""
    if isinstance(error, socket.gaierror):
        code = "download.dns"
    elif isinstance(error, TimeoutError):
        code = "download.timeout"
    elif type(error).__module__ == "ssl":
        code = "download.tls"
    elif isinstance(error, http.client.IncompleteRead | ConnectionResetError | BrokenPipeError):
        code = "download.truncated"
    else:
        code = "download.refused"
    return TransferError(code, f"{type(error).__name__}: {error}"[:200])
