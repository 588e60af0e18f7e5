"""What is left of a tenant that was removed is destroyed once somebody saw what is lost; the proof of its log stays."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import stores
from tests.unit.server.caller import ask_over
from tests.unit.server.house import OWN, House
from tests.unit.server.rig import Answer

from tidegate.core.audit.checkpoint import open_note, read_verifier
from tidegate.server import audit, cells, tenants
from tidegate.server.actors import Actor
from tidegate.server.operations import auth_of
from tidegate.server.store.sqlite import DATABASE_NAME

ROOT = Actor(name="root", role="admin")


@pytest.fixture
def house(tmp_path: Path, over: None) -> Iterator[House]:
    made = House(tmp_path / "data")
    yield made
    made.close()


def _removed(house: House) -> None:
    """Make a tenant that has something to lose and a signed head, and remove it."""
    acme = house.add("acme")
    acme.publish_trust()
    acme.rollout(acme.release(1))
    acme.device("d1")
    signer, now = acme.app.services.keys.audit, int(acme.now)
    acme.write(lambda conn: audit.make_checkpoint(conn, signer, now))
    house.manage("POST", "acme/suspend")
    house.manage("POST", "acme/remove")
    house.settle()


def _told(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer.body
    found: dict[str, Any] = json.loads(answer.body)
    return found


def _ask(house: House, method: str, path: str, body: dict[str, Any], query: str = "") -> Answer:
    headers = {
        "host": OWN,
        "authorization": f"Bearer {house.token}",
        "content-type": "application/json",
    }
    raw = b"" if method == "GET" else json.dumps(body).encode()
    return house.rig.loop.run_until_complete(
        ask_over(house.front, method, f"/api/v1/{path}", headers, raw, query.encode())
    )


def _purge(house: House, confirm: str, reason: str = "contract ended") -> Answer:
    return _ask(house, "POST", "tenants/acme/purge", {"confirm": confirm, "reason": reason})


def _foreseen(house: House) -> Answer:
    return _ask(house, "POST", "tenants/acme/purge", {}, "dry_run=true")


def _plan(house: House) -> dict[str, Any]:
    return _told(_foreseen(house))


def _entry(house: House, action: str) -> dict[str, Any]:
    log = json.loads(_ask(house, "GET", "audit", {}, "limit=50").body)
    found: dict[str, Any] = next(one for one in log["items"] if one["action"] == action)
    return found


@pytest.mark.parametrize("over", stores.BACK_ENDS, indirect=True)
def test_a_purge_says_what_is_lost_destroys_it_and_keeps_the_proof_of_the_log(
    house: House,
) -> None:
    _removed(house)
    rival = house.add("rival")
    server = house.rig.app.services.settings
    plan = _plan(house)
    assert (plan["devices"], plan["releases"], plan["rollouts"]) == (1, 1, 1)
    assert plan["accounts"] >= 1
    assert plan["payload_bytes"] > 0
    assert plan["audit_intact"]
    assert _plan(house) == plan, "nothing was done"
    assert cells.data_left(server, "acme")

    done = _told(_purge(house, plan["plan_sha256"]))
    assert done == plan
    assert not cells.data_left(server, "acme")
    assert not tenants.folder_of(house.rig.folder, "acme").exists()
    assert house.manage("GET", "acme").code == "request.not_found"
    kept = _entry(house, "tenant.purge")
    assert kept["detail"]["reason"] == "contract ended"
    assert kept["detail"]["audit_rows"] == plan["audit_rows"] > 0
    assert kept["detail"]["audit_head"] == plan["audit_head"] != ""
    assert kept["plan"] == plan["plan_sha256"]
    head = open_note(kept["detail"]["checkpoint"], [read_verifier(kept["detail"]["verifier"])])
    assert 0 < head.size <= plan["audit_rows"]
    assert _entry(house, "tenant.purged")["detail"] == {"number": plan["number"]}
    assert rival.call("GET", "me").status == 200, "the others go on"

    again = house.add("acme")  # the name is free, the number is not
    assert again.call("GET", "devices").body == b'{"items":[],"next":null}'
    assert _told(house.manage("GET", "acme"))["number"] > plan["number"]


def test_a_purge_is_asked_for_with_what_was_foreseen_and_only_of_what_is_removed(
    house: House,
) -> None:
    house.add("acme")
    assert _foreseen(house).code == "request.conflict"
    house.manage("POST", "acme/suspend")
    assert _foreseen(house).code == "request.conflict"
    house.manage("POST", "acme/remove")
    house.settle()
    plan = _plan(house)
    assert _purge(house, "").code == "request.confirmation_needed"
    assert _purge(house, "0" * 64).code == "request.conflict"
    assert _purge(house, plan["plan_sha256"], reason=" ").code == "request.invalid"
    house.manage("POST", "acme/restore")
    assert _purge(house, plan["plan_sha256"]).code == "request.conflict"
    house.manage("POST", "acme/remove")
    assert cells.data_left(house.rig.app.services.settings, "acme")


def test_where_there_are_two_owners_it_takes_the_consent_of_the_other(house: House) -> None:
    _removed(house)
    auth, now = auth_of(house.rig.app.services), int(house.rig.now)
    auth.create_account("lars", "owner", "quite long enough", ROOT, now)
    mine = auth.create_token("mine", "owner", Actor(name="olga", role="owner"), now)[1]
    house.token = mine
    plan = _plan(house)
    refused = _purge(house, plan["plan_sha256"])
    assert refused.code == "request.approval_needed"
    assert cells.data_left(house.rig.app.services.settings, "acme")
    (asked,) = auth.consents(now)
    assert (asked.act, asked.account) == ("purge", f"acme {plan['plan_sha256'][:24]}")
    auth.consent(asked.id, Actor(name="lars", role="owner"), now, approve=True)
    _told(_purge(house, plan["plan_sha256"]))
    assert not cells.data_left(house.rig.app.services.settings, "acme")


def test_a_purge_that_broke_off_is_done_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    _removed(house)
    plan = _plan(house)

    def fails(*_: object) -> None:
        raise OSError(5, "input/output error")

    with monkeypatch.context() as broken:
        broken.setattr("tidegate.server.purging.shutil.rmtree", fails)
        assert _purge(house, plan["plan_sha256"]).code == "data.read_only"
    assert house.manage("GET", "acme").status == 200
    _told(_purge(house, _plan(house)["plan_sha256"]))
    assert house.manage("GET", "acme").code == "request.not_found"


def test_a_log_that_does_not_hold_is_told_before_it_is_destroyed(house: House) -> None:
    _removed(house)
    folder = tenants.folder_of(house.rig.folder, "acme")
    with sqlite3.connect(folder / DATABASE_NAME) as database:
        database.execute("UPDATE audit SET actor = 'somebody else' WHERE seq = 2")
    assert _plan(house)["audit_intact"] is False
