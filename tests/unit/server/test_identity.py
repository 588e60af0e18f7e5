"""Who a device is: ways in, new keys, retirement, and two behind one key. Over the protocol, to a server in process."""

import hashlib
import json
from typing import Any

import pytest
from tests.unit.server.rig import Answer, Device, Rig

from tidegate.core.keys import Signer, device_key_sha256
from tidegate.core.protocol import EventItem, Metrics, RekeyAnswer
from tidegate.core.words import key_beginning, key_words
from tidegate.server import audit, devices, identity, preauthorized, telemetry
from tidegate.server.actors import Actor
from tidegate.server.store import admin_devices, device_queries

ROOT = Actor(name="root", role="admin")


def key(name: str) -> Signer:
    return Signer.from_seed(hashlib.sha256(name.encode()).digest())


def row_of(rig: Rig, device_id: str = "d1") -> Any:
    return rig.read(lambda conn: device_queries.by_id(conn, device_id))


def log_of(rig: Rig, device_id: str = "d1") -> list[dict[str, Any]]:
    row = row_of(rig, device_id).row
    found: list[dict[str, Any]] = rig.read(lambda conn: admin_devices.events_of(conn, row))
    return found


def state_of(answer: Answer) -> str:
    return str(json.loads(answer.body)["state"])


def set_state(rig: Rig, state: str, device_id: str = "d1") -> None:
    row = row_of(rig, device_id).row
    rig.write(lambda conn: devices.set_state(conn, row, state, int(rig.now)))


def promise(rig: Rig, new: Signer, device_id: str = "d1") -> None:
    beginning = key_beginning(key_words(new.public.identity))

    def work(conn: Any) -> None:
        device = admin_devices.device(conn, device_id)
        assert device is not None
        identity.promise_key(conn, device, beginning, "ada", int(rig.now))

    rig.write(work)


def announce(rig: Rig, *entries: dict[str, Any]) -> preauthorized.Imported:
    found: preauthorized.Imported = rig.write(
        lambda conn: preauthorized.take(conn, entries, ROOT, ("gw1",), int(rig.now))
    )
    return found


# --- the factory's list -------------------------------------------------------------------------------------------------


def test_an_announced_device_is_let_in_with_what_the_factory_knows(rig: Rig) -> None:
    device = rig.device("d1", join=False)
    entry = {
        "id": "d1", "serial": "serial-d1", "public_key": device.key.public.public,
        "product": "gw1", "channel": "stable", "attributes": {"plant": "north", "site": "hall-4"},
    }  # fmt: skip
    assert announce(rig, entry).added == 1
    assert announce(rig, entry).known == 1
    assert state_of(device.enrol(None)) == "accepted"
    device.log_in()
    rig.publish_trust()
    device.assignment()
    found = row_of(rig)
    assert found.attributes == {"plant": "north", "site": "hall-4"}
    assert found.site == "hall-4"


def test_a_digest_is_enough_and_binds_nothing_that_is_not_given(rig: Rig) -> None:
    device = rig.device("d1", join=False)
    announce(rig, {"serial": "serial-d1", "key_sha256": device.key.public.identity})
    assert state_of(device.enrol(None)) == "accepted"


@pytest.mark.parametrize(
    "changed",
    [
        {"id": "d2"},
        {"serial": "another"},
        {"channel": "pilot"},
    ],
)
def test_what_the_list_says_must_be_true_of_the_device(rig: Rig, changed: dict[str, str]) -> None:
    device = rig.device("d1", join=False)
    entry = {"id": "d1", "serial": "serial-d1", "key_sha256": device.key.public.identity}
    announce(rig, {**entry, **changed})
    assert device.enrol(rig.claim()).code == "request.conflict"


def test_an_id_that_was_announced_with_another_key_is_nobody_elses(rig: Rig) -> None:
    announce(rig, {"id": "d1", "key_sha256": key("the right one").public.identity})
    thief = rig.device("d1", join=False)
    assert thief.enrol(rig.claim()).code == "request.conflict"
    assert row_of(rig) is None
    thief.key = key("the right one")
    assert state_of(thief.enrol(None)) == "accepted"


