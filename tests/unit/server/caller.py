"""Calls a server in process as a browser or a program would, and reads its route table."""

import asyncio
from typing import Any, NamedTuple

from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from tests.unit.server.rig import Answer

from tidegate.server.api.desk import ANSWER
from tidegate.server.scopes import ABOUT, ANYBODY, PERMISSION


class Route(NamedTuple):
    """A method and path of the route table with what it declares; one for each verb of a path that names verbs."""

    method: str
    path: str
    permission: str
    about: str
    #: Whether it answers without end once somebody is let in.
    streams: bool = False

    @property
    def is_open(self) -> bool:
        """Whether anybody may call it."""
        return self.permission == ANYBODY

    def named(self, **names: str) -> str:
        """Return the path with its parameters filled in."""
        path = self.path
        for name, value in names.items():
            for kind in ("str", "int", "path"):
                path = path.replace(f"{{{name}:{kind}}}", value)
        return path


def routes(app: Litestar, under: str = "") -> list[Route]:
    """Return every HTTP route of an application below a path."""
    found = set()
    # where other processes are waited for, what waits stands before it
    for route in getattr(app, "inner", app).routes:
        for handler in getattr(route, "route_handlers", ()):
            if not isinstance(handler, HTTPRouteHandler) or not route.path.startswith(under):
                continue
            told = handler.opt.get(PERMISSION, "")
            verbs = told if isinstance(told, dict) else {"": told}
            for verb, permission in verbs.items():
                path = route.path.replace("{verb:str}", verb or "{verb:str}")
                for method in handler.http_methods - {"OPTIONS", "HEAD"}:
                    about = str(handler.opt.get(ABOUT, ""))
                    streams = "text/event-stream" in handler.opt.get(ANSWER, ())
                    found.add(Route(str(method), path, str(permission), about, streams))
    return sorted(found)


async def ask_over(
    app: Any, method: str, path: str, headers: dict[str, str], body: bytes, query: bytes
) -> Answer:
    status, got, pieces, asked = 0, {}, [], False
    done = asyncio.Event()

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if asked:
            await done.wait()
            return {"type": "http.disconnect"}
        asked = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status, got
        if message["type"] == "http.response.start":
            status = message["status"]
            got = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            pieces.append(message.get("body", b""))
            if not message.get("more_body", False):
                done.set()

    named = {name.replace("_", "-"): value for name, value in headers.items()}
    raw = [(name.lower().encode(), value.encode()) for name, value in named.items()]
    scope = {
        "type": "http", "method": method, "path": path, "headers": raw, "query_string": query,
        "client": ("192.0.2.1", 1), "server": ("test", 80), "scheme": "http", "root_path": "",
        "raw_path": path.encode(), "http_version": "1.1", "state": {},
    }  # fmt: skip
    await app(scope, receive, send)
    return Answer(status, got, b"".join(pieces))
