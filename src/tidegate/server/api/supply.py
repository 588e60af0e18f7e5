"""The supply chain over REST: what releases are made of, which devices have it, what is known against it, and the documents themselves."""

import asyncio
from typing import Annotated, Any, Final

from litestar import Controller, Response, get, post
from litestar.params import JSONBody, QueryParameter

from tidegate.core.errors import RequestError, TidegateError
from tidegate.core.supply.documents import ADVISORY_MAX
from tidegate.server import acts, advisories, components
from tidegate.server.advisories import AdvisoryFacts, ImportFacts
from tidegate.server.api.desk import (
    ABOUT,
    ANSWER,
    BODY,
    LISTED,
    PERMISSION,
    REFUSALS,
    WHOLE,
    ApiRequest,
    Desk,
    DeskDep,
    Name,
    Number,
    Text,
)
from tidegate.server.api.paging import Cursor, Limit, cursor_of, position_of
from tidegate.server.api.wire import (
    Advisories,
    Because,
    ComponentDevices,
    Components,
    Done,
    Findings,
    IngestRules,
    RuleFacts,
    SignerFacts,
)
from tidegate.server.auth import Actor
from tidegate.server.components import Wanted
from tidegate.server.store import supply as rows

Seconds = Annotated[int, QueryParameter(ge=0, le=1 << 40)]
#: A ring that no rollout can have. An empty one stands for devices that confirmed in none: factory images.
ANY_RING: Final = "*"
#: Sent with documents that others wrote: to be stored, never to be shown by a browser as a page of ours.
_AS_FILE: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
}


class ComponentRoutes(Controller):
    """Parts of releases and the devices that have them."""

    path = "/components"
    tags = ("supply chain",)

    @get("/", opt={PERMISSION: "fleet.read", ABOUT: WHOLE}, sync_to_thread=True)
    def find(
        self,
        desk: DeskDep,
        name: Text = "",
        below: Text = "",
        product: Text = "",
        release: Text = "",
        cursor: Cursor = "",
        limit: Limit = 50,
    ) -> Components:
        """Say which releases hold a part (by name or package URL) older than `below`, and how many devices have it, by variant and ring."""
        wanted = Wanted(name=name, below=below, product=product, release=release)
        skip = position_of(cursor)
        found, more = desk.read(lambda conn: components.find(conn, wanted, skip=skip, limit=limit))
        return Components(
            devices=found.devices,
            unknown=found.unknown,
            items=list(found.parts),
            items_in_all=found.parts_in_all,
            groups=list(found.groups),
            near=list(found.near),
            next=cursor_of(more),
        )

    @get("/devices", opt={PERMISSION: "fleet.read", ABOUT: WHOLE}, sync_to_thread=True)
    def devices(
        self,
        desk: DeskDep,
        name: Text = "",
        below: Text = "",
        product: Text = "",
        release: Text = "",
        variant: Text = "",
        ring: Text = ANY_RING,
        at_least_s: Seconds = 0,
        cursor: Cursor = "",
        limit: Limit = 50,
    ) -> ComponentDevices:
        """List the devices that have such a part; `at_least_s` leaves out those that confirmed it more recently."""
        wanted = Wanted(name=name, below=below, product=product, release=release)
        after = position_of(cursor)
        items, more = desk.read(
            lambda conn: components.devices(
                conn,
                wanted,
                after=after,
                limit=limit,
                variant=variant,
                ring=None if ring == ANY_RING else ring,
                until=max(1, desk.now - at_least_s) if at_least_s else 0,
            )
        )
        return ComponentDevices(items=items, next=cursor_of(more))


