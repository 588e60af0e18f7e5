"""The page of notifications: the channels of the settings, what was sent to them, what failed, and what can be done about it."""

from typing import Any, Final

from litestar import Controller, Response, get, post
from litestar.params import FromPath

from tidegate.server.scopes import ABOUT, PERMISSION, WHOLE
from tidegate.server.web.forms import REASON_CHARS
from tidegate.server.web.guard import FORM_BYTES, WebRequest
from tidegate.server.web.pages import InState, Query
from tidegate.server.web.site import SiteDep

_READ: Final = {PERMISSION: "fleet.read", ABOUT: WHOLE}
_MANAGE: Final = {PERMISSION: "notice.manage", ABOUT: WHOLE}


class NoticePages(Controller):
    """`/notifications`."""

    include_in_schema = False
    request_max_body_size = FORM_BYTES

    @get("/notifications", opt=_READ)
    async def notices(
        self, request: WebRequest, site: SiteDep, in_state: InState = "", cursor: Query = ""
    ) -> Response[Any]:
        """List channels, and messages, newest first."""
        visit = await site.visit(request)
        page = await site.run(lambda: site.reader.notices(in_state, cursor, visit.now))
        return await site.show(request, visit, "notifications", page, section="notifications")

    @post("/notifications/test", opt=_MANAGE)
    async def test(self, request: WebRequest, site: SiteDep) -> Response[Any]:
        """Send a channel a message that says nothing but that it is one."""
        visit, fields = await site.act(request)
        channel = fields.get("channel", "")[:REASON_CHARS]
        text = await site.run(lambda: site.commands.try_channel(channel, visit.account, visit.now))
        return site.done(request, "/notifications", text)

    @post("/notifications/{number:int}/replay", opt=_MANAGE)
    async def replay(
        self, request: WebRequest, site: SiteDep, number: FromPath[int]
    ) -> Response[Any]:
        """Deliver a message once more."""
        visit, _ = await site.act(request)
        text = await site.run(lambda: site.commands.send_again(number, visit.account, visit.now))
        return site.done(request, "/notifications", text)
