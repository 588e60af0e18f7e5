"""Rollouts over REST: make, look, act. A verb is a POST to `/rollouts/{name}/{verb}`."""

import asyncio
from typing import Any

from litestar import Controller, Response, get, patch, post, put
from litestar.params import JSONBody

from tidegate.core.errors import RequestError
from tidegate.server import acts, inquiry, listing, rollouts, series, why
from tidegate.server.acts import Outcome
from tidegate.server.api import sorting
from tidegate.server.api.desk import (
    ABOUT,
    INSIDE,
    LISTED,
    PERMISSION,
    REFUSALS,
    ApiRequest,
    Desk,
    DeskDep,
    DryRun,
    InState,
    Moment,
    Name,
    Text,
    Yes,
    wanted_generation,
)
from tidegate.server.api.paging import Cursor, Limit, cursor_of, position_of
from tidegate.server.api.sorting import SORT, Sort
from tidegate.server.api.tags import MATCH
from tidegate.server.api.wire import (
    Act,
    Explanation,
    FallbackOrder,
    LogLines,
    Participants,
    Rollouts,
    Stragglers,
    WouldAct,
)
from tidegate.server.facts import EvidenceFacts, RolloutFacts
from tidegate.server.fallbacks import WayBack
from tidegate.server.gatekeeper.replay import Replayed
from tidegate.server.reach import Reach
from tidegate.server.series import RolloutSeries


