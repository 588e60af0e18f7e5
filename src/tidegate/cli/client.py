"""The REST API for commands: which server, who asks, and errors as the server named them.

Where to: `--server`, `TIDEGATE_SERVER`, the profile in `~/.config/tidegate/config.toml`, `http://127.0.0.1:8440`. Who: `TIDEGATE_TOKEN`, `TIDEGATE_TOKEN_FILE`,
the file `~/.config/tidegate/PROFILE.token`, and for a server on this machine the token that it made for whoever may read its data directory. A token is never
an option, so that it stays out of `ps` and of shell histories.
"""

import contextlib
import functools
import hashlib
import http.client
import json
import os
import ssl
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar
from urllib.parse import SplitResult, urlencode, urlsplit

import click

from tidegate import __version__
from tidegate.core.errors import (
    HINTS,
    BusyError,
    ConfigError,
    PublisherError,
    RequestError,
    TidegateError,
    TransferError,
)
from tidegate.core.reasons import REASONS

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_SERVER: Final = "http://127.0.0.1:8440"
_SIGN_IN: Final = "set TIDEGATE_TOKEN (tidegate token create makes one), or, where the server runs, TIDEGATE_DATA_DIR to its data"
_PUBLISHER: Final = frozenset({"sig", "compat", "release", "key", "meta", "supply", "audit"})
_PIECE: Final = 1 << 18
#: A call is sent so often in all while the server is busy; between two of them it is waited as long as the server asks for, but not longer than that.
TRIES: Final = 3
WAIT_MAX_S: Final = 30.0
#: Codes that say that nothing was done, and that it may be soon.
_BUSY: Final = frozenset({"server.busy", "request.rate_limited"})
_LOCAL: Final = frozenset({"127.0.0.1", "::1", "localhost"})

Progress = Callable[[int, int], None]


