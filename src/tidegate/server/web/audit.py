"""The page of the operators' log."""

from typing import Any

from litestar import Controller, Response, get

from tidegate.server.scopes import ABOUT, LISTED, PERMISSION
from tidegate.server.web.guard import WebRequest
from tidegate.server.web.pages import Query
from tidegate.server.web.site import SiteDep


class AuditPages(Controller):
    """What operators did, and what vouches for it."""

    include_in_schema = False

    @get("/audit", opt={PERMISSION: "audit.read", ABOUT: LISTED})
    async def audit(
        self,
        request: WebRequest,
        site: SiteDep,
        actor: Query = "",
        action: Query = "",
        thing: Query = "",
        cursor: Query = "",
        check: Query = "",
    ) -> Response[Any]:
        """List acts, newest first, those that the account may read; with `check`, hold every row against chain, tree and checkpoint."""
        visit = await site.visit(request)
        page = await site.run(
            lambda: site.reader.audit(
                actor, action, thing, cursor, visit.account, visit.now, check=check == "1"
            )
        )
        return await site.show(request, visit, "audit", page, section="audit")
