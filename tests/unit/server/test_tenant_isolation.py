"""Two tenants in one server, both full of everything: every route of API, pages and device protocol, asked with one's keys for the other's things.

The routes are those that the applications have, as in `test_roles_and_routes`; what may not happen is derived, not written down: nothing of the other tenant
stands in any answer, and its database is afterwards what it was before, table for table.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from litestar import Litestar
from sqlalchemy import insert, select
from tests.unit.server.caller import Route, ask_over, routes
from tests.unit.server.house import House, Tenant
from tests.unit.server.rig import Answer
from tests.unit.server.test_roles_and_routes import PATH_NAMES

from tidegate.server import groups
from tidegate.server.actors import Actor
from tidegate.server.auth import COOKIE
from tidegate.server.operations import auth_of
from tidegate.server.people.register import account_row
from tidegate.server.people.sessions import Origin
from tidegate.server.store import Connection, admin_log, tables
from tidegate.server.web.guard import form_token

ROOT = Actor(name="root", role="admin")
#: Tables that hold something of the tenant that is asked for, at least.
FULL = {
    "account", "api_token", "approval_request", "artifact", "audit", "cell", "claim", "daily", "device", "device_group", "event", "firmware",
    "group_member", "incident", "job", "job_item", "login", "outbox", "permit", "release", "repository", "rollout", "session_salt", "tally", "update", "upload",
}  # fmt: skip
#: Written by servers about themselves, whoever asks: that they are well, that they live, and that somebody guessed a secret.
ANYTIME = frozenset({"lease", "peer", "tried"})


class Full:
    """A tenant with one of everything, each named after it: `acme-…`."""

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant
        self.mark = mark = tenant.name
        product = f"{mark}-gw"
        tenant.publish_trust(("gw1", product))
        own = tenant.release(1, product=product)
        self.names: dict[str, str] = {"release": own.name, "claim": f"{mark}-claim"}
        row = tenant.rollout(tenant.release(1), name=f"{mark}-go")
        self.names["rollout"] = f"{mark}-go"
        tenant.claim(f"{mark}-claim")
        self.device = tenant.device(f"{mark}-d1", join=False)
        assert self.device.enrol(f"{mark}-claim").status == 200
        self.device.log_in()
        body = self.device.assignment()
        self.device.tell("staged", body, bytes=4096)
        assert self.device.permit(body).envelope is not None
        self.names["device"] = f"{mark}-d1"
        tenant.write(lambda conn: self._rows(conn, row, int(tenant.now)))
        self._people()
        digest = hashlib.sha256(mark.encode()).hexdigest()
        begun = tenant.call("POST", "uploads", {"sha256": digest, "length": 100})
        assert begun.status == 200, begun.body
        self.names["upload"] = str(json.loads(begun.body)["id"])
        order = {"act": "tag", "devices": [f"{mark}-d1"], "tags": [f"{mark}-tag"], "confirm": 1}
        made = tenant.call("POST", "jobs", order)
        assert made.status in {201, 202}, made.body

    def _rows(self, conn: Connection, rollout: int, now: int) -> None:
        mark = self.mark
        groups.create(conn, f"{mark}-group", None, [f"{mark}-d1"], ROOT, now)
        conn.execute(
            insert(tables.incident).values(
                name=f"INC-{mark}", rollout_id=rollout, kind="halt", state="open", summary=f"{mark} smoke",
                because=[], opened_at=now, opened_by=f"{mark}-olga",
            )
        )  # fmt: skip
        made = conn.execute(
            insert(tables.approval_request).values(
                rollout_id=rollout, action="start", detail={}, plan_sha256="", reason=f"{mark} asks",
                asked_at=now, asked_by=f"{mark}-olga", expires_at=now + 60, state="open",
            )
        ).inserted_primary_key  # fmt: skip
        admin_log.add_outbox(conn, "webhook", {"body": {"said": mark}, "channel": mark}, now)
        self.names |= {"group": f"{mark}-group", "incident": f"INC-{mark}"}
        self.names["approval"] = str(made[0]) if made else ""

    def _people(self) -> None:
        """Give the tenant an owner with a session and a token."""
        tenant, now = self.tenant, int(self.tenant.now)
        accounts, name = auth_of(tenant.app.services), f"{self.mark}-olga"
        accounts.create_account(name, "owner", None, ROOT, now)
        self.token = accounts.create_token(f"{self.mark}-t", "owner", ROOT, now)[1]

        def work(conn: Connection) -> str:
            found = account_row(conn, name)
            return accounts.open_session(conn, found, "password", Origin(), now)

        self.session = tenant.write(work)

    def path(self, route: Route) -> str:
        """Return a route's path with this tenant's names in it."""
        name = self.names.get(route.about, "")
        if "/uploads" in route.path:
            name = self.names["upload"]
        elif not name:
            name = next((self.names[one] for one in self.names if f"/{one}s/" in route.path), "1")
        number = self.names["approval"] if route.about == "approval" else "1"
        return route.named(**{**PATH_NAMES, "name": name, "number": number})

    def dump(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return every row of every table of its database, as another process would read it."""

        def work(conn: Connection) -> dict[str, list[tuple[Any, ...]]]:
            return {
                one.name: sorted((tuple(row) for row in conn.execute(select(one))), key=repr)
                for one in tables.metadata.sorted_tables
                if one.name not in ANYTIME
            }

        return self.tenant.read(work)  # type: ignore[no-any-return]


@pytest.fixture
def pair(tmp_path: Path, over: None) -> Iterator[tuple[House, Full, Full]]:
    house = House(tmp_path / "data")
    try:
        yield (
            house,
            Full(house.add("acme", "a.example.com")),
            Full(house.add("rival", "b.example.com")),
        )
    finally:
        house.close()