class Client:
    """Talks to one server as one person. Every failure is a `TidegateError`."""

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

    def get(self, path: str, query: Mapping[str, object] | None = None) -> Any:
        """Read `path` (`/api/v1/…`); the decoded JSON."""
        return self.call("GET", path, query=query)

    def get_bytes(self, path: str) -> bytes:
        """Read `path` as it is.

        Raises:
            TidegateError: as `call`.
        """
        return self._raw("GET", path, b"", {})[0]

    def post(
        self, path: str, body: object = None, *, idempotency_key: str | None = None, **query: object
    ) -> Any:
        """Do something. Give an idempotency key to make a call that may be sent twice count once."""
        return self.call("POST", path, body, query=query, idempotency_key=idempotency_key)

    def put(self, path: str, body: object = None, **query: object) -> Any:
        """Replace something."""
        return self.call("PUT", path, body, query=query)

    def patch(self, path: str, body: object = None, **query: object) -> Any:
        """Change something."""
        return self.call("PATCH", path, body, query=query)

    def delete(self, path: str, **query: object) -> Any:
        """Remove something."""
        return self.call("DELETE", path, query=query)

    def pages(self, path: str, query: Mapping[str, object] | None = None) -> Iterator[Any]:
        """Yield the items of a list, page after page (`items`, `next`)."""
        asked = dict(query or {})
        while True:
            page = self.get(path, asked)
            yield from page.get("items", ())
            if not page.get("next"):
                return
            asked["cursor"] = page["next"]

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Any:
        """Send one request with a JSON body; return the decoded answer, None when it is empty.

        Raises:
            TidegateError: as the server's problem says; `link.unreachable` when there is none.
        """
        payload = b"" if body is None else json.dumps(body).encode()
        sent = dict(headers or {})
        if body is not None:
            sent["Content-Type"] = "application/json"
        if method == "POST":
            sent["Idempotency-Key"] = idempotency_key or self._key(method, path, payload)
        return self._exchange(method, _target(path, query), payload, sent)

    def upload(
        self,
        path: str,
        file: Path,
        *,
        content_type: str,
        query: Mapping[str, object] | None = None,
        progress: Progress | None = None,
    ) -> Any:
        """Stream a file as the body of a POST; the decoded answer."""
        size = file.stat().st_size
        with file.open("rb") as source:
            headers = {"Content-Type": content_type, "Content-Length": str(size)}
            body = _pieces(source.read, 0, size, size, progress)
            return self._exchange("POST", _target(path, query), body, headers)

    def send_part(
        self, path: str, file: Path, offset: int, count: int, progress: Progress | None = None
    ) -> Any:
        """Stream `count` bytes of a file, from `offset` on, as the body of a PATCH to `path?offset=…`; the decoded answer."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(count)}
        with file.open("rb") as source:
            source.seek(offset)
            body = _pieces(source.read, offset, count, file.stat().st_size, progress)
            return self._exchange("PATCH", _target(path, {"offset": offset}), body, headers)

    def put_part(
        self, url: str, file: Path, offset: int, count: int, progress: Progress | None = None
    ) -> None:
        """Stream `count` bytes of a file, from `offset` on, to a link that is a secret: nothing of ours is told there, and no error repeats it.

        Raises:
            TransferError: `link.unreachable`: nobody took them.
        """
        parts = urlsplit(url)
        target = f"{parts.path}?{parts.query}"
        where = f"{parts.scheme}://{parts.hostname}"
        connection = self._connect(parts)
        try:
            with file.open("rb") as source, contextlib.suppress(BrokenPipeError):
                source.seek(offset)
                body = _pieces(source.read, offset, count, file.stat().st_size, progress)
                connection.request("PUT", target, body, {"Content-Length": str(count)})
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            raise TransferError("link.unreachable", f"{where}: {type(error).__name__}") from None
        finally:
            connection.close()
        if status >= 300:
            raise TransferError("link.unreachable", f"{where}: status {status}")

    def lines(self, path: str, query: Mapping[str, object] | None = None) -> Iterator[str]:
        """Yield the lines of a stream (server-sent events) until it ends."""
        connection = self._connect()
        try:
            connection.request(
                "GET", self._parts.path.rstrip("/") + _target(path, query), headers=self._headers()
            )
            answer = connection.getresponse()
            if answer.status >= 400:
                raise problem(answer.status, answer.read())
            while line := answer.readline():
                yield line.decode("utf-8", "replace").rstrip("\r\n")
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()

    def _exchange(
        self, method: str, target: str, body: bytes | Iterator[bytes], headers: Mapping[str, str]
    ) -> Any:
        found, kind = self._raw(method, target, body, headers)
        return _decoded(found, kind)

    def _raw(
        self, method: str, target: str, body: bytes | Iterator[bytes], headers: Mapping[str, str]
    ) -> tuple[bytes, str]:
        """Send a request; where the server is busy and says so, the same one again, after as long as it asks for. A body that streams is sent once."""
        tries = TRIES if isinstance(body, bytes) else 1
        while True:
            status, found, told = self._sent(method, target, body, headers)
            if status < 400:
                return found, told.get("Content-Type", "") or ""
            error, tries = problem(status, found), tries - 1
            if tries <= 0 or error.code not in _BUSY:
                raise error
            self._sleep(wait_of(told.get("Retry-After")))

    def _sent(
        self, method: str, target: str, body: bytes | Iterator[bytes], headers: Mapping[str, str]
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        connection = self._connect()
        try:
            # a server that refuses an upload answers and closes before it took all of it
            with contextlib.suppress(BrokenPipeError):
                connection.request(
                    method,
                    self._parts.path.rstrip("/") + target,
                    body=body,
                    headers={**self._headers(), **headers},
                )
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()

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

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": f"tidegate/{__version__}"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        return headers

    def _key(self, method: str, path: str, payload: bytes) -> str:
        """Differs with every new call, is the same for a call that is sent again by the same process."""
        unique = os.urandom(8).hex()
        return hashlib.sha256(f"{method} {path} {unique}".encode() + payload).hexdigest()[:32]

    def _unreachable(self, error: Exception) -> TransferError:
        return TransferError("link.unreachable", f"{self.server}: {error}")


def wait_of(retry_after: str | None) -> float:
    """Return for how many seconds to wait, of a `Retry-After` (untrusted); one where it says nothing that can be read."""
    text = (retry_after or "").strip()
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        return 1.0
    return min(float(text), WAIT_MAX_S)


def problem(status: int, body: bytes) -> TidegateError:
    """Turn an RFC 9457 problem (untrusted) into the error that it names."""
    try:
        found = json.loads(body)
    except ValueError:
        found = {}
    found = found if isinstance(found, dict) else {}
    code = str(found.get("code", ""))
    detail = str(found.get("detail") or found.get("title") or f"HTTP {status}")[:1000]
    if code not in REASONS and code not in HINTS:
        detail = f"{code}: {detail}" if code else detail
        code = _by_status(status)
    if code == "request.unauthenticated":
        return RequestError(code, detail, hint=_SIGN_IN)
    return error_of(code, detail)


def error_of(code: str, detail: str) -> TidegateError:
    """Return an error of the class that says who must act on this code."""
    family = code.partition(".")[0]
    if family in _PUBLISHER:
        return PublisherError(code, detail)
    if family in ("download", "link"):
        return TransferError(code, detail)
    if code in ("server.busy", "request.rate_limited", "data.locked", "blobs.unreachable"):
        return BusyError(code, detail)
    return RequestError(code, detail)


def _by_status(status: int) -> str:
    return {
        401: "request.unauthenticated",
        403: "request.forbidden",
        404: "request.not_found",
        409: "request.conflict",
        412: "request.conflict",
        413: "request.too_large",
        429: "request.rate_limited",
        503: "server.busy",
    }.get(status, "server.internal" if status >= 500 else "request.invalid")


def _decoded(body: bytes, kind: str) -> Any:
    if not body:
        return None
    if "json" not in kind:
        return body.decode("utf-8", "replace")
    try:
        return json.loads(body)
    except ValueError as error:
        raise RequestError("request.invalid", "the server's answer is no JSON") from error


def _target(path: str, query: Mapping[str, object] | None) -> str:
    given = {name: value for name, value in (query or {}).items() if value is not None}
    return f"{path}?{urlencode(given, doseq=True)}" if given else path


def _pieces(
    read: Callable[[int], bytes], start: int, count: int, size: int, progress: Progress | None
) -> Iterator[bytes]:
    """Yield the next `count` bytes, and say of how many of `size` they are the last."""
    done = 0
    while done < count and (piece := read(min(_PIECE, count - done))):
        yield piece
        done += len(piece)
        if progress is not None:
            progress(start + done, size)


# --- which server, who asks ---------------------------------------------------------------------------------------------


def settings_dir() -> Path:
    """Return where people's own settings lie."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "tidegate"


