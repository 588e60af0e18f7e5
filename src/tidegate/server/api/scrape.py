"""`/metrics` for Prometheus: without a token from this machine, with one from elsewhere."""

import asyncio
from typing import Any

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler

from tidegate.server.actors import FLEET
from tidegate.server.api.desk import ANYBODY, PERMISSION, Desk
from tidegate.server.metrics import CONTENT_TYPE, Metrics
from tidegate.server.probes import is_here
from tidegate.server.readiness import Readiness


def metrics_route(desk: Desk, readiness: Readiness) -> HTTPRouteHandler:
    """Make the handler of `/metrics`."""
    metrics = Metrics(desk.services, desk.live, readiness)

    @get("/metrics", opt={PERMISSION: ANYBODY}, include_in_schema=False)
    async def scrape(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Answer with all metrics."""
        if not is_here(request.scope):
            actor = await asyncio.to_thread(
                desk.accounts.authenticate,
                request.headers,
                request.cookies,
                desk.now,
                request.client.host if request.client else "",
            )
            actor.require("fleet.read", FLEET)
        body = await asyncio.to_thread(metrics.render, desk.now)
        return Response(body, media_type=CONTENT_TYPE)

    return scrape
