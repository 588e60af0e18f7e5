"""The web pages as one router that the server mounts."""

import functools
from collections.abc import Callable
from typing import Annotated, Any, Final
from urllib.parse import urlencode, urlsplit

from litestar import Response, Router, get
from litestar.connection import ASGIConnection
from litestar.datastructures import ResponseHeader
from litestar.di import Provide
from litestar.enums import MediaType
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler
from litestar.params import FromPath, QueryParameter

from tidegate.core.errors import RequestError, TidegateError
from tidegate.server.people.sessions import StaleError
from tidegate.server.problems import MAY_PASS, detail_of, status_of
from tidegate.server.scopes import ANYBODY, PERMISSION, demanded
from tidegate.server.web.assets import Assets
from tidegate.server.web.audit import AuditPages
from tidegate.server.web.door import Door
from tidegate.server.web.edit_rollout import EditRollout
from tidegate.server.web.forms import Forms
from tidegate.server.web.guard import HEADERS, WebRequest, local_path
from tidegate.server.web.live import Live, Pulse
from tidegate.server.web.new_rollout import NewRollout
from tidegate.server.web.notices import NoticePages
from tidegate.server.web.pages import ReadPages
from tidegate.server.web.people import OwnAccount, PeoplePages, is_enrolling
from tidegate.server.web.reader import Auth, Commands, Reader
from tidegate.server.web.render import Renderer
from tidegate.server.web.site import SecondFactorNeededError, SignInNeededError, Site, SiteDep
from tidegate.server.web.supply import SupplyPages
from tidegate.server.web.views import Problem

TITLES: Final[dict[str, str]] = {
    "request.not_found": "Not here",
    "request.forbidden": "Not allowed",
    "request.unauthenticated": "Not signed in",
    "request.conflict": "It has changed meanwhile",
    "request.approval_needed": "A second person has to consent",
    "server.busy": "Busy",
    "data.unreachable": "Not now",
    "data.read_only": "Nothing can be changed now",
    "data.outcome_unknown": "It may have been done",
    "server.internal": "Something went wrong here",
}


def create_router(
    reader: Reader, commands: Commands, auth: Auth, clock: Callable[[], float]
) -> Router:
    """Make the router of the web pages; `clock` tells unix seconds."""
    site = Site(reader, commands, auth, clock)
    pulse = Pulse()
    return Router(
        path="/",
        guards=[guard_of(site)],
        route_handlers=[
            ReadPages,
            SupplyPages,
            AuditPages,
            NoticePages,
            NewRollout,
            EditRollout,
            Forms,
            Door,
            OwnAccount,
            PeoplePages,
            Live,
            static_file,
        ],
        dependencies={
            "site": Provide(lambda: site, sync_to_thread=False),
            "pulse": Provide(lambda: pulse, sync_to_thread=False),
        },
        exception_handlers={
            SignInNeededError: to_the_door,
            SecondFactorNeededError: to_the_second_factor,
            StaleError: to_the_proof,
            TidegateError: show_problem,
            HTTPException: show_http_problem,
        },
        response_headers=[
            ResponseHeader(name=name, value=value) for name, value in HEADERS.items()
        ],
    )


def guard_of(site: Site) -> Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], Any]:
    """Make the guard of every page and form: it refuses whoever lacks the permission that a route declares on what it declares to be about."""

    async def permission_guard(
        connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
    ) -> None:
        permission, about, name = demanded(handler.opt, connection.path_params)
        if permission != ANYBODY:
            visit = await site.visit(connection)
            if is_enrolling(visit):
                raise SecondFactorNeededError
            await site.check(visit, permission, about, name)
            method, path = str(connection.scope.get("method", "GET")), connection.url.path
            await site.require_fresh(visit, permission, method, path)

    return permission_guard


