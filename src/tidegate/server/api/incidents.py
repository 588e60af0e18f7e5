"""Incidents over REST: look, write into, close, publish, export."""

from litestar import Controller, Response, get, post
from litestar.params import FromPath, JSONBody

from tidegate.core.protocol import Envelope
from tidegate.server import grants, incidents, reports
from tidegate.server.acts import Outcome
from tidegate.server.api.desk import (
    PERMISSION,
    ApiRequest,
    Cursor,
    DeskDep,
    InState,
    Limit,
    Text,
    cursor_of,
    position_of,
)
from tidegate.server.api.wire import (
    Because,
    Grants,
    IncidentAnswer,
    Incidents,
    NewGrant,
    NewNote,
    SignedGrant,
)
from tidegate.server.grants import GrantAsk, GrantDraft
from tidegate.server.incidents import IncidentFacts
from tidegate.server.store import Connection


class IncidentRoutes(Controller):
    """Everything about incidents."""

    path = "/incidents"
    tags = ("incidents",)

    @get("/", opt={PERMISSION: "fleet.read"}, sync_to_thread=True)
    def list_incidents(
        self, desk: DeskDep, in_state: InState = "", cursor: Cursor = "", limit: Limit = 50
    ) -> Incidents:
        """List incidents, newest first."""
        before = position_of(cursor)
        items, more = desk.read(
            lambda conn: incidents.listed(conn, state=in_state, before=before, limit=limit)
        )
        return Incidents(items=items, next=cursor_of(more))

    @get("/{name:str}", opt={PERMISSION: "fleet.read"}, sync_to_thread=True)
    def show(self, desk: DeskDep, name: FromPath[str]) -> IncidentAnswer:
        """Return an incident, its report as it stands now, and its notes."""

        def work(conn: Connection) -> IncidentAnswer:
            return IncidentAnswer(
                incident=incidents.show(conn, name),
                report=reports.build(conn, name),
                notes=incidents.notes(conn, name),
                grants=grants.of_incident(conn, name),
            )

        return desk.read(work)

    @get("/{name:str}/export", opt={PERMISSION: "fleet.read"}, sync_to_thread=True)
    def export(
        self,
        desk: DeskDep,
        name: FromPath[str],
        format: Text = "md",  # noqa: A002 - the query's key
    ) -> Response[bytes]:
        """Return the report as `md`, `html` or `json`."""
        kind, body = desk.read(lambda conn: reports.export(conn, name, format))
        headers = {
            "Content-Security-Policy": "default-src 'none'",
            "X-Content-Type-Options": "nosniff",
        }
        return Response(body, media_type=kind, headers=headers)

    @post(
        "/{name:str}/notes",
        opt={PERMISSION: "incident.write"},
        sync_to_thread=True,
        status_code=200,
    )
    def note(
        self, request: ApiRequest, desk: DeskDep, name: FromPath[str], data: JSONBody[NewNote]
    ) -> IncidentFacts:
        """Write a note or a corrective action into an incident."""

        def work(conn: Connection) -> IncidentFacts:
            incidents.note(conn, name, data.kind, data.text, request.user, desk.now)
            return incidents.show(conn, name)

        return desk.write(work)

    @get("/{name:str}/grants", opt={PERMISSION: "fleet.read"}, sync_to_thread=True)
    def list_grants(self, desk: DeskDep, name: FromPath[str]) -> Grants:
        """List the grants of a way back that were drafted for an incident, newest first."""
        return Grants(items=desk.read(lambda conn: grants.of_incident(conn, name)))

    @get("/{name:str}/grants/{number:int}", opt={PERMISSION: "fleet.read"}, sync_to_thread=True)
    def show_grant(self, desk: DeskDep, name: FromPath[str], number: FromPath[int]) -> Envelope:
        """Return a grant as it travels: a DSSE envelope, without signatures as long as it is a draft."""
        return desk.read(lambda conn: grants.envelope_of(conn, name, number))

    @post(
        "/{name:str}/grants",
        opt={PERMISSION: "rollout.fallback"},
        sync_to_thread=True,
        status_code=201,
    )
    def draft_grant(
        self, request: ApiRequest, desk: DeskDep, name: FromPath[str], data: JSONBody[NewGrant]
    ) -> GrantDraft:
        """Compute the affected cohort and draft the grant that would bring it back. Holders of incident keys sign it offline."""
        ask = GrantAsk(**{field: getattr(data, field) for field in GrantAsk.__struct_fields__})
        return grants.draft(desk.services, name, ask, request.user, desk.now)

    @post(
        "/{name:str}/grants/submit",
        opt={PERMISSION: "rollout.fallback"},
        sync_to_thread=True,
        status_code=200,
    )
    def submit_grant(
        self, request: ApiRequest, desk: DeskDep, name: FromPath[str], data: JSONBody[SignedGrant]
    ) -> Outcome:
        """Hand in a signed grant; it is checked as a device would, and its devices are ordered back."""
        return desk.operations.fall_back_by_grant(
            name, data.envelope, request.user, data.reason, desk.now
        )

    @post(
        "/{name:str}/close",
        opt={PERMISSION: "incident.write"},
        sync_to_thread=True,
        status_code=200,
    )
    def close(
        self, request: ApiRequest, desk: DeskDep, name: FromPath[str], data: JSONBody[Because]
    ) -> IncidentFacts:
        """Close an incident that has a corrective action."""
        return desk.write(
            lambda conn: incidents.close(conn, name, request.user, data.reason, desk.now)
        )

    @post(
        "/{name:str}/publish",
        opt={PERMISSION: "incident.write"},
        sync_to_thread=True,
        status_code=200,
    )
    def publish(
        self, request: ApiRequest, desk: DeskDep, name: FromPath[str], data: JSONBody[Because]
    ) -> IncidentFacts:
        """Mark an incident's report as published."""
        return desk.write(lambda conn: incidents.publish(conn, name, request.user, desk.now))