def test_a_device_that_waits_is_let_in_when_the_list_comes(rig: Rig) -> None:
    device = rig.device("d1", join=False)
    assert state_of(device.enrol(None)) == "pending"
    announce(rig, {"id": "d1", "public_key": device.key.public.public})
    assert state_of(device.enrol(None)) == "accepted"
    assert device.session().status == 200


def test_one_bad_entry_of_the_list_loses_nothing(rig: Rig) -> None:
    good: list[Any] = [
        {"id": f"d{n}", "key_sha256": hashlib.sha256(b"%d" % n).hexdigest()} for n in range(3)
    ]
    bad: list[Any] = [
        {"id": "x"},
        {"key_sha256": "ab" * 32},
        {"id": "x", "public_key": "not a key" * 10},
        {"id": "x", "key_sha256": "AB" * 32},
        {"id": "x\n", "key_sha256": "ab" * 32},
        {"id": "x", "key_sha256": "ab" * 32, "product": "gw2"},
        {"id": "x", "key_sha256": "ab" * 32, "what": 1},
        {"id": "x", "key_sha256": "ab" * 32, "public_key": key("x").public.public},
        {"id": "d0", "key_sha256": "cd" * 32},
        {"id": "dx", "key_sha256": good[0]["key_sha256"]},
        "nothing",
        None,
    ]
    found = announce(rig, *good[:2], *bad, good[2])
    assert found.added == 3
    assert [one.index for one in found.refused] == list(range(2, 2 + len(bad)))


def test_an_unused_entry_can_be_taken_off_again(rig: Rig) -> None:
    device = rig.device("d1", join=False)
    digest = device.key.public.identity
    announce(rig, {"id": "d1", "key_sha256": digest})
    assert rig.write(lambda conn: preauthorized.drop(conn, digest, ROOT, int(rig.now)))
    assert state_of(device.enrol(None)) == "pending"


# --- new keys -----------------------------------------------------------------------------------------------------------


def test_a_new_key_ends_the_sessions_of_the_old_one_at_once(rig: Rig) -> None:
    device, new = rig.device(), key("new")
    generation = row_of(rig).key_gen
    answer = device.rekey(new).as_(RekeyAnswer)
    assert answer == RekeyAnswer(state="done", key_gen=generation + 1)
    assert device.ask("GET", "/d/v1/poll").code == "session.expired"
    assert device.session().code == "sig.threshold"
    old, device.key = device.key, new
    device.log_in()
    assert device.poll().work is False
    device.key = old
    signed = device.event("failed", reason="install.write")
    device.key = new
    assert device.report(signed, device.event("heartbeat")).acked_seq == 2


def test_asking_again_after_the_answer_was_lost_gives_the_same_answer(rig: Rig) -> None:
    device, new = rig.device(), key("new")
    first = device.rekey(new).as_(RekeyAnswer)
    device_again = device.rekey(new).as_(RekeyAnswer)
    assert device_again == first
    assert row_of(rig).key_sha256 == new.public.identity


@pytest.mark.parametrize("missing", ["old", "new"])
def test_a_new_key_needs_both_signatures(rig: Rig, missing: str) -> None:
    device, new = rig.device(), key("new")
    signers: tuple[Signer, ...] = (new,) if missing == "old" else (device.key,)
    assert device.rekey(new, signers=signers).code == "sig.threshold"
    assert row_of(rig).key_sha256 == device.key.public.identity
    stranger = key("stranger")
    signers = (stranger, new) if missing == "old" else (device.key, stranger)
    assert device.rekey(new, signers=signers).code == "sig.threshold"
    assert device.poll().work is False


def test_a_key_that_had_its_time_never_comes_back(rig: Rig) -> None:
    device, new, newest = rig.device(), key("new"), key("newest")
    old = device.key
    device.rekey(new)
    device.key = new
    assert device.rekey(old).code == "device.revoked"
    device.rekey(newest)
    stranger = rig.device("d2", join=False)
    stranger.key = old
    assert stranger.enrol(rig.claim("other")).code == "device.revoked"
    assert row_of(rig, "d2") is None


