"""`[accounts] fresh`: who widens something in a session has shown of late who they are; stopping never asks, and tokens are not asked."""

import base64
import hmac
import json
import re
from collections.abc import Iterator
from hashlib import sha1
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import pytest
from litestar import Litestar
from tests.unit.server.caller import Route, ask_over
from tests.unit.server.evil_provider import EvilProvider
from tests.unit.server.rig import Answer, Rig
from tests.unit.server.test_roles_and_routes import PATH_NAMES, Callers, _looked_at
from tests.unit.server.test_single_sign_on import Site, provider, store

from tidegate.server.actors import ROLES, WIDENING, Actor, asks_for_proof
from tidegate.server.api.app import FORM_HEADER
from tidegate.server.auth import COOKIE, Auth
from tidegate.server.people.limits import Limits
from tidegate.server.people.sessions import Origin, StaleError
from tidegate.server.store.sqlite import SqliteStore
from tidegate.server.web.guard import form_token

__all__ = ["provider", "store"]

FRESH_S = 900
ROOT = Actor(name="root", role="admin")
#: What nobody is ever asked for, whatever permission it takes.
STOPPING = re.compile(
    r"/(halt|pause|isolate|cancel|recall|decline|disable|end|end-sessions|revoke|suspend|reject|hold)$"
)


@pytest.fixture
def strict(tmp_path: Path, over: None) -> Iterator[Rig]:
    made = Rig(tmp_path / "data", more={"accounts_fresh_s": FRESH_S})
    made.publish_trust(("gw1",))
    yield made
    made.close()


class Sitting(Callers):
    """Calls everything by a session, over REST too."""

    def call(self, route: Route, grants: tuple[str, ...], path: str = "") -> Answer:
        if not route.path.startswith("/api/"):
            return super().call(route, grants, path)
        _, session = self._keys(grants)
        headers = {
            "cookie": f"{COOKIE}={session}",
            FORM_HEADER: "1",
            "content-type": "application/json",
        }
        body = b"" if route.method == "GET" else b"{}"
        return self.rig.loop.run_until_complete(
            ask_over(self.rig.app, route.method, route.named(**PATH_NAMES), headers, body, b"")
        )


def _code_of(answer: Answer) -> str:
    plain = json.loads(answer.body or b"{}")
    return str(plain.get("code", "")) if isinstance(plain, dict) else ""


def _asked(route: Route, answer: Answer) -> bool:
    if route.path.startswith("/api/"):
        return answer.status == 403 and _code_of(answer) == "auth.stale"
    return answer.status == 303 and answer.headers["location"].startswith("/account/proof")


def test_every_route_that_widens_asks_whoever_may_use_it_and_no_other_does(strict: Rig) -> None:
    callers = Sitting(strict)
    found = [one for one in _looked_at(callers.app) if one.path != "/sign-out"]
    for role in ("owner", "rollout-operator", "approver", "security-admin"):
        callers._keys((role,))
    strict.now += FRESH_S
    asked = set()
    for role in ("owner", "rollout-operator", "approver", "security-admin"):
        for route in found:
            if route.method == "GET" and role != "owner":
                continue
            expected = (
                asks_for_proof(route.permission, route.method, route.named(**PATH_NAMES))
                and route.permission in ROLES[role]
            )
            answer = callers.call(route, (role,))
            assert _asked(route, answer) == expected, (role, route, answer.status)
            if expected:
                asked.add(route)
    assert len(asked) > 40
    assert {one.permission for one in asked} == WIDENING
    assert not [one for one in asked if STOPPING.search(one.path) or one.method == "GET"]
    for path in ("/api/v1/rollouts/{name:str}/start", "/rollouts/{name:str}/start"):
        assert path in {one.path for one in asked}


def test_stopping_is_asked_of_nobody() -> None:
    for role_only in ("rollout.halt", "incident.write", "release.recall", "device.manage"):
        assert not asks_for_proof(role_only, "POST", "/api/v1/rollouts/r/halt")
    assert asks_for_proof("rollout.widen", "POST", "/api/v1/rollouts/r/start")


def test_a_token_and_a_fresh_session_are_not_asked(strict: Rig) -> None:
    sitting = Sitting(strict)
    start = Route("POST", "/api/v1/rollouts/{name:str}/start", "rollout.widen", "rollout")
    assert _code_of(sitting.call(start, ("owner",))) != "auth.stale"
    strict.now += FRESH_S
    assert _code_of(Callers.call(sitting, start, ("owner",))) != "auth.stale"
    assert _code_of(sitting.call(start, ("owner",))) == "auth.stale"


def _cast(rig: Rig) -> Litestar:
    return cast("Litestar", rig.app.admin)


class Desk:
    """Somebody with a password at the pages."""

    def __init__(self, rig: Rig, session: str) -> None:
        self.rig, self.session = rig, session

    def post(self, path: str, referer: str = "", **fields: str) -> Answer:
        headers = {
            "cookie": f"{COOKIE}={self.session}",
            "host": "here",
            "content-type": "application/x-www-form-urlencoded",
        }
        if referer:
            headers["referer"] = referer
        body = "&".join(f"{k}={v}" for k, v in {"csrf": form_token(self.session), **fields}.items())
        return self.rig.loop.run_until_complete(
            ask_over(self.rig.app, "POST", path, headers, body.encode(), b"")
        )


