"""Acts on many devices over REST: counted, confirmed, followed, cancelled."""

from typing import Annotated, Any

import msgspec
from litestar import Controller, get, post
from litestar.params import JSONBody
from msgspec import Meta

from tidegate.server import jobs
from tidegate.server.api import sorting
from tidegate.server.api.desk import (
    ABOUT,
    PERMISSION,
    WHOLE,
    ApiRequest,
    DeskDep,
    DryRun,
    InState,
    Number,
)
from tidegate.server.api.paging import Cursor, Limit, cursor_of, position_of
from tidegate.server.api.sorting import SORT, Sort
from tidegate.server.api.wire import Because, Query, Reason, Short
from tidegate.server.jobs import Act, JobCount, JobFacts, JobItem, Order

Ids = Annotated[tuple[Short, ...], Meta(max_length=jobs.DEVICES_MAX)]
Words = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...], Meta(max_length=64)
]


class NewJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be done with many devices: those of a `query`, or those of the list `devices`.

    `tags` for tag and untag; `group` (into) and `out_of` for move; `reason` for revoke and decommission. `confirm` is the number of devices that
    `dry_run=true` told: another number is refused.
    """

    act: Act
    query: Query = ""
    devices: Ids = ()
    tags: Words = ()
    group: Annotated[str, Meta(max_length=64)] = ""
    out_of: Annotated[str, Meta(max_length=64)] = ""
    reason: Reason = ""
    confirm: Annotated[int, Meta(ge=0, le=jobs.DEVICES_MAX)] | None = None


class Jobs(msgspec.Struct, frozen=True, kw_only=True):
    """A page of jobs, newest first."""

    items: list[JobFacts]
    next: str | None = None


class JobItems(msgspec.Struct, frozen=True, kw_only=True):
    """A page of what became of a job's devices."""

    items: list[JobItem]
    next: str | None = None


class JobRoutes(Controller):
    """Everything about jobs."""

    path = "/jobs"
    tags = ("jobs",)

    @get("/", opt={PERMISSION: "fleet.read", ABOUT: WHOLE, SORT: sorting.JOBS}, sync_to_thread=True)
    def list_jobs(
        self,
        desk: DeskDep,
        in_state: InState = "",
        sort: Sort = "",
        cursor: Cursor = "",
        limit: Limit = 50,
    ) -> Jobs:
        """List jobs, newest first; `state` is running, done or cancelled."""
        order = sorting.JOBS.order(sort, cursor)
        items, more = desk.read(
            lambda conn: jobs.listed(conn, state=in_state, order=order, limit=limit)
        )
        return Jobs(items=items, next=sorting.JOBS.cursor(sort, more))

    @post(
        "/",
        opt={PERMISSION: "device.manage", ABOUT: WHOLE},
        sync_to_thread=True,
        status_code=201,
    )
    def create(
        self,
        request: ApiRequest,
        desk: DeskDep,
        data: JSONBody[NewJob],
        only_check: DryRun = False,
    ) -> JobFacts | JobCount:
        """Tag, untag, move, revoke or decommission many devices. With `dry_run`, only say how many; that number is the `confirm` of the call that does it."""
        plain: dict[str, Any] = {name: getattr(data, name) for name in Order.__struct_fields__}
        order, actor = Order(**plain), request.user
        if only_check:
            return desk.read(lambda conn: jobs.count(conn, order, actor, desk.now))
        made = desk.write(lambda conn: jobs.start(conn, order, data.confirm, actor, desk.now))
        desk.services.wake()
        return made

    @get("/{number:int}", opt={PERMISSION: "fleet.read", ABOUT: WHOLE}, sync_to_thread=True)
    def show(self, desk: DeskDep, number: Number) -> JobFacts:
        """Return a job and how far it is."""
        return desk.read(lambda conn: jobs.show(conn, number))

    @get("/{number:int}/items", opt={PERMISSION: "fleet.read", ABOUT: WHOLE}, sync_to_thread=True)
    def outcomes(
        self,
        desk: DeskDep,
        number: Number,
        in_state: InState = "",
        cursor: Cursor = "",
        limit: Limit = 100,
    ) -> JobItems:
        """List what became of each device of a job; `state` is waiting, done, already or failed."""
        after = position_of(cursor)
        items, more = desk.read(
            lambda conn: jobs.items(conn, number, state=in_state, after=after, limit=limit)
        )
        return JobItems(items=items, next=cursor_of(more))

    @post(
        "/{number:int}/cancel",
        opt={PERMISSION: "device.manage", ABOUT: WHOLE},
        sync_to_thread=True,
        status_code=200,
    )
    def cancel(
        self, request: ApiRequest, desk: DeskDep, number: Number, data: JSONBody[Because]
    ) -> JobFacts:
        """End a job where it is; what was done stays done."""
        return desk.write(
            lambda conn: jobs.cancel(conn, number, request.user, data.reason, desk.now)
        )
