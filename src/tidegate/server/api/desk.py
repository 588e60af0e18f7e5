"""What every handler works with: the opened server, its operations and accounts; and how pages, cursors and permissions are handled."""

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler
from litestar.params import PathParameter, QueryParameter

from tidegate.core.codec import INTEGER_MAX
from tidegate.core.errors import RequestError
from tidegate.server import audit
from tidegate.server.auth import Actor, Auth
from tidegate.server.live import Live
from tidegate.server.operations import Operations
from tidegate.server.services import Services
from tidegate.server.store import Connection

T = TypeVar("T")
PREFIX: Final = "/api/v1"
ApiRequest = Request[Actor, None, State]
PAGE_MAX: Final = 500
#: Key of a handler's `opt` that names the permission which it takes. A handler without one is refused.
PERMISSION: Final = "permission"
#: Value of `PERMISSION` for handlers that anybody may call.
ANYBODY: Final = "anybody"
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

    @property
    def now(self) -> int:
        """Return the time, unix seconds."""
        return self.services.now

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on a snapshot."""
        return self.services.store.read(work)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on the writer, before what devices wait for; durable on return."""
        return self.services.store.write(work, urgent=True).result()

    def note(self, conn: Connection, actor: Actor, action: str, thing: str, **detail: Any) -> None:
        """Write an act into the operators' log."""
        audit.record(conn, self.now, actor.name, action, thing, detail)


DeskDep = NamedDependency[Desk]
#: What stands in a path.
Name = Annotated[str, PathParameter(min_length=1, max_length=128)]
Number = Annotated[int, PathParameter(ge=1, le=INTEGER_MAX)]
Limit = Annotated[int, QueryParameter(ge=1, le=PAGE_MAX)]
Cursor = Annotated[str, QueryParameter(max_length=64)]
Text = Annotated[str, QueryParameter(max_length=1000)]
#: `state` and `query` are words of the framework, so the arguments have other names than the keys.
InState = Annotated[str, QueryParameter(name="state", max_length=200)]
Matching = Annotated[str, QueryParameter(name="query", max_length=1000)]
Yes = Annotated[bool, QueryParameter()]


def permission_guard(
    connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
) -> None:
    """Refuse whoever lacks the permission that a handler names; a handler that names none is refused to everybody.

    Raises:
        RequestError: `request.forbidden`.
    """
    permission = handler.opt.get(PERMISSION)
    if permission == ANYBODY:
        return
    if permission is None:
        raise RequestError("request.forbidden", "this route names no permission")
    actor: Actor = connection.user
    actor.require(str(permission))


def cursor_of(position: int) -> str | None:
    """Return an opaque cursor; None for 0: there is no next page."""
    if not position:
        return None
    return base64.urlsafe_b64encode(f"c{position}".encode()).decode().rstrip("=")


def position_of(cursor: str | None) -> int:
    """Return the position of a cursor (untrusted); 0 for none.

    Raises:
        RequestError: `request.invalid`.
    """
    if not cursor:
        return 0
    try:
        plain = base64.urlsafe_b64decode(cursor[:64] + "=" * (-len(cursor) % 4)).decode("ascii")
    except (binascii.Error, ValueError) as error:
        raise RequestError("request.invalid", "cursor: take it from `next` of a page") from error
    if plain[:1] != "c" or not plain[1:].isdigit() or len(plain) > 16:
        raise RequestError("request.invalid", "cursor: take it from `next` of a page")
    return int(plain[1:])


def wanted_generation(request: ApiRequest) -> int | None:
    """Return the generation of `If-Match`, None where there is none or it is `*`.

    Raises:
        RequestError: `request.invalid`.
    """
    tag = request.headers.get("if-match", "*").strip()
    if tag == "*":
        return None
    number = tag.removeprefix("W/").strip('"')
    if not number.isascii() or not number.isdigit() or len(number) > 15:
        raise RequestError("request.invalid", "If-Match: the ETag of the rollout")
    return int(number)
