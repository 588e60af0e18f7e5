"""Pages of the supply chain: components, advisories, and taking in a file of them."""

from typing import Any

from litestar import Controller, Response, get, post
from litestar.datastructures import UploadFile

from tidegate.core.errors import RequestError
from tidegate.core.supply.documents import ADVISORY_MAX
from tidegate.server.scopes import ABOUT, LISTED, PERMISSION, WHOLE
from tidegate.server.web import guard
from tidegate.server.web.guard import WebRequest
from tidegate.server.web.pages import Name, Query, not_found
from tidegate.server.web.site import SiteDep


class SupplyPages(Controller):
    """What releases are made of, and what is known against it."""

    include_in_schema = False

    @get("/components", opt={PERMISSION: "fleet.read", ABOUT: LISTED})
    async def components(
        self,
        request: WebRequest,
        site: SiteDep,
        q: Query = "",
        below: Query = "",
        cursor: Query = "",
    ) -> Response[Any]:
        """Find a part, and the devices that have it."""
        visit = await site.visit(request)
        page = await site.run(
            lambda: site.reader.components(q, below, cursor, visit.now, visit.account.sight)
        )
        return await site.show(request, visit, "components", page, section="devices")

    @get("/advisories", opt={PERMISSION: "fleet.read", ABOUT: LISTED})
    async def advisories(
        self, request: WebRequest, site: SiteDep, cursor: Query = ""
    ) -> Response[Any]:
        """List advisories."""
        visit = await site.visit(request)
        page = await site.run(
            lambda: site.reader.advisories(cursor, visit.now, visit.account.sight)
        )
        return await site.show(request, visit, "advisories", page, section="releases")

    @get("/advisories/{name:str}", opt={PERMISSION: "fleet.read", ABOUT: LISTED})
    async def advisory(self, request: WebRequest, site: SiteDep, name: Name) -> Response[Any]:
        """Show one advisory, by its number."""
        visit = await site.visit(request)
        number = int(name) if name.isascii() and name.isdigit() and len(name) < 16 else 0
        page = await site.run(lambda: site.reader.advisory(number, visit.now, visit.account.sight))
        if page is None:
            raise not_found("advisory", name)
        return await site.show(request, visit, "advisory", page, section="releases")

    @post(
        "/advisories",
        opt={PERMISSION: "release.publish", ABOUT: WHOLE},
        request_max_body_size=ADVISORY_MAX + (64 << 10),
    )
    async def take(self, request: WebRequest, site: SiteDep) -> Response[Any]:
        """Take in one file of advisories or statements."""
        guard.check_origin(request)
        visit = await site.visit(request)
        data = await request.form()
        token, given = data.get("csrf"), data.get("file")
        guard.check_token({"csrf": token if isinstance(token, str) else ""}, visit.session)
        if not isinstance(given, UploadFile) or not given.filename:
            raise RequestError("request.invalid", "Choose a file first.")
        body = await given.read()
        text = await site.run(lambda: site.commands.take_advisories(body, visit.account, visit.now))
        return site.done(request, "/advisories", text)
