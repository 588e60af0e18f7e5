"""Accounts, sessions, tickets and tokens: who gets in, for how long, and how often somebody may guess."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from sqlalchemy import update

from tidegate.core.errors import RequestError
from tidegate.server import audit
from tidegate.server.auth import COOKIE, ROLES, TRIES_MAX, TRIES_WINDOW_S, Actor, Auth
from tidegate.server.passwords import WORDS, made_of_words
from tidegate.server.people.sessions import TRIES_OF_ADDRESS, TRIES_OF_NAME
from tidegate.server.store import Connection, admin_accounts, tables
from tidegate.server.store.sqlite import SqliteStore, open_store

NOW = 1_800_000_000
ROOT = Actor(name="root", role="admin")
PASSWORD = "correct horse battery"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    made = open_store(tmp_path / "data", durable=False)
    yield made
    made.close()


@pytest.fixture
def auth(store: SqliteStore) -> Auth:
    return Auth(store, hasher=PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


def _code(call: object, *args: object, **kwargs: object) -> str:
    with pytest.raises(RequestError) as caught:
        call(*args, **kwargs)  # type: ignore[operator]
    return caught.value.code


def test_the_first_account_is_made_once_and_its_password_works(auth: Auth) -> None:
    password = auth.first_account(NOW)
    assert password is not None
    assert auth.first_account(NOW) is None
    session = auth.sign_in("admin", password, "here", NOW)
    assert session is not None
    actor = auth.actor_of_session(session, NOW)
    assert actor is not None
    assert actor.may == ROLES["admin"]


def test_a_session_ends_by_itself_and_by_signing_out(auth: Auth) -> None:
    auth.create_account("olga", "operator", PASSWORD, ROOT, NOW)
    session = auth.sign_in("olga", PASSWORD, "here", NOW)
    assert session is not None
    assert auth.actor_of_session(session, NOW + 12 * 3600 - 1) is not None
    assert auth.actor_of_session(session, NOW + 12 * 3600) is None
    auth.sign_out(session, NOW)
    assert auth.actor_of_session(session, NOW) is None


@pytest.mark.parametrize("password", ["", "wrong", PASSWORD + "!", "x" * 10_000])
def test_a_wrong_password_and_an_unknown_name_get_the_same_answer(
    auth: Auth, password: str
) -> None:
    auth.create_account("olga", "operator", PASSWORD, ROOT, NOW)
    assert auth.sign_in("olga", password, "here", NOW) is None
    assert auth.sign_in("nobody", password, "here", NOW) is None


def test_whoever_guesses_too_often_waits_and_is_let_in_again_later(auth: Auth) -> None:
    auth.create_account("olga", "operator", PASSWORD, ROOT, NOW)
    for _ in range(TRIES_MAX):
        assert auth.sign_in("olga", "wrong", "192.0.2.1", NOW) is None
    assert _code(auth.sign_in, "olga", PASSWORD, "192.0.2.1", NOW) == "request.rate_limited"
    assert auth.sign_in("olga", PASSWORD, "192.0.2.1", NOW + TRIES_WINDOW_S) is not None


def test_one_address_cannot_try_many_names(auth: Auth) -> None:
    for number in range(TRIES_OF_ADDRESS):
        auth.sign_in(f"name-{number}", "wrong", "192.0.2.1", NOW)
    assert _code(auth.sign_in, "another", "wrong", "192.0.2.1", NOW) == "request.rate_limited"
    assert auth.sign_in("another", "wrong", "192.0.2.2", NOW) is None


def test_a_crowd_that_guesses_at_one_name_does_not_keep_its_owner_out(auth: Auth) -> None:
    auth.create_account("olga", "operator", PASSWORD, ROOT, NOW)
    assert auth.sign_in("olga", PASSWORD, "192.0.2.1", NOW) is not None
    for number in range(TRIES_OF_NAME):
        assert auth.sign_in("olga", "wrong", f"198.51.100.{number}", NOW) is None
    assert _code(auth.sign_in, "olga", PASSWORD, "203.0.113.1", NOW) == "request.rate_limited"
    assert auth.sign_in("olga", PASSWORD, "192.0.2.1", NOW) is not None
    assert auth.sign_in("pia", "wrong", "203.0.113.1", NOW) is None


def test_a_disabled_account_is_out_at_once_with_its_sessions_and_tokens(auth: Auth) -> None:
    auth.create_account("root", "admin", PASSWORD, ROOT, NOW)
    auth.create_account("olga", "operator", PASSWORD, ROOT, NOW)
    session = auth.sign_in("olga", PASSWORD, "here", NOW)
    _, token = auth.create_token("ci", "viewer", Actor(name="olga", role="admin"), NOW)
    auth.edit_account("olga", ROOT, NOW, disabled=True)
    assert session is not None
    assert auth.actor_of_session(session, NOW) is None
    assert auth.actor_of_token(token, NOW) is None
    assert auth.sign_in("olga", PASSWORD, "here", NOW) is None


def test_the_last_admin_stays(auth: Auth) -> None:
    auth.first_account(NOW)
    assert _code(auth.edit_account, "admin", ROOT, NOW, role="viewer") == "request.conflict"
    assert _code(auth.edit_account, "admin", ROOT, NOW, disabled=True) == "request.conflict"
    assert [one.role for one in auth.accounts()] == ["admin"]


def test_a_ticket_signs_in_once_within_an_hour(auth: Auth) -> None:
    auth.create_account("olga", "viewer", PASSWORD, ROOT, NOW)
    ticket = auth.sign_in_link_ticket("olga", NOW)
    assert auth.actor_of_session(ticket, NOW) is None
    assert auth.redeem(ticket, NOW + 3599) is not None
    assert auth.redeem(ticket, NOW + 3599) is None
    assert auth.redeem(auth.sign_in_link_ticket("olga", NOW), NOW + 3600) is None


def test_a_token_cannot_be_more_than_its_maker_and_ends_when_it_should(auth: Auth) -> None:
    operator = Actor(name="olga", role="operator")
    assert _code(auth.create_token, "t", "admin", operator, NOW) == "request.forbidden"
    _, token = auth.create_token("t", "operator", operator, NOW, expires_at=NOW + 60)
    actor = auth.actor_of_token(token, NOW + 59)
    assert actor is not None
    assert (actor.name, actor.owner) == ("token:t", "olga")
    assert auth.actor_of_token(token, NOW + 60) is None
    auth.revoke_token("t", operator, NOW)
    assert auth.actor_of_token(token, NOW) is None


def test_no_secret_stands_in_the_database(auth: Auth, store: SqliteStore, tmp_path: Path) -> None:
    auth.create_account("olga", "viewer", PASSWORD, ROOT, NOW)
    session = auth.sign_in("olga", PASSWORD, "here", NOW) or ""
    _, token = auth.create_token("t", "viewer", ROOT, NOW)
    store.close()
    raw = b"".join(path.read_bytes() for path in (tmp_path / "data").iterdir() if path.is_file())
    for secret in (PASSWORD, session, token):
        assert secret.encode() not in raw


def test_the_local_token_stays_while_it_is_good_and_is_replaced_when_not(auth: Auth) -> None:
    auth.first_account(NOW)
    first = auth.local_token(NOW)
    assert auth.local_token(NOW, first) == first
    auth.revoke_token("local", ROOT, NOW)
    second = auth.local_token(NOW, first)
    assert second != first
    actor = auth.actor_of_token(second, NOW)
    assert actor is not None
    assert actor.owner == "admin"


def test_bearer_token_or_cookie_and_nothing_else(auth: Auth) -> None:
    _, token = auth.create_token("t", "viewer", ROOT, NOW)
    assert auth.authenticate({"authorization": f"Bearer {token}"}, {}, NOW).name == "token:t"
    assert (
        _code(auth.authenticate, {"authorization": f"Basic {token}"}, {}, NOW)
        == "request.unauthenticated"
    )
    assert _code(auth.authenticate, {}, {COOKIE: token}, NOW) == "request.unauthenticated"
    assert _code(auth.authenticate, {}, {}, NOW) == "request.unauthenticated"


@pytest.mark.parametrize("name", ["", "a b", "ä", "x" * 65, "../x", "-a"])
def test_a_name_that_could_be_taken_for_something_else_is_refused(auth: Auth, name: str) -> None:
    assert _code(auth.create_account, name, "viewer", PASSWORD, ROOT, NOW) == "request.invalid"


def test_a_weak_password_and_an_unknown_role_are_refused(auth: Auth) -> None:
    assert _code(auth.create_account, "a", "viewer", "short", ROOT, NOW) == "request.invalid"
    assert _code(auth.create_account, "a", "king", PASSWORD, ROOT, NOW) == "request.invalid"


def test_who_may_widen_or_approve_may_stop_and_approving_is_apart() -> None:
    assert {role for role, may in ROLES.items() if "rollout.halt" in may} == {
        "operator",
        "rollout-operator",
        "release-manager",
        "incident-commander",
        "approver",
        "owner",
        "admin",
    }
    assert "rollout.approve" not in ROLES["operator"] | ROLES["rollout-operator"]
    assert "rollout.widen" not in ROLES["approver"]


def test_made_passwords_are_words_and_a_number() -> None:
    *words, number = made_of_words(lambda count: bytes(range(count))).split("-")
    assert set(words) <= set(WORDS)
    assert len(set(WORDS)) == 128
    assert number.isdigit()


# --- the log --------------------------------------------------------------------------------------------------------


def test_the_chain_notices_what_was_changed_taken_out_or_put_in(store: SqliteStore) -> None:
    def add(number: int) -> Callable[[Connection], str]:
        return lambda conn: audit.record(
            conn, NOW + number, "olga", "x.y", str(number), {"n": number}
        )

    for number in range(5):
        store.write(add(number)).result()
    assert store.read(audit.verify).ok is True
    third = store.read(audit.export)[2]

    def change(**values: object) -> None:
        where = tables.audit.c.hash == third.hash
        store.write(
            lambda conn: conn.execute(update(tables.audit).where(where).values(**values))
        ).result()

    change(actor="eve")
    assert store.read(audit.verify).broken_at == 3
    change(actor=third.actor, seq=30)
    assert store.read(audit.verify).broken_at == 3
    change(seq=3)
    assert store.read(audit.verify).ok is True


def test_signing_in_stands_in_the_log(auth: Auth, store: SqliteStore) -> None:
    auth.create_account("olga", "viewer", PASSWORD, ROOT, NOW)
    auth.sign_in("olga", PASSWORD, "here", NOW)
    assert [row.action for row in store.read(audit.export)] == ["account.create", "account.sign_in"]
    assert store.read(admin_accounts.account_count) == 1


def test_a_token_never_has_more_than_its_owner_has_by_now(auth: Auth) -> None:
    auth.create_account("root", "owner", PASSWORD, ROOT, NOW)
    auth.create_account("olga", "operator", PASSWORD, ROOT, NOW)
    olga = Actor(name="olga", role="operator")
    _, token = auth.create_token("t", "operator", olga, NOW)
    auth.edit_account("olga", ROOT, NOW, grants=["operator@product:gw1", "viewer"])
    actor = auth.actor_of_token(token, NOW)
    assert actor is not None
    assert actor.may == frozenset()
    _, narrow = auth.create_token("n", "", olga, NOW, grants=["operator@product:gw1", "auditor"])
    actor = auth.actor_of_token(narrow, NOW)
    assert actor is not None
    assert [str(one) for one in actor.held] == ["operator@product:gw1"]


def test_a_token_lives_as_the_server_says_and_is_good_from_its_networks_alone(auth: Auth) -> None:
    made, token = auth.create_token(
        "t", "viewer", ROOT, NOW, addresses=["192.0.2.0/24", "2001:db8::1"]
    )
    assert made.expires_at == NOW + 90 * 86_400
    assert auth.actor_of_token(token, NOW, "192.0.2.200") is not None
    assert auth.actor_of_token(token, NOW, "::ffff:192.0.2.200") is not None
    assert auth.actor_of_token(token, NOW, "2001:db8::1") is not None
    for elsewhere in ("198.51.100.1", "2001:db8::2", "", "nonsense"):
        assert auth.actor_of_token(token, NOW, elsewhere) is None
    late = NOW + 367 * 86_400
    assert _code(auth.create_token, "u", "viewer", ROOT, NOW, expires_at=late) == "request.invalid"
    assert _code(auth.create_token, "u", "viewer", ROOT, NOW, addresses=["x"]) == "request.invalid"


def test_nobody_gives_more_than_they_have_and_what_is_taken_over_counts(auth: Auth) -> None:
    auth.create_account("root", "owner", PASSWORD, ROOT, NOW)
    auth.create_account("olga", "operator", PASSWORD, ROOT, NOW)
    sam = Actor(name="sam", role="security-admin")
    assert _code(auth.create_account, "x", "approver", None, sam, NOW) == "request.forbidden"
    assert auth.create_account("x", "viewer", None, sam, NOW)
    assert _code(auth.edit_account, "x", sam, NOW, role="owner") == "request.forbidden"
    for call in (auth.reset_password, auth.reset_second_factor):
        assert _code(call, "olga", sam, NOW) == "request.forbidden"
    with pytest.raises(RequestError, match="may more than"):
        auth.sign_in_link_ticket("root", NOW, actor=sam)
    # Taking away is always possible.
    auth.edit_account("olga", sam, NOW, role="viewer")
    auth.edit_account("olga", sam, NOW, disabled=True)
    assert _code(auth.edit_account, "root", sam, NOW, disabled=True) == "request.conflict"


def test_a_role_that_an_older_server_wrote_is_believed(auth: Auth, store: SqliteStore) -> None:
    auth.create_account("olga", "", PASSWORD, ROOT, NOW, grants=["approver@product:gw1"])
    session = auth.sign_in("olga", PASSWORD, "here", NOW)
    assert session is not None
    store.write(
        lambda conn: admin_accounts.change_account(conn, "olga", {"role": "viewer"})
    ).result()
    actor = auth.actor_of_session(session, NOW)
    assert actor is not None
    assert [str(one) for one in actor.held] == ["viewer"]