def _code(shown: str, at: float) -> str:
    key = base64.b32decode(
        shown.replace(" ", "").upper() + "=" * (-len(shown.replace(" ", "")) % 8)
    )
    raw = hmac.new(key, (int(at) // 30).to_bytes(8, "big"), sha1).digest()
    place = raw[-1] & 15
    return f"{(int.from_bytes(raw[place : place + 4], 'big') & 0x7FFFFFFF) % 10**6:06}"


def test_a_password_and_a_code_let_a_person_go_on_where_they_were(strict: Rig) -> None:
    people: Any = _cast(strict).state.desk.accounts
    people.create_account("olga", "owner", "quite long enough", ROOT, int(strict.now))
    session = people.sign_in("olga", "quite long enough", "192.0.2.1", int(strict.now))
    desk = Desk(strict, session)
    strict.now += FRESH_S
    away = desk.post("/rollouts/r7/start", referer="http://here/rollouts/r7?ring=1")
    assert (away.status, away.headers["location"]) == (
        303,
        "/account/proof?next=%2Frollouts%2Fr7%3Fring%3D1",
    )
    elsewhere = desk.post("/rollouts/r7/start", referer="http://evil/x")
    assert elsewhere.headers["location"] == "/account/proof?next=%2Frollouts%2Fr7"
    wrong = desk.post("/account/proof", next="/rollouts/r7", password="no")
    assert wrong.status in {200, 201}
    assert "does not fit" in wrong.body.decode()
    assert desk.post("/rollouts/r7/start").status == 303
    right = desk.post("/account/proof", next="/rollouts/r7", password="quite long enough")
    assert (right.status, right.headers["location"]) == (303, "/rollouts/r7")
    assert desk.post("/rollouts/r7/start").status == 404  # let in: there is no such rollout


def test_where_there_is_a_second_factor_the_password_alone_proves_nothing(strict: Rig) -> None:
    people: Any = _cast(strict).state.desk.accounts
    people.create_account("olga", "owner", "quite long enough", ROOT, int(strict.now))
    session = people.sign_in("olga", "quite long enough", "192.0.2.1", int(strict.now))
    made = people.begin_second_factor(session, "here", int(strict.now))
    people.confirm_second_factor(session, _code(made.secret, strict.now), int(strict.now))
    strict.now += FRESH_S

    def stale() -> bool:
        try:
            people.require_fresh(session, "rollout.widen", "POST", "/x/start", int(strict.now))
        except StaleError:
            return True
        return False

    assert people.prove(session, "quite long enough", int(strict.now))
    assert stale(), "the password was only looked at"
    assert not people.prove_whole(session, "quite long enough", "", int(strict.now))
    assert not people.prove_whole(session, "quite long enough", "000000", int(strict.now))
    assert not people.prove_whole(session, "no", _code(made.secret, strict.now), int(strict.now))
    assert stale()
    code = _code(made.secret, strict.now)
    assert people.prove_whole(session, "quite long enough", code, int(strict.now))
    assert not stale()
    strict.now -= 2 * FRESH_S
    assert stale(), "a proof of the future proves nothing"


def test_who_comes_from_a_provider_is_believed_when_it_says_that_it_asked_of_late(
    store: SqliteStore, provider: EvilProvider
) -> None:
    site = Site(store, provider.issuer)
    provider.now = lambda: site.now
    strict = Auth(store, limits=Limits(fresh_s=FRESH_S))

    def stale(session: str) -> bool:
        try:
            strict.require_fresh(session, "rollout.widen", "POST", "/x/start", site.now)
        except StaleError:
            return True
        return False

    def come(*, again: bool) -> str:
        begun = site.single.begin("/rollouts", site.now, again=again)
        asked = parse_qs(urlsplit(begun.address).query)
        told = (asked.get("prompt"), asked.get("max_age"))
        assert told == ((["login"], ["0"]) if again else (None, None))
        answer = provider.authorize(begun.address)
        return site.single.finish(answer, begun.browser, Origin(), site.now).session

    assert stale(come(again=False)), "it does not say when it asked"
    provider.claims["auth_time"] = site.now - FRESH_S
    assert stale(come(again=False)), "it remembered somebody"
    for lie in (True, "1", -1, 1 << 41):
        provider.claims["auth_time"] = lie
        assert stale(come(again=True)), lie
    provider.claims["auth_time"] = site.now + 30  # its clock is ahead, within the leeway
    session = come(again=True)
    assert not stale(session)
    site.now += FRESH_S
    assert stale(session)


def test_without_the_setting_nobody_is_asked(rig: Rig) -> None:
    people: Any = _cast(rig).state.desk.accounts
    people.require_fresh("s_x", "rollout.widen", "POST", "/x/start", int(rig.now))
