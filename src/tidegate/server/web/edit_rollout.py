"""The form that changes a rollout while it runs. The first form only reads and says what follows, the second one does it."""

from typing import Any

from litestar import Controller, Response, get, post

from tidegate.core.errors import RequestError
from tidegate.server.scopes import ABOUT, PERMISSION
from tidegate.server.web.forms import reason_of
from tidegate.server.web.guard import FORM_BYTES, WebRequest
from tidegate.server.web.pages import Name
from tidegate.server.web.queries import edit_rollout as form
from tidegate.server.web.site import Site, SiteDep, Visit, address
from tidegate.server.web.views import EditRolloutPage

_WIDEN = {PERMISSION: "rollout.widen", ABOUT: "rollout"}


class EditRollout(Controller):
    """`/rollouts/NAME/edit`."""

    include_in_schema = False
    request_max_body_size = FORM_BYTES

    @get("/rollouts/{name:str}/edit", opt=_WIDEN)
    async def ask(self, request: WebRequest, site: SiteDep, name: Name) -> Response[Any]:
        """Show the form and, once something differs, what it comes to."""
        visit = await site.visit(request)
        sent = dict(request.query_params)
        page = await site.run(lambda: _page(site, visit, name, sent))
        return await site.show(request, visit, "edit_rollout", page, section="rollouts")

    @post("/rollouts/{name:str}/edit", opt=_WIDEN)
    async def change(self, request: WebRequest, site: SiteDep, name: Name) -> Response[Any]:
        """Change what differs, if the rollout is still the one that was shown."""
        visit, fields = await site.act(request)
        seen = fields.get("generation", "")
        if not seen.isascii() or not seen.isdecimal() or len(seen) > 12:
            raise RequestError(
                "request.invalid", "The form does not say what it was filled in for."
            )

        def work() -> str:
            parts = form.parts_of(site.commands.terms(name), fields)
            done = site.commands.amend(
                name, parts, visit.account, reason_of(fields), visit.now, generation=int(seen)
            )
            return f"Edit: {done.text}."

        return site.done(request, address("rollouts", name), await site.run(work))


def _page(site: Site, visit: Visit, name: str, sent: dict[str, str]) -> EditRolloutPage:
    terms = site.commands.terms(name)
    asks, problem = False, ""
    wider: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    parts: dict[str, Any] = {}
    try:
        parts = form.parts_of(terms, sent)
        if parts:
            found = site.commands.amend(
                name, parts, visit.account, "looked at", visit.now,
                generation=terms.generation, dry_run=True,
            )  # fmt: skip
            asks, wider = found.request is not None, site.commands.wider(name, parts)
            warnings = found.warnings
    except RequestError as error:
        problem = error.detail
    return EditRolloutPage(
        now=visit.now,
        name=name,
        state=terms.state,
        generation=terms.generation,
        fields=form.fields_of(terms, sent),
        stays=form.stays(terms),
        changed=bool(parts),
        asks=asks,
        wider=wider,
        warnings=warnings,
        problem=problem,
    )
