"""The forms: each is admitted (origin, session, token, permission), gives one command and leads back to a page."""

from typing import Any, BinaryIO, Final, cast

from litestar import Controller, Response, post
from litestar.datastructures import UploadFile

from tidegate.core.errors import RequestError
from tidegate.server.scopes import ABOUT, INSIDE, PERMISSION
from tidegate.server.web import guard
from tidegate.server.web.guard import FORM_BYTES, WebRequest
from tidegate.server.web.pages import Name
from tidegate.server.web.site import SiteDep, address

#: What a verb asks of a role: narrowing is near, widening far.
ROLLOUT_VERBS: Final[dict[str, str]] = {
    "halt": "rollout.halt",
    "pause": "rollout.halt",
    "isolate": "rollout.halt",
    "cancel": "rollout.halt",
    "start": "rollout.widen",
    "activate": "rollout.widen",
    "resume": "rollout.widen",
    "advance": "rollout.widen",
    "readmit": "rollout.widen",
    "fallback": "rollout.fallback",
}
DEVICE_VERBS: Final = dict.fromkeys(("accept", "reject", "hold", "unhold"), "device.manage")
INCIDENT_VERBS: Final = dict.fromkeys(
    ("note", "edit", "followup", "followup-edit", "done", "mitigate", "reopen", "close", "publish", "update", "unpublish"),
    "incident.write",
)  # fmt: skip
DECISIONS: Final = dict.fromkeys(("approve", "decline"), "rollout.approve")
REASON_CHARS: Final = 300
TEXT_CHARS: Final = 4000
BUNDLE_BYTES: Final = 16 * 1024**3


def reason_of(fields: dict[str, str]) -> str:
    """Return the reason a person gave (untrusted), cut to its limit."""
    return fields.get("reason", "").strip()[:REASON_CHARS]


class Forms(Controller):
    """Everything a person can change here. Halt asks nothing."""

    include_in_schema = False
    request_max_body_size = FORM_BYTES

    @post("/rollouts/{name:str}/{verb:str}", opt={PERMISSION: ROLLOUT_VERBS, ABOUT: "rollout"})
    async def rollout(
        self, request: WebRequest, site: SiteDep, name: Name, verb: Name
    ) -> Response[Any]:
        """Act on a rollout."""
        visit, fields = await site.act(request)
        extra: dict[str, str] = {
            key: fields[key][:REASON_CHARS]
            for key in ("variant", "ring", "to", "scope")
            if key in fields
        }
        text = await site.run(
            lambda: site.commands.tell_rollout(
                verb, name, visit.account, reason_of(fields), extra, visit.now
            )
        )
        return site.done(request, address("rollouts", name), text)

    @post("/requests/{name:str}/{verb:str}", opt={PERMISSION: DECISIONS, ABOUT: "approval"})
    async def decide(
        self, request: WebRequest, site: SiteDep, name: Name, verb: Name
    ) -> Response[Any]:
        """Approve or decline what somebody asked for."""
        visit, fields = await site.act(request)
        text = await site.run(
            lambda: site.commands.decide(
                name,
                visit.account,
                approve=verb == "approve",
                reason=reason_of(fields),
                now=visit.now,
            )
        )
        back = fields.get("back", "")
        return site.done(request, address("rollouts", back) if back else "/", text)

    @post("/devices/{name:str}/{verb:str}", opt={PERMISSION: DEVICE_VERBS, ABOUT: "device"})
    async def device(
        self, request: WebRequest, site: SiteDep, name: Name, verb: Name
    ) -> Response[Any]:
        """Act on a device."""
        visit, fields = await site.act(request)
        text = await site.run(
            lambda: site.commands.tell_device(
                verb, name, visit.account, reason_of(fields), visit.now
            )
        )
        to = "/devices#pending" if fields.get("back") == "inbox" else address("devices", name)
        return site.done(request, to, text)

    @post("/releases/{name:str}/recall", opt={PERMISSION: "release.recall", ABOUT: "release"})
    async def recall(self, request: WebRequest, site: SiteDep, name: Name) -> Response[Any]:
        """Never offer a release again."""
        visit, fields = await site.act(request)
        reason = reason_of(fields)
        if not reason:
            raise RequestError("request.invalid", "A recall needs a reason.")
        text = await site.run(lambda: site.commands.recall(name, visit.account, reason, visit.now))
        return site.done(request, address("releases", name), text)

    @post("/incidents", opt={PERMISSION: "incident.write", ABOUT: INSIDE})
    async def open_incident(self, request: WebRequest, site: SiteDep) -> Response[Any]:
        """Open an incident by hand."""
        visit, fields = await site.act(request)
        said = {key: value[:TEXT_CHARS] for key, value in fields.items()}
        name, text = await site.run(
            lambda: site.commands.open_incident(visit.account, said, visit.now)
        )
        return site.done(request, address("incidents", name), text)

    @post("/incidents/{name:str}/{verb:str}", opt={PERMISSION: INCIDENT_VERBS, ABOUT: "incident"})
    async def incident(
        self, request: WebRequest, site: SiteDep, name: Name, verb: Name
    ) -> Response[Any]:
        """Write into an incident, lead it through, or publish it."""
        visit, fields = await site.act(request)
        said = {key: value[:TEXT_CHARS] for key, value in fields.items()}
        text = await site.run(
            lambda: site.commands.tell_incident(verb, name, visit.account, said, visit.now)
        )
        return site.done(request, address("incidents", name), text)

    @post(
        "/releases",
        opt={PERMISSION: "release.publish", ABOUT: INSIDE},
        request_max_body_size=BUNDLE_BYTES,
    )
    async def publish(self, request: WebRequest, site: SiteDep) -> Response[Any]:
        """Publish a signed bundle. It is spooled to disk while it arrives, then checked as a device would check it."""
        guard.check_origin(request)
        visit = await site.visit(request)
        data = await request.form()
        token, bundle = data.get("csrf"), data.get("bundle")
        guard.check_token({"csrf": token if isinstance(token, str) else ""}, visit.session)
        if not isinstance(bundle, UploadFile) or not bundle.filename:
            raise RequestError("request.invalid", "Choose a bundle first.")
        spooled = cast("BinaryIO", bundle.file)
        name, text = await site.run(
            lambda: site.commands.publish(spooled, visit.account, visit.now)
        )
        return site.done(request, address("releases", name) if name else "/releases", text)
