"""Incidents over REST: open, look, write into, lead through, close, publish, export."""

from litestar import Controller, Response, get, post
from litestar.params import JSONBody

from tidegate.core.protocol import Envelope
from tidegate.rollout.incident import POLICY, Rhythm
from tidegate.server import (
    acts,
    cohort_lists,
    followups,
    grants,
    incidents,
    publication,
    reports,
    scopes,
)
from tidegate.server.acts import Outcome
from tidegate.server.api import sorting
from tidegate.server.api.desk import (
    ABOUT,
    ANSWER,
    INSIDE,
    LISTED,
    PERMISSION,
    WHOLE,
    ApiRequest,
    Desk,
    DeskDep,
    InState,
    Name,
    Number,
    Text,
)
from tidegate.server.api.incident_wire import (
    Cohort,
    FollowUpEdit,
    IncidentAnswer,
    IncidentEdit,
    Incidents,
    NewFollowUp,
    NewIncident,
    NewNote,
    NewPublication,
    NewUpdate,
    Withdrawal,
)
from tidegate.server.api.paging import (
    Cursor,
    Limit,
    cursor_of_place,
    place_of,
)
from tidegate.server.api.sorting import SORT, Sort
from tidegate.server.api.tags import MATCH, require_match, tag_of
from tidegate.server.api.wire import Because, Grants, NewGrant, SignedGrant
from tidegate.server.auth import Actor
from tidegate.server.grants import GrantAsk, GrantDraft
from tidegate.server.incidents import IncidentFacts
from tidegate.server.publication import Texts
from tidegate.server.store import Connection


