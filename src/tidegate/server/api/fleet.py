"""The fleet over REST: status, the event log, the stream of changes, the operators' log, and the description of the API itself."""

from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from litestar import Controller, Request, get
from litestar.response import ServerSentEvent, ServerSentEventMessage

from tidegate.core import protocol
from tidegate.server import audit, calendar, inquiry
from tidegate.server.api.desk import (
    ANYBODY,
    PERMISSION,
    Cursor,
    Desk,
    DeskDep,
    Limit,
    cursor_of,
    position_of,
)
from tidegate.server.api.wire import AuditRows, Calendar, Events
from tidegate.server.audit import Verdict
from tidegate.server.facts import Status

HEARTBEAT_S: Final = 10.0


class FleetRoutes(Controller):
    """What is not about one thing."""

    tags = ("fleet",)

    @get("/status", opt={PERMISSION: "fleet.read"}, sync_to_thread=True)
    def status(self, desk: DeskDep) -> Status:
        """Return the fleet on one screen."""
        return desk.read(lambda conn: inquiry.status(conn, desk.now))

    @get("/calendar", opt={PERMISSION: "fleet.read"}, sync_to_thread=True)
    def calendar(self, desk: DeskDep) -> Calendar:
        """Return the expiry calendar: root, targets, products, online roles and grants."""
        return desk.read(
            lambda conn: Calendar(
                at=desk.now,
                items=calendar.calendar(conn, desk.now),
                one_signer=calendar.one_signer(conn),
            )
        )

    @get("/events", opt={PERMISSION: "fleet.read"}, sync_to_thread=True)
    def events(self, desk: DeskDep, cursor: Cursor = "", limit: Limit = 100) -> Events:
        """Return the event log in order; a page that is full has a `next`."""
        after = position_of(cursor)
        items, more = desk.read(lambda conn: inquiry.events(conn, after=after, limit=limit))
        return Events(items=items, next=cursor_of(more))

    @get("/stream", opt={PERMISSION: "fleet.read"})
    async def stream(self, desk: DeskDep) -> ServerSentEvent:
        """Tell what changes, as server-sent events named `change`; a comment every ten seconds when nothing does."""
        return ServerSentEvent(_told(desk))

    @get("/audit", opt={PERMISSION: "audit.read"}, sync_to_thread=True)
    def audit_rows(self, desk: DeskDep, cursor: Cursor = "", limit: Limit = 50) -> AuditRows:
        """List what operators did, newest first."""
        before = position_of(cursor)
        found = desk.read(lambda conn: audit.newest(conn, before=before, limit=limit + 1))
        more = found[limit - 1].seq if len(found) > limit else 0
        return AuditRows(items=found[:limit], next=cursor_of(more))

    @get("/audit/export", opt={PERMISSION: "audit.read"}, sync_to_thread=True)
    def audit_export(self, desk: DeskDep, cursor: Cursor = "", limit: Limit = 500) -> AuditRows:
        """Return the operators' log in order, complete with hashes."""
        after = position_of(cursor)
        found = desk.read(lambda conn: audit.export(conn, after=after, limit=limit))
        more = found[-1].seq if len(found) == limit else 0
        return AuditRows(items=found, next=cursor_of(more))

    @get("/audit/verify", opt={PERMISSION: "audit.read"}, sync_to_thread=True)
    def audit_verify(self, desk: DeskDep) -> Verdict:
        """Follow the hash chain of the operators' log."""
        return desk.read(audit.verify)


async def _told(desk: Desk) -> AsyncIterator[ServerSentEventMessage]:
    async for change in desk.live.stream(HEARTBEAT_S):
        if change is None:
            yield ServerSentEventMessage(comment="nothing new")
        else:
            plain = {"kind": change.kind, "key": change.key}
            yield ServerSentEventMessage(data=msgspec.json.encode(plain).decode(), event="change")


# --- the description of the API -------------------------------------------------------------------------------------

#: Device routes, answered raw: path → (method, summary, body, answer).
_DEVICE_ROUTES: Final[dict[str, tuple[str, str, Any, Any]]] = {
    "/d/v1/enrol": ("post", "Enrol a device", protocol.EnrolRequest, protocol.EnrolAnswer),
    "/d/v1/nonce": ("post", "Get a nonce for a session", None, protocol.NonceAnswer),
    "/d/v1/session": ("post", "Open a session", protocol.SessionRequest, protocol.SessionAnswer),
    "/d/v1/poll": ("get", "Ask whether there is something to do", None, protocol.PollAnswer),
    "/d/v1/assignment": (
        "post",
        "Get the signed assignment",
        protocol.AssignmentRequest,
        protocol.AssignmentAnswer,
    ),
    "/d/v1/permit": (
        "post",
        "Ask leave to activate",
        protocol.PermitRequest,
        protocol.PermitAnswer,
    ),
    "/d/v1/events": ("post", "Report events", protocol.EventsRequest, protocol.EventsAnswer),
    "/d/v1/time": ("post", "Get the signed time", protocol.TimeRequest, protocol.TimeAnswer),
}


@get(
    "/openapi.json",
    opt={PERMISSION: ANYBODY, "exclude_from_auth": True},
    sync_to_thread=True,
    include_in_schema=False,
)
def openapi_document(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """Describe the whole API, device routes included, as OpenAPI 3.1."""
    return described(request.app.openapi_schema.to_schema())


def described(document: dict[str, Any]) -> dict[str, Any]:
    """Return an OpenAPI document with the device routes and the problem body added; `document` itself stays."""
    kinds = [kind for row in _DEVICE_ROUTES.values() for kind in row[2:] if kind is not None]
    _, schemas = msgspec.json.schema_components(
        [*kinds, protocol.Problem], ref_template="#/components/schemas/{name}"
    )
    paths = dict(document.get("paths", {}))
    for path, (method, summary, body, answer) in _DEVICE_ROUTES.items():
        operation: dict[str, Any] = {
            "summary": summary,
            "operationId": f"device_{path.rpartition('/')[2]}",
            "tags": ["device"],
            "responses": {
                "200": {"description": "done", "content": _json(answer)},
                "default": {
                    "description": "refused",
                    "content": {
                        "application/problem+json": {
                            "schema": {"$ref": "#/components/schemas/Problem"}
                        }
                    },
                },
            },
        }
        if body is not None:
            operation["requestBody"] = {"required": True, "content": _json(body)}
        paths[path] = {method: operation}
    components = dict(document.get("components", {}))
    components["schemas"] = {**components.get("schemas", {}), **schemas}
    return {**document, "paths": paths, "components": components}


def _json(kind: type[Any]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}}
