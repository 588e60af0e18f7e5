"""Traces for OpenTelemetry: a span for each act of people and each look of the planner, sent to a collector by OTLP over HTTP in JSON. Off unless one is named.

Never in anybody's way: whoever ends a span puts it into a bounded queue and goes on; a thread of its own sends. A collector that is slow or gone costs spans,
which are counted, and nothing else. What devices ask makes no span at all. A span holds method, path, status and the id of the request: no query, no body, no
name of a person.

Not the SDK: it brings a dozen packages and threads of its own for what is one POST. Source: OTLP 1.3, OTLP/HTTP, JSON encoding (ids in hex).
"""

import contextlib
import http.client
import json
import logging
import os
import queue
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any, Final
from urllib.parse import urlsplit

from tidegate import __version__
from tidegate.core.errors import ConfigError
from tidegate.server.store.origin import ORIGIN

#: Spans that wait to be sent at most; more are dropped.
WAITING_MAX: Final = 2_048
#: Spans in one call, and how long they are gathered, in seconds.
BATCH: Final = 256
GATHER_S: Final = 1.0
#: For a step of a call, in seconds.
TIMEOUT_S: Final = 3.0
#: A collector that fails is left alone for so long, in seconds.
REST_S: Final = 10.0
_PATH_MAX: Final = 200
_SERVER, _INTERNAL = 2, 1
_log = logging.getLogger("tidegate.spans")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]


class Spans:
    """Takes spans and sends them beside everything else.

    Attributes:
        dropped: spans that nobody got.
    """

    def __init__(self, endpoint: str) -> None:
        """Send to a collector, `http://127.0.0.1:4318`; "" = take nothing and start nothing.

        Raises:
            ConfigError: `config.invalid`: no address of a collector.
        """
        self.dropped = 0
        self._waiting: queue.Queue[dict[str, Any]] = queue.Queue(WAITING_MAX)
        self._stopped = threading.Event()
        self._parts = urlsplit(endpoint)
        self._thread: threading.Thread | None = None
        if not endpoint:
            return
        if self._parts.scheme not in {"http", "https"} or not self._parts.hostname:
            raise ConfigError(
                "config.invalid", "[otel] endpoint: an address such as http://127.0.0.1:4318"
            )
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    @property
    def on(self) -> bool:
        """Say whether anybody wants spans."""
        return self._thread is not None

    @contextlib.contextmanager
    def span(self, name: str, kind: int = _INTERNAL) -> Iterator[dict[str, str | int]]:
        """Tell of what happens within. Its attributes may be added until the end; `error` = why it went wrong."""
        about: dict[str, str | int] = {}
        began = time.time_ns()
        try:
            yield about
        except Exception as error:
            about["error"] = type(error).__name__
            raise
        finally:
            if self.on:
                self._put(name, kind, began, about)

    def _put(self, name: str, kind: int, began: int, about: dict[str, str | int]) -> None:
        origin = ORIGIN.get()
        if origin is not None:
            about["tidegate.request"] = origin.request
        error = about.pop("error", "")
        made = {
            "traceId": os.urandom(16).hex(),
            "spanId": os.urandom(8).hex(),
            "name": name,
            "kind": kind,
            "startTimeUnixNano": str(began),
            "endTimeUnixNano": str(max(began, time.time_ns())),
            "attributes": _attributes(about),
            "status": {"code": 2, "message": error} if error else {},
        }
        try:
            self._waiting.put_nowait(made)
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Send what waits, if it goes quickly, and end. Safe to repeat."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(2 * TIMEOUT_S)

    def _run(self) -> None:
        said = False
        while not (self._stopped.is_set() and self._waiting.empty()):
            batch = self._gathered()
            if not batch:
                continue
            try:
                self._send(batch)
                said = False
            except (OSError, http.client.HTTPException) as error:
                self.dropped += len(batch)
                if not said:
                    said = True
                    _log.warning("the collector does not take spans: %s", type(error).__name__)
                if self._stopped.is_set():
                    self.dropped += self._waiting.qsize()
                    return
                self._stopped.wait(REST_S)

    def _gathered(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        end = time.monotonic() + GATHER_S
        while len(found) < BATCH and (left := end - time.monotonic()) > 0:
            if self._stopped.is_set() and self._waiting.empty():
                break
            with contextlib.suppress(queue.Empty):
                found.append(self._waiting.get(timeout=min(left, 0.2)))
        return found

    def _send(self, batch: list[dict[str, Any]]) -> None:
        parts = self._parts
        whole = {
            "resourceSpans": [
                {
                    "resource": {"attributes": _attributes({"service.name": "tidegate"})},
                    "scopeSpans": [
                        {"scope": {"name": "tidegate", "version": __version__}, "spans": batch}
                    ],
                }
            ]
        }
        made = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        connection = made(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
        try:
            path = f"{parts.path.rstrip('/')}/v1/traces"
            body = json.dumps(whole).encode()
            connection.request("POST", path, body, {"content-type": "application/json"})
            status = connection.getresponse().status
        finally:
            connection.close()
        if status // 100 != 2:
            raise http.client.HTTPException(f"status {status}")


def _attributes(about: dict[str, str | int]) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": {"intValue": str(one)} if isinstance(one, int) else {"stringValue": one}}
        for key, one in about.items()
    ]  # fmt: skip


class Spanned:
    """Tells of what people do: each request that may change something."""

    def __init__(self, app: Asgi, spans: Spans) -> None:
        """Stand before `app`."""
        self._app = app
        self._spans = spans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        reads = scope["type"] != "http" or scope["method"] in {"GET", "HEAD", "OPTIONS"}
        if reads or not self._spans.on:
            await self._app(scope, receive, send)
            return
        bare = scope["path"].partition("?")[0][:_PATH_MAX]
        path = "".join(one if one.isprintable() else "_" for one in bare)
        with self._spans.span(scope["method"], _SERVER) as about:
            about |= {"http.request.method": scope["method"], "url.path": path}

            async def told(message: Message) -> None:
                if message["type"] == "http.response.start":
                    about["http.response.status_code"] = message["status"]
                    if message["status"] >= 500:
                        about["error"] = str(message["status"])
                await send(message)

            await self._app(scope, receive, told)