def test_a_key_of_another_device_is_not_taken(rig: Rig) -> None:
    one, two = rig.device("d1"), rig.device("d2")
    assert one.rekey(two.key).code == "request.conflict"
    assert one.poll().work is False
    copied = rig.device("d3", join=False)
    copied.key = two.key
    assert copied.enrol(rig.claim("other")).code == "request.conflict"
    assert [one["reason"] for one in log_of(rig, "d2")] == ["security.clone"]
    assert row_of(rig, "d2").state == "accepted"
    copied.enrol(rig.claim("third"))
    assert len(log_of(rig, "d2")) == 1


def test_a_replayed_request_for_a_new_key_is_refused(rig: Rig) -> None:
    device = rig.device()
    nonce = json.loads(rig.ask("POST", "/d/v1/nonce").body)["nonce"]
    assert device.rekey(key("a"), nonce=nonce).status == 200
    device.key = key("a")
    assert device.rekey(key("b"), nonce=nonce).code == "session.expired"
    assert device.rekey(key("b"), nonce="00" * 16).code == "session.expired"


def test_a_device_is_told_to_make_a_new_key(rig: Rig) -> None:
    device = rig.device()

    def order(conn: Any) -> None:
        found = admin_devices.device(conn, "d1")
        assert found is not None
        identity.order_rekey(conn, found, "ada", "leaked?", int(rig.now))

    rig.write(order)
    assert device.ask("GET", "/d/v1/poll").code == "session.expired"
    assert json.loads(device.session().body)["rekey"] is True
    device.rekey(key("new"))
    device.key = key("new")
    assert json.loads(device.session().body)["rekey"] is False
    acts = rig.read(lambda conn: [one.action for one in audit.export(conn)])
    assert {"device.rekey", "device.rekeyed"} <= set(acts)


# --- swapped boards, retirement ------------------------------------------------------------------------------------------


def test_a_swapped_board_comes_in_only_with_the_key_that_was_approved(rig: Rig) -> None:
    rig.publish_trust()
    old = rig.device("d1", rev=1)
    new = rig.device("d1", rev=2, join=False)
    new.key = key("new board")
    assert new.enrol(rig.claim("other")).code == "request.conflict"
    promise(rig, key("somebody else"))
    assert new.enrol("other").code == "request.conflict"
    promise(rig, new.key)
    assert state_of(new.enrol(None)) == "accepted"
    assert old.ask("GET", "/d/v1/poll").code == "session.expired"
    assert old.session().code == "sig.threshold"
    new.log_in()
    assert new.assignment().action == "none"
    assert row_of(rig).variant == "gw1-r2"
    counts = rig.read(admin_devices.firmware)
    assert {(one["variant"], one["devices"]) for one in counts} == {("gw1-r2", 1)}


def test_a_promise_grows_old(rig: Rig) -> None:
    rig.device("d1")
    new = rig.device("d1", join=False)
    new.key = key("new board")
    promise(rig, new.key)
    rig.now += identity.PROMISE_S
    assert new.enrol(None).code == "request.conflict"


def test_a_revoked_device_comes_back_with_an_approved_new_key_only(rig: Rig) -> None:
    device = rig.device()
    set_state(rig, "revoked")
    assert device.ask("GET", "/d/v1/poll").code == "device.revoked"
    for state in ("accepted", "quarantined", "rejected"):
        with pytest.raises(Exception, match=r"request\.conflict"):
            set_state(rig, state)
    assert state_of(device.enrol(rig.claim("other"))) == "revoked"
    device.key = key("new")
    promise(rig, device.key)
    assert state_of(device.enrol(None)) == "accepted"
    device.log_in()
    assert device.poll().work is False


