"""Puts the application for people together: authentication, permissions, problems, idempotency, OpenAPI, and the web pages beside the API."""

import asyncio
import logging
from typing import Any, Final

import msgspec
from litestar import Litestar, Request, Response, Router
from litestar.connection import ASGIConnection
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.middleware import DefineMiddleware
from litestar.middleware.authentication import (
    AbstractAuthenticationMiddleware,
    AuthenticationResult,
)
from litestar.openapi.config import OpenAPIConfig

from tidegate import __version__
from tidegate.core import codec
from tidegate.core.errors import RequestError, TidegateError
from tidegate.server import problems
from tidegate.server.acts import ChangedError
from tidegate.server.api.answers import Answers
from tidegate.server.api.audit import AuditRoutes
from tidegate.server.api.desk import PREFIX, Desk, permission_guard
from tidegate.server.api.devices import DeviceRoutes, FactoryRoutes
from tidegate.server.api.fleet import FleetRoutes, openapi_document
from tidegate.server.api.groups import ClaimRoutes, GroupRoutes
from tidegate.server.api.incidents import IncidentRoutes
from tidegate.server.api.intake import Intake
from tidegate.server.api.jobs import JobRoutes
from tidegate.server.api.notices import NoticeRoutes
from tidegate.server.api.people import (
    AccountRoutes,
    ApprovalRoutes,
    ConsentRoutes,
    SessionRoutes,
    TokenRoutes,
)
from tidegate.server.api.releases import ReleaseRoutes, TrustRoutes
from tidegate.server.api.repeats import Repeats
from tidegate.server.api.rollouts import RolloutRoutes
from tidegate.server.api.scrape import metrics_route
from tidegate.server.api.status_page import status_routes
from tidegate.server.api.stream import StreamRoutes
from tidegate.server.api.supply import AdvisoryRoutes, ComponentRoutes, OriginRoutes
from tidegate.server.api.tenants import TenantRoutes
from tidegate.server.api.uploads import UploadRoutes
from tidegate.server.live import Live
from tidegate.server.once import Answered
from tidegate.server.operations import Operations, auth_of
from tidegate.server.readiness import Readiness
from tidegate.server.services import Services
from tidegate.server.uploads import Uploads
from tidegate.server.web.domain import create_web

#: Sent with a session cookie by scripts of our own pages; another site's page cannot add a header to a form.
FORM_HEADER: Final = "tidegate-form"
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_log = logging.getLogger("tidegate.api")


class Authentication(AbstractAuthenticationMiddleware):
    """Finds out who asks, by bearer token or session cookie."""

    async def authenticate_request(
        self, connection: ASGIConnection[Any, Any, Any, Any]
    ) -> AuthenticationResult:
        """Return the actor.

        Raises:
            RequestError: `request.unauthenticated`, `request.forbidden`.
        """
        desk: Desk = connection.app.state.desk
        headers, cookies = connection.headers, connection.cookies
        by_token = headers.get("authorization", "").lower().startswith("bearer ")
        method = str(connection.scope.get("method", "GET"))
        caller = connection.client.host if connection.client else ""
        if not by_token and method not in _SAFE and FORM_HEADER not in headers:
            await asyncio.to_thread(desk.accounts.authenticate, headers, cookies, desk.now, caller)
            raise RequestError(
                "request.forbidden", f"with a session cookie, send the header {FORM_HEADER}"
            )
        actor = await asyncio.to_thread(
            desk.accounts.authenticate, headers, cookies, desk.now, caller
        )
        return AuthenticationResult(user=actor, auth=None)


