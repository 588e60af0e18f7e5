"""How a call travels: one connection a call, over the standard library; sent again where that is safe, and only there.

A call is sent again when the server is busy and says so, as often as `TRIES` allows and after as long as it asks for. When the line breaks after a call went
out, it is sent again only if it reads, or has an idempotency key: then the server answers the second one as it answered the first. A body that streams from a
file is sent once; `publisher.sending` goes on with large ones.
"""

import contextlib
import http.client
import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, TypedDict, TypeVar, Unpack
from urllib.parse import SplitResult, quote, urlencode, urlsplit

import msgspec

from tidegate import __version__
from tidegate.client.problems import problem, wait_of
from tidegate.client.stream import StreamEvent, events_of
from tidegate.client.tag import Tag
from tidegate.core.errors import ConfigError, RequestError, TransferError

T = TypeVar("T")
Progress = Callable[[int, int], None]
JSON: Final = "application/json"
_PIECE: Final = 1 << 18
#: So long it is waited before a call is sent again on another line, in seconds.
AGAIN_S: Final = 0.5
#: A call is sent so often in all while the server is busy.
TRIES: Final = 3
#: Codes that say that nothing was done, and that it may be soon.
_BUSY: Final = frozenset({"server.busy", "request.rate_limited"})
#: The line broke when the call was on its way: whether it was done is not known.
_CUT: Final = (
    ConnectionResetError,
    ConnectionAbortedError,
    http.client.RemoteDisconnected,
    http.client.IncompleteRead,
)


@dataclass(frozen=True, slots=True)
class File:
    """A stretch of a file, as the body of a call: `count` bytes from `offset` on, None = all that is left.

    `progress` is told bytes of the file that were sent, and of how many.
    """

    path: Path
    offset: int = 0
    count: int | None = None
    progress: Progress | None = None

    def size(self) -> int:
        """Return how many bytes it has."""
        return self.path.stat().st_size - self.offset if self.count is None else self.count


Body = bytes | File
Headers = dict[str, str]


class Call(TypedDict, total=False):
    """What a call may have beside its method and path.

    Attributes:
        query: parameters; None is left out.
        headers: beside those that every call has.
        body: a struct or plain value as JSON, or bytes, or a stretch of a file as they are.
        content_type: of the body, if it is not JSON.
        if_match: ETag of what is to be changed, as it was read.
        key: idempotency key.
    """

    query: Mapping[str, object]
    headers: Headers
    body: object
    content_type: str
    if_match: Tag | str | None
    key: str


