"""Groups and claim tokens over REST."""

from litestar import Controller, Response, delete, get, post, put
from litestar.params import JSONBody

from tidegate.server import claims, groups
from tidegate.server.api import sorting
from tidegate.server.api.desk import (
    ABOUT,
    INSIDE,
    LISTED,
    PERMISSION,
    WHOLE,
    ApiRequest,
    DeskDep,
    DryRun,
    Name,
)
from tidegate.server.api.paging import Cursor, Limit
from tidegate.server.api.sorting import SORT, Sort
from tidegate.server.api.tags import MATCH, require_match, tag_of
from tidegate.server.api.wire import (
    Because,
    Claims,
    GroupChange,
    Groups,
    MadeClaim,
    NewClaim,
    NewGroup,
)
from tidegate.server.claims import ClaimFacts
from tidegate.server.groups import GroupFacts
from tidegate.server.store import Connection


class GroupRoutes(Controller):
    """Groups of devices."""

    path = "/groups"
    tags = ("groups",)

    @get(
        "/",
        opt={PERMISSION: "fleet.read", ABOUT: LISTED, SORT: sorting.BY_NAME},
        sync_to_thread=True,
    )
    def list_groups(
        self,
        request: ApiRequest,
        desk: DeskDep,
        sort: Sort = "",
        cursor: Cursor = "",
        limit: Limit = 100,
    ) -> Groups:
        """List groups by name."""
        sight = request.user.sight
        seen = [one for one in desk.read(groups.listed) if sight.whole or one.name in sight.groups]
        items, more = sorting.page(seen, lambda one: one.name, sort, cursor, limit)
        return Groups(items=items, next=more)

    @post("/", opt={PERMISSION: "group.manage", ABOUT: WHOLE}, sync_to_thread=True, status_code=201)
    def create(self, request: ApiRequest, desk: DeskDep, data: JSONBody[NewGroup]) -> GroupFacts:
        """Make a group by query, or a static one."""
        return desk.write(
            lambda conn: groups.create(
                conn, data.name, data.query, data.devices, request.user, desk.now
            )
        )

    @get("/{name:str}", opt={PERMISSION: "fleet.read", ABOUT: "group"}, sync_to_thread=True)
    def show(self, desk: DeskDep, name: Name) -> Response[GroupFacts]:
        """Return a group."""
        found, tag = desk.read(lambda conn: (groups.show(conn, name), _tag(conn, name)))
        return Response(found, headers={"ETag": tag})

    @put(
        "/{name:str}",
        opt={PERMISSION: "group.manage", ABOUT: WHOLE, MATCH: True},
        sync_to_thread=True,
    )
    def edit(
        self,
        request: ApiRequest,
        desk: DeskDep,
        name: Name,
        data: JSONBody[GroupChange],
        only_check: DryRun = False,
    ) -> GroupFacts:
        """Replace a group's query or its list of devices."""

        def work(conn: Connection) -> GroupFacts:
            require_match(request, _tag(conn, name))
            return groups.edit(
                conn, name, request.user, desk.now, query=data.query, devices=data.devices
            )

        return desk.write(work, dry_run=only_check)

    @delete(
        "/{name:str}",
        opt={PERMISSION: "group.manage", ABOUT: WHOLE, MATCH: True},
        sync_to_thread=True,
    )
    def remove(
        self, request: ApiRequest, desk: DeskDep, name: Name, only_check: DryRun = False
    ) -> None:
        """Remove a group."""

        def work(conn: Connection) -> None:
            require_match(request, _tag(conn, name))
            groups.remove(conn, name, request.user, desk.now)

        desk.write(work, dry_run=only_check)


class ClaimRoutes(Controller):
    """Claim tokens."""

    path = "/claims"
    tags = ("claims",)

    @get(
        "/",
        opt={PERMISSION: "fleet.read", ABOUT: LISTED, SORT: sorting.BY_NAME},
        sync_to_thread=True,
    )
    def list_claims(
        self,
        request: ApiRequest,
        desk: DeskDep,
        sort: Sort = "",
        cursor: Cursor = "",
        limit: Limit = 100,
    ) -> Claims:
        """List claims by name, without their secrets."""
        sight = request.user.sight
        seen = [one for one in desk.read(claims.listed) if sight.sees(claims.place_of(one))]
        items, more = sorting.page(seen, lambda one: one.name, sort, cursor, limit)
        return Claims(items=items, next=more)

    @post(
        "/", opt={PERMISSION: "claim.manage", ABOUT: INSIDE}, sync_to_thread=True, status_code=201
    )
    def create(self, request: ApiRequest, desk: DeskDep, data: JSONBody[NewClaim]) -> MadeClaim:
        """Make a claim token. Its text is in the answer, and nowhere else."""
        name = data.name or f"{data.product[:57]}-{desk.services.randomness(3).hex()}"
        claims.require_product(data.product, desk.read(desk.services.repository.products))
        made, token = desk.write(
            lambda conn: claims.create(
                conn,
                name=name,
                product=data.product,
                max_count=data.max_count,
                expires_at=desk.now + data.expires_in_s,
                group=data.group,
                serials=data.serials,
                actor=request.user,
                now=desk.now,
                token_bytes=desk.services.randomness,
            )
        )
        return MadeClaim(name=name, token=token, claim=made)

    @post(
        "/{name:str}/revoke",
        opt={PERMISSION: "claim.manage", ABOUT: "claim"},
        sync_to_thread=True,
        status_code=200,
    )
    def revoke(
        self, request: ApiRequest, desk: DeskDep, name: Name, data: JSONBody[Because]
    ) -> ClaimFacts:
        """End a claim; devices that joined by it stay."""
        return desk.write(lambda conn: claims.revoke(conn, name, request.user, desk.now))


def _tag(conn: Connection, name: str) -> str:
    """Return the tag of a group: its facts, and who is in it."""
    return tag_of(groups.show(conn, name), groups.listed_members(conn, name))
