"""What the world is told: messages to the channels of the settings, over REST."""

import msgspec
from litestar import Controller, get, post
from litestar.params import JSONBody

from tidegate.server import outbox
from tidegate.server.api import sorting
from tidegate.server.api.desk import ABOUT, PERMISSION, WHOLE, ApiRequest, DeskDep, InState, Number
from tidegate.server.api.paging import Cursor, Limit
from tidegate.server.api.sorting import SORT, Sort
from tidegate.server.api.wire import Short
from tidegate.server.outbox import ChannelFacts, NoticeFacts
from tidegate.server.store import Connection


class Notices(msgspec.Struct, frozen=True, kw_only=True):
    """A page of messages, newest first, and the channels of the settings."""

    items: list[NoticeFacts]
    channels: list[ChannelFacts]
    next: str | None = None


class NewTest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which channel is to be tried."""

    channel: Short


class NoticeRoutes(Controller):
    """Everything about notifications."""

    path = "/notifications"
    tags = ("notifications",)

    @get(
        "/",
        opt={PERMISSION: "fleet.read", ABOUT: WHOLE, SORT: sorting.NOTICES},
        sync_to_thread=True,
    )
    def list_notices(
        self,
        desk: DeskDep,
        in_state: InState = "",
        sort: Sort = "",
        cursor: Cursor = "",
        limit: Limit = 50,
    ) -> Notices:
        """List messages, newest first; `state` is waiting, retrying, delivered or dead."""
        order = sorting.NOTICES.order(sort, cursor)
        items, more = desk.read(
            lambda conn: outbox.listed(conn, state=in_state, order=order, limit=limit)
        )
        return Notices(
            items=items,
            channels=outbox.channels(desk.services),
            next=sorting.NOTICES.cursor(sort, more),
        )

    @post(
        "/{number:int}/replay",
        opt={PERMISSION: "notice.manage", ABOUT: WHOLE},
        sync_to_thread=True,
        status_code=200,
    )
    def replay(self, request: ApiRequest, desk: DeskDep, number: Number) -> NoticeFacts:
        """Deliver a message once more, under the same id."""
        done = desk.write(lambda conn: outbox.replay(conn, number, request.user, desk.now))
        desk.services.wake()
        return done

    @post(
        "/test",
        opt={PERMISSION: "notice.manage", ABOUT: WHOLE},
        sync_to_thread=True,
        status_code=200,
    )
    def test(self, request: ApiRequest, desk: DeskDep, data: JSONBody[NewTest]) -> NewTest:
        """Send a channel a message that says nothing but that it is one."""

        def work(conn: Connection) -> NewTest:
            outbox.test(conn, desk.services.settings, data.channel, request.user, desk.now)
            return data

        done = desk.write(work)
        desk.services.wake()
        return done
