"""Idempotency keys: the same POST sent again is answered with the first answer, for 24 h.

The key is bound to who sends it and to the request. The answer is kept in the transaction of the act (`server.once`); where it says more than the act itself
knew, that is added afterwards. What an answer shows only once (tokens, passwords, tickets) is not kept, since it would then lie in the database; there a
repeated call makes another, or finds the name taken.
"""

import asyncio
import hashlib
from typing import Any, Final

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from tidegate.core.errors import RequestError
from tidegate.server import once
from tidegate.server.api.desk import PREFIX, Desk
from tidegate.server.api.intake import again, whole
from tidegate.server.auth import Actor
from tidegate.server.store import Connection, admin_log

#: Header of an answer that was given before.
REPEATED: Final = b"idempotent-replay"
_KEY_MAX: Final = 100
#: Answers under these paths hold secrets, or the request is a stream.
_PASSED_OVER: Final = (
    "/claims",
    "/tokens",
    "/accounts",
    "/tenants",
    "/bundles",
    "/root",
    "/targets",
    "/advisories",
)


class Repeats:
    """Middleware behind authentication."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand before `app`."""
        self.app = app
        self._now: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a repetition, or let the request through and keep its answer."""
        key = _key_of(scope)
        if not key:
            await self.app(scope, receive, send)
            return
        actor: Any = scope.get("user")
        owner = actor.name if isinstance(actor, Actor) else ""
        full = hashlib.sha256(f"{owner}\0{key}".encode()).hexdigest()
        if full in self._now:
            raise RequestError("request.conflict", "the same call is under way")
        self._now.add(full)
        try:
            await self._once(full, scope, receive, send)
        finally:
            self._now.discard(full)

    async def _once(self, key: str, scope: Scope, receive: Receive, send: Send) -> None:
        desk: Desk = scope["litestar_app"].state.desk
        body = await whole(receive, desk.services.settings.body_max)
        asked = f"POST {scope['path']}?".encode() + scope["query_string"] + b"\n" + body
        handler: Any = scope["route_handler"]
        call = once.Key(key, hashlib.sha256(asked).hexdigest(), handler.status_code, desk.now)
        await asyncio.to_thread(desk.read, lambda conn: once.kept(conn, call))
        answer = _Answer(send)
        before = once.KEY.set(call)
        try:
            await self.app(scope, again(body, receive), answer)
        finally:
            once.KEY.reset(before)
        if answer.status < 400 and not answer.repeated:
            await keep_late(desk, call, bytes(answer.body))
        await answer.release()


async def keep_late(desk: Desk, call: once.Key, body: bytes) -> None:
    """Keep the answer as it was sent: where an act went around `once`, or the answer says more than the act knew."""
    store = desk.services.store

    def work(conn: Connection) -> None:
        admin_log.keep_answer(conn, call.row(body))

    await asyncio.to_thread(lambda: store.write(work, urgent=True).result())


class _Answer:
    """Holds an answer back until it is kept, so that whoever got it can rely on it."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._held: list[Message] = []
        self.status = 500
        self.body = bytearray()
        self.repeated = False

    async def __call__(self, message: Message) -> None:
        """Take one message of the answer."""
        self._held.append(message)
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.repeated = any(name.lower() == REPEATED for name, _ in message["headers"])
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")

    async def release(self) -> None:
        """Send what was held back."""
        for message in self._held:
            await self._send(message)


def heeds(path: str) -> bool:
    """Say whether a POST to this path of the API (`/api/v1/…`) is done once under its key."""
    return not path.removeprefix(PREFIX).startswith(_PASSED_OVER)


def _key_of(scope: Scope) -> str:
    if scope.get("method") != "POST" or not heeds(str(scope["path"])):
        return ""
    for name, value in scope["headers"]:
        if name == b"idempotency-key":
            key = value.decode("latin-1")
            if not 1 <= len(key) <= _KEY_MAX or not key.isprintable():
                raise RequestError(
                    "request.invalid", f"Idempotency-Key: 1 to {_KEY_MAX} characters"
                )
            return key
    return ""
