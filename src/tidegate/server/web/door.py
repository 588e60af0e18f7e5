"""Sign in and out: local accounts, and one-time links."""

from typing import Annotated, Any, Final

from litestar import Controller, Response, get, post
from litestar.enums import MediaType
from litestar.params import QueryParameter

from tidegate.core.errors import RequestError, TidegateError
from tidegate.server.scopes import ANYBODY, PERMISSION
from tidegate.server.web import guard
from tidegate.server.web.guard import FORM_BYTES, WebRequest
from tidegate.server.web.site import Site, SiteDep
from tidegate.server.web.views import SignInPage

Query = Annotated[str, QueryParameter(max_length=1000)]
KEEP_S: Final = 12 * 3600


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
    ) -> Response[Any]:
        """Show the form."""
        page = SignInPage(host=request.headers.get("host", ""), next=guard.local_path(next_))
        return _door(site, page, 200)

    @post("/sign-in")
    async def sign_in(self, request: WebRequest, site: SiteDep) -> Response[Any]:
        """Check name and password; say nothing about which of them is wrong."""
        guard.check_origin(request)
        fields = await guard.read_form(request)
        name, to = fields.get("name", "")[:64], guard.local_path(fields.get("next", "/"))
        caller = request.client.host if request.client else ""
        try:
            session = await site.run(
                lambda: site.auth.sign_in(
                    name, fields.get("password", "")[:1000], caller, site.now()
                )
            )
            problem = "Name and password do not match an account."
        except TidegateError as error:
            session, problem = None, error.detail
        if session is None:
            page = SignInPage(
                host=request.headers.get("host", ""), next=to, name=name, problem=problem
            )
            return _door(site, page, 401)
        cookie = guard.session_cookie(request, session, keep_s=KEEP_S)
        return Response(None, status_code=303, headers={"Location": to}, cookies=[cookie])

    @get("/sign-in/ticket")
    async def ticket(self, request: WebRequest, site: SiteDep, t: Query = "") -> Response[Any]:
        """Exchange a one-time link for a session.

        The answer is a page that leads on, not a redirect: a strict cookie is not sent along a redirect that began on another site.
        """
        session = await site.run(lambda: site.auth.redeem(t, site.now()))
        if session is None:
            raise RequestError(
                "request.unauthenticated",
                "This link was used, or its time is over. Ask for a new one.",
            )
        html = site.renderer.page("ticket", {"page": None})
        cookie = guard.session_cookie(request, session, keep_s=KEEP_S)
        return Response(
            html, media_type=MediaType.HTML, headers={"Cache-Control": "no-store"}, cookies=[cookie]
        )

    @post("/sign-out")
    async def sign_out(self, request: WebRequest, site: SiteDep) -> Response[Any]:
        """End the session."""
        guard.check_origin(request)
        visit = await site.visit(request)
        guard.check_token(await guard.read_form(request), visit.session)
        await site.run(lambda: site.auth.sign_out(visit.session, visit.now))
        response: Response[Any] = Response(None, status_code=303, headers={"Location": "/sign-in"})
        response.delete_cookie(guard.SESSION)
        return response


def _door(site: Site, page: SignInPage, status: int) -> Response[Any]:
    html = site.renderer.page("sign_in", {"page": page})
    return Response(
        html, status_code=status, media_type=MediaType.HTML, headers={"Cache-Control": "no-store"}
    )
