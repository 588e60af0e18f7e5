"""The pages that are read: each takes its view from the reader and prints it."""

from typing import Annotated, Any
from urllib.parse import urlencode

from litestar import Controller, Response, get
from litestar.params import PathParameter, QueryParameter

from tidegate.core.errors import RequestError
from tidegate.server.web.guard import WebRequest
from tidegate.server.web.site import SiteDep

Query = Annotated[str, QueryParameter(max_length=1000)]
InState = Annotated[str, QueryParameter(name="state", max_length=200)]
Name = Annotated[str, PathParameter(max_length=130)]


def live_address(page: str, position: int, key: str = "") -> str:
    """Return where a page listens for what changed after `position`."""
    return "/live?" + urlencode({"page": page, "id": key, "since": position})


def not_found(what: str, name: str) -> RequestError:
    """Say that there is no such thing."""
    return RequestError("request.not_found", f"There is no {what} called {name}.")


class ReadPages(Controller):
    """Fleet, rollouts, devices, releases, incidents."""

    include_in_schema = False

    @get("/", name="web.fleet")
    async def fleet(self, request: WebRequest, site: SiteDep) -> Response[Any]:
        """Show the whole fleet."""
        visit = await site.visit(request)
        position, page = await site.run(
            lambda: (site.reader.position(), site.reader.fleet(visit.now))
        )
        return await site.show(
            request, visit, "fleet", page, section="fleet", live=live_address("fleet", position)
        )

    @get("/rollouts")
    async def rollouts(
        self, request: WebRequest, site: SiteDep, cursor: Query = ""
    ) -> Response[Any]:
        """List the rollouts."""
        visit = await site.visit(request)
        position, page = await site.run(
            lambda: (site.reader.position(), site.reader.rollouts(visit.now, cursor))
        )
        live = "" if cursor else live_address("rollouts", position)
        return await site.show(request, visit, "rollouts", page, section="rollouts", live=live)

    @get("/rollouts/{name:str}")
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

    @get("/rollouts/{name:str}/devices")
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

    @get("/halt")
    async def halt(self, request: WebRequest, site: SiteDep) -> Response[Any]:
        """List what can be halted now."""
        visit = await site.visit(request)
        return await site.show(request, visit, "halt", None, section="rollouts", own_halt=True)

    @get("/devices")
    async def devices(
        self, request: WebRequest, site: SiteDep, q: Query = "", cursor: Query = ""
    ) -> Response[Any]:
        """Find devices."""
        visit = await site.visit(request)
        page = await site.run(lambda: site.reader.devices(q, cursor, visit.now))
        return await site.show(request, visit, "devices", page, section="devices")

    @get("/devices/{device_id:str}")
    async def device(self, request: WebRequest, site: SiteDep, device_id: Name) -> Response[Any]:
        """Show one device and say why it is (not) updating."""
        visit = await site.visit(request)
        position, page = await site.run(
            lambda: (site.reader.position(), site.reader.device(device_id, visit.now))
        )
        if page is None:
            raise not_found("device", device_id)
        live = live_address("device", position, device_id)
        return await site.show(request, visit, "device", page, section="devices", live=live)

    @get("/releases")
    async def releases(self, request: WebRequest, site: SiteDep) -> Response[Any]:
        """List the releases."""
        visit = await site.visit(request)
        page = await site.run(lambda: site.reader.releases(visit.now))
        return await site.show(request, visit, "releases", page, section="releases")

    @get("/releases/{name:str}")
    async def release(self, request: WebRequest, site: SiteDep, name: Name) -> Response[Any]:
        """Show one release."""
        visit = await site.visit(request)
        page = await site.run(lambda: site.reader.release(name, visit.now))
        if page is None:
            raise not_found("release", name)
        return await site.show(request, visit, "release", page, section="releases")

    @get("/incidents")
    async def incidents(self, request: WebRequest, site: SiteDep) -> Response[Any]:
        """List the incidents."""
        visit = await site.visit(request)
        position, page = await site.run(
            lambda: (site.reader.position(), site.reader.incidents(visit.now))
        )
        live = live_address("incidents", position)
        return await site.show(request, visit, "incidents", page, section="incidents", live=live)

    @get("/incidents/{name:str}")
    async def incident(self, request: WebRequest, site: SiteDep, name: Name) -> Response[Any]:
        """Show one incident report."""
        visit = await site.visit(request)
        page = await site.run(lambda: site.reader.incident(name, visit.now))
        if page is None:
            raise not_found("incident", name)
        return await site.show(request, visit, "incident", page, section="incidents")
