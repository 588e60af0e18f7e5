"""Logs: one line an event, as text or as JSON, each with the id of its request. What is secret is never handed to a logger in the first place.

Requests of people are a line each; polls and what else devices ask is counted (`metrics`), not logged. Query strings are left out: they are a stranger's text.
"""

import datetime as dt
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from tidegate.server.requests import HEADER, origin_of
from tidegate.server.store.origin import ORIGIN

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s%(request)s"
_PATH_MAX: Final = 200
_log = logging.getLogger("tidegate.access")


class _Numbered(logging.Filter):
    """Puts the id of the request into each record."""

    def filter(self, record: logging.LogRecord) -> bool:
        origin = ORIGIN.get()
        found = origin.request if origin is not None else ""
        record.request_id = found
        record.request = f" [{found}]" if found else ""
        return True


class JsonLines(logging.Formatter):
    """A record as one JSON object: `at` (UTC), `level`, `logger`, `message`, and where there are any `request`, `error` and the record's own `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        at = dt.datetime.fromtimestamp(record.created, dt.UTC)
        line: dict[str, Any] = {
            "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        found = getattr(record, "request_id", "")
        if found:
            line["request"] = found
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        line |= getattr(record, "fields", {})
        return json.dumps(
            line, default=str
        )  # ASCII: a line separator in a message is no end of the line


def set_up(level: str, form: str) -> None:
    """Have everything that is logged written to stderr.

    Args:
        level: `debug`, `info`, `warning`, `error`.
        form: `text` or `json`.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else logging.Formatter(TEXT))
    handler.addFilter(_Numbered())
    logging.basicConfig(level=getattr(logging, level.upper()), handlers=[handler])
    for chatty in ("alembic", "tuf", "urllib3", "botocore", "boto3", "s3transfer"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


class Traced:
    """Gives each request an id, which its answer carries and its lines show, and logs those of people."""

    def __init__(self, app: Asgi, told: Callable[[int], None] | None = None) -> None:
        """Stand before `app`. `told`: called with the status of each answer, and a line is logged; None = neither."""
        self._app = app
        self._told = told

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        origin = origin_of(scope)
        before = ORIGIN.set(origin)
        began, status = time.monotonic(), 0

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), (HEADER, origin.request.encode())]
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self._app(scope, receive, named)
        finally:
            if self._told is not None:
                self._told(status)
                _line(scope, status, time.monotonic() - began)
            ORIGIN.reset(before)


def _line(scope: Scope, status: int, took_s: float) -> None:
    """Log a request: who did what, how it ended. Files of our own pages are for those who debug."""
    path = "".join(one if one.isprintable() else "?" for one in scope["path"][:_PATH_MAX])
    level = logging.DEBUG if path.startswith("/static/") and status < 400 else logging.INFO
    if not _log.isEnabledFor(level):
        return
    client = scope.get("client")
    actor = getattr(scope.get("user"), "name", "")
    fields = {
        "method": scope["method"],
        "path": path,
        "status": status,
        "took_ms": round(took_s * 1000, 1),
        "client": client[0] if client else "",
        "actor": actor,
    }
    said = f"{fields['method']} {path} {status} in {fields['took_ms']} ms for {actor or 'nobody'} at {fields['client']}"
    _log.log(level, "%s", said, extra={"fields": fields})
