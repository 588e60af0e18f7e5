"""What every answer to a GET has in common: the fields that were asked for, an ETag, and 304 where the caller has it already."""

from typing import Any, Final
from urllib.parse import parse_qs

import msgspec
from litestar import Response
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from tidegate.core import fields as choice
from tidegate.server.api import fields, tags
from tidegate.server.api.desk import ANSWER

_JSON: Final = b"application/json"


class Answers:
    """Middleware, the innermost."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand before `app`."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request.

        Raises:
            RequestError: `request.invalid`: `fields` names what is not there.
        """
        handler: Any = scope.get("route_handler")
        if scope.get("method") != "GET" or handler is None or ANSWER in handler.opt:
            await self.app(scope, receive, send)
            return
        asked = parse_qs(scope["query_string"].decode("latin-1")).get(fields.FIELDS)
        tree = choice.wanted(asked[0], fields.known_fields(kinds_of(handler))) if asked else None
        held = _Held()
        await self.app(scope, receive, held)
        await held.pass_on(send, tree, _header(scope, b"if-none-match"))


def kinds_of(handler: Any) -> tuple[Any, ...]:
    """Return the types of a handler's answers."""
    annotation = handler.parsed_return_field.annotation
    if getattr(annotation, "__origin__", None) is Response:
        annotation = annotation.__args__[0]
    return fields.answers(annotation)


class _Held:
    """An answer, held back until it is whole."""

    def __init__(self) -> None:
        self._start: Message | None = None
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        """Take one message of the answer."""
        if message["type"] == "http.response.start":
            self._start = message
        elif message["type"] == "http.response.body":
            self._body += message.get("body", b"")

    async def pass_on(self, send: Send, tree: choice.Wanted | None, known: str | None) -> None:
        """Send it: shaped, tagged, or only its tag."""
        start: Any = self._start
        if start is None:
            return
        body, status = bytes(self._body), int(start["status"])
        headers = {name.lower(): value for name, value in start["headers"]}
        if status == 200 and headers.get(b"content-type", b"").startswith(_JSON):
            if tree is not None:
                body = msgspec.json.encode(choice.shaped(msgspec.json.decode(body), tree))
            edit = headers.get(b"etag")
            tag = tags.whole_tag(edit.decode("latin-1") if edit else None, body)
            headers[b"etag"] = tag.encode("latin-1")
            headers.setdefault(b"cache-control", b"private, no-cache")
            if tags.is_known(known, tag):
                status, body = 304, b""
        headers[b"content-length"] = str(len(body)).encode()
        if status == 304:
            del headers[b"content-length"]
        told = list(headers.items())
        await send({"type": "http.response.start", "status": status, "headers": told})
        await send({"type": "http.response.body", "body": body, "more_body": False})


def _header(scope: Scope, wanted: bytes) -> str | None:
    for name, value in scope["headers"]:
        if name == wanted:
            return str(value.decode("latin-1"))
    return None