class Link:
    """One server, and who asks."""

    def __init__(
        self,
        server: str,
        token: str | None = None,
        *,
        ca: Path | None = None,
        timeout_s: float = 30,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare; nothing is connected yet.

        Args:
            server: base URL, `http://…` or `https://…`.
            token: bearer token; None = nobody.
            ca: PEM file of the only authority to be trusted, for servers with their own.
            timeout_s: longest silence, in seconds.
            sleep: how to wait, in seconds.

        Raises:
            ConfigError: `config.invalid`: not a URL of a server.
        """
        parts = urlsplit(server)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError("config.invalid", f"{server!r} is not the URL of a server")
        self.server = server.rstrip("/")
        self._parts = parts
        self.token = token
        self.ca = ca
        self._timeout_s = timeout_s
        self._sleep = sleep

    # --- calls ------------------------------------------------------------------------------------------------------

    def ask(
        self,
        method: str,
        path: str,
        kind: type[T],
        *,
        tag: Tag | None = None,
        **call: Unpack[Call],
    ) -> T:
        """Call `path` (`/api/v1/…`) and return its answer as a `kind`: for a route that has no method, or with `fields` in its query.

        Raises:
            TidegateError: as the server's problem says; `link.unreachable` when there is none, `link.answer` when the answer is no `kind`.
        """
        if tag is not None and tag.value:
            call["headers"] = {**call.get("headers", {}), "If-None-Match": tag.value}
        found = self._exchange(method, path, **call)
        body = found.body
        if tag is not None:
            body = tag.learn("" if found.status == 304 else found.headers.get("ETag", ""), body)
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.MsgspecError as error:
            raise RequestError("link.answer", f"{self.server}: {path}: {error}") from error

    def tell(self, method: str, path: str, **call: Unpack[Call]) -> None:
        """Call `path`, and pass over what it answers.

        Raises:
            TidegateError: as `ask`.
        """
        self._exchange(method, path, **call)

    def get_bytes(self, path: str, **call: Unpack[Call]) -> bytes:
        """Read any path of the server as it is.

        Raises:
            TidegateError: as `ask`.
        """
        return self._exchange("GET", path, **call).body

    def get_text(self, path: str, **call: Unpack[Call]) -> str:
        """Read any path of the server as text; what is no UTF-8 is replaced.

        Raises:
            TidegateError: as `ask`.
        """
        return self.get_bytes(path, **call).decode("utf-8", "replace")

    def lines(self, path: str, **call: Unpack[Call]) -> Iterator[str]:
        """Yield the lines of an answer as they come, until it ends.

        Raises:
            TidegateError: as `ask`.
        """
        connection = self._connect()
        try:
            target = self._target(path, call.get("query"))
            headers = {**self._headers(), **call.get("headers", {})}
            connection.request("GET", target, headers=headers)
            answer = connection.getresponse()
            if answer.status >= 400:
                raise problem(answer.status, answer.read())
            while line := answer.readline():
                yield line.decode("utf-8", "replace").rstrip("\r\n")
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()

    def events(self, path: str, **call: Unpack[Call]) -> Iterator[StreamEvent]:
        """Yield server-sent events as they come, until the server ends the stream.

        Raises:
            TidegateError: as `ask`.
        """
        return events_of(self.lines(path, **call))

    def put_part(self, url: str, part: File) -> None:
        """Stream a stretch of a file to a link that is a secret: nothing of ours is told there, and no error repeats it.

        Raises:
            TransferError: `link.unreachable`: nobody took them.
        """
        parts = urlsplit(url)
        target = f"{parts.path}?{parts.query}"
        where = f"{parts.scheme}://{parts.hostname}"
        connection = self._connect(parts)
        try:
            with part.path.open("rb") as source, contextlib.suppress(BrokenPipeError):
                body = _pieces(source, part)
                connection.request("PUT", target, body, {"Content-Length": str(part.size())})
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            raise TransferError("link.unreachable", f"{where}: {type(error).__name__}") from None
        finally:
            connection.close()
        if status >= 300:
            raise TransferError("link.unreachable", f"{where}: status {status}")

    # --- on the wire ------------------------------------------------------------------------------------------------

    def _exchange(self, method: str, path: str, **call: Unpack[Call]) -> "_Answer":
        """Send a call until it is answered, as often as is safe."""
        target = self._target(path, call.get("query"))
        body = call.get("body")
        plain = (
            body if body is None or isinstance(body, bytes | File) else msgspec.json.encode(body)
        )
        headers = {**self._headers(), **call.get("headers", {}), **_asked(call)}
        busy, cut = TRIES - 1, 1
        if isinstance(plain, File):
            busy = cut = 0
        elif method != "GET" and not call.get("key"):
            cut = 0
        while True:
            try:
                answer = self._sent(method, target, plain, headers)
            except _CUT as error:
                cut -= 1
                if cut < 0:
                    raise self._unreachable(error) from error
                self._sleep(AGAIN_S)
                continue
            except (OSError, http.client.HTTPException) as error:
                raise self._unreachable(error) from error
            if answer.status < 400:
                return answer
            error_told, busy = problem(answer.status, answer.body), busy - 1
            if busy < 0 or error_told.code not in _BUSY:
                raise error_told
            self._sleep(wait_of(answer.headers.get("Retry-After")))

    def _sent(self, method: str, target: str, body: Body | None, headers: Headers) -> "_Answer":
        connection = self._connect()
        try:
            # a server that refuses an upload answers and closes before it took all of it
            with contextlib.suppress(BrokenPipeError):
                if isinstance(body, File):
                    with body.path.open("rb") as source:
                        length = {"Content-Length": str(body.size())}
                        connection.request(method, target, _pieces(source, body), headers | length)
                else:
                    connection.request(method, target, body, headers)
            answer = connection.getresponse()
            return _Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def _target(self, path: str, query: Mapping[str, object] | None) -> str:
        given = {name: _word(value) for name, value in (query or {}).items() if value is not None}
        target = self._parts.path.rstrip("/") + path
        return f"{target}?{urlencode(given, doseq=True)}" if given else target

    def _connect(self, elsewhere: SplitResult | None = None) -> http.client.HTTPConnection:
        """Connect to the server, or to where it sends parts: there the system's authorities are believed beside its own."""
        parts = elsewhere or self._parts
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=self._timeout_s)
        context = ssl.create_default_context(cafile=str(self.ca) if self.ca else None)
        if elsewhere is not None:
            context.load_default_certs()
        return http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=context)

    def _headers(self) -> Headers:
        headers = {"Accept": "application/json", "User-Agent": f"tidegate/{__version__}"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        return headers

    def _unreachable(self, error: Exception) -> TransferError:
        return TransferError("link.unreachable", f"{self.server}: {error}")


class _Answer(NamedTuple):
    status: int
    headers: Message
    body: bytes


def fresh_key() -> str:
    """Return an idempotency key that no other call has."""
    return os.urandom(16).hex()


def quoted(name: object) -> str:
    """Return a name as it stands in a path."""
    return quote(str(name), safe="")


def _asked(call: Call) -> Headers:
    """Return the headers that say what a call is."""
    found = {}
    if call.get("body") is not None:
        found["Content-Type"] = call.get("content_type", JSON)
    match = call.get("if_match")
    if match is not None:
        found["If-Match"] = match.value if isinstance(match, Tag) else match
    if key := call.get("key"):
        found["Idempotency-Key"] = key
    return found


def _word(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


def _pieces(source: BinaryIO, part: File) -> Iterator[bytes]:
    """Yield a stretch of a file, and say of how many bytes of it they are the last."""
    source.seek(part.offset)
    count, done, size = part.size(), 0, part.path.stat().st_size
    while done < count and (piece := source.read(min(_PIECE, count - done))):
        yield piece
        done += len(piece)
        if part.progress is not None:
            part.progress(part.offset + done, size)