class IncidentRoutes(Controller):
    """Everything about incidents."""

    path = "/incidents"
    tags = ("incidents",)

    @get(
        "/",
        opt={PERMISSION: "fleet.read", ABOUT: LISTED, SORT: sorting.INCIDENTS},
        sync_to_thread=True,
    )
    def list_incidents(
        self,
        request: ApiRequest,
        desk: DeskDep,
        in_state: InState = "",
        sort: Sort = "",
        cursor: Cursor = "",
        limit: Limit = 50,
    ) -> Incidents:
        """List incidents, newest first; `state` is open, mitigated, closed, or `unclosed` for the first two."""
        order, unclosed = sorting.INCIDENTS.order(sort, cursor), in_state == "unclosed"
        state = "" if unclosed else in_state
        items, more = desk.read(
            lambda conn: incidents.listed(
                conn, state=state, unclosed=unclosed, order=order, limit=limit
            )
        )
        sight = request.user.sight
        items = desk.read(
            lambda conn: [one for one in items if scopes.sees_incident(conn, sight, one.name)]
        )
        return Incidents(items=items, next=sorting.INCIDENTS.cursor(sort, more))

    @post(
        "/", opt={PERMISSION: "incident.write", ABOUT: INSIDE}, sync_to_thread=True, status_code=201
    )
    def open_incident(
        self, request: ApiRequest, desk: DeskDep, data: JSONBody[NewIncident]
    ) -> IncidentFacts:
        """Open an incident by hand. Nothing else is changed by it."""

        def work(conn: Connection) -> IncidentFacts:
            about, named = ("rollout", data.rollout) if data.rollout else (WHOLE, "")
            scopes.check(conn, request.user, "incident.write", about, named, desk.now)
            name = incidents.open_by_hand(
                conn,
                summary=data.summary,
                rollout=acts.row_of(conn, data.rollout) if data.rollout else None,
                subject=data.variant,
                severity=data.severity,
                owner=data.owner,
                actor=request.user,
                now=desk.now,
            )
            return incidents.show(conn, name)

        return desk.write(work)

    @get("/{name:str}", opt={PERMISSION: "fleet.read", ABOUT: "incident"}, sync_to_thread=True)
    def show(self, desk: DeskDep, name: Name) -> Response[IncidentAnswer]:
        """Return an incident, its report as it stands now, what was written into it, and what the status page says."""

        def work(conn: Connection) -> IncidentAnswer:
            report = reports.build(
                conn,
                name,
                desk.now,
                rhythm=_rhythm(desk),
                audience=desk.operations.audiences.count,
            )
            return IncidentAnswer(
                incident=incidents.show(conn, name),
                report=report,
                notes=incidents.notes(conn, name),
                followups=followups.listed(conn, name),
                grants=grants.of_incident(conn, name),
                publication=publication.of_incident(conn, name),
                proposal=publication.propose(report),
                public=desk.services.settings.status_public,
            )

        found = desk.read(work)
        return Response(found, headers={"ETag": tag_of(found.incident)})

    @get(
        "/{name:str}/export",
        opt={
            PERMISSION: "fleet.read",
            ABOUT: "incident",
            ANSWER: ("text/markdown", "text/html", "application/json"),
        },
        sync_to_thread=True,
    )
    def export(
        self,
        desk: DeskDep,
        name: Name,
        format: Text = "md",  # noqa: A002 - the query's key
    ) -> Response[bytes]:
        """Return the report as `md`, `html` or `json`."""
        kind, body = desk.read(
            lambda conn: reports.export(
                conn,
                name,
                format,
                desk.now,
                rhythm=_rhythm(desk),
                audience=desk.operations.audiences.count,
            )
        )
        headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
        return Response(body, media_type=kind, headers=headers)

    @get(
        "/{name:str}/cohort", opt={PERMISSION: "fleet.read", ABOUT: "incident"}, sync_to_thread=True
    )
    def cohort(
        self,
        desk: DeskDep,
        name: Name,
        which: Text = "affected",
        cursor: Cursor = "",
        limit: Limit = 500,
    ) -> Cohort:
        """List an incident's devices: `affected`, `exposed`, `past-return` (of no return) or `stopped` (before they activated)."""
        after = place_of(cursor)
        items, more = desk.read(lambda conn: cohort_lists.page(conn, name, which, after, limit))
        return Cohort(items=items, next=cursor_of_place(more))

    @post(
        "/{name:str}/edit",
        opt={PERMISSION: "incident.write", ABOUT: "incident", MATCH: True},
        sync_to_thread=True,
        status_code=200,
    )
    def edit(
        self, request: ApiRequest, desk: DeskDep, name: Name, data: JSONBody[IncidentEdit]
    ) -> IncidentFacts:
        """Set severity, owner or summary."""

        def work(conn: Connection) -> IncidentFacts:
            require_match(request, tag_of(incidents.show(conn, name)))
            return incidents.edit(
                conn,
                name,
                request.user,
                desk.now,
                severity=data.severity,
                owner=data.owner,
                summary=data.summary,
            )

        return desk.write(work)

    @post(
        "/{name:str}/notes",
        opt={PERMISSION: "incident.write", ABOUT: "incident"},
        sync_to_thread=True,
        status_code=200,
    )
    def note(
        self, request: ApiRequest, desk: DeskDep, name: Name, data: JSONBody[NewNote]
    ) -> IncidentFacts:
        """Write a note, a hypothesis, the proved cause, its evidence or a corrective action into an incident."""

        def work(conn: Connection) -> IncidentFacts:
            incidents.note(
                conn, name, data.kind, data.text, request.user, desk.now,
                means=data.means, kept=data.kept,
            )  # fmt: skip
            return incidents.show(conn, name)

        return desk.write(work)

    @post(
        "/{name:str}/followups",
        opt={PERMISSION: "incident.write", ABOUT: "incident"},
        sync_to_thread=True,
        status_code=200,
    )
    def follow_up(
        self, request: ApiRequest, desk: DeskDep, name: Name, data: JSONBody[NewFollowUp]
    ) -> IncidentFacts:
        """Write down what is left to do."""

        def work(conn: Connection) -> IncidentFacts:
            followups.add(
                conn, name, data.text, data.owner, data.due_at, request.user, desk.now,
                about=data.about,
            )  # fmt: skip
            return incidents.show(conn, name)

        return desk.write(work)

    @post(
        "/{name:str}/followups/{number:int}/edit",
        opt={PERMISSION: "incident.write", ABOUT: "incident"},
        sync_to_thread=True,
        status_code=200,
    )
    def edit_follow_up(
        self,
        request: ApiRequest,
        desk: DeskDep,
        name: Name,
        number: Number,
        data: JSONBody[FollowUpEdit],
    ) -> IncidentFacts:
        """Give a follow-up that is not done another owner or date."""

        def work(conn: Connection) -> IncidentFacts:
            followups.edit(
                conn, name, number, request.user, desk.now, owner=data.owner, due_at=data.due_at
            )
            return incidents.show(conn, name)

        return desk.write(work)

    @post(
        "/{name:str}/followups/{number:int}/done",
        opt={PERMISSION: "incident.write", ABOUT: "incident"},
        sync_to_thread=True,
        status_code=200,
    )
    def followed_up(
        self, request: ApiRequest, desk: DeskDep, name: Name, number: Number
    ) -> IncidentFacts:
        """Note that a follow-up was done."""

        def work(conn: Connection) -> IncidentFacts:
            followups.done(conn, name, number, request.user, desk.now)
            return incidents.show(conn, name)

        return desk.write(work)

    @get(
        "/{name:str}/grants", opt={PERMISSION: "fleet.read", ABOUT: "incident"}, sync_to_thread=True
    )
    def list_grants(self, desk: DeskDep, name: Name) -> Grants:
        """List the grants of a way back that were drafted for an incident, newest first."""
        return Grants(items=desk.read(lambda conn: grants.of_incident(conn, name)))

    @get(
        "/{name:str}/grants/{number:int}",
        opt={PERMISSION: "fleet.read", ABOUT: "incident"},
        sync_to_thread=True,
    )
    def show_grant(self, desk: DeskDep, name: Name, number: Number) -> Envelope:
        """Return a grant as it travels: a DSSE envelope, without signatures as long as it is a draft."""
        return desk.read(lambda conn: grants.envelope_of(conn, name, number))

    @post(
        "/{name:str}/grants",
        opt={PERMISSION: "rollout.fallback", ABOUT: "incident"},
        sync_to_thread=True,
        status_code=201,
    )
    def draft_grant(
        self, request: ApiRequest, desk: DeskDep, name: Name, data: JSONBody[NewGrant]
    ) -> GrantDraft:
        """Compute the affected cohort and draft the grant that would bring it back. Holders of incident keys sign it offline."""
        ask = GrantAsk(**{field: getattr(data, field) for field in GrantAsk.__struct_fields__})
        return grants.draft(desk.services, name, ask, request.user, desk.now)

    @post(
        "/{name:str}/grants/submit",
        opt={PERMISSION: "rollout.fallback", ABOUT: "incident"},
        sync_to_thread=True,
        status_code=200,
    )
    def submit_grant(
        self, request: ApiRequest, desk: DeskDep, name: Name, data: JSONBody[SignedGrant]
    ) -> Outcome:
        """Hand in a signed grant; it is checked as a device would, and its devices are ordered back."""
        return desk.operations.fall_back_by_grant(
            name, data.envelope, request.user, data.reason, desk.now
        )

    @post(
        "/{name:str}/mitigate",
        opt={PERMISSION: "incident.write", ABOUT: "incident"},
        sync_to_thread=True,
        status_code=200,
    )
    def mitigate(
        self, request: ApiRequest, desk: DeskDep, name: Name, data: JSONBody[Because]
    ) -> IncidentFacts:
        """Note that an incident does no more harm."""
        return _move(desk, name, "mitigate", request.user, data.reason)

    @post(
        "/{name:str}/reopen",
        opt={PERMISSION: "incident.write", ABOUT: "incident"},
        sync_to_thread=True,
        status_code=200,
    )
    def reopen(
        self, request: ApiRequest, desk: DeskDep, name: Name, data: JSONBody[Because]
    ) -> IncidentFacts:
        """Open an incident again."""
        return _move(desk, name, "reopen", request.user, data.reason)

    @post(
        "/{name:str}/close",
        opt={PERMISSION: "incident.write", ABOUT: "incident"},
        sync_to_thread=True,
        status_code=200,
    )
    def close(
        self, request: ApiRequest, desk: DeskDep, name: Name, data: JSONBody[Because]
    ) -> IncidentFacts:
        """Close an incident that has a corrective action."""
        return _move(desk, name, "close", request.user, data.reason)

    @post(
        "/{name:str}/publish",
        opt={PERMISSION: "incident.write", ABOUT: "incident"},
        sync_to_thread=True,
        status_code=200,
    )
    def publish(
        self,
        request: ApiRequest,
        desk: DeskDep,
        name: Name,
        data: JSONBody[NewPublication],
    ) -> IncidentFacts:
        """Put an incident on the status page, or replace what it says there. A text that names a device of the fleet is refused."""
        texts = Texts(**{field: getattr(data, field) for field in Texts.__struct_fields__})
        return desk.write(
            lambda conn: publication.publish(conn, name, texts, request.user, desk.now)
        )

    @post(
        "/{name:str}/publish/update",
        opt={PERMISSION: "incident.write", ABOUT: "incident"},
        sync_to_thread=True,
        status_code=200,
    )
    def publish_update(
        self, request: ApiRequest, desk: DeskDep, name: Name, data: JSONBody[NewUpdate]
    ) -> IncidentFacts:
        """Add a line to what the status page says of an incident."""
        return desk.write(
            lambda conn: publication.add_update(conn, name, data.text, request.user, desk.now)
        )

    @post(
        "/{name:str}/unpublish",
        opt={PERMISSION: "incident.write", ABOUT: "incident"},
        sync_to_thread=True,
        status_code=200,
    )
    def unpublish(
        self, request: ApiRequest, desk: DeskDep, name: Name, data: JSONBody[Withdrawal]
    ) -> IncidentFacts:
        """Take an incident off the status page."""
        return desk.write(
            lambda conn: publication.withdraw(conn, name, request.user, data.reason, desk.now)
        )


def _rhythm(desk: Desk) -> Rhythm:
    return Rhythm(every_s=desk.services.settings.tick_s)


def _move(desk: Desk, name: str, verb: str, actor: Actor, reason: str) -> IncidentFacts:
    return desk.write(lambda conn: incidents.move(conn, name, verb, actor, reason, desk.now))
