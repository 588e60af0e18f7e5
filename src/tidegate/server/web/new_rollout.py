"""The form for a new rollout: it is understood before it is asked for. The first form reads only, the second one makes it."""

from typing import Any

from litestar import Controller, Response, get, post

from tidegate.core.errors import RequestError
from tidegate.server.scopes import ABOUT, INSIDE, PERMISSION
from tidegate.server.web.forms import reason_of
from tidegate.server.web.guard import FORM_BYTES, WebRequest
from tidegate.server.web.queries import new_rollout as form
from tidegate.server.web.site import Site, SiteDep, Visit, address
from tidegate.server.web.views import NewRolloutPage


class NewRollout(Controller):
    """`/new-rollout`, and the form that makes one."""

    include_in_schema = False
    request_max_body_size = FORM_BYTES

    @get("/new-rollout", opt={PERMISSION: "rollout.create", ABOUT: INSIDE})
    async def ask(self, request: WebRequest, site: SiteDep) -> Response[Any]:
        """Show the form and, once a release is chosen, whom it would reach."""
        visit = await site.visit(request)
        fields = form.sent(request.query_params)
        page = await site.run(lambda: _page(site, visit, fields))
        return await site.show(request, visit, "new_rollout", page, section="rollouts")

    @post("/rollouts", opt={PERMISSION: "rollout.create", ABOUT: INSIDE})
    async def make(self, request: WebRequest, site: SiteDep) -> Response[Any]:
        """Make it."""
        visit, fields = await site.act(request)
        policy = form.policy_of(fields)
        name, text = await site.run(
            lambda: site.commands.create(policy, visit.account, reason_of(fields), visit.now)
        )
        return site.done(request, address("rollouts", name), text)


def _page(site: Site, visit: Visit, fields: dict[str, str]) -> NewRolloutPage:
    listed = site.reader.releases(visit.now, visit.account.sight).rows
    reach, problem = None, ""
    if fields["release"]:
        try:
            reach = site.commands.reach(form.policy_of(fields), visit.account, visit.now)
        except RequestError as error:
            problem = error.detail
    variants = {name for ring in reach.rings for name in ring.variants} if reach else set()
    return NewRolloutPage(
        now=visit.now,
        releases=tuple(one for one in listed if one.state == "live"),
        presets=form.choices(),
        holdbacks=form.HOLDBACKS,
        release=fields["release"],
        name=fields["name"],
        preset=fields["preset"],
        audience=fields["audience"],
        holdback=fields["holdback"],
        levels=form.LEVELS,
        sent=fields,
        changed=any(fields[name] for name in form.MORE),
        reach=reach,
        variants=tuple(sorted(variants)),
        problem=problem,
    )