def _routes(full: Full) -> list[Route]:
    app = cast("Litestar", getattr(full.tenant.app.admin, "inner", full.tenant.app.admin))
    found = [one for one in routes(app) if not one.path.startswith("/api/openapi")]
    return sorted(
        (one for one in found if not one.streams), key=lambda one: one.path == "/sign-out"
    )


def _call(house: House, asker: Full, at: Full, route: Route, path: str) -> Answer:
    """Call a route at a tenant's host with another's token, or on pages with its session."""
    path, _, query = path.partition("?")
    headers = {"host": at.tenant.host}
    body = b""
    if route.path.startswith("/api/"):
        headers |= {"authorization": f"Bearer {asker.token}", "content-type": "application/json"}
        body = b"" if route.method == "GET" else b"{}"
    else:
        headers["cookie"] = f"{COOKIE}={asker.session}"
        if route.method == "POST":
            headers["content-type"] = "application/x-www-form-urlencoded"
            body = f"csrf={form_token(asker.session)}".encode()
    return house.rig.loop.run_until_complete(
        ask_over(house.front, route.method, path, headers, body, query.encode())
    )


def _tells(answer: Answer, other: Full, path: str) -> bool:
    """Say whether an answer tells of a tenant, beside what was in the question."""
    told = answer.body.decode(errors="replace") + json.dumps(answer.headers)
    for asked in sorted({path, *path.split("/")}, key=len, reverse=True):
        if asked:
            told = told.replace(asked, "")
    return other.mark in told.lower()


def test_both_tenants_are_full(pair: tuple[House, Full, Full]) -> None:
    for full in pair[1:]:
        dump = full.dump()
        assert {name for name in FULL if not dump[name]} == set()
        for name, rows in dump.items():
            place = list(tables.metadata.tables[name].c.keys()).index("tenant")
            assert {row[place] for row in rows} <= {full.mark}, name
    assert len(_routes(pair[1])) > 150


def test_with_its_own_keys_everything_is_told_and_the_test_can_see_it(
    pair: tuple[House, Full, Full],
) -> None:
    house, acme, _ = pair
    told = set()
    for route in _routes(acme):
        if route.method == "GET":
            path = acme.path(route)
            answer = _call(house, acme, acme, route, path)
            told |= {route.path} if _tells(answer, acme, path) else set()
    assert len(told) > 40, sorted(told)


def test_the_keys_of_one_tenant_open_nothing_at_the_host_of_another(
    pair: tuple[House, Full, Full],
) -> None:
    house, acme, rival = pair
    before = rival.dump()
    wrong: list[Any] = []
    for route in _routes(rival):
        path = rival.path(route)
        answer = _call(house, acme, rival, route, path)
        api = route.path.startswith("/api/")
        let_in = answer.status not in ({401} if api else {303, 401})
        if (let_in and not route.is_open) or answer.status >= 500:
            wrong.append((route, answer.status))
        if _tells(answer, rival, path):
            wrong.append((route, answer.body[:300]))
    assert wrong == []
    assert rival.dump() == before


def test_the_names_of_another_tenant_reach_nothing_at_ones_own_host(
    pair: tuple[House, Full, Full],
) -> None:
    house, acme, rival = pair
    before = rival.dump()
    wrong: list[Any] = []
    for route in _routes(acme):
        path = rival.path(route)
        answer = _call(house, acme, acme, route, path)
        if _tells(answer, rival, path) or answer.status >= 500:
            wrong.append((route, answer.status, answer.body[:300]))
    assert wrong == []
    assert rival.dump() == before


def test_a_device_of_one_tenant_is_nobody_at_the_host_of_another(
    pair: tuple[House, Full, Full],
) -> None:
    house, acme, rival = pair
    before = rival.dump()
    paths = [f"/d/v1/{one}" for one in rival.tenant.app.hot._posts]
    blob = hashlib.sha256(b"gw1 1").hexdigest()
    asked = [("POST", one) for one in paths]
    asked += [
        ("GET", "/d/v1/poll"),
        ("GET", f"/d/v1/blobs/{blob}"),
        ("HEAD", f"/d/v1/blobs/{blob}"),
    ]
    assert len(asked) > 9
    wrong: list[Any] = []
    for method, path in asked:
        answer = house.ask(
            rival.tenant.host, method, path, b"{}", authorization=f"Bearer {acme.device.token}"
        )
        joining = path.rpartition("/")[2] in {"enrol", "nonce", "session", "rekey"}
        refused = answer.status >= 400 or path.endswith("/nonce")
        if not joining:
            refused = answer.status == 401 and (
                method == "HEAD" or answer.code == "session.expired"
            )
        if not refused or answer.status >= 500 or _tells(answer, rival, path):
            wrong.append((method, path, answer.status, answer.body[:200]))
    assert wrong == []

    # all that it has: its key, the claim of its own tenant, its id
    stranger = rival.tenant.device(acme.device.id, join=False)
    stranger.key = acme.device.key
    assert stranger.session().code == "device.unknown"
    assert stranger.enrol(f"{acme.mark}-claim").code == "claim.invalid"
    assert rival.dump() == before


def test_payloads_of_one_tenant_are_not_there_for_another(
    pair: tuple[House, Full, Full],
) -> None:
    house, acme, rival = pair
    payload = b"rival's firmware"
    digest = hashlib.sha256(payload).hexdigest()
    rival.tenant.app.services.blobs.put(digest, iter([payload]))
    path = f"/d/v1/blobs/{digest}"
    theirs = house.ask(rival.tenant.host, "GET", path, authorization=f"Bearer {rival.device.token}")
    assert theirs.body == payload
    ours = house.ask(acme.tenant.host, "GET", path, authorization=f"Bearer {acme.device.token}")
    assert ours.status == 404
