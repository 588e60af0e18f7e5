"""Sign in and out: local accounts and their second factor, one-time links, and an OpenID provider."""

from typing import Annotated, Any, Final

from litestar import Controller, Response, get, post
from litestar.datastructures import Cookie
from litestar.enums import MediaType
from litestar.params import QueryParameter

from tidegate.core.errors import RequestError
from tidegate.server.people.sessions import HALF_PREFIX, HALF_S, Origin
from tidegate.server.people.single_sign_on import BACK, FLOW_S, SingleSignOn
from tidegate.server.scopes import ANYBODY, PERMISSION
from tidegate.server.web import guard
from tidegate.server.web.guard import FORM_BYTES, WebRequest
from tidegate.server.web.site import Site, SiteDep
from tidegate.server.web.views import CodePage, SignedInPage, SignInPage

Query = Annotated[str, QueryParameter(max_length=1000)]
KEEP_S: Final = 12 * 3600


def origin_of(request: WebRequest) -> Origin:
    """Return where a request came from (untrusted)."""
    address = request.client.host if request.client else ""
    return Origin(address=address, agent=request.headers.get("user-agent", "")[:200])


class Door(Controller):
    """The only pages that are seen without a session."""

    include_in_schema = False
    opt = {PERMISSION: ANYBODY}  # noqa: RUF012 - the framework's way
    request_max_body_size = FORM_BYTES

    @get("/sign-in")
    async def ask(
        self,
        request: WebRequest,
        site: SiteDep,
        next_: Annotated[str, QueryParameter(name="next", max_length=1000)] = "/",
        out: Query = "",
    ) -> Response[Any]:
        """Show the form."""
        single = site.auth.single
        way_out = ""
        if out and single is not None:
            way_out = await site.run(lambda: single.way_out(site.now()))
        return _ask(site, request, guard.local_path(next_), way_out=way_out)

    @post("/sign-in")
    async def sign_in(self, request: WebRequest, site: SiteDep) -> Response[Any]:
        """Check name and password; say nothing about which of them is wrong."""
        guard.check_origin(request)
        fields = await guard.read_form(request)
        name, to = fields.get("name", "")[:64], guard.local_path(fields.get("next", "/"))
        came = origin_of(request)
        try:
            session = await site.run(
                lambda: site.auth.sign_in(
                    name,
                    fields.get("password", "")[:1000],
                    came.address,
                    site.now(),
                    agent=came.agent,
                )
            )
            problem, status = "Name and password do not match an account.", 401
        except RequestError as error:
            session, problem, status = None, error.detail, _status(error)
        if session is None:
            return _ask(site, request, to, name=name, problem=problem, status=status)
        if session.startswith(HALF_PREFIX):
            return _half(request, site, session, to)
        cookie = guard.session_cookie(request, session, keep_s=KEEP_S)
        return Response(None, status_code=303, headers={"Location": to}, cookies=[cookie])

    @post("/sign-in/code")
    async def code(self, request: WebRequest, site: SiteDep) -> Response[Any]:
        """Check the code that a second factor asks for."""
        guard.check_origin(request)
        fields = await guard.read_form(request)
        to, people = guard.local_path(fields.get("next", "/")), site.auth.people
        half = request.cookies.get(guard.HALF, "")
        try:
            session = (
                await site.run(
                    lambda: people.second_factor(half, fields.get("code", "")[:64], site.now())
                )
                if people is not None
                else None
            )
        except RequestError as error:
            return _page(site, "code", CodePage(next=to, problem=error.detail), _status(error))
        if session is None:
            problem = "That took too long. Begin again."
            return _ask(site, request, to, problem=problem, status=401)
        cookie = guard.session_cookie(request, session, keep_s=KEEP_S)
        response: Response[Any] = Response(
            None, status_code=303, headers={"Location": to}, cookies=[cookie]
        )
        response.delete_cookie(guard.HALF)
        return response

    @get("/sign-in/ticket")
    async def ticket(self, request: WebRequest, site: SiteDep, t: Query = "") -> Response[Any]:
        """Exchange a one-time link for a session.

        The answer is a page that leads on, not a redirect: a strict cookie is not sent along a redirect that began on another site.
        """
        came = origin_of(request)
        session = await site.run(
            lambda: site.auth.redeem(t, site.now(), address=came.address, agent=came.agent)
        )
        if session is None:
            raise RequestError(
                "request.unauthenticated",
                "This link was used, or its time is over. Ask for a new one.",
            )
        if session.startswith(HALF_PREFIX):
            return _half(request, site, session, "/")
        cookie = guard.session_cookie(request, session, keep_s=KEEP_S)
        return _page(site, "ticket", SignedInPage("/"), 200, cookie)

    @get("/sign-in/single")
    async def single(
        self,
        request: WebRequest,
        site: SiteDep,
        next_: Annotated[str, QueryParameter(name="next", max_length=1000)] = "/",
        again: Annotated[bool, QueryParameter()] = False,
    ) -> Response[Any]:
        """Send the browser to the provider; `again`: which has the person show anew who they are."""
        single = _single(site)
        begun = await site.run(
            lambda: single.begin(guard.local_path(next_), site.now(), again=again)
        )
        cookie = guard.flow_cookie(request, begun.browser, keep_s=FLOW_S)
        headers = {"Location": begun.address, "Cache-Control": "no-store"}
        return Response(None, status_code=303, headers=headers, cookies=[cookie])

    @get(BACK)
    async def single_back(
        self,
        request: WebRequest,
        site: SiteDep,
        code: Annotated[str, QueryParameter(max_length=4096)] = "",
        iss: Query = "",
        error: Query = "",
        given: Annotated[str, QueryParameter(name="state", max_length=200)] = "",
    ) -> Response[Any]:
        """Take a browser back from the provider. Leads on by a page, as a one-time link does."""
        single = _single(site)
        answer = {"code": code, "state": given, "iss": iss, "error": error}
        browser, came = request.cookies.get(guard.FLOW, ""), origin_of(request)
        ended = await site.run(lambda: single.finish(answer, browser, came, site.now()))
        cookie = guard.session_cookie(request, ended.session, keep_s=KEEP_S)
        to = guard.local_path(ended.next)
        response = _page(site, "ticket", SignedInPage(to), 200, cookie)
        response.delete_cookie(guard.FLOW, path="/sign-in")
        return response

    @post("/sign-out")
    async def sign_out(self, request: WebRequest, site: SiteDep) -> Response[Any]:
        """End the session."""
        guard.check_origin(request)
        visit = await site.visit(request)
        guard.check_token(await guard.read_form(request), visit.session)
        await site.run(lambda: site.auth.sign_out(visit.session, visit.now))
        to = "/sign-in?out=1" if site.auth.single is not None else "/sign-in"
        response: Response[Any] = Response(None, status_code=303, headers={"Location": to})
        response.delete_cookie(guard.SESSION)
        return response


