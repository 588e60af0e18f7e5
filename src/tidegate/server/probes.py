"""`/healthz` and `/readyz` as raw ASGI: they answer before the application for people is there, and without a token. What they look at: `readiness`."""

import ipaddress
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import Executor
from typing import Any, Final

from tidegate.core import codec
from tidegate.core.errors import RequestError
from tidegate.server import problems, threads
from tidegate.server.readiness import RETRY_AFTER_S, Readiness

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

HEALTH: Final = "/healthz"
READY: Final = "/readyz"
PATHS: Final = frozenset({HEALTH, READY})
_NO_STORE: Final = (b"cache-control", b"no-store")
_RETRY: Final = (b"retry-after", str(RETRY_AFTER_S).encode())


class Probes:
    """Answers both."""

    def __init__(
        self,
        readiness: Readiness,
        alive: Callable[[], bool],
        now: Callable[[], int],
        looking: Executor,
    ) -> None:
        """Ask these. `alive`: whether all that should run here does; `looking`: where `/readyz` is looked at."""
        self._looking = looking
        self._readiness = readiness
        self._alive = alive
        self._now = now

    async def __call__(self, scope: Mapping[str, Any], send: Send) -> None:
        """Answer one request."""
        if scope["method"] not in {"GET", "HEAD"}:
            wrong = problems.problem(RequestError("request.method", "GET is wanted here"))
            kind = (b"content-type", problems.TYPE)
            await _send(send, scope, wrong.status, codec.encode(wrong), [kind])
        elif scope["path"] == HEALTH:
            alive = self._alive()
            body = b"ok\n" if alive else b"failed\n"
            await _send(
                send, scope, 200 if alive else 503, body, [(b"content-type", b"text/plain")]
            )
        else:
            await self._ready(scope, send)

    async def _ready(self, scope: Mapping[str, Any], send: Send) -> None:
        found = await threads.call(self._looking, self._readiness.look, self._now())
        strict = b"strict" in scope["query_string"].split(b"&")
        good = found.ready and not (strict and found.warned)
        headers: Headers = [(b"content-type", b"application/json")]
        if not good:
            headers.append(_RETRY)
        body = codec.encode(found.told(here=is_here(scope)))
        await _send(send, scope, 200 if good else 503, body, headers)


def is_here(scope: Mapping[str, Any]) -> bool:
    """Say whether the caller is this machine itself, and not a proxy on it that speaks for another."""
    if any(name in {b"x-forwarded-for", b"forwarded"} for name, _ in scope["headers"]):
        return False
    client = scope.get("client")
    try:
        return ipaddress.ip_address(client[0] if client else "").is_loopback
    except ValueError:
        return False


async def _send(
    send: Send, scope: Mapping[str, Any], status: int, body: bytes, headers: Headers
) -> None:
    length = (b"content-length", str(len(body)).encode())
    start = {"type": "http.response.start", "status": status}
    await send({**start, "headers": [*headers, _NO_STORE, length]})
    shown = b"" if scope["method"] == "HEAD" else body
    await send({"type": "http.response.body", "body": shown})
