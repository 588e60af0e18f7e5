"""Groups and claim tokens over REST."""

from litestar import Controller, delete, get, post, put
from litestar.params import JSONBody

from tidegate.server import claims, groups
from tidegate.server.api.desk import (
    ABOUT,
    INSIDE,
    LISTED,
    PERMISSION,
    WHOLE,
    ApiRequest,
    DeskDep,
    Name,
)
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


class GroupRoutes(Controller):
    """Groups of devices."""

    path = "/groups"
    tags = ("groups",)

    @get("/", opt={PERMISSION: "fleet.read", ABOUT: LISTED}, sync_to_thread=True)
    def list_groups(self, request: ApiRequest, desk: DeskDep) -> Groups:
        """List groups by name."""
        sight = request.user.sight
        found = desk.read(groups.listed)
        return Groups(items=[one for one in found if sight.whole or one.name in sight.groups])

    @post("/", opt={PERMISSION: "group.manage", ABOUT: WHOLE}, sync_to_thread=True, status_code=201)
    def create(self, request: ApiRequest, desk: DeskDep, data: JSONBody[NewGroup]) -> GroupFacts:
        """Make a group by query, or a static one."""
        return desk.write(
            lambda conn: groups.create(
                conn, data.name, data.query, data.devices, request.user, desk.now
            )
        )

    @get("/{name:str}", opt={PERMISSION: "fleet.read", ABOUT: "group"}, sync_to_thread=True)
    def show(self, desk: DeskDep, name: Name) -> GroupFacts:
        """Return a group."""
        return desk.read(lambda conn: groups.show(conn, name))

    @put("/{name:str}", opt={PERMISSION: "group.manage", ABOUT: WHOLE}, sync_to_thread=True)
    def edit(
        self, request: ApiRequest, desk: DeskDep, name: Name, data: JSONBody[GroupChange]
    ) -> GroupFacts:
        """Replace a group's query or its list of devices."""
        return desk.write(
            lambda conn: groups.edit(
                conn, name, request.user, desk.now, query=data.query, devices=data.devices
            )
        )

    @delete("/{name:str}", opt={PERMISSION: "group.manage", ABOUT: WHOLE}, sync_to_thread=True)
    def remove(self, request: ApiRequest, desk: DeskDep, name: Name) -> None:
        """Remove a group."""
        desk.write(lambda conn: groups.remove(conn, name, request.user, desk.now))


class ClaimRoutes(Controller):
    """Claim tokens."""

    path = "/claims"
    tags = ("claims",)

    @get("/", opt={PERMISSION: "fleet.read", ABOUT: LISTED}, sync_to_thread=True)
    def list_claims(self, request: ApiRequest, desk: DeskDep) -> Claims:
        """List claims, without their secrets."""
        sight = request.user.sight
        found = desk.read(claims.listed)
        return Claims(items=[one for one in found if sight.sees(claims.place_of(one))])

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