def _single(site: Site) -> SingleSignOn:
    if site.auth.single is None:
        raise RequestError("request.not_found", "This server has no single sign-on.")
    return site.auth.single


def _half(request: WebRequest, site: Site, half: str, to: str) -> Response[Any]:
    cookie = guard.half_cookie(request, half, keep_s=HALF_S)
    return _page(site, "code", CodePage(next=to), 200, cookie)


def _status(error: RequestError) -> int:
    return 429 if error.code == "request.rate_limited" else 401


def _ask(
    site: Site,
    request: WebRequest,
    to: str,
    *,
    name: str = "",
    problem: str = "",
    way_out: str = "",
    status: int = 200,
) -> Response[Any]:
    single = site.auth.single
    page = SignInPage(
        host=request.headers.get("host", ""),
        next=to,
        name=name,
        problem=problem,
        local=site.auth.local,
        single=single.label if single is not None else "",
        way_out=way_out,
    )
    return _page(site, "sign_in", page, status)


def _page(site: Site, template: str, page: object, status: int, *cookies: Cookie) -> Response[Any]:
    html = site.renderer.page(template, {"page": page})
    headers = {"Cache-Control": "no-store"}
    return Response(
        html, status_code=status, media_type=MediaType.HTML, headers=headers, cookies=[*cookies]
    )