def test_a_decommissioned_device_is_gone_for_ever_and_its_history_stays(rig: Rig) -> None:
    rig.publish_trust()
    device = rig.device()
    rollout = rig.rollout(rig.release(1))
    device.run(device.assignment())
    key_before = device.key
    set_state(rig, "decommissioned")
    assert device.ask("GET", "/d/v1/poll").code == "device.revoked"
    assert device.session().code == "device.revoked"
    assert state_of(device.enrol(rig.claim("other"))) == "revoked"
    device.key = key("new")
    assert device.enrol("other").code == "device.revoked"
    with pytest.raises(Exception, match="never comes back"):
        promise(rig, device.key)
    stranger = rig.device("d2", join=False)
    stranger.key = key_before
    assert stranger.enrol("other").code == "device.revoked"
    assert rig.tallies(rollout)["confirmed"] == 1
    rig.restart()
    assert device.ask("GET", "/d/v1/poll").code == "device.revoked"


def test_everything_ends_at_once_for_a_revoked_device(rig: Rig) -> None:
    rig.publish_trust()
    device = rig.device()
    rig.rollout(rig.release(1))
    body = device.assignment()
    device.tell("staged", body)
    set_state(rig, "revoked")
    assert device.ask("GET", "/d/v1/poll").status == 403
    for path in ("assignment", "permit", "events", "time"):
        assert device.ask("POST", f"/d/v1/{path}", {}).code == "device.revoked"
    assert device.ask("GET", "/d/v1/blobs/" + "ab" * 32).code == "device.revoked"
    assert device.rekey(key("new")).code == "device.revoked"


# --- two behind one key --------------------------------------------------------------------------------------------------


def make_clone(rig: Rig, one: Device) -> Device:
    two = one.copied()
    two.boot_id = "boot-of-the-clone"
    for device in (two, one, two, one):
        rig.now += 5
        device.log_in()
    return two


def test_a_clone_is_put_into_quarantine_where_it_is_heard_and_gets_nothing(rig: Rig) -> None:
    rig.publish_trust()
    one = rig.device()
    one.previous = ""
    one.log_in()
    rollout = rig.rollout(rig.release(1))
    body = one.assignment()
    one.tell("staged", body)
    two = make_clone(rig, one)
    assert row_of(rig).state == "quarantined"
    assert one.poll().work is False
    assert one.ask("POST", "/d/v1/assignment", {}).code == "device.quarantined"
    assert one.ask("POST", "/d/v1/permit", {}).code == "device.quarantined"
    assert one.ask("GET", "/d/v1/blobs/" + "ab" * 32).code == "device.quarantined"
    one.tell("failed", body, reason="install.write")
    one.tell("heartbeat", metrics=Metrics(errors=100, device_s=3600))
    assert rig.tallies(rollout)["install"] == 1
    found = rig.read(lambda conn: telemetry.evidence(conn, rollout))
    assert not found.control
    log = log_of(rig)
    assert [line["reason"] for line in log if line["kind"] == "security"] == ["security.clone"]
    assert state_of(two.enrol(None)) == "accepted"  # and so it goes on reporting


def test_two_sessions_in_turn_are_found_at_the_pace_of_their_polls(rig: Rig) -> None:
    """Not even the boot ids differ, as with two copies of one running virtual machine: each new session ends the other's."""
    one = rig.device()
    one.previous = ""
    one.log_in()
    two = one.copied()
    two.token = ""
    for turn in range(8):
        rig.now += 300
        device = (one, two)[turn % 2]
        if device.ask("GET", "/d/v1/poll").status == 401:
            device.log_in()
    assert row_of(rig).state == "quarantined"


def test_a_device_leaves_quarantine_with_a_new_key_that_a_person_approved(rig: Rig) -> None:
    one = rig.device()
    one.previous = ""
    two = make_clone(rig, one)
    right, wrong = key("right"), key("wrong")
    assert one.rekey(right).as_(RekeyAnswer).state == "pending"
    assert two.rekey(wrong).as_(RekeyAnswer).state == "pending"
    promise(rig, right)
    assert two.rekey(wrong).as_(RekeyAnswer).state == "pending"
    assert one.rekey(right).as_(RekeyAnswer).state == "done"
    one.key = right
    one.log_in()
    assert row_of(rig).state == "accepted"
    assert two.session().code == "sig.threshold"
    assert two.rekey(wrong).status != 200


