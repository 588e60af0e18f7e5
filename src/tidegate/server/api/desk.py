"""What every handler works with: the opened server, its operations and accounts; and how permissions are asked."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, ParamSpec, TypeVar

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler
from litestar.params import PathParameter, QueryParameter

from tidegate.core.codec import INTEGER_MAX
from tidegate.core.errors import RequestError
from tidegate.server import audit, once, scopes, threads
from tidegate.server.api.tags import edit_of
from tidegate.server.auth import COOKIE, Actor, Auth
from tidegate.server.live import Live
from tidegate.server.operations import Operations
from tidegate.server.scopes import ABOUT, ANYBODY, INSIDE, LISTED, PERMISSION, WHOLE, demanded
from tidegate.server.services import Services
from tidegate.server.store import Connection
from tidegate.server.uploads import Uploads

__all__ = [
    "ABOUT", "ANSWER", "ANYBODY", "BODY", "INSIDE", "LISTED", "PERMISSION", "PREFIX", "REFUSALS", "WHOLE",
    "ApiRequest", "Desk", "DeskDep", "DryRun", "InState", "Matching", "Moment", "Name", "Number", "Text", "Yes",
    "permission_guard", "wanted_generation",
]  # fmt: skip

P = ParamSpec("P")
T = TypeVar("T")
PREFIX: Final = "/api/v1"
ApiRequest = Request[Actor, None, State]
#: Keys of a handler's `opt` for the description of the API: the media type of a body that is read raw, the media types of an answer that is no JSON struct, and
#: statuses of refusals beside those that follow from how it is called.
BODY: Final = "body"
ANSWER: Final = "answer"
REFUSALS: Final = "refusals"


@dataclass(frozen=True, slots=True)
class Desk:
    """The parts behind the API."""

    services: Services
    operations: Operations
    accounts: Auth
    live: Live
    uploads: Uploads

    @property
    def now(self) -> int:
        """Return the time, unix seconds."""
        return self.services.now

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on a snapshot."""
        return self.services.store.read(work)

    def write(self, work: Callable[[Connection], T], *, dry_run: bool = False) -> T:
        """Run `work` on the writer, before what devices wait for; durable on return. What it returns is what the call answers, and kept under its key.

        `dry_run`: with all checks, and taken back.
        """
        store = self.services.store
        if dry_run:
            return once.rehearse(store, work)
        return store.write(once.once(work), urgent=True).result()

    async def beside(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call what waits for the place of the blobs, in threads that nobody needs who halts (`server.threads`)."""
        return await threads.call(self.services.threads.blobs, work, *args, **kwargs)

    def check(self, actor: Actor, permission: str, about: str, name: str) -> None:
        """Refuse whoever lacks a permission on a thing (`scopes.check`)."""
        self.read(lambda conn: scopes.check(conn, actor, permission, about, name, self.now))

    def note(self, conn: Connection, actor: Actor, action: str, thing: str, **detail: Any) -> None:
        """Write an act into the operators' log."""
        audit.record(conn, self.now, actor.name, action, thing, detail)


DeskDep = NamedDependency[Desk]
#: What stands in a path.
Name = Annotated[str, PathParameter(min_length=1, max_length=128)]
Number = Annotated[int, PathParameter(ge=1, le=INTEGER_MAX)]
#: Unix seconds; 0 = none is given.
Moment = Annotated[int, QueryParameter(ge=0, le=INTEGER_MAX)]
Text = Annotated[str, QueryParameter(max_length=1000)]
#: `state` and `query` are words of the framework, so the arguments have other names than the keys.
InState = Annotated[str, QueryParameter(name="state", max_length=200)]
Matching = Annotated[str, QueryParameter(name="query", max_length=1000)]
Yes = Annotated[bool, QueryParameter()]
#: On acts that change something large: all checks are made and the answer is what it would be; nothing is written.
DryRun = Annotated[
    bool, QueryParameter(name="dry_run", description="Check and answer, and change nothing.")
]


async def permission_guard(
    connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
) -> None:
    """Refuse whoever lacks the permission that a handler declares on what it is about (`server.scopes`); one that declares nothing is refused to all.

    Raises:
        RequestError: `request.forbidden`, `request.not_found`, `auth.stale`.
    """
    permission, about, name = demanded(handler.opt, connection.path_params)
    if permission == ANYBODY:
        return
    desk: Desk = connection.app.state.desk
    await asyncio.to_thread(desk.check, connection.user, permission, about, name)
    by_token = "authorization" in connection.headers
    session = "" if by_token else connection.cookies.get(COOKIE, "")
    method, path = str(connection.scope.get("method", "GET")), connection.url.path
    await asyncio.to_thread(
        desk.accounts.require_fresh, session, permission, method, path, desk.now
    )


def wanted_generation(request: ApiRequest) -> int | None:
    """Return the generation of `If-Match`, None where there is none or it is `*`.

    Raises:
        RequestError: `request.invalid`.
    """
    tag = request.headers.get("if-match", "*").strip()
    if tag == "*":
        return None
    number = edit_of(tag).strip('"')
    if not number.isascii() or not number.isdigit() or len(number) > 15:
        raise RequestError("request.invalid", "If-Match: the ETag of the rollout")
    return int(number)
