"""The door over HTTP, with the server's real accounts: cookies, forms from elsewhere, where a sign-in leads, and the second factor."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from litestar import Litestar
from litestar.testing import TestClient
from tests.browser.fixtures import FixtureStory
from tests.unit.server import evil_provider as evil
from tests.unit.server.evil_provider import CLIENT, EvilProvider

from tidegate.server.actors import Actor
from tidegate.server.auth import Auth, digest
from tidegate.server.people import totp
from tidegate.server.people.limits import Limits, Oidc
from tidegate.server.people.provider import Provider
from tidegate.server.people.second_factor import RECOVERY_CODES
from tidegate.server.people.single_sign_on import SingleSignOn
from tidegate.server.store.sqlite import SqliteStore, open_store
from tidegate.server.web.domain import WebAuth
from tidegate.server.web.guard import FLOW, HALF, SESSION, form_token
from tidegate.server.web.router import create_router

Client = TestClient[Litestar]
NOW = 1_800_000_000
ROOT = Actor(name="root", role="admin")
PASSWORD = "correct horse battery"
HERE = "https://tidegate.test"


class Door:
    """A door with one account, `olga`."""

    def __init__(self, store: SqliteStore, *, limits: Limits | None = None) -> None:
        self.now = NOW
        self.store = store
        hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
        self.auth = Auth(store, hasher=hasher, limits=limits, secret=b"server")
        self.auth.create_account("olga", "operator", PASSWORD, ROOT, NOW)

    def client(self, single: SingleSignOn | None = None) -> Client:
        web = WebAuth(self.auth, self.store, single, local=self.auth._limits.local)
        story = FixtureStory()
        router = create_router(story, story, web, lambda: self.now)
        return TestClient(Litestar([router], openapi_config=None), base_url=HERE)

    def set_up(self, session: str) -> tuple[bytes, list[str]]:
        """Set a second factor up; return its secret and the recovery codes."""
        self.auth.begin_second_factor(session, "Tidegate", self.now)
        account = self.auth._account_of(session, self.now)
        assert account is not None
        secret = self.auth._secret_of(account)
        code = totp.code_at(secret, self.now // 30)
        return secret, self.auth.confirm_second_factor(session, code, self.now)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    made = open_store(tmp_path / "data", durable=False)
    yield made
    made.close()


@pytest.fixture
def door(store: SqliteStore) -> Door:
    return Door(store)


def _sign_in(client: Client, to: str = "/", **headers: str) -> tuple[int, str, str]:
    answer = client.post(
        "/sign-in", data={"name": "olga", "password": PASSWORD, "next": to}, headers=headers,
        follow_redirects=False,
    )  # fmt: skip
    return (
        answer.status_code,
        answer.headers.get("location", ""),
        answer.headers.get("set-cookie", ""),
    )


def test_a_session_cookie_is_out_of_reach_of_scripts_and_of_other_sites(door: Door) -> None:
    with door.client() as client:
        status, _, cookie = _sign_in(client)
    assert status == 303
    assert cookie.startswith(f"{SESSION}=s_")
    for wanted in ("HttpOnly", "Secure", "SameSite=strict", "Path=/"):
        assert wanted.lower() in cookie.lower()
    assert "domain" not in cookie.lower()


@pytest.mark.parametrize(
    "to",
    ["https://evil.test", "//evil.test", "/\\evil.test", "\\\\evil.test", "javascript:alert(1)", "/\n/evil.test", "", "/\x00"],
)  # fmt: skip
def test_a_sign_in_never_leads_elsewhere(door: Door, to: str) -> None:
    with door.client() as client:
        assert _sign_in(client, to)[:2] == (303, "/")
        assert "evil" not in client.get("/sign-in", params={"next": to}).text


@pytest.mark.parametrize(
    ("to", "leads"),
    [
        ("/devices?query=site~Z\u00fcrich", "/devices?query=site~Z%C3%BCrich"),
        ("/groups/\u65e5\u672c", "/groups/%E6%97%A5%E6%9C%AC"),
        ("/devices?query=a%20%3D%20b&x=1#y", "/devices?query=a%20%3D%20b&x=1#y"),
        ("/%2F/evil.test", "/%2F/evil.test"),
    ],
)
def test_a_sign_in_leads_to_pages_with_any_letters_in_their_names(
    door: Door, to: str, leads: str
) -> None:
    with door.client() as client:
        assert _sign_in(client, to)[:2] == (303, leads)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.test"}, {"origin": "http://["}, {"origin": "https://\u2100.test".encode()}, {"origin": "null"},
        {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/sign-in", "/sign-in/code", "/sign-out"])
def test_a_form_from_another_site_is_refused(
    door: Door, path: str, headers: dict[str, Any]
) -> None:
    with door.client() as client:
        answer = client.post(path, data={"name": "olga", "password": PASSWORD}, headers=headers)
        assert answer.status_code == 403
        assert SESSION not in answer.cookies


def test_a_session_that_somebody_planted_is_not_the_one_that_is_opened(door: Door) -> None:
    planted = "s_" + "0" * 64
    with door.client() as client:
        client.cookies.set(SESSION, planted)
        _, _, cookie = _sign_in(client)
        assert planted not in cookie
    assert door.auth.actor_of_session(planted, NOW) is None


def test_signing_out_ends_the_session_on_the_server(door: Door) -> None:
    with door.client() as client:
        _sign_in(client)
        session = str(client.cookies[SESSION])
        assert client.post("/sign-out", data={"csrf": "x"}).status_code == 403
        assert door.auth.actor_of_session(session, NOW) is not None
        client.post("/sign-out", data={"csrf": form_token(session)}, follow_redirects=False)
    assert door.auth.actor_of_session(session, NOW) is None


# --- the second factor -------------------------------------------------------------------------------------------------


def test_a_password_alone_opens_nothing_where_there_is_a_second_factor(door: Door) -> None:
    session = door.auth.sign_in("olga", PASSWORD, "", NOW)
    assert session is not None
    secret, _ = door.set_up(session)
    door.now += 60
    with door.client() as client:
        status, _, cookie = _sign_in(client, "/rollouts")
        assert status == 200
        assert cookie.startswith(f"{HALF}=p_")
        assert SESSION not in client.cookies
        half = str(client.cookies[HALF])
        assert door.auth.actor_of_session(half, door.now) is None
        client.cookies.set(SESSION, half)
        assert client.get("/", follow_redirects=False).headers["location"] == "/sign-in"
        del client.cookies[SESSION]
        wrong = client.post("/sign-in/code", data={"code": "000000", "next": "/rollouts"})
        assert wrong.status_code == 401
        assert "does not fit" in wrong.text
        code = totp.code_at(secret, door.now // 30)
        done = client.post(
            "/sign-in/code", data={"code": code, "next": "/rollouts"}, follow_redirects=False
        )
        assert (done.status_code, done.headers["location"]) == (303, "/rollouts")
        actor = door.auth.actor_of_session(str(client.cookies[SESSION]), door.now)
        assert actor is not None
        assert actor.name == "olga"


def _half(door: Door) -> str:
    half = door.auth.sign_in("olga", PASSWORD, "192.0.2.9", door.now)
    assert half is not None
    assert half.startswith("p_")
    return half


def _code_of(call: object, *args: object) -> str:
    from tidegate.core.errors import RequestError

    with pytest.raises(RequestError) as caught:
        call(*args)  # type: ignore[operator]
    return caught.value.code


def test_a_code_is_taken_once_and_none_before_it(door: Door) -> None:
    session = door.auth.sign_in("olga", PASSWORD, "", NOW)
    assert session is not None
    secret, _ = door.set_up(session)
    used = totp.code_at(secret, NOW // 30)
    assert _code_of(door.auth.second_factor, _half(door), used, NOW) == "auth.second_factor"
    door.now += 90
    before, code = (totp.code_at(secret, door.now // 30 + shift) for shift in (-1, 0))
    assert door.auth.second_factor(_half(door), code, door.now) is not None
    assert _code_of(door.auth.second_factor, _half(door), code, door.now) == "auth.second_factor"
    assert _code_of(door.auth.second_factor, _half(door), before, door.now) == "auth.second_factor"


def test_codes_are_not_guessed(door: Door) -> None:
    session = door.auth.sign_in("olga", PASSWORD, "", NOW)
    assert session is not None
    secret, _ = door.set_up(session)
    door.now += 60
    half = _half(door)
    found = [_code_of(door.auth.second_factor, half, "123456", door.now) for _ in range(11)]
    assert found == ["auth.second_factor"] * 10 + ["request.rate_limited"]
    # A fresh half gives no fresh tries.
    code = totp.code_at(secret, door.now // 30)
    assert _code_of(door.auth.second_factor, _half(door), code, door.now) == "request.rate_limited"
    door.now += 301
    code = totp.code_at(secret, door.now // 30)
    assert door.auth.second_factor(half, code, door.now) is None
    assert door.auth.second_factor(_half(door), code, door.now) is not None


def test_a_recovery_code_works_once(door: Door) -> None:
    session = door.auth.sign_in("olga", PASSWORD, "", NOW)
    assert session is not None
    _, codes = door.set_up(session)
    assert len(set(codes)) == RECOVERY_CODES
    assert door.auth.second_factor(_half(door), codes[3].upper(), NOW) is not None
    assert _code_of(door.auth.second_factor, _half(door), codes[3], NOW) == "auth.second_factor"
    door.store.close()


def test_a_second_factor_counts_only_after_a_code_was_shown_and_other_sessions_end(
    door: Door,
) -> None:
    session, other = (door.auth.sign_in("olga", PASSWORD, "", NOW) for _ in range(2))
    assert session is not None
    assert other is not None
    made = door.auth.begin_second_factor(session, "Tidegate", NOW)
    assert door.auth.begin_second_factor(session, "Tidegate", NOW) == made
    assert door.auth.sign_in("olga", PASSWORD, "", NOW, agent="x") is not None
    assert _code_of(door.auth.confirm_second_factor, session, "000000", NOW) == "auth.second_factor"
    door.set_up(session)
    assert door.auth.actor_of_session(other, NOW) is None
    assert door.auth.actor_of_session(session, NOW) is not None
    assert _code_of(door.auth.begin_second_factor, session, "x", NOW) == "request.conflict"


def test_a_link_does_not_go_round_the_second_factor(door: Door) -> None:
    session = door.auth.sign_in("olga", PASSWORD, "", NOW)
    assert session is not None
    door.set_up(session)
    half = door.auth.redeem(door.auth.sign_in_link_ticket("olga", NOW), NOW)
    assert half is not None
    assert half.startswith("p_")


def test_where_a_role_wants_one_its_holder_can_do_nothing_before(store: SqliteStore) -> None:
    door = Door(store, limits=Limits(second_factor=("operator",)))
    session = door.auth.sign_in("olga", PASSWORD, "", NOW)
    assert session is not None
    actor = door.auth.actor_of_session(session, NOW)
    assert actor is not None
    assert actor.may == frozenset()
    with door.client() as client:
        client.cookies.set(SESSION, session)
        assert client.get("/rollouts", follow_redirects=False).status_code != 200
    door.set_up(session)
    actor = door.auth.actor_of_session(session, NOW)
    assert actor is not None
    assert "rollout.halt" in actor.may
    assert _code_of(door.auth.remove_second_factor, session, PASSWORD, NOW) == "request.forbidden"


def test_codes_are_those_of_rfc_6238() -> None:
    secret = b"12345678901234567890"
    for now, code in ((59, "287082"), (1111111109, "081804"), (20000000000, "353130")):
        assert totp.code_at(secret, now // 30) == code
        assert totp.step_of(secret, code, now, 0) == now // 30
        assert totp.step_of(secret, code, now + 61, 0) is None


# --- pages of people ---------------------------------------------------------------------------------------------------


class Person:
    """A browser of somebody who is signed in."""

    def __init__(self, client: Client, session: str) -> None:
        self.client, self.session = client, session
        client.cookies.set(SESSION, session)

    def post(self, path: str, **fields: str) -> Any:
        data = {"csrf": form_token(self.session), **fields}
        return self.client.post(path, data=data, follow_redirects=False)


def test_one_changes_ones_own_password_and_sets_up_a_second_factor_on_pages(door: Door) -> None:
    first, other = (door.auth.sign_in("olga", PASSWORD, "", NOW) for _ in range(2))
    assert first is not None
    assert other is not None
    with door.client() as client:
        olga = Person(client, first)
        assert (
            olga.post("/account/password", old="wrong", new="x" * 12, again="x" * 12).status_code
            == 403
        )
        assert (
            olga.post("/account/password", old=PASSWORD, new="x" * 12, again="y" * 12).status_code
            == 400
        )
        assert (
            olga.post("/account/password", old=PASSWORD, new="x" * 12, again="x" * 12).status_code
            == 303
        )
        assert door.auth.actor_of_session(other, NOW) is None
        shown = client.get("/account/second-factor").text
        assert "<svg" in shown
        assert "style=" not in shown.partition("<main")[2]
        account = door.auth._account_of(first, NOW)
        assert account is not None
        secret = door.auth._secret_of(account)
        assert totp.shown(secret) in shown.replace(" ", "")
        codes = olga.post("/account/second-factor", code=totp.code_at(secret, NOW // 30))
        assert codes.status_code == 200
        assert codes.headers["cache-control"] == "no-store"
        assert olga.post("/account/remove-second-factor", old="wrong").status_code == 403
        assert olga.post("/account/remove-second-factor", old="x" * 12).status_code == 303
        assert client.post("/account/end-sessions", data={"csrf": "x"}).status_code == 403


def test_who_has_to_set_up_a_second_factor_is_led_there(store: SqliteStore) -> None:
    door = Door(store, limits=Limits(second_factor=("operator",)))
    session = door.auth.sign_in("olga", PASSWORD, "", NOW)
    assert session is not None
    with door.client() as client:
        olga = Person(client, session)
        led = client.get("/rollouts", follow_redirects=False)
        assert (led.status_code, led.headers["location"]) == (303, "/account")
        assert "Set up a second factor first" in client.get("/account").text
        assert olga.post("/rollouts/x/halt", reason="x").headers["location"] == "/account"
        assert client.get("/account/second-factor").status_code == 200


def test_somebody_is_invited_by_a_link_and_chooses_a_password(door: Door) -> None:
    door.auth.create_account("root", "owner", PASSWORD, ROOT, NOW)
    session = door.auth.sign_in("root", PASSWORD, "", NOW)
    assert session is not None
    with door.client() as client:
        root = Person(client, session)
        made = root.post("/people", name="lars", grants="viewer\napprover@product:gw1")
        assert made.status_code == 200
        page = client.get("/people").text
        assert "approver@product:gw1" in page
        assert root.post("/people/lars/edit", grants="viewer").status_code == 303
        assert root.post("/people/lars/edit", grants="king").status_code == 400
        # Whatever was open for lars before ends with the change, the first link too.
        link = re.search(r"/sign-in/ticket\?t=t_[0-9a-f]+", root.post("/people/lars/link").text)
        assert link is not None
        assert link[0] not in made.text
        token = root.post("/tokens", name="ci", grants="viewer", days="9", addresses="192.0.2.0/24")
        secret = re.search(r"tg_[0-9a-f]{64}", token.text)
        assert secret is not None
        assert door.auth.actor_of_token(secret[0], NOW, "192.0.2.7") is not None
        assert door.auth.actor_of_token(secret[0], NOW, "198.51.100.7") is None
        assert secret[0] not in client.get("/tokens").text
        assert root.post("/tokens/ci/revoke").status_code == 303
        assert door.auth.actor_of_token(secret[0], NOW, "192.0.2.7") is None
    with door.client() as client:
        assert client.get(link[0]).status_code == 200
        lars = Person(client, str(client.cookies[SESSION]))
        assert "Present password" not in client.get("/account").text
        assert lars.post("/account/password", new="x" * 12, again="x" * 12).status_code == 303
        assert client.get("/people", follow_redirects=False).status_code == 403
        assert client.get("/tokens", follow_redirects=False).status_code == 403
    assert door.auth.sign_in("lars", "x" * 12, "", NOW) is not None


def test_a_session_is_ended_by_its_owner_and_by_who_manages_accounts(door: Door) -> None:
    door.auth.create_account("root", "owner", PASSWORD, ROOT, NOW)
    olgas = [door.auth.sign_in("olga", PASSWORD, "", NOW) for _ in range(3)]
    roots = door.auth.sign_in("root", PASSWORD, "", NOW)
    assert roots is not None
    first, second, third = (str(one) for one in olgas)
    ids = {token: digest(token)[:16] for token in (first, second, third, roots)}
    with door.client() as client:
        olga = Person(client, first)
        assert olga.post(f"/account/sessions/{ids[second]}/end").status_code == 303
        assert olga.post(f"/account/sessions/{ids[roots]}/end").status_code == 404
        assert olga.post(f"/people/sessions/{ids[roots]}/end").status_code == 403
    with door.client() as client:
        assert Person(client, roots).post(f"/people/sessions/{ids[third]}/end").status_code == 303
    alive = [
        door.auth.actor_of_session(one, NOW) is not None for one in (first, second, third, roots)
    ]
    assert alive == [True, False, False, True]


# --- single sign-on ----------------------------------------------------------------------------------------------------


def test_the_button_leads_there_and_back(door: Door) -> None:
    with evil.served(EvilProvider(now=lambda: NOW)) as provider:
        settings = Oidc(
            issuer=provider.issuer,
            client_id=CLIENT,
            groups={"ops": ("viewer",)},
            label="By Example",
        )
        single = SingleSignOn(door.store, door.auth, Provider(settings), HERE)
        with door.client(single) as client:
            assert "By Example" in client.get("/sign-in").text
            sent = client.get("/sign-in/single?next=//evil.test", follow_redirects=False)
            assert sent.headers["location"].startswith(provider.issuer)
            flow = sent.headers["set-cookie"].lower()
            for wanted in (f"{FLOW}=", "httponly", "secure", "samesite=lax", "path=/sign-in"):
                assert wanted in flow
            answer = provider.authorize(sent.headers["location"])
            back = client.get("/sign-in/single/back", params=answer)
            assert back.status_code == 200
            assert 'content="0;url=/"' in back.text
            assert "evil" not in back.text
            assert door.auth.actor_of_session(str(client.cookies[SESSION]), NOW) is not None
            again = client.get("/sign-in/single/back", params=answer)
            assert again.status_code == 403
            assert answer["code"] not in again.text


def test_without_passwords_there_is_no_form_and_none_is_taken(store: SqliteStore) -> None:
    door = Door(store, limits=Limits(local=False))
    with door.client() as client:
        assert 'name="password"' not in client.get("/sign-in").text
        assert _sign_in(client)[0] == 401
