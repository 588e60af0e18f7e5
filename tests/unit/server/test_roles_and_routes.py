"""Every route, REST and pages, times every role and scope, over HTTP.

What is expected is derived from what routes declare and what roles hold, not written down.
"""

import hashlib
import json
from typing import Any, cast

import pytest
from litestar import Litestar
from sqlalchemy import insert, update
from tests.unit.server.caller import Route, ask_over, routes
from tests.unit.server.rig import Answer, Rig

from tidegate.server import groups
from tidegate.server.actors import PERMISSIONS, ROLES, Actor, Grant, read_grants
from tidegate.server.auth import COOKIE, Auth
from tidegate.server.operations import auth_of
from tidegate.server.people.register import account_row
from tidegate.server.people.sessions import Origin
from tidegate.server.scopes import INSIDE, KINDS, LISTED, PLACES, WHOLE
from tidegate.server.store import Connection, admin_accounts, tables
from tidegate.server.web.guard import form_token

ROOT = Actor(name="root", role="admin")
#: Routes that anybody may call: a new one is looked at before it is added here.
OPEN = {
    "/api/v1/me",
    "/api/v1/me/sessions",
    "/api/v1/me/sessions/{name:str}",
    "/api/v1/openapi.json",
    "/account",
    "/account/proof",
    "/account/second-factor",
    "/account/sessions/{name:str}/end",
    "/account/{verb:str}",
    "/metrics",
    "/sign-in",
    "/sign-in/code",
    "/sign-in/single",
    "/sign-in/single/back",
    "/sign-in/ticket",
    "/sign-out",
    "/static/{path:path}",
    "/status",
    "/status.atom",
    "/status.json",
}
PATH_NAMES = {
    "name": "nothing",
    "verb": "nothing",
    "number": "9",
    "key": "nothing",
    "digest": "0" * 64,
}