@get("/static/{path:path}", include_in_schema=False, opt={PERMISSION: ANYBODY})
async def static_file(
    request: WebRequest,
    site: SiteDep,
    path: FromPath[str],
    v: Annotated[str, QueryParameter(max_length=64)] = "",
) -> Response[bytes]:
    """Serve a static file. With the right `v` it may be kept for ever, because other bytes have another address."""
    asset = site.assets.get(path.lstrip("/"))
    if asset is None:
        raise RequestError("request.not_found", "No such file.")
    etag = f'"{asset.digest[:32]}"'
    for_ever = bool(v) and asset.digest.startswith(v)
    headers = {
        "ETag": etag,
        "Cache-Control": "public, max-age=31536000, immutable" if for_ever else "no-cache",
    }
    if request.headers.get("if-none-match") == etag:
        return Response(b"", status_code=304, headers=headers, media_type=asset.media_type)
    return Response(asset.body, headers=headers, media_type=asset.media_type)


def to_the_second_factor(request: WebRequest, _: SecondFactorNeededError) -> Response[Any]:
    """Have somebody set up the second factor that their roles want."""
    del request
    return Response(None, status_code=303, headers={"Location": "/account"} | HEADERS)


def to_the_proof(request: WebRequest, _: StaleError) -> Response[Any]:
    """Have somebody show anew who they are, and come back to the page of the form."""
    to = "/account/proof?" + urlencode({"next": _page_of_form(request)})
    return Response(None, status_code=303, headers={"Location": to} | HEADERS)


def _page_of_form(request: WebRequest) -> str:
    """Return the page from which a form was sent: as the browser says, else the one above its address."""
    sent = urlsplit(request.headers.get("referer", ""))
    if sent.path and sent.netloc == request.headers.get("host", ""):
        return local_path(f"{sent.path}?{sent.query}" if sent.query else sent.path)
    path = request.url.path
    return (path if path.count("/") == 1 else path.rpartition("/")[0]) or "/"


def to_the_door(request: WebRequest, _: SignInNeededError) -> Response[Any]:
    """Ask for a sign-in, and come back to the page afterwards. A stream is told in plain words."""
    if request.url.path == "/live":
        return Response(
            "not signed in", status_code=401, media_type=MediaType.TEXT, headers=HEADERS
        )
    back = request.url.path if request.method == "GET" else "/"
    if request.method == "GET" and request.url.query:
        back = f"{back}?{request.url.query}"
    to = "/sign-in" if back == "/" else "/sign-in?" + urlencode({"next": back})
    return Response(None, status_code=303, headers={"Location": to} | HEADERS)


def show_problem(request: WebRequest, error: TidegateError) -> Response[Any]:
    """Say what went wrong, what to do about it, and its stable code."""
    status = status_of(error.code)
    title = TITLES.get(error.code, "Refused" if request.method == "POST" else "That does not work")
    return _problem_page(request, Problem(status, error.code, title, detail_of(error), error.hint))


def show_http_problem(request: WebRequest, error: HTTPException) -> Response[Any]:
    """Show an error of the framework (a bad parameter, a method not allowed, a body too large) like any other."""
    code = {404: "request.not_found", 413: "request.too_large"}.get(
        error.status_code, "request.invalid"
    )
    if error.status_code >= 500:
        code = "server.internal"
    detail = "There is no such page." if error.status_code == 404 else "The request cannot be read."
    problem = Problem(error.status_code, code, TITLES.get(code, "That does not work"), detail)
    return _problem_page(request, problem)


@functools.cache
def _plain_renderer() -> Renderer:
    return Renderer(Assets())


def _problem_page(request: WebRequest, problem: Problem) -> Response[Any]:
    path = request.url.path
    back = (
        (path if path.count("/") == 1 else path.rpartition("/")[0])
        if request.method == "POST"
        else "/"
    )
    # The handler's own site is not at hand here: an error can come before dependencies are resolved.
    unchanged = request.method == "POST" and problem.code != "data.outcome_unknown"
    html = _plain_renderer().page(
        "problem", {"page": problem, "back": back or "/", "unchanged": unchanged}
    )
    headers = HEADERS | {"Cache-Control": "no-store"}
    if problem.status in MAY_PASS:
        headers = headers | {"Retry-After": "5"}
    return Response(html, status_code=problem.status, media_type=MediaType.HTML, headers=headers)
