"""`/metrics` for Prometheus: without a token from this machine, with one from elsewhere."""

import asyncio
import ipaddress
from typing import Any

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler

from tidegate.server import metrics
from tidegate.server.api.desk import ANYBODY, PERMISSION, Desk


def metrics_route(desk: Desk) -> HTTPRouteHandler:
    """Make the handler of `/metrics`."""

    @get("/metrics", opt={PERMISSION: ANYBODY}, include_in_schema=False)
    async def scrape(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Answer with all metrics."""
        if not _is_here(request):
            actor = await asyncio.to_thread(
                desk.accounts.authenticate, request.headers, request.cookies, desk.now
            )
            actor.require("fleet.read")
        body = await asyncio.to_thread(metrics.render, desk.services, desk.live, desk.now)
        return Response(body, media_type=metrics.CONTENT_TYPE)

    return scrape


def _is_here(request: Request[Any, Any, Any]) -> bool:
    """Say whether the caller is this machine itself, and not a proxy on it that speaks for another."""
    if "x-forwarded-for" in request.headers or "forwarded" in request.headers:
        return False
    host = request.client.host if request.client else ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
