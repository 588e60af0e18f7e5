"""Sign-in by an OpenID provider: with a real one, and with one that lies in every way the specifications warn of."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import oidc_provider_mock  # type: ignore[import-untyped]
import pytest
import urllib3
from argon2 import PasswordHasher
from joserfc.jwk import RSAKey
from tests.unit.server import evil_provider as evil
from tests.unit.server.evil_provider import CLIENT, Claims, EvilProvider

from tidegate.core.errors import ConfigError, RequestError
from tidegate.server.actors import Actor
from tidegate.server.auth import Auth
from tidegate.server.people.limits import Oidc
from tidegate.server.people.provider import ANSWER_MAX, KEPT_S, Provider
from tidegate.server.people.sessions import Origin
from tidegate.server.people.single_sign_on import FLOW_S, Begun, SingleSignOn
from tidegate.server.store.sqlite import SqliteStore, open_store

START = 1_800_000_000
HERE = "https://updates.test"
ORIGIN = Origin(address="192.0.2.1", agent="browser")
GROUPS = {"ops": ("rollout-operator@product:gw1", "viewer"), "boss": ("owner",)}
ROOT = Actor(name="root", role="admin")


class Site:
    """A server's accounts, and sign-in at one provider."""

    def __init__(self, store: SqliteStore, issuer: str, **settings: Any) -> None:
        self.now = START
        self.store = store
        self.auth = Auth(store, hasher=PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        told: dict[str, Any] = {"issuer": issuer, "client_id": CLIENT, "groups": GROUPS}
        self.provider = Provider(Oidc(**(told | settings)))
        self.single = SingleSignOn(store, self.auth, self.provider, HERE)

    def begin(self) -> Begun:
        return self.single.begin("/rollouts", self.now)

    def finish(self, answer: dict[str, str], browser: str) -> Actor:
        ended = self.single.finish(answer, browser, ORIGIN, self.now)
        assert ended.next == "/rollouts"
        actor = self.auth.actor_of_session(ended.session, self.now)
        assert actor is not None
        return actor

    def sign_in(self, provider: EvilProvider) -> Actor:
        begun = self.begin()
        return self.finish(provider.authorize(begun.address), begun.browser)

    def refused(self, provider: EvilProvider) -> str:
        with pytest.raises(RequestError) as caught:
            self.sign_in(provider)
        assert caught.value.code in {"auth.provider", "request.forbidden"}
        return caught.value.detail


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    made = open_store(tmp_path / "data", durable=False)
    yield made
    made.close()


@pytest.fixture
def provider() -> Iterator[EvilProvider]:
    with evil.served(EvilProvider(now=lambda: START)) as it:
        yield it


@pytest.fixture
def site(store: SqliteStore, provider: EvilProvider) -> Site:
    made = Site(store, provider.issuer)
    provider.now = lambda: made.now
    return made


# --- a real provider -------------------------------------------------------------------------------------------------


def test_with_a_real_provider_from_the_button_to_the_session(
    store: SqliteStore, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("any\n")
    users = [
        oidc_provider_mock.User(
            sub="248289761001", claims={"preferred_username": "olga", "groups": ["ops"]}
        )
    ]
    with oidc_provider_mock.run_server_in_thread(user_claims=users) as server:
        secret = str(tmp_path / "secret")
        site = Site(store, f"http://localhost:{server.server_port}", client_secret_file=secret)
        site.now = int(time.time())
        begun = site.begin()
        http = urllib3.PoolManager()
        shown = http.request("GET", begun.address)
        assert shown.status == 200
        sent = http.request(
            "POST", begun.address, fields={"sub": "248289761001"}, redirect=False,
            encode_multipart=False,
        )  # fmt: skip
        where = urlsplit(sent.headers["location"])
        assert f"{where.scheme}://{where.netloc}{where.path}" == site.single.back
        answer = {name: values[0] for name, values in parse_qs(where.query).items()}
        actor = site.finish(answer, begun.browser)
        assert (actor.name, [str(one) for one in actor.held]) == (
            "olga",
            ["rollout-operator@product:gw1", "viewer"],
        )
        again = site.begin()
        with pytest.raises(RequestError, match="status 4"):
            site.finish({**answer, "state": _state(again)}, again.browser)
        assert site.single.way_out(site.now).startswith(site.provider.settings.issuer)


def _state(begun: Begun) -> str:
    return parse_qs(urlsplit(begun.address).query)["state"][0]


# --- the account that follows ------------------------------------------------------------------------------------------


def test_an_account_is_made_once_and_found_by_its_subject(
    site: Site, provider: EvilProvider
) -> None:
    assert site.sign_in(provider).name == "olga"
    provider.claims["preferred_username"] = "renamed"
    assert site.sign_in(provider).name == "olga"
    (facts,) = site.auth.accounts()
    assert (facts.name, facts.origin) == ("olga", provider.issuer)


def test_roles_follow_the_groups_and_whoever_has_none_stays_out(
    site: Site, provider: EvilProvider
) -> None:
    provider.claims["groups"] = ["boss", "choir"]
    assert [str(one) for one in site.sign_in(provider).held] == ["owner"]
    provider.claims["groups"] = ["ops"]
    assert "owner" not in [str(one) for one in site.sign_in(provider).held]
    provider.claims["groups"] = ["choir"]
    assert "none of your groups" in site.refused(provider)
    (facts,) = site.auth.accounts()
    assert facts.grants == ()
    assert site.auth.sessions(site.now) == []


def test_a_disabled_account_stays_out(site: Site, provider: EvilProvider) -> None:
    site.auth.create_account("root", "admin", "correct horse battery", ROOT, site.now)
    site.sign_in(provider)
    site.auth.edit_account("olga", ROOT, site.now, disabled=True)
    assert "disabled" in site.refused(provider)


def test_a_chosen_name_never_takes_over_a_local_account(site: Site, provider: EvilProvider) -> None:
    site.auth.create_account("olga", "admin", "correct horse battery", ROOT, site.now)
    actor = site.sign_in(provider)
    assert actor.name != "olga"
    assert "account.manage" not in actor.may
    # The two are taken for one person: nobody is their own second person.
    assert "olga" in actor.people
    assert site.auth.sign_in(actor.name, "", "192.0.2.1", site.now) is None
    with pytest.raises(RequestError) as caught:
        site.auth.reset_password(actor.name, ROOT, site.now)
    assert caught.value.code == "request.conflict"


def test_groups_are_asked_for_where_the_token_does_not_say_them(
    site: Site, provider: EvilProvider
) -> None:
    provider.described["userinfo_endpoint"] = f"{provider.issuer}/userinfo"
    del provider.claims["groups"]
    provider.userinfo = {"sub": provider.subject, "groups": ["boss"]}
    assert [str(one) for one in site.sign_in(provider).held] == ["owner"]
    provider.userinfo = {"sub": "somebody else", "groups": ["boss"]}
    assert "two people" in site.refused(provider)


# --- a provider that lies, and others in its name -----------------------------------------------------------------------

LIES: dict[str, Callable[[Claims], Claims]] = {
    "another issuer": lambda c: c | {"iss": "https://evil.test"},
    "no issuer": lambda c: {k: v for k, v in c.items() if k != "iss"},
    "another audience": lambda c: c | {"aud": "other"},
    "no audience": lambda c: {k: v for k, v in c.items() if k != "aud"},
    "two audiences without azp": lambda c: c | {"aud": [CLIENT, "other"]},
    "asked for by another": lambda c: c | {"azp": "other"},
    "another nonce": lambda c: c | {"nonce": "x"},
    "no nonce": lambda c: {k: v for k, v in c.items() if k != "nonce"},
    "expired": lambda c: c | {"exp": START - 61},
    "no end": lambda c: {k: v for k, v in c.items() if k != "exp"},
    "end as text": lambda c: c | {"exp": "2099"},
    "made long ago": lambda c: c | {"iat": START - 3600},
    "made in the future": lambda c: c | {"iat": START + 3600},
    "not good yet": lambda c: c | {"nbf": START + 3600},
    "nobody": lambda c: c | {"sub": ""},
    "a number for a subject": lambda c: c | {"sub": 7},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_claim_that_does_not_hold_opens_nothing(
    site: Site, provider: EvilProvider, lie: str
) -> None:
    provider.twist = LIES[lie]
    assert "ID token" in site.refused(provider)
    assert site.auth.accounts() == []
    assert site.auth.sessions(site.now) == []


SIGNERS = [
    evil.signed_by_nobody,
    evil.signed_by_another,
    evil.signed_by_the_public_key_as_a_secret,
    evil.signed_by_a_key_of_another_kind,
    evil.signed_by_a_key_that_it_brings_along,
    lambda *_: "a.b",
    lambda *_: "a.b.c",
    lambda provider, claims: evil.signed_by_its_key(provider, claims)[:-8] + "AAAAAAAA",
]


@pytest.mark.parametrize("signer", SIGNERS)
def test_a_signature_that_does_not_hold_opens_nothing(
    site: Site, provider: EvilProvider, signer: Callable[[EvilProvider, Claims], str]
) -> None:
    provider.sign = signer
    site.refused(provider)
    assert site.auth.accounts() == []


def test_clocks_may_differ_by_the_leeway(site: Site, provider: EvilProvider) -> None:
    provider.twist = lambda claims: claims | {"iat": START + 59, "exp": START - 59}
    assert site.sign_in(provider).name == "olga"


def test_a_new_key_is_fetched_and_an_old_one_is_not_taken_any_more(
    site: Site, provider: EvilProvider
) -> None:
    site.sign_in(provider)
    old = provider.key
    provider.key = RSAKey.generate_key(2048, {"kid": "k2"}, auto_kid=False)
    provider.sign = lambda it, claims: evil._signed({"alg": "RS256", "kid": "k2"}, claims, it.key)
    site.now += 61
    fetched = provider.asked.count("/jwks")
    assert site.sign_in(provider).name == "olga"
    assert provider.asked.count("/jwks") == fetched + 1
    site.sign_in(provider)
    assert provider.asked.count("/jwks") == fetched + 1
    site.now += KEPT_S
    provider.sign = lambda _, claims: evil._signed({"alg": "RS256", "kid": "k1"}, claims, old)
    site.refused(provider)


def test_keys_are_not_asked_for_at_every_unknown_name(site: Site, provider: EvilProvider) -> None:
    site.sign_in(provider)
    provider.sign = evil.signed_by_a_key_that_it_brings_along
    fetched = provider.asked.count("/jwks")
    for _ in range(5):
        site.refused(provider)
    assert provider.asked.count("/jwks") == fetched


# --- the way there and back --------------------------------------------------------------------------------------------


def test_an_answer_is_good_once_in_time_and_in_its_own_browser(
    site: Site, provider: EvilProvider
) -> None:
    def code(call: Callable[[], object]) -> str:
        with pytest.raises(RequestError) as caught:
            call()
        return caught.value.detail

    begun = site.begin()
    answer = provider.authorize(begun.address)
    assert "used" in code(lambda: site.finish({**answer, "state": "forged"}, begun.browser))
    other = site.begin()
    assert "another browser" in code(lambda: site.finish(answer, other.browser))
    # The state was spent on that: it is not good in the right browser either.
    assert "used" in code(lambda: site.finish(answer, begun.browser))

    begun = site.begin()
    answer = provider.authorize(begun.address)
    site.finish(answer, begun.browser)
    assert "used" in code(lambda: site.finish(answer, begun.browser))

    begun = site.begin()
    answer = provider.authorize(begun.address)
    site.now += FLOW_S
    assert "too long" in code(lambda: site.finish(answer, begun.browser))


def test_a_code_of_another_sign_in_is_not_taken(site: Site, provider: EvilProvider) -> None:
    """Somebody who gets hold of a code, and brings it into a sign-in of their own: PKCE binds it to the verifier of the first."""
    stolen = provider.authorize(site.begin().address)["code"]
    begun = site.begin()
    mine = provider.authorize(begun.address)
    with pytest.raises(RequestError, match="status 400"):
        site.finish({**mine, "code": stolen}, begun.browser)


def test_an_answer_in_the_name_of_another_provider_is_refused(
    site: Site, provider: EvilProvider
) -> None:
    begun = site.begin()
    answer = provider.authorize(begun.address)
    with pytest.raises(RequestError, match="another provider"):
        site.finish({**answer, "iss": "https://evil.test"}, begun.browser)
    begun = site.begin()
    good = {**provider.authorize(begun.address), "iss": provider.issuer}
    assert site.finish(good, begun.browser).name == "olga"


def test_a_provider_that_names_itself_in_answers_has_to(site: Site, provider: EvilProvider) -> None:
    provider.described["authorization_response_iss_parameter_supported"] = True
    assert "another provider" in site.refused(provider)


def test_a_refusal_of_the_provider_is_told_without_its_words(
    site: Site, provider: EvilProvider
) -> None:
    begun = site.begin()
    state = provider.authorize(begun.address)["state"]
    with pytest.raises(RequestError) as caught:
        site.finish({"state": state, "error": "<script>"}, begun.browser)
    assert "<script>" not in caught.value.detail


@pytest.mark.parametrize(
    "described",
    [
        {"issuer": "https://evil.test"},
        {"token_endpoint": "http://evil.test/token"},
        {"jwks_uri": "file:///etc/passwd"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"end_session_endpoint": "http://evil.test"},
        {"id_token_signing_alg_values_supported": ["none", "HS256"]},
        {"jwks_uri": 7},
    ],
)
def test_a_description_that_leads_elsewhere_is_not_believed(
    site: Site, provider: EvilProvider, described: Claims
) -> None:
    provider.described = described
    site.refused(provider)


def test_redirects_are_not_followed_and_endless_answers_not_read(
    site: Site, provider: EvilProvider
) -> None:
    provider.redirect = True
    assert "status 302" in site.refused(provider)
    assert "/elsewhere" not in provider.asked
    provider.redirect, provider.padding = False, ANSWER_MAX
    assert "too long" in site.refused(provider)


def test_no_secret_of_a_sign_in_stands_in_the_database_or_in_an_error(
    site: Site, provider: EvilProvider, store: SqliteStore, tmp_path: Path
) -> None:
    begun = site.begin()
    secrets = [_state(begun), begun.browser]
    provider.twist = LIES["another nonce"]
    with pytest.raises(RequestError) as caught:
        site.finish(provider.authorize(begun.address), begun.browser)
    assert "code-" not in f"{caught.value.detail} {caught.value.hint}"
    site.begin()
    store.close()
    raw = b"".join(path.read_bytes() for path in (tmp_path / "data").iterdir() if path.is_file())
    assert not any(one.encode() in raw for one in secrets)


@pytest.mark.parametrize(
    "issuer", ["http://login.test", "ftp://login.test", "https://", "https://user@login.test", "x"]
)
def test_an_issuer_without_tls_is_refused_at_the_start(issuer: str) -> None:
    with pytest.raises(ConfigError):
        Provider(Oidc(issuer=issuer, client_id=CLIENT))


def test_the_clients_secret_is_sent_to_the_token_endpoint_alone(
    store: SqliteStore, provider: EvilProvider, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    site = Site(store, provider.issuer, client_secret_file=str(tmp_path / "secret"))
    seen: list[tuple[str, str]] = []
    answer = provider.answer

    def spy(method: str, path: str, body: str, headers: Any) -> tuple[int, Claims]:
        seen.append((path, str(headers.get("authorization", "")) + body))
        return answer(method, path, body, headers)

    provider.answer = spy  # type: ignore[method-assign]
    assert site.sign_in(provider).name == "olga"
    assert [path for path, told in seen if "Basic" in told] == ["/token"]
    assert "s3cret" not in str(seen)
    with pytest.raises(ConfigError):
        Provider(Oidc(issuer=provider.issuer, client_id=CLIENT, client_secret_file="/nowhere"))