class AdvisoryRoutes(Controller):
    """Advisories, and what they concern."""

    path = "/advisories"
    tags = ("supply chain",)

    @get("/", opt={PERMISSION: "fleet.read", ABOUT: WHOLE, REFUSALS: (404,)}, sync_to_thread=True)
    def list_advisories(
        self,
        desk: DeskDep,
        release: Text = "",
        name: Text = "",
        cursor: Cursor = "",
        limit: Limit = 50,
    ) -> Advisories:
        """List advisories, the latest import first; of a release, or by id or alias."""
        before = position_of(cursor)
        if name:
            found = desk.read(lambda conn: advisories.shown(conn, advisories.number_of(conn, name)))
            return Advisories(items=[found])
        items, more = desk.read(
            lambda conn: advisories.listed(conn, release=release, before=before, limit=limit)
        )
        return Advisories(items=items, next=cursor_of(more))

    @get("/{number:int}", opt={PERMISSION: "fleet.read", ABOUT: WHOLE}, sync_to_thread=True)
    def show(self, desk: DeskDep, number: Number) -> AdvisoryFacts:
        """Return an advisory."""
        return desk.read(lambda conn: advisories.shown(conn, number))

    @get(
        "/{number:int}/findings", opt={PERMISSION: "fleet.read", ABOUT: WHOLE}, sync_to_thread=True
    )
    def findings(
        self, desk: DeskDep, number: Number, cursor: Cursor = "", limit: Limit = 50
    ) -> Findings:
        """Return what an advisory concerns, and what statements say about it."""
        skip = position_of(cursor)
        found = desk.read(lambda conn: advisories.findings(conn, number))
        after = skip + limit
        return Findings(items=found[skip:after], next=cursor_of(after if after < len(found) else 0))

    @post(
        "/",
        opt={PERMISSION: "release.publish", ABOUT: WHOLE, BODY: "application/json"},
        status_code=200,
        request_max_body_size=ADVISORY_MAX + 1,
    )
    async def take(self, request: ApiRequest, desk: DeskDep) -> ImportFacts:
        """Take in one file of advisories or statements as the whole body: OSV, CSAF 2.0 or OpenVEX. The same file again changes nothing."""
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > ADVISORY_MAX:
                raise RequestError("request.too_large", f"at most {ADVISORY_MAX} bytes are taken")
        return await asyncio.to_thread(_take, desk, request.user, bytes(body))

    @post(
        "/{number:int}/forget",
        opt={PERMISSION: "release.publish", ABOUT: WHOLE},
        sync_to_thread=True,
        status_code=200,
    )
    def forget(
        self, request: ApiRequest, desk: DeskDep, number: Number, data: JSONBody[Because]
    ) -> Done:
        """Forget an advisory, such as one that was brought in by mistake."""

        def work(conn: Any) -> str:
            name = advisories.forget(conn, number)
            desk.note(conn, request.user, "advisory.forget", name[:200], reason=data.reason)
            return name

        name = desk.write(work)
        return Done(name=name, text=f"{name} is forgotten")


class OriginRoutes(Controller):
    """Attachments of releases, and what channels demand of them."""

    tags = ("supply chain",)

    @get("/ingest-rules", opt={PERMISSION: "fleet.read", ABOUT: LISTED}, sync_to_thread=False)
    def rules(self, desk: DeskDep) -> IngestRules:
        """Return what this server demands of a release's origin, by channel."""
        return IngestRules(
            items=[
                RuleFacts(
                    product=one.product,
                    channels=one.channels,
                    needs=one.needs,
                    builders=one.builders,
                    sources=one.sources,
                    signers=tuple(
                        SignerFacts(keytype=key.keytype, public=key.public, keyid=key.keyid)
                        for key in one.signers
                    ),
                )
                for one in desk.services.settings.ingest
            ]
        )

    @get(
        "/releases/{name:str}/attachments/{digest:str}",
        opt={PERMISSION: "fleet.read", ABOUT: "release", ANSWER: ("application/octet-stream",)},
    )
    async def attachment(self, desk: DeskDep, name: Name, digest: Name) -> Response[bytes]:
        """Return an attachment of a release, by its SHA-256. Verify it against the signed target: `tidegate release fetch` does."""
        return await desk.beside(attachment, desk.services.blobs, desk, name, digest)


def attachment(blobs: Any, desk: Desk, name: str, digest: str) -> Response[bytes]:
    """Answer with the bytes of an attachment, as a file to be stored."""

    def named(conn: Any) -> str | None:
        release = acts.release_of(conn, name)
        for one in rows.attachments(conn, int(release["id"])):
            if one["sha256"] == digest:
                return str(one["name"])
        return None

    file_name = desk.read(named)
    blob = blobs.open(digest) if file_name is not None else None
    if blob is None:
        raise RequestError("request.not_found", f"{name} has no attachment {digest[:64]}")
    try:
        body = blob.read_at(0, blob.size)
    finally:
        blob.close()
    headers = {**_AS_FILE, "Content-Disposition": f'attachment; filename="{file_name}"'}
    return Response(body, media_type="application/octet-stream", headers=headers)


def _take(desk: Desk, actor: Actor, body: bytes) -> ImportFacts:
    try:
        found = advisories.read(body)
    except TidegateError as error:
        code, detail = error.code, error.detail[:300]
        desk.write(
            lambda conn: desk.note(
                conn, actor, "advisory.refused", "file", code=code, detail=detail
            )
        )
        raise

    def work(conn: Any) -> ImportFacts:
        done = advisories.take(conn, found, actor.name, desk.now)
        desk.note(
            conn,
            actor,
            "advisory.import",
            found.name[:200],
            advisories=len(done.advisories),
            statements=done.statements,
        )
        return done

    return desk.write(work)