class Callers:
    """Somebody for every set of grants, by token over REST and by session on pages."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.accounts: Auth = auth_of(rig.app.services)
        self._known: dict[tuple[str, ...], tuple[str, str]] = {}

    @property
    def app(self) -> Litestar:
        return cast("Litestar", getattr(self.rig.app.admin, "inner", self.rig.app.admin))

    def _keys(self, grants: tuple[str, ...]) -> tuple[str, str]:
        """Return a token and a session of who holds these grants."""
        if grants not in self._known:
            name, now = f"u{len(self._known)}", int(self.rig.now)

            def work(conn: Connection) -> str:
                row: dict[str, Any] = {
                    "name": name, "password_hash": "", "role": "granted", "created_at": now,
                    "grants": [str(one) for one in read_grants(grants)],
                }  # fmt: skip
                admin_accounts.add_account(conn, row)
                account = account_row(conn, name)
                return self.accounts.open_session(conn, account, "password", Origin(), now)

            session = self.rig.write(work)
            made = self.accounts.create_token(f"t-{name}", "viewer", ROOT, now, grants=grants)
            self._known[grants] = (made[1], session)
        return self._known[grants]

    def call(self, route: Route, grants: tuple[str, ...], path: str = "") -> Answer:
        token, session = self._keys(grants)
        path, _, query = (path or route.named(**PATH_NAMES)).partition("?")
        if route.path.startswith("/api/"):
            headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
            body = b"" if route.method == "GET" else b"{}"
        else:
            headers = {"cookie": f"{COOKIE}={session}"}
            body = b""
            if route.method == "POST":
                headers["content-type"] = "application/x-www-form-urlencoded"
                body = f"csrf={form_token(session)}".encode()
        return self.rig.loop.run_until_complete(
            ask_over(self.rig.app, route.method, path, headers, body, query.encode())
        )


@pytest.fixture
def callers(rig: Rig) -> Callers:
    rig.publish_trust(("gw1", "obscure"))
    return Callers(rig)


def _declared(app: Litestar) -> list[Route]:
    """Return every route but those that the framework makes for the description of the API."""
    return [one for one in routes(app) if not one.path.startswith("/api/openapi")]


def _looked_at(app: Litestar) -> list[Route]:
    """Return every route that answers and is done, the one that ends the session last."""
    found = [one for one in _declared(app) if not one.streams]
    return sorted(found, key=lambda one: one.path == "/sign-out")


def test_every_route_declares_what_it_takes_and_what_it_is_about(callers: Callers) -> None:
    found = _declared(callers.app)
    assert len([one for one in found if one.path.startswith("/api/")]) > 60
    assert len([one for one in found if not one.path.startswith("/api/")]) > 40
    assert {one.path for one in found if one.is_open} == OPEN
    wrong = [
        one
        for one in found
        if not one.is_open and (one.permission not in PERMISSIONS or one.about not in KINDS)
    ]
    assert wrong == []


@pytest.mark.parametrize("role", ROLES)
def test_every_route_is_open_to_the_roles_with_its_permission_and_to_no_other(
    callers: Callers, role: str
) -> None:
    wrong = []
    for route in _looked_at(callers.app):
        answer = callers.call(route, (role,))
        allowed = route.is_open or route.permission in ROLES[role]
        unwell = answer.status >= 500 or answer.status == 405
        unknown = answer.status == 401 and not route.is_open
        if (answer.status == 403) == allowed or unwell or unknown:
            wrong.append((route, answer.status))
    assert wrong == []


def test_every_route_is_refused_to_nobody(callers: Callers) -> None:
    for route in _declared(callers.app):
        if route.is_open:
            continue
        headers = {"authorization": "Bearer tg_" + "0" * 64, "cookie": f"{COOKIE}=s_nobody"}
        answer = callers.rig.loop.run_until_complete(
            ask_over(callers.rig.app, route.method, route.named(**PATH_NAMES), headers, b"", b"")
        )
        if route.path.startswith("/api/"):
            assert (answer.status, answer.code) == (401, "request.unauthenticated"), route
        elif answer.status != 401:
            assert answer.status == 303, route
            assert answer.headers["location"].startswith("/sign-in"), route


def test_a_route_that_declares_nothing_is_refused_to_the_owner(callers: Callers) -> None:
    rollouts = Route("GET", "/api/v1/rollouts", "", "")
    assert callers.call(rollouts, ("owner",)).status == 200
    handlers = [
        handler
        for route in callers.app.routes
        if route.path == "/api/v1/rollouts"
        for handler in getattr(route, "route_handlers", ())
        if "GET" in handler.http_methods
    ]
    for handler in handlers:
        handler.opt.pop("about")
    assert callers.call(rollouts, ("owner",)).status == 403


# --- scopes ----------------------------------------------------------------------------------------------------------


class Things:
    """One of each kind in `gw1` and in the group `lab`, and one of each in the product `obscure`."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.names: dict[str, dict[str, str]] = {}
        for product in ("gw1", "obscure"):
            self._make(product)

    def _make(self, product: str) -> None:
        rig, now = self.rig, int(self.rig.now)
        group = "lab" if product == "gw1" else "obscure-group"
        release = rig.release(1, product=product)
        audience = f"group:{group} and revision >= 1"
        rollout = rig.rollout(release, name=f"{product}-go", audience=audience)
        rig.claim(f"{product}-claim", product=product, group_name=group)

        def work(conn: Connection) -> int:
            conn.execute(
                update(tables.rollout)
                .where(tables.rollout.c.id == rollout)
                .values(audience=audience)
            )
            conn.execute(
                insert(tables.device).values(
                    id=f"{product}-d1", public_key="", keytype="ed25519", key_sha256=hashlib.sha256(product.encode()).hexdigest(),
                    state="accepted", product=product, model=product, rev=1,
                    variant=f"{product}-r1", channel="stable", attributes={}, slots={},
                    refuses=[], inhibitors=[], enrolled_at=now, last_seen=now, running_counter=0,
                )
            )  # fmt: skip
            groups.create(conn, group, None, [f"{product}-d1"], ROOT, now)
            conn.execute(
                insert(tables.incident).values(
                    name=f"INC-{product}", rollout_id=rollout, kind="halt", state="open",
                    summary="x", because=[], opened_at=now, opened_by="test",
                )
            )  # fmt: skip
            made = conn.execute(
                insert(tables.approval_request).values(
                    rollout_id=rollout, action="start", detail={}, plan_sha256="", reason="",
                    asked_at=now, asked_by="test", expires_at=now + 60, state="open",
                )
            ).inserted_primary_key  # fmt: skip
            return int(made[0]) if made else 0

        request = rig.write(work)
        self.names[product] = {
            "rollout": f"{product}-go", "release": release.name, "device": f"{product}-d1",
            "incident": f"INC-{product}", "approval": str(request), "group": group,
            "claim": f"{product}-claim",
        }  # fmt: skip
        assert set(self.names[product]) == set(PLACES)

    def path(self, route: Route, product: str) -> str:
        name = self.names[product][route.about]
        number = name if route.about == "approval" else PATH_NAMES["number"]
        return route.named(**{**PATH_NAMES, "name": name, "number": number})


