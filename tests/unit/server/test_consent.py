"""Four eyes over accounts: nobody becomes two people by making, widening or taking over an account, and taking away waits for nobody."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from tests import stores

from tidegate.core.errors import RequestError
from tidegate.server import audit
from tidegate.server.actors import Actor
from tidegate.server.auth import Auth
from tidegate.server.people.limits import Limits
from tidegate.server.people.register import account_row, actor_of
from tidegate.server.store import Store
from tidegate.server.store.opening import open_store

NOW = 1_800_000_000
PASSWORD = "correct horse battery"
ROOT = Actor(name="root", role="admin")


class Office:
    """Two owners, olga and pia, an approver vera and a viewer."""

    def __init__(self, store: Store, *, limits: Limits | None = None) -> None:
        self.store = store
        hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
        self.auth = Auth(store, hasher=hasher, limits=limits, secret=b"x")
        for name, role in (
            ("vera", "approver"),
            ("vic", "viewer"),
            ("olga", "owner"),
            ("pia", "owner"),
        ):
            self.auth.create_account(name, role, PASSWORD, ROOT, NOW)

    def actor(self, name: str) -> Actor:
        return self.store.read(lambda conn: actor_of(conn, account_row(conn, name)))

    def waits(self, call: Callable[[], object]) -> int:
        """Return the number of the request that an act put down instead of happening."""
        with pytest.raises(RequestError) as caught:
            call()
        assert caught.value.code == "request.approval_needed"
        assert "pia" in caught.value.detail
        return self.auth.consents(NOW)[0].id

    def code(self, call: Callable[[], object]) -> str:
        with pytest.raises(RequestError) as caught:
            call()
        return caught.value.code


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    store = _open(tmp_path)
    yield Office(store)
    store.close()


def _open(folder: Path) -> Store:
    return open_store(folder / "data", url=stores.url_of(folder / "data"), durable=False)


ACTS: dict[str, Callable[[Auth, Actor], object]] = {
    "create": lambda auth, actor: auth.create_account("new", "approver", None, actor, NOW),
    "edit": lambda auth, actor: auth.edit_account("vic", actor, NOW, role="approver"),
    "another person": lambda auth, actor: auth.edit_account("vera", actor, NOW, person="lars"),
    "reset": lambda auth, actor: auth.reset_password("vera", actor, NOW),
    "link": lambda auth, actor: auth.sign_in_link_ticket("vera", NOW, actor=actor),
    "second factor": lambda auth, actor: auth.reset_second_factor("vera", actor, NOW),
}


@pytest.mark.parametrize("act", ACTS)
def test_what_could_make_a_second_person_takes_one(office: Office, act: str) -> None:
    olga, pia = office.actor("olga"), office.actor("pia")
    number = office.waits(lambda: ACTS[act](office.auth, olga))
    # Asking again is the same request, and asking is not consenting.
    assert office.waits(lambda: ACTS[act](office.auth, olga)) == number
    assert (
        office.code(lambda: office.auth.consent(number, olga, NOW, approve=True))
        == "request.forbidden"
    )
    vera = office.actor("vera")
    assert (
        office.code(lambda: office.auth.consent(number, vera, NOW, approve=True))
        == "request.forbidden"
    )
    office.auth.consent(number, pia, NOW, approve=True)
    ACTS[act](office.auth, olga)
    # Once.
    assert office.auth.consents(NOW) == []
    if act not in {"create", "edit", "another person"}:
        office.waits(lambda: ACTS[act](office.auth, olga))


@pytest.mark.parametrize("act", ACTS)
def test_an_act_that_fails_leaves_its_consent_as_it_was(
    office: Office, act: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    olga = office.actor("olga")
    number = office.waits(lambda: ACTS[act](office.auth, olga))
    office.auth.consent(number, office.actor("pia"), NOW, approve=True)

    def full(*_: object, **__: object) -> str:
        raise OSError("no space left")

    with monkeypatch.context() as broken:
        broken.setattr(audit, "record", full)  # the last thing that an act does
        with pytest.raises(OSError, match="no space"):
            ACTS[act](office.auth, olga)
    assert [(one.id, one.state) for one in office.auth.consents(NOW)] == [(number, "approved")]
    ACTS[act](office.auth, olga)
    assert [one.state for one in office.auth.consents(NOW, every=True)] == ["used"]


def test_one_consent_is_spent_by_one_of_two_acts_at_once(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth, olga = office.auth, office.actor("olga")
    number = office.waits(lambda: auth.reset_password("vera", olga, NOW))
    auth.consent(number, office.actor("pia"), NOW, approve=True)
    hashing = auth._hash

    def meanwhile(password: str) -> str:
        # Between the look at the consent and the act, the same act comes in from elsewhere.
        monkeypatch.setattr(auth, "_hash", hashing)
        auth.reset_password("vera", olga, NOW, "the other password")
        return hashing(password)

    monkeypatch.setattr(auth, "_hash", meanwhile)
    assert (
        office.code(lambda: auth.reset_password("vera", olga, NOW, "this one's password"))
        == "request.approval_needed"
    )
    assert auth.sign_in("vera", "the other password", "", NOW)
    assert auth.sign_in("vera", "this one's password", "", NOW) is None


def test_a_consent_is_for_this_act_this_account_this_asker_and_a_day(office: Office) -> None:
    auth, olga, pia = office.auth, office.actor("olga"), office.actor("pia")
    number = office.waits(lambda: auth.edit_account("vic", olga, NOW, role="approver"))
    auth.consent(number, pia, NOW, approve=True)
    office.waits(lambda: auth.edit_account("vic", olga, NOW, role="operator"))
    office.waits(lambda: auth.edit_account("vic", olga, NOW, grants=["approver", "auditor"]))
    late = NOW + 86_400
    assert (
        office.code(lambda: auth.edit_account("vic", olga, late, role="approver"))
        == "request.approval_needed"
    )
    # What the account holds meanwhile is part of what was shown.
    auth.edit_account("vic", olga, NOW, grants=["viewer", "auditor"])
    assert (
        office.code(lambda: auth.edit_account("vic", olga, NOW, role="approver"))
        == "request.approval_needed"
    )


def test_another_account_or_a_token_of_the_asker_is_no_second_person(office: Office) -> None:
    auth, olga, pia = office.auth, office.actor("olga"), office.actor("pia")
    number = office.waits(
        lambda: auth.create_account("olga.sso", "owner", None, olga, NOW, person="olga")
    )
    auth.consent(number, pia, NOW, approve=True)
    auth.create_account("olga.sso", "owner", None, olga, NOW, person="olga")
    number = office.waits(lambda: auth.reset_password("vera", olga, NOW))
    other = office.actor("olga.sso")
    assert (
        office.code(lambda: auth.consent(number, other, NOW, approve=True)) == "request.forbidden"
    )
    _, text = auth.create_token("t", "owner", pia, NOW)
    token = auth.actor_of_token(text, NOW)
    assert token is not None
    assert (
        office.code(lambda: auth.consent(number, token, NOW, approve=True)) == "request.forbidden"
    )


def test_a_decided_or_old_request_is_not_decided_again(office: Office) -> None:
    auth, olga, pia = office.auth, office.actor("olga"), office.actor("pia")
    number = office.waits(lambda: auth.reset_password("vera", olga, NOW))
    auth.consent(number, pia, NOW, approve=False)
    assert office.code(lambda: auth.consent(number, pia, NOW, approve=True)) == "request.conflict"
    number = office.waits(lambda: auth.reset_password("vera", olga, NOW))
    late = NOW + 86_400
    assert office.code(lambda: auth.consent(number, pia, late, approve=True)) == "request.conflict"
    assert office.code(lambda: auth.consent(10**20, pia, NOW, approve=True)) == "request.not_found"


def test_taking_away_and_what_is_ones_own_wait_for_nobody(office: Office) -> None:
    auth, olga = office.auth, office.actor("olga")
    auth.edit_account("vera", olga, NOW, role="viewer")
    auth.edit_account("vic", olga, NOW, disabled=True)
    auth.edit_account("pia", olga, NOW, disabled=True)
    auth.end_sessions_of("vera", olga, NOW)
    assert auth.reset_password("olga", olga, NOW)
    assert auth.consents(NOW, every=True) == []


def test_who_only_looks_is_made_by_one_person(office: Office) -> None:
    olga = office.actor("olga")
    office.auth.create_account("new", "auditor", None, olga, NOW)
    office.auth.reset_password("vic", olga, NOW)


def test_one_person_alone_goes_on(office: Office) -> None:
    auth, olga = office.auth, office.actor("olga")
    auth.edit_account("pia", olga, NOW, disabled=True)
    assert auth.create_account("new", "owner", None, olga, NOW)
    # Now there are two.
    with pytest.raises(RequestError, match="new"):
        auth.reset_password("vera", olga, NOW)


def test_it_can_be_turned_off(tmp_path: Path) -> None:
    store = _open(tmp_path)
    office = Office(store, limits=Limits(consent=False))
    assert office.auth.reset_password("vera", office.actor("olga"), NOW)
    store.close()


def test_asking_and_consenting_stand_in_the_log(office: Office) -> None:
    number = office.waits(lambda: office.auth.reset_password("vera", office.actor("olga"), NOW))
    office.auth.consent(number, office.actor("pia"), NOW, approve=True)
    rows = office.store.read(audit.export)[-2:]
    assert [(row.actor, row.action, row.object) for row in rows] == [
        ("olga", "consent.ask", "vera"),
        ("pia", "consent.approve", "vera"),
    ]