def find_client(server: str | None, profile: str | None) -> Client:
    """Make the client that options, environment and profile name, in this order.

    Raises:
        ConfigError: `config.*`: the settings cannot be read, or the profile is not in them.
    """
    plain = _settings()
    name = profile or os.environ.get("TIDEGATE_PROFILE") or str(plain.get("profile", "default"))
    profiles = plain.get("profiles", {})
    found = profiles.get(name, {}) if isinstance(profiles, dict) else {}
    if profile and not found:
        raise ConfigError(
            "config.invalid", f'{settings_dir() / "config.toml"}: no profile "{name}"'
        )
    where = str(
        server or os.environ.get("TIDEGATE_SERVER") or found.get("server") or DEFAULT_SERVER
    )
    named = os.environ.get("TIDEGATE_CA") or found.get("ca")
    ca = settings_dir() / str(named) if named else _beside(where, "tls/ca.pem")
    token = _token(name)
    local = _beside(where, "bootstrap.token") if token is None else None
    return Client(where, _read_token(local) if local else token, ca=ca)


def _beside(server: str, name: str) -> Path | None:
    """Return a file of the data directory of a server on this machine, if there is one that this user may read."""
    if urlsplit(server).hostname not in _LOCAL:
        return None
    path = Path(os.environ.get("TIDEGATE_DATA_DIR") or "tidegate-data") / name
    return path if os.access(path, os.R_OK) else None


def _settings() -> dict[str, Any]:
    path = settings_dir() / "config.toml"
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError("config.unreadable", f"{path}: {error}") from error


def _token(profile: str) -> str | None:
    if token := os.environ.get("TIDEGATE_TOKEN"):
        return token.strip()
    named = os.environ.get("TIDEGATE_TOKEN_FILE")
    path = Path(named) if named else settings_dir() / f"{profile}.token"
    if named is None and not path.exists():
        return None
    return _read_token(path)


def _read_token(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except (OSError, ValueError) as error:
        raise ConfigError("config.unreadable", f"{path}: {error}") from error


def save_token(profile: str, token: str) -> Path:
    """Keep a token for a profile, readable for this user only."""
    folder = settings_dir()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{profile}.token"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(token + "\n")
    path.chmod(0o600)
    return path


def with_client(function: Callable[P, R]) -> Callable[..., R]:
    """Give a command `--server` and `--profile`, and the argument `client`."""

    @click.option("--server", metavar="URL", help="The control plane (TIDEGATE_SERVER).")
    @click.option("--profile", metavar="NAME", help="A named server (TIDEGATE_PROFILE).")
    @functools.wraps(function)
    def command(*args: Any, server: str | None, profile: str | None, **kwargs: Any) -> R:
        return function(*args, client=find_client(server, profile), **kwargs)  # type: ignore[arg-type]

    return command
