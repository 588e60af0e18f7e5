"""The pages that are read: each takes its view from the reader and prints it."""

from typing import Annotated, Any, Final
from urllib.parse import urlencode

from litestar import Controller, Response, get
from litestar.params import FromQuery, PathParameter, QueryParameter

from tidegate.core.errors import RequestError
from tidegate.server.scopes import ABOUT, LISTED, PERMISSION
from tidegate.server.web.guard import WebRequest
from tidegate.server.web.site import SiteDep

Query = Annotated[str, QueryParameter(max_length=1000)]
InState = Annotated[str, QueryParameter(name="state", max_length=200)]
Name = Annotated[str, PathParameter(max_length=130)]

_LISTS: Final = {PERMISSION: "fleet.read", ABOUT: LISTED}
_ROLLOUT: Final = {PERMISSION: "fleet.read", ABOUT: "rollout"}
_DEVICE: Final = {PERMISSION: "fleet.read", ABOUT: "device"}
_RELEASE: Final = {PERMISSION: "fleet.read", ABOUT: "release"}
_INCIDENT: Final = {PERMISSION: "fleet.read", ABOUT: "incident"}


def live_address(page: str, position: int, key: str = "") -> str:
    """Return where a page listens for what changed after `position`."""
    return "/live?" + urlencode({"page": page, "id": key, "since": position})


def not_found(what: str, name: str) -> RequestError:
    """Say that there is no such thing."""
    return RequestError("request.not_found", f"There is no {what} called {name}.")


class ReadPages(Controller):
    """Fleet, rollouts, devices, releases, incidents."""

    include_in_schema = False

    @get("/", name="web.fleet", opt=_LISTS)
    async def fleet(self, request: WebRequest, site: SiteDep) -> Response[Any]:
        """Show the fleet, or what is seen of it."""
        visit = await site.visit(request)
        position, page = await site.run(
            lambda: (site.reader.position(), site.reader.fleet(visit.now, visit.account.sight))
        )
        return await site.show(
            request, visit, "fleet", page, section="fleet", live=live_address("fleet", position)
        )

    @get("/rollouts", opt=_LISTS)
    async def rollouts(
        self, request: WebRequest, site: SiteDep, cursor: Query = ""
    ) -> Response[Any]:
        """List the rollouts."""
        visit = await site.visit(request)
        position, page = await site.run(
            lambda: (
                site.reader.position(),
                site.reader.rollouts(visit.now, cursor, visit.account.sight),
            )
        )
        live = "" if cursor else live_address("rollouts", position)
        return await site.show(request, visit, "rollouts", page, section="rollouts", live=live)

    @get("/rollouts/{name:str}", opt=_ROLLOUT)
    async def rollout(self, request: WebRequest, site: SiteDep, name: Name) -> Response[Any]:
        """Show one rollout."""
        visit = await site.visit(request)
        position, page = await site.run(
            lambda: (site.reader.position(), site.reader.rollout(name, visit.account, visit.now))
        )
        if page is None:
            raise not_found("rollout", name)
        return await site.show(
            request,
            visit,
            "rollout",
            page,
            section="rollouts",
            own_halt=page.moving,
            widening=True,
            live=live_address("rollout", position, name),
        )

    @get("/rollouts/{name:str}/devices", opt=_ROLLOUT)
    async def participants(
        self,
        request: WebRequest,
        site: SiteDep,
        name: Name,
        in_state: InState = "",
        cursor: Query = "",
    ) -> Response[Any]:
        """List the devices of a rollout by where they stand."""
        visit = await site.visit(request)
        page = await site.run(lambda: site.reader.participants(name, in_state, cursor, visit.now))
        if page is None:
            raise not_found("rollout", name)
        return await site.show(request, visit, "participants", page, section="rollouts")

    @get("/history", opt=_LISTS)
    async def history(
        self, request: WebRequest, site: SiteDep, days: FromQuery[int] = 0
    ) -> Response[Any]:
        """Show what the fleet did over time."""
        visit = await site.visit(request)
        page = await site.run(lambda: site.reader.history(days, visit.now, visit.account.sight))
        return await site.show(request, visit, "history", page, section="fleet")

    @get("/rollouts/{name:str}/history", opt=_ROLLOUT)
    async def rollout_history(
        self, request: WebRequest, site: SiteDep, name: Name
    ) -> Response[Any]:
        """Show what a rollout did over time."""
        visit = await site.visit(request)
        page = await site.run(lambda: site.reader.rollout_history(name, visit.now))
        if page is None:
            raise not_found("rollout", name)
        return await site.show(request, visit, "history", page, section="rollouts")

    @get("/halt", opt=_LISTS)
    async def halt(self, request: WebRequest, site: SiteDep) -> Response[Any]:
        """List what can be halted now."""
        visit = await site.visit(request)
        return await site.show(request, visit, "halt", None, section="rollouts", own_halt=True)

    @get("/devices", opt=_LISTS)
    async def devices(
        self, request: WebRequest, site: SiteDep, q: Query = "", cursor: Query = ""
    ) -> Response[Any]:
        """Find devices."""
        visit = await site.visit(request)
        page = await site.run(
            lambda: site.reader.devices(q, cursor, visit.now, visit.account.sight)
        )
        return await site.show(request, visit, "devices", page, section="devices")

    @get("/devices/{name:str}", opt=_DEVICE)
    async def device(self, request: WebRequest, site: SiteDep, name: Name) -> Response[Any]:
        """Show one device and say why it is (not) updating."""
        visit = await site.visit(request)
        position, page = await site.run(
            lambda: (site.reader.position(), site.reader.device(name, visit.now))
        )
        if page is None:
            raise not_found("device", name)
        live = live_address("device", position, name)
        return await site.show(request, visit, "device", page, section="devices", live=live)

    @get("/releases", opt=_LISTS)
    async def releases(self, request: WebRequest, site: SiteDep) -> Response[Any]:
        """List the releases."""
        visit = await site.visit(request)
        page = await site.run(lambda: site.reader.releases(visit.now, visit.account.sight))
        return await site.show(request, visit, "releases", page, section="releases")

    @get("/releases/{name:str}", opt=_RELEASE)
    async def release(self, request: WebRequest, site: SiteDep, name: Name) -> Response[Any]:
        """Show one release."""
        visit = await site.visit(request)
        page = await site.run(lambda: site.reader.release(name, visit.now))
        if page is None:
            raise not_found("release", name)
        return await site.show(request, visit, "release", page, section="releases")

    @get("/incidents", opt=_LISTS)
    async def incidents(self, request: WebRequest, site: SiteDep) -> Response[Any]:
        """List the incidents."""
        visit = await site.visit(request)
        position, page = await site.run(
            lambda: (site.reader.position(), site.reader.incidents(visit.now, visit.account.sight))
        )
        live = live_address("incidents", position)
        return await site.show(request, visit, "incidents", page, section="incidents", live=live)

    @get("/incidents/{name:str}", opt=_INCIDENT)
    async def incident(self, request: WebRequest, site: SiteDep, name: Name) -> Response[Any]:
        """Show one incident report."""
        visit = await site.visit(request)
        page = await site.run(lambda: site.reader.incident(name, visit.now))
        if page is None:
            raise not_found("incident", name)
        return await site.show(request, visit, "incident", page, section="incidents")