def _refused(answer: Answer, about: str, name: str) -> bool:
    """Say whether an answer is that of the guard to who does not see a thing."""
    text = answer.body.decode(errors="replace").replace("&#34;", '"').replace('\\"', '"')
    return answer.status == 404 and f'no {about} "{name}"' in text


def _forbidden(answer: Answer) -> bool:
    """Say whether an answer is a fault, or that of the guard to who lacks a permission."""
    return answer.status >= 500 or (answer.status == 403 and b" has no " in answer.body)


@pytest.mark.parametrize("grant", ["owner@product:gw1", "owner@group:lab"])
def test_a_thing_out_of_scope_is_not_there_and_one_in_scope_is(
    callers: Callers, grant: str
) -> None:
    things, wrong = Things(callers.rig), []
    found = [one for one in _looked_at(callers.app) if one.about in PLACES]
    assert len(found) > 60
    for route in found:
        out = callers.call(route, (grant,), things.path(route, "obscure"))
        sees_all_releases = "group:" in grant and route.about == "release"
        if sees_all_releases and route.permission == "fleet.read":
            continue
        expected = out.status == 403 if sees_all_releases else out.status == 404
        name = things.names["obscure"][route.about]
        if not expected or not (sees_all_releases or _refused(out, route.about, name)):
            wrong.append(("out", route, out.status, out.body[:200]))
    beyond_groups = {"rollout.fallback", "release.recall"}
    for route in found:
        if route.about == "group" and "product:" in grant:
            continue  # a group is of no product
        inside = callers.call(route, (grant,), things.path(route, "gw1"))
        name = things.names["gw1"][route.about]
        of_product = "group:" in grant and (
            route.permission in beyond_groups
            or route.about == "release"
            or (route.about, route.method) == ("rollout", "PUT")  # its audience leaves the group
        )
        if of_product and route.permission != "fleet.read":
            if inside.status != 403:
                wrong.append(("beyond the group", route, inside.status, inside.body[:200]))
        elif _forbidden(inside) or _refused(inside, route.about, name):
            # An act may have taken the thing out of the way of the next: only a refusal counts.
            wrong.append(("in", route, inside.status, inside.body[:200]))
    assert wrong == []


@pytest.mark.parametrize("grant", ["owner@product:gw1", "owner@group:lab"])
def test_what_is_about_the_whole_fleet_takes_a_grant_in_everything(
    callers: Callers, grant: str
) -> None:
    Things(callers.rig)
    found = [one for one in _looked_at(callers.app) if one.about == WHOLE]
    assert len(found) > 25
    assert [one for one in found if callers.call(one, (grant,)).status != 403] == []


@pytest.mark.parametrize("grant", ["owner@product:gw1", "owner@group:lab"])
def test_no_list_tells_of_what_is_out_of_scope(callers: Callers, grant: str) -> None:
    Things(callers.rig)
    for route in _looked_at(callers.app):
        if route.about != LISTED or route.method != "GET":
            continue
        if "group:" in grant and "release" in route.path:
            continue  # releases belong to no group: who sees a group sees them
        told = callers.call(route, (grant,)).body.decode(errors="replace")
        assert "obscure" not in told.lower(), (route, told)