class RolloutRoutes(Controller):
    """Everything about rollouts."""

    path = "/rollouts"
    tags = ("rollouts",)

    @get(
        "/",
        opt={PERMISSION: "fleet.read", ABOUT: LISTED, SORT: sorting.ROLLOUTS},
        sync_to_thread=True,
    )
    def list_rollouts(
        self,
        request: ApiRequest,
        desk: DeskDep,
        in_state: InState = "",
        sort: Sort = "",
        cursor: Cursor = "",
        limit: Limit = 50,
    ) -> Rollouts:
        """List rollouts, newest first unless `sort` says otherwise. `state` takes several, separated by commas."""
        states = tuple(one for one in in_state.split(",") if one)
        order = sorting.ROLLOUTS.order(sort, cursor)
        items, more = desk.read(
            lambda conn: inquiry.rollouts(
                conn, states=states, order=order, limit=limit, sight=request.user.sight
            )
        )
        return Rollouts(items=items, next=sorting.ROLLOUTS.cursor(sort, more))

    @post(
        "/", opt={PERMISSION: "rollout.create", ABOUT: INSIDE}, sync_to_thread=True, status_code=201
    )
    def create(
        self,
        request: ApiRequest,
        desk: DeskDep,
        data: JSONBody[dict[str, Any]],
        dry_run: Yes = False,
    ) -> Outcome | Reach:
        """Make a rollout of a policy file's content, with `reason` beside it; start it unless it says `draft`. With `dry_run`, only say whom it would reach."""
        reason = data.pop("reason", "")
        if not isinstance(reason, str) or len(reason) > 1000:
            raise RequestError("request.invalid", "reason: a text of at most 1000 characters")
        if dry_run:
            return desk.operations.preview(data, request.user, desk.now)
        return desk.operations.create(data, request.user, reason, desk.now)

    @get("/{name:str}", opt={PERMISSION: "fleet.read", ABOUT: "rollout"}, sync_to_thread=True)
    def show(self, desk: DeskDep, name: Name) -> Response[RolloutFacts]:
        """Return a rollout; its ETag is its generation."""
        found = desk.read(lambda conn: inquiry.rollout(conn, name, desk.now))
        return Response(found, headers={"ETag": f'"{found.generation}"'})

    @put(
        "/{name:str}",
        opt={PERMISSION: "rollout.widen", ABOUT: "rollout", MATCH: True},
        sync_to_thread=True,
    )
    def edit(
        self,
        request: ApiRequest,
        desk: DeskDep,
        name: Name,
        data: JSONBody[dict[str, Any]],
        only_check: DryRun = False,
    ) -> Outcome:
        """Replace a rollout's policy by a policy file's content, with `reason` beside it."""
        reason = str(data.pop("reason", ""))[:1000]
        generation = wanted_generation(request)
        return desk.operations.edit(
            name,
            data,
            request.user,
            reason,
            desk.now,
            generation=generation,
            dry_run=only_check,
        )

    @patch(
        "/{name:str}",
        opt={PERMISSION: "rollout.widen", ABOUT: "rollout", MATCH: True},
        sync_to_thread=True,
    )
    def amend(
        self,
        request: ApiRequest,
        desk: DeskDep,
        name: Name,
        data: JSONBody[dict[str, Any]],
        only_check: DryRun = False,
    ) -> Outcome:
        """Change parts of a rollout's policy, with `reason` beside them, in the words of a policy file.

        They are `preset`, `audience`, `steps`, `audiences` and `gates` by ring, `guards`, `flow`, `priority`, `windows` and `delivery`.
        What only narrows is done at once; what widens may ask for a second person, and says how it is wider.
        """
        reason = str(data.pop("reason", ""))[:1000]
        generation = wanted_generation(request)
        return desk.operations.amend(
            name,
            data,
            request.user,
            reason,
            desk.now,
            generation=generation,
            dry_run=only_check,
        )

    @get(
        "/{name:str}/series", opt={PERMISSION: "fleet.read", ABOUT: "rollout"}, sync_to_thread=True
    )
    def series(
        self, desk: DeskDep, name: Name, since: Moment = 0, until: Moment = 0
    ) -> RolloutSeries:
        """Return what a rollout's counters changed by hour by hour: outcomes, reasons, bytes. Added up from the beginning they are its counters."""
        return desk.read(
            lambda conn: series.of_rollout(
                conn, int(acts.row_of(conn, name)["id"]), name, since, until
            )
        )

    @get(
        "/{name:str}/evidence",
        opt={PERMISSION: "fleet.read", ABOUT: "rollout"},
        sync_to_thread=True,
    )
    def evidence(self, desk: DeskDep, name: Name) -> EvidenceFacts:
        """Return all that is known: counters by ring and variant, errors against device time by arm, and the odds of the evidence gate."""
        count = desk.operations.audiences.count
        return desk.read(lambda conn: inquiry.evidence(conn, name, count, desk.now))

    @get(
        "/{name:str}/evidence/replay",
        opt={PERMISSION: "fleet.read", ABOUT: "rollout"},
        sync_to_thread=True,
    )
    def replay(self, desk: DeskDep, name: Name) -> Replayed:
        """Book the evidence gate's log anew, from the first fact, and say whether it leads to what is kept."""
        return desk.read(lambda conn: inquiry.replayed(conn, name))

    @get(
        "/{name:str}/explain", opt={PERMISSION: "fleet.read", ABOUT: "rollout"}, sync_to_thread=True
    )
    def explain(self, desk: DeskDep, name: Name, ring: Text = "") -> Explanation:
        """Say why a rollout, or one of its rings, is where it is."""
        bounds = why.bounds_of(desk.services.settings)
        lines = desk.read(lambda conn: why.tell_rollout(conn, name, ring, desk.now, bounds))
        return Explanation(rollout=name, lines=list(lines))

    @get(
        "/{name:str}/log",
        opt={PERMISSION: "fleet.read", ABOUT: "rollout", SORT: sorting.STORY},
        sync_to_thread=True,
    )
    def log(
        self, desk: DeskDep, name: Name, sort: Sort = "", cursor: Cursor = "", limit: Limit = 200
    ) -> LogLines:
        """Return a rollout's story, in order."""
        order = sorting.STORY.order(sort, cursor)
        items, more = desk.read(lambda conn: inquiry.story(conn, name, order=order, limit=limit))
        return LogLines(items=items, next=sorting.STORY.cursor(sort, more))

    @get(
        "/{name:str}/updates", opt={PERMISSION: "fleet.read", ABOUT: "rollout"}, sync_to_thread=True
    )
    def updates(
        self,
        desk: DeskDep,
        name: Name,
        in_state: InState = "",
        cursor: Cursor = "",
        limit: Limit = 200,
    ) -> Participants:
        """List the devices of a rollout by the `state` of their updates, several separated by commas; `past` = beyond the point of no return."""
        after = position_of(cursor)
        items, more = desk.read(
            lambda conn: listing.updates(conn, name, in_state, after=after, limit=limit)
        )
        return Participants(items=items, next=cursor_of(more))

    @get(
        "/{name:str}/stragglers",
        opt={PERMISSION: "fleet.read", ABOUT: "rollout", REFUSALS: (409,)},
        sync_to_thread=True,
    )
    def stragglers(
        self, desk: DeskDep, name: Name, cursor: Cursor = "", limit: Limit = 200
    ) -> Stragglers:
        """List the devices that were ordered back and still run what they are to leave, each with why."""
        after = position_of(cursor)
        bounds = why.bounds_of(desk.services.settings)
        items, more = desk.read(
            lambda conn: listing.stragglers(conn, name, desk.now, bounds, after=after, limit=limit)
        )
        return Stragglers(items=items, next=cursor_of(more))

    @post(
        "/{name:str}/fallback",
        opt={PERMISSION: "rollout.fallback", ABOUT: "rollout"},
        sync_to_thread=True,
        status_code=200,
    )
    def fallback(
        self,
        request: ApiRequest,
        desk: DeskDep,
        name: Name,
        data: JSONBody[FallbackOrder],
        dry_run: Yes = False,
    ) -> Outcome | WayBack:
        """Order a halted rollout's devices back; the answer names the child rollout."""
        if dry_run:
            return desk.operations.way_back(name, data.to, data.cohort, desk.now)
        return desk.operations.fall_back(
            name, data.to, data.cohort, request.user, data.reason, desk.now
        )

    @post(
        [
            "/{name:str}/start",
            "/{name:str}/activate",
            "/{name:str}/resume",
            "/{name:str}/advance",
            "/{name:str}/readmit",
        ],
        opt={PERMISSION: "rollout.widen", ABOUT: "rollout", MATCH: True},
        status_code=200,
    )
    async def widen(
        self,
        request: ApiRequest,
        desk: DeskDep,
        name: Name,
        data: JSONBody[Act],
        dry_run: Yes = False,
    ) -> Outcome | WouldAct:
        """Widen a rollout. Beyond the server's limit this asks for a second person, and the answer names the request."""
        work = _would if dry_run else _act
        return await asyncio.to_thread(work, request, desk, name, data)

    @post(
        ["/{name:str}/halt", "/{name:str}/pause", "/{name:str}/cancel", "/{name:str}/isolate"],
        opt={PERMISSION: "rollout.halt", ABOUT: "rollout", MATCH: True},
        status_code=200,
    )
    async def narrow(
        self,
        request: ApiRequest,
        desk: DeskDep,
        name: Name,
        data: JSONBody[Act],
        dry_run: Yes = False,
    ) -> Outcome | WouldAct:
        """Stop a rollout, or keep a `variant` or the devices of a query `where` out. In effect when it is answered; `stopped.past` cannot be stopped."""
        work = _would if dry_run else _act
        return await asyncio.to_thread(work, request, desk, name, data)

    @post(
        "/{name:str}/approve",
        opt={PERMISSION: "rollout.approve", ABOUT: "rollout", MATCH: True},
        sync_to_thread=True,
        status_code=200,
    )
    def approve(
        self, request: ApiRequest, desk: DeskDep, name: Name, data: JSONBody[Act]
    ) -> Outcome:
        """Approve what waits for it: the newest open request, or the step of a ring that has an approval gate."""
        return _act(request, desk, name, data)


def _asked(request: ApiRequest, data: Act) -> tuple[str, dict[str, Any]]:
    """Return the verb that was called, and what it is to do; refuse who may not."""
    verb = request.url.path.rstrip("/").rpartition("/")[2]
    request.user.require(rollouts.PERMISSIONS[verb])
    told = (("variant", data.variant), ("where", data.where), ("ring", data.ring))
    return verb, {key: value for key, value in told if value}


def _would(request: ApiRequest, desk: Desk, name: str, data: Act) -> WouldAct:
    verb, detail = _asked(request, data)
    desk.read(lambda conn: acts.row_of(conn, name))
    reached = desk.operations.reach_of(name, verb, detail, desk.now)
    return WouldAct(name=name, verb=verb, devices=reached)


def _act(request: ApiRequest, desk: Desk, name: str, data: Act) -> Outcome:
    verb, detail = _asked(request, data)
    return desk.operations.act(
        name,
        verb,
        request.user,
        data.reason,
        desk.now,
        detail=detail,
        generation=wanted_generation(request),
    )