def test_a_false_alarm_is_cleared_by_a_person_and_watched_anew(rig: Rig) -> None:
    one = rig.device()
    one.previous = ""
    make_clone(rig, one)

    def clear(conn: Any) -> None:
        found = admin_devices.device(conn, "d1")
        assert found is not None
        identity.clear(conn, found, "ada", "restored twice", int(rig.now))

    rig.write(clear)
    rig.now += 5
    one.log_in()
    assert row_of(rig).state == "accepted"
    make_clone(rig, one)
    assert row_of(rig).state == "quarantined"


def test_nothing_that_happens_to_one_device_makes_it_a_clone(rig: Rig) -> None:
    device = rig.device()
    device.previous = ""
    for round_ in range(6):
        rig.now += 600
        device.boot_id = f"boot-{round_}"
        device.log_in()
        device.tell("heartbeat")
        device.session()  # its answer was lost
        rig.now += 10
        device.log_in()
        if round_ % 2:
            rig.restart()
    kept = device.copied()
    for _ in range(3):
        rig.now += 600
        device.log_in()
        device.tell("failed", reason="install.write")
    restored = kept  # the memory of this morning, its boot id, its numbers
    rig.now += 600
    assert restored.ask("GET", "/d/v1/poll").status == 401
    for _ in range(3):
        rig.now += 600
        restored.log_in()
        restored.tell("failed", reason="install.write")
    assert row_of(rig).state == "accepted"


def test_a_report_that_comes_again_is_no_contradiction_and_two_that_differ_are_a_hint(
    rig: Rig,
) -> None:
    device = rig.device()
    first = device.event("failed", reason="install.write")
    for boot in ("boot-1", "boot-2", "boot-3"):
        device.boot_id = boot
        device.report(first)
    assert identity.trail_of(row_of(rig)).hints == ()
    device.seq -= 1
    other = device.event("failed", reason="boot.watchdog")
    device.report(other)
    device.report(other)
    assert [hint for _, hint in identity.trail_of(row_of(rig)).hints] == ["events"]
    assert row_of(rig).state == "accepted"
    # unsigned ones prove nothing: whoever has the token can send them
    device.seq -= 1
    device.report(EventItem(body=device.event("heartbeat").body))
    assert len(identity.trail_of(row_of(rig)).hints) == 1


def test_an_older_session_request_does_not_come_in_after_a_newer_one(rig: Rig) -> None:
    """A request that was held up on its way would otherwise end the session that came after it."""
    device = rig.device()
    nonce = json.loads(rig.ask("POST", "/d/v1/nonce").body)["nonce"]
    rig.now += 10
    device.log_in()
    late = _session_with(device, nonce)
    assert late.code == "session.expired"
    assert device.poll().work is False


def _session_with(device: Device, nonce: str) -> Answer:
    from tidegate.core import keys
    from tidegate.core.protocol import SESSION_TYPE, SessionBody, SessionRequest

    body = SessionBody(device_id=device.id, nonce=nonce, boot_id=device.boot_id)
    envelope = keys.sign_document(body, SESSION_TYPE, device.key)
    return device.rig.ask("POST", "/d/v1/session", SessionRequest(envelope=envelope))


def test_the_digest_that_a_person_compares_is_the_keys_own(rig: Rig) -> None:
    device = rig.device()
    public = device.key.public
    digest = device_key_sha256(public.keytype, public.public)
    assert row_of(rig).key_sha256 == digest
    assert key_beginning(key_words(digest)) == digest[:16]
    assert key_beginning(f"SHA256: {digest[:4]} {digest[4:20].upper()}") == digest[:20]
    for bad in ("", "acorn", digest[:15], "acorn " * 7 + "nothing", digest + "0"):
        with pytest.raises(Exception, match=r"request\.invalid"):
            key_beginning(bad)
