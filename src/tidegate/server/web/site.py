"""What the page handlers share: the reader, the commands, the accounts, the clock and the templates."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

from litestar import Response
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.enums import MediaType

from tidegate.server.web import guard
from tidegate.server.web.assets import Assets
from tidegate.server.web.guard import WebRequest
from tidegate.server.web.reader import Account, Auth, Commands, Reader
from tidegate.server.web.render import Renderer
from tidegate.server.web.views import Notice

T = TypeVar("T")


class SignInNeededError(Exception):
    """Nobody is signed in; the page is asked for again afterwards."""


class SecondFactorNeededError(Exception):
    """Somebody's roles want a second factor that is not set up yet."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One request by one signed-in account."""

    account: Account
    session: str
    now: int


class Site:
    """The web pages' way to everything else."""

    def __init__(
        self, reader: Reader, commands: Commands, auth: Auth, clock: Callable[[], float]
    ) -> None:
        """Hold the parts; `clock` tells unix seconds."""
        self.reader = reader
        self.commands = commands
        self.auth = auth
        self.assets = Assets()
        self.renderer = Renderer(self.assets)
        self._clock = clock

    def now(self) -> int:
        """Return the time in unix seconds."""
        return int(self._clock())

    async def run(self, work: Callable[[], T]) -> T:
        """Run synchronous work off the event loop."""
        return await asyncio.to_thread(work)

    async def visit(self, request: ASGIConnection[Any, Any, Any, Any]) -> Visit:
        """Say who asks.

        Raises:
            SignInNeededError: nobody is signed in.
        """
        session = request.cookies.get(guard.SESSION, "")
        now = self.now()
        account = await self.run(lambda: self.auth.account(session, now)) if session else None
        if account is None:
            raise SignInNeededError
        return Visit(account, session, now)

    async def check(self, visit: Visit, permission: str, about: str, name: str) -> None:
        """Refuse an account that lacks a permission on a thing.

        Raises:
            RequestError: `request.forbidden`, `request.not_found`.
        """
        await self.run(lambda: self.auth.check(visit.account, permission, about, name, visit.now))

    async def require_fresh(self, visit: Visit, permission: str, method: str, path: str) -> None:
        """Insist that who sits there showed of late who they are, for a form that widens.

        Raises:
            StaleError: too long ago.
        """
        people = self.auth.people
        if people is not None:
            session, now = visit.session, visit.now
            await self.run(lambda: people.require_fresh(session, permission, method, path, now))

    async def act(self, request: WebRequest) -> tuple[Visit, dict[str, str]]:
        """Admit a form: origin, session and token; return who sent it and its fields. Its permission was checked by the guard of its route.

        Raises:
            SignInNeededError: nobody is signed in.
            RequestError: the form is not ours.
        """
        guard.check_origin(request)
        visit = await self.visit(request)
        fields = await guard.read_form(request)
        guard.check_token(fields, visit.session)
        return visit, fields

    def context(self, visit: Visit, page: object, **more: object) -> dict[str, Any]:
        """Gather what a template may print."""
        return {
            "page": page,
            "account": visit.account,
            "counts": self.reader.counts(visit.now, visit.account.sight),
            "csrf_token": guard.form_token(visit.session),
        } | more

    async def show(
        self, request: WebRequest, visit: Visit, template: str, page: object, **more: object
    ) -> Response[str]:
        """Answer with a page, and with the sentence that a form left behind."""
        text = guard.read_notice(request)
        notice = Notice(text) if text else None
        html = await self.run(
            lambda: self.renderer.page(template, self.context(visit, page, notice=notice, **more))
        )
        response = Response(html, media_type=MediaType.HTML, headers={"Cache-Control": "no-store"})
        if text:
            response.delete_cookie(guard.NOTICE)
        return response

    def done(self, request: WebRequest, to: str, text: str) -> Response[None]:
        """Answer a form: see the page `to`, which prints `text` once."""
        return Response(
            None,
            status_code=303,
            headers={"Location": to},
            cookies=[guard.notice_cookie(request, text)],
        )


def address(*parts: str) -> str:
    """Build a path from parts, each escaped."""
    return "/" + "/".join(quote(part, safe="") for part in parts)


#: How a handler asks for the site.
SiteDep = NamedDependency[Site]
