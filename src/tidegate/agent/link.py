"""HTTP to the control plane over the standard library: one connection, kept alive; every failure becomes a TransferError (`download.*`).

Redirects are answers, not followed: the server is who the configuration says. Bodies are handed out as they arrive, so that the caller can judge their rate.
"""

import contextlib
import http.client
import socket
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from tidegate.agent.ports import Response
from tidegate.core.errors import ConfigError, TransferError

#: Most header bytes of an answer are bounded by http.client itself (100 headers of 64 KiB); this bounds what is asked of `read`.
_READ_MAX: Final = 1 << 20


class HttpTransport:
    """`agent.ports.Transport` to one server.

    Args:
        url: `http://host:port` or `https://host:port`; nothing behind the port.
        ca: file with the certificates of the authorities that are believed; None = the system's.
        timeout_s: to connect, and for each wait.

    Raises:
        ConfigError: `config.invalid`: not such a URL.
    """

    def __init__(self, url: str, *, ca: str | None = None, timeout_s: float = 30.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
            raise ConfigError("config.invalid", f"[server] url {url[:200]!r} is no server")
        self._tls = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port or (443 if self._tls else 80)
        self._ca = ca
        self._timeout_s = timeout_s
        self._connection: http.client.HTTPConnection | None = None
        self._open: _Answer | None = None

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 30.0,
    ) -> Response:
        """Send one request. An answer that was not read to its end costs the connection."""
        if self._open is not None:
            self._open.close()
        for fresh in (False, True):
            reused = self._connection is not None and not fresh
            try:
                return self._once(method, path, dict(headers or {}), body, timeout_s)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                # The server may have closed a kept connection in the meantime; every request of this protocol may be repeated.
                if reused and not isinstance(error, TimeoutError):
                    continue
                raise _translated(error) from error
        raise TransferError("download.refused", "the connection was closed")  # pragma: no cover

    def close(self) -> None:
        """Let the connection go."""
        connection, self._connection, self._open = self._connection, None, None
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
            self._connection = self._connect(timeout_s)
        connection = self._connection
        if connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        headers.setdefault("accept-encoding", "identity")
        connection.request(method, path, body=body, headers=headers)
        self._open = _Answer(self, connection.getresponse(), head=method == "HEAD")
        return self._open

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        timeout = min(timeout_s, self._timeout_s) or self._timeout_s
        if not self._tls:
            made = http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        else:
            import ssl

            context = ssl.create_default_context(cafile=self._ca)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            made = http.client.HTTPSConnection(
                self._host, self._port, timeout=timeout, context=context
            )
        made.connect()
        if made.sock is not None:
            made.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made


class _Answer:
    """`agent.ports.Response` of http.client."""

    def __init__(
        self, transport: HttpTransport, inner: http.client.HTTPResponse, *, head: bool
    ) -> None:
        self._transport = transport
        self._inner = inner
        self.status = inner.status
        self.headers: Mapping[str, str] = {
            name.lower(): value for name, value in inner.getheaders()
        }
        promised = self.headers.get("content-length", "")
        known = promised.isdigit() and not head and inner.status not in (204, 304)
        self._left = int(promised) if known else None
        self._done = False

    def read(self, count: int) -> bytes:
        """Read what is there, at most `count` bytes; b"" at the end of a whole body only."""
        if self._done:
            return b""
        try:
            piece = self._inner.read1(min(count, _READ_MAX))
        except (OSError, http.client.HTTPException) as error:
            self._transport.close()
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