def create_admin_app(services: Services, readiness: Readiness) -> Litestar:
    """Make the application for people over opened services."""
    operations = Operations(services)
    accounts = auth_of(services)
    desk = Desk(services, operations, accounts, Live(services.store), Uploads(services))
    api = Router(
        path=PREFIX,
        route_handlers=[
            RolloutRoutes,
            ReleaseRoutes,
            TrustRoutes,
            UploadRoutes,
            OriginRoutes,
            ComponentRoutes,
            AdvisoryRoutes,
            DeviceRoutes,
            FactoryRoutes,
            ClaimRoutes,
            GroupRoutes,
            IncidentRoutes,
            JobRoutes,
            NoticeRoutes,
            ApprovalRoutes,
            AccountRoutes,
            TokenRoutes,
            SessionRoutes,
            ConsentRoutes,
            FleetRoutes,
            StreamRoutes,
            AuditRoutes,
            TenantRoutes,
            openapi_document,
        ],
        guards=[permission_guard],
        middleware=[
            DefineMiddleware(Authentication),
            DefineMiddleware(Intake),
            DefineMiddleware(Repeats),
            DefineMiddleware(Answers),
        ],
        dependencies={"desk": Provide(lambda: desk, sync_to_thread=False)},
        exception_handlers={
            Answered: show_again,
            TidegateError: show_problem,
            HTTPException: show_http_problem,
            RecursionError: show_unreadable,
            UnicodeDecodeError: show_unreadable,
            Exception: show_fault,
        },
        request_max_body_size=services.settings.body_max,
    )
    app = Litestar(
        route_handlers=[
            api,
            metrics_route(desk, readiness),
            *status_routes(desk),
            create_web(services, accounts, operations),
        ],
        openapi_config=OpenAPIConfig(
            title="Tidegate",
            version=__version__,
            path="/api/openapi",
            render_plugins=[],
        ),
        exception_handlers={TidegateError: show_problem, HTTPException: show_http_problem},
        logging_config=None,
    )
    app.state.desk = desk
    return app


def show_problem(_: Request[Any, Any, Any], error: TidegateError) -> Response[bytes]:
    """Answer an error as RFC 9457 problem, with the code that it has everywhere."""
    found = problems.problem(error)
    if isinstance(error, ChangedError):
        found = msgspec.structs.replace(found, status=412)
    status = found.status
    headers = {"Cache-Control": "no-store"}
    if status in problems.MAY_PASS:
        headers["Retry-After"] = "5"
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(
        codec.encode(found),
        status_code=status,
        media_type="application/problem+json",
        headers=headers,
    )


def show_again(_: Request[Any, Any, Any], error: Answered) -> Response[bytes]:
    """Answer what an earlier call under the same idempotency key was answered."""
    return Response(
        error.body,
        status_code=error.status,
        media_type="application/json",
        headers={"Idempotent-Replay": "true"},
    )


def show_http_problem(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Answer what the framework refused (no such route, a body that does not fit) in the same form."""
    codes = {
        401: "request.unauthenticated",
        403: "request.forbidden",
        404: "request.not_found",
        405: "request.method",
        413: "request.too_large",
        429: "request.rate_limited",
    }
    code = codes.get(error.status_code, "request.invalid")
    detail = str(error.detail)[:300]
    extra = error.extra
    if isinstance(extra, list) and extra:
        first = extra[0]
        detail = (
            f"{first.get('key', '')}: {first.get('message', '')}"[:300]
            if isinstance(first, dict)
            else detail
        )
    if error.status_code >= 500:
        return show_fault(request, error)
    return show_problem(request, RequestError(code, detail))


def show_unreadable(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer what the JSON reader raises, and the framework passes on, for bytes that are no text and for nesting without end."""
    _log.warning(
        "%s %s: unreadable body: %s", request.method, request.url.path, type(error).__name__
    )
    return show_problem(request, RequestError("request.invalid", "the body cannot be read as JSON"))


def show_fault(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer a fault of the server's own; what it was stands in the log, not in the answer."""
    _log.exception("%s %s failed", request.method, request.url.path, exc_info=error)
    return show_problem(
        request, TidegateError("server.internal", "a fault in the server; it is in its log")
    )