def test_lists_tell_of_what_is_in_scope(callers: Callers) -> None:
    Things(callers.rig)
    for grant in ("viewer@product:gw1", "viewer@group:lab"):
        fleet = callers.call(Route("GET", "/", "", ""), (grant,)).body.decode()
        assert "gw1-go" in fleet, grant
        assert "INC-gw1" in fleet, grant
        for path, key in (("rollouts", "gw1-go"), ("devices", "gw1-d1"), ("incidents", "INC-gw1")):
            rest = callers.call(Route("GET", f"/api/v1/{path}", "", ""), (grant,))
            page = callers.call(Route("GET", f"/{path}", "", ""), (grant,))
            assert key in rest.body.decode(), (grant, path)
            assert key in page.body.decode(), (grant, path)


def test_what_only_the_body_names_is_checked_where_it_was_read(callers: Callers) -> None:
    things = Things(callers.rig)
    inside = {one.path for one in routes(callers.app) if one.about == INSIDE}
    assert inside == {
        "/api/v1/bundles", "/api/v1/claims", "/api/v1/incidents", "/api/v1/rollouts",
        "/incidents", "/new-rollout", "/releases", "/rollouts",
        "/api/v1/uploads", "/api/v1/uploads/{name:str}", "/api/v1/uploads/{name:str}/complete",
        "/api/v1/uploads/{name:str}/links",
    }  # fmt: skip

    def post(path: str, body: dict[str, Any], *grants: str) -> tuple[int, str]:
        token, _ = callers._keys(grants)
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        answer = callers.rig.loop.run_until_complete(
            ask_over(callers.rig.app, "POST", path, headers, json.dumps(body).encode(), b"")
        )
        return answer.status, "" if answer.status < 300 else answer.code

    gw1, lab = "owner@product:gw1", "owner@group:lab"
    hidden, forbidden = (404, "request.not_found"), (403, "request.forbidden")
    rollout = {"preset": "lab", "ring": [{"name": "all"}], "name": "new"}
    ours, theirs = (things.names[one]["release"] for one in ("gw1", "obscure"))
    assert post("/api/v1/rollouts", {**rollout, "release": theirs}, gw1) == hidden
    assert post("/api/v1/rollouts", {**rollout, "release": ours}, lab) == forbidden
    wide = {**rollout, "release": ours, "audience": "group:lab or revision >= 0"}
    assert post("/api/v1/rollouts", wide, lab) == forbidden
    narrow = {**rollout, "release": ours, "audience": "group:lab and revision >= 9"}
    assert post("/api/v1/rollouts", narrow, lab)[0] == 201
    assert post("/api/v1/rollouts", {**rollout, "name": "b", "release": ours}, gw1)[0] == 201
    assert post("/api/v1/claims", {"product": "obscure"}, gw1) == forbidden
    assert post("/api/v1/claims", {"product": "gw1"}, gw1)[0] == 201
    assert post("/api/v1/claims", {"product": "gw1"}, lab) == forbidden
    assert post("/api/v1/claims", {"product": "gw1", "group": "lab"}, lab)[0] == 201
    incident = {"summary": "smoke"}
    assert post("/api/v1/incidents", incident, gw1) == forbidden
    theirs = things.names["obscure"]["rollout"]
    assert post("/api/v1/incidents", {**incident, "rollout": theirs}, gw1) == hidden
    assert post("/api/v1/incidents", {**incident, "rollout": "gw1-go"}, gw1)[0] == 201


def test_live_pages_are_narrowed_as_the_pages_are(callers: Callers) -> None:
    Things(callers.rig)
    live = Route("GET", "/live", "fleet.read", LISTED)
    grants = ("owner@product:gw1",)
    assert callers.call(live, grants, "/live?page=rollout&id=obscure-go").status == 404
    assert callers.call(live, grants, "/live?page=device&id=obscure-d1").status == 404


def test_a_role_in_two_scopes_reaches_both_and_two_roles_do_not_mix() -> None:
    actor = Actor(
        name="a", role="granted",
        grants=read_grants(["viewer", "rollout-operator@product:gw1", "approver@product:gw2"]),
    )  # fmt: skip
    assert actor.sight.whole
    assert actor.holds(Grant("viewer"))
    assert not actor.holds(read_grants(["approver@product:gw1"])[0])
    assert not actor.holds(Grant("rollout-operator"))
