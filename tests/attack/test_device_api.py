"""Security reference 10 F, the device API: what a device, a thief of a token, or nobody at all may try, against a server in process."""

import asyncio
import base64
import dataclasses
import hashlib
import hmac
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.server.rig import Answer, Device, Rig

from tidegate.core import keys
from tidegate.core.codec import INTEGER_MAX
from tidegate.core.keys import Signer
from tidegate.core.protocol import (
    ENROL_TYPE,
    EVENT_TYPE,
    REKEY_TYPE,
    SESSION_TYPE,
    SIGNED_KINDS,
    EnrolBody,
    EnrolRequest,
    EventItem,
    EventsAnswer,
    EventsRequest,
    Metrics,
    PermitRequest,
    RekeyBody,
    RekeyRequest,
    SessionBody,
    SessionRequest,
)
from tidegate.rollout.gates.metric import Metric
from tidegate.rollout.view import View
from tidegate.server import asgi, devices, identity, online, telemetry
from tidegate.server.auth import Actor
from tidegate.server.limits import Door
from tidegate.server.store import device_queries, identity_rows
from tidegate.server.tokens import DAY_S

ROOT = Actor(name="root", role="admin")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path / "data")
    made.publish_trust()
    yield made
    made.close()


def nonce_of(rig: Rig) -> str:
    return str(json.loads(rig.ask("POST", "/d/v1/nonce").body)["nonce"])


def session_with(device: Device, nonce: str, signer: Signer | None = None) -> bytes:
    body = SessionBody(device_id=device.id, nonce=nonce, boot_id="b")
    envelope = keys.sign_document(body, SESSION_TYPE, signer or device.key)
    return msgspec.json.encode(SessionRequest(envelope=envelope))


def row_of(rig: Rig, device_id: str) -> Any:
    return rig.read(lambda conn: device_queries.by_id(conn, device_id))


# --- one device in the name of another ------------------------------------------------------------------------------------


def test_a_device_reports_nothing_for_another(rig: Rig) -> None:
    one, two = rig.device("d1"), rig.device("d2")
    rollout = rig.rollout(rig.release(1))
    body = two.assignment()
    two.tell("staged", body)
    # its name in its own envelope, the other's name in its own, the other's update under its own name
    for kind in ("confirmed", "failed", "heartbeat"):
        stolen = two.event(kind, body, reason="install.write" if kind == "failed" else None)
        if stolen.envelope is None:
            stolen = EventItem(body=stolen.body)
        before = rig.tallies(rollout)
        one.ask("POST", "/d/v1/events", EventsRequest(events=(stolen,)))
        own = dataclasses.replace(one)
        own.key = one.key
        own.report(own.event(kind, body, reason="install.write" if kind == "failed" else None))
        one.seq = own.seq
        assert rig.tallies(rollout) == before
    assert row_of(rig, "d2").acked_seq == 1


def test_a_device_gets_no_permit_for_anothers_update(rig: Rig) -> None:
    one, two = rig.device("d1"), rig.device("d2")
    rig.rollout(rig.release(1))
    body = two.assignment()
    two.tell("staged", body)
    assert body.target is not None
    request = PermitRequest(
        nonce="ab" * 16, update=body.update or "", attempt=1, slot_sha256=body.target.sha256,
        release_counter=body.target.release_counter,
    )  # fmt: skip
    assert one.ask("POST", "/d/v1/permit", request).code == "request.not_found"
    assert one.assignment().device_id == "d1"


def test_a_session_for_another_device_is_not_opened(rig: Rig) -> None:
    one, two = rig.device("d1"), rig.device("d2")
    answer = rig.ask("POST", "/d/v1/session", session_with(two, nonce_of(rig), one.key))
    assert answer.code == "sig.threshold"
    assert two.poll().work is False


# --- what a stolen token can and cannot ------------------------------------------------------------------------------------


def test_a_stolen_token_reports_no_outcome_and_changes_no_key(rig: Rig) -> None:
    """The thief has the token and everything that ever went over the wire, but not the key."""
    device = rig.device("d1")
    rollout = rig.rollout(rig.release(1))
    body = device.assignment()
    signed = device.event("downloading", body)
    device.report(signed)
    device.tell("staged", body)
    device.permit(body)
    before = rig.tallies(rollout)
    thief = Signer.from_seed(b"t" * 32)
    for kind in sorted(SIGNED_KINDS):
        plain = device.event("heartbeat", body).body
        assert plain is not None
        told = msgspec.structs.replace(plain, kind=kind, reason="boot.watchdog")
        for item in (
            EventItem(body=told),
            EventItem(envelope=keys.sign_document(told, EVENT_TYPE, thief)),
            _with_keyid(told, thief, device.key.public.keyid),
        ):
            request = EventsRequest(events=(item,))
            device.ask("POST", "/d/v1/events", request).as_(EventsAnswer)
            assert rig.tallies(rollout) == before
    held = row_of(rig, "d1").key_sha256
    headers = {"authorization": f"Bearer {device.token}"}
    nonce = nonce_of(rig)
    rekey = RekeyBody(device_id="d1", nonce=nonce, old_key=held, public_key=thief.public.public)
    envelope = keys.sign_document(rekey, REKEY_TYPE, thief)
    answer = rig.ask("POST", "/d/v1/rekey", RekeyRequest(envelope=envelope), **headers)
    assert answer.code == "sig.threshold"
    enrol = EnrolBody(
        device_id="d1", public_key=thief.public.public, product="gw1", hardware=device.hardware
    )
    request_ = EnrolRequest(envelope=keys.sign_document(enrol, ENROL_TYPE, thief))
    assert rig.ask("POST", "/d/v1/enrol", request_, **headers).code == "request.conflict"
    other = msgspec.structs.replace(enrol, device_id="d9")
    request_ = EnrolRequest(envelope=keys.sign_document(other, ENROL_TYPE, thief))
    answer = rig.ask("POST", "/d/v1/enrol", request_, **headers)
    assert json.loads(answer.body)["state"] == "pending"
    session = session_with(device, nonce_of(rig), thief)
    assert rig.ask("POST", "/d/v1/session", session, **headers).code == "sig.threshold"
    assert row_of(rig, "d1").key_sha256 == held


def test_a_stolen_token_does_not_bar_a_device_from_releases_for_ever(rig: Rig) -> None:
    device = rig.device("d1")
    rig.rollout(rig.release(1))
    device.floor = 0xFFFF  # the thief's word
    assert device.assignment().action == "none"
    device.floor = 0
    rig.now += 1
    device.log_in()
    assert device.assignment().action == "install"
    assert row_of(rig, "d1").security_floor == 1, (
        "an image of which there is one may be the one it confirmed"
    )


@pytest.mark.parametrize("spoiled", [False, True])
def test_a_stolen_token_does_not_use_up_the_numbers_of_reports(rig: Rig, spoiled: bool) -> None:
    """What is below the highest number does not count any more; so nobody sets it without the key."""
    device = rig.device("d1")
    item = device.event("heartbeat")
    assert item.body is not None
    told = msgspec.structs.replace(item.body, seq=INTEGER_MAX, **({"reason": "no.such"} if spoiled else {}))  # fmt: skip
    rig.now += 600
    request = EventsRequest(events=(EventItem(body=told),))
    assert device.ask("POST", "/d/v1/events", request).code == "session.expired"
    assert row_of(rig, "d1").acked_seq < 10
    device.seq += 1_000_000
    device.report(device.event("heartbeat"))
    assert row_of(rig, "d1").acked_seq == device.seq

    device.log_in()  # the server was set back by ages, and the device shows its key
    device.seq += telemetry.AHEAD_MAX + 5
    device.report(device.event("heartbeat"))
    assert row_of(rig, "d1").acked_seq == device.seq


def _with_keyid(body: Any, signer: Signer, keyid: str) -> EventItem:
    """Sign with one key in the name of another."""
    envelope = keys.sign_document(body, EVENT_TYPE, signer)
    renamed = msgspec.structs.replace(envelope.signatures[0], keyid=keyid)
    return EventItem(envelope=msgspec.structs.replace(envelope, signatures=(renamed,)))


def test_a_stolen_token_ends_with_the_devices_next_session(rig: Rig) -> None:
    device = rig.device("d1")
    stolen = device.token
    rig.now += 1
    device.log_in()
    answer = rig.ask("GET", "/d/v1/poll", authorization=f"Bearer {stolen}")
    assert (answer.status, answer.code) == (401, "session.expired")


def test_a_signature_does_not_stand_for_a_document_of_another_type(rig: Rig) -> None:
    device = rig.device("d1")
    rollout = rig.rollout(rig.release(1))
    body = device.assignment()
    item = device.event("confirmed", body)
    assert item.envelope is not None
    for kind in (ENROL_TYPE, SESSION_TYPE, REKEY_TYPE):
        wrong = msgspec.structs.replace(item.envelope, payload_type=kind)
        device.ask("POST", "/d/v1/events", EventsRequest(events=(EventItem(envelope=wrong),)))
    assert "confirmed" not in rig.tallies(rollout)
    session = json.loads(session_with(device, nonce_of(rig)))
    session["envelope"]["payloadType"] = EVENT_TYPE
    assert rig.ask("POST", "/d/v1/session", json.dumps(session).encode()).code == "sig.malformed"


# --- tokens ----------------------------------------------------------------------------------------------------------------


def forged(rig: Rig, *, secret: bytes | None = None, **changed: int) -> str:
    """Make a token as the server does, with anything changed: what a thief of its secrets could, on that day."""
    now = int(rig.now)
    day = changed.pop("key_day", now // DAY_S)
    fields = {
        "row": row_of(rig, "d1").row, "tenant": 0, "key_gen": row_of(rig, "d1").key_gen,
        "issued": now, "expires": now + 1000, "kid": now // DAY_S & 0xFF,
    } | changed  # fmt: skip
    salts = dict(rig.read(identity_rows.salts))
    own = (rig.folder / online.FOLDER / online.SECRET_NAME).read_bytes()
    head = struct.pack(">QIHIIB", *fields.values())
    key = hmac.digest(secret or own, b"mac" + salts.get(day, b""), "sha256")
    mac = hmac.digest(key, head, "sha256")[:16]
    return "v1." + base64.urlsafe_b64encode(head + mac).decode()


def test_a_token_with_anything_wrong_in_it_is_refused(rig: Rig) -> None:
    device = rig.device("d1")
    now = int(rig.now)
    kid = now // DAY_S & 0xFF
    assert rig.ask("GET", "/d/v1/poll", authorization=f"Bearer {forged(rig)}").status == 200
    wrong = {
        "another secret": forged(rig, secret=b"x" * 32),
        "another device": forged(rig, row=2),
        "row 0": forged(rig, row=0),
        "no such row": forged(rig, row=1 << 40),
        "another tenant": forged(rig, tenant=1),
        "an older key of the device": forged(rig, key_gen=0),
        "a later key of the device": forged(rig, key_gen=2),
        "expired": forged(rig, issued=now - 100, expires=now),
        "of the future": forged(rig, issued=now + 301, expires=now + 400),
        "another kid": forged(rig, kid=(kid + 1) & 0xFF),
        "a day without a key": forged(rig, issued=now - DAY_S, key_day=now // DAY_S),
        "cut": device.token[:-4],
        "longer": device.token + "AAAA",
        "a blank in it": device.token[:10] + " " + device.token[10:],
        "another scheme": "",
    }
    for what, token in wrong.items():
        answer = rig.ask("GET", "/d/v1/poll", authorization=f"Bearer {token}")
        assert (answer.status, answer.code) == (401, "session.expired"), what
    for header in ("", "Basic eDp5", f"bearer{device.token}", f"Bearer  {device.token}"):
        assert rig.ask("GET", "/d/v1/poll", authorization=header).status == 401
    assert rig.ask("GET", "/d/v1/poll").status == 401
    assert device.poll().work is False


def test_the_keys_of_tokens_change_daily_and_old_ones_are_destroyed(rig: Rig) -> None:
    device = rig.device("d1")
    seen = set()
    for day in range(5):
        rig.now += DAY_S
        device.log_in()
        salts = dict(rig.read(identity_rows.salts))
        assert int(rig.now) // DAY_S in salts
        assert len(salts) <= 4
        seen |= set(salts.values())
        assert len(seen) >= day + 1
    token = device.token
    rig.restart()
    assert rig.ask("GET", "/d/v1/poll", authorization=f"Bearer {token}").status == 200
    # a backup of the secret of five days ago, and the salts of then, make nothing that is taken today
    assert len(set(dict(rig.read(identity_rows.salts)).values()) & seen) <= 4


def test_tokens_live_a_day_give_or_take_a_tenth(rig: Rig) -> None:
    device = rig.device("d1")
    lives = []
    for _ in range(40):
        rig.now += 1
        lives.append(json.loads(device.session().body)["expires_in_s"])
    assert min(lives) >= 0.9 * DAY_S
    assert max(lives) <= 1.1 * DAY_S
    assert len(set(lives)) > 10


def test_tokens_of_revoked_and_of_changed_keys_are_over_at_once(rig: Rig) -> None:
    one, two = rig.device("d1"), rig.device("d2")
    row = row_of(rig, "d1").row
    rig.write(lambda conn: devices.set_state(conn, row, "revoked", int(rig.now)))
    two.rekey(Signer.from_seed(b"n" * 32))
    assert one.ask("GET", "/d/v1/poll").code == "device.revoked"
    assert two.ask("GET", "/d/v1/poll").code == "session.expired"


# --- replays ---------------------------------------------------------------------------------------------------------------


def test_a_session_request_is_good_once_also_across_a_restart(rig: Rig) -> None:
    device = rig.device("d1")
    request = session_with(device, nonce_of(rig))
    assert rig.ask("POST", "/d/v1/session", request).status == 200
    assert rig.ask("POST", "/d/v1/session", request).code == "session.expired"
    rig.restart()
    assert rig.ask("POST", "/d/v1/session", request).code == "session.expired"


def test_a_nonce_is_good_for_one_request_for_a_short_while_and_made_here(rig: Rig) -> None:
    one, two = rig.device("d1"), rig.device("d2")
    nonce = nonce_of(rig)
    assert rig.ask("POST", "/d/v1/session", session_with(one, nonce)).status == 200
    assert rig.ask("POST", "/d/v1/session", session_with(two, nonce)).code == "session.expired"
    late = nonce_of(rig)
    rig.now += 121
    assert rig.ask("POST", "/d/v1/session", session_with(one, late)).code == "session.expired"
    own = session_with(one, "ab" * 16)
    assert rig.ask("POST", "/d/v1/session", own).code == "session.expired"


def test_replayed_requests_never_look_like_a_second_device(rig: Rig) -> None:
    """Whoever reads along without TLS may send everything again, in any order, for days."""
    device = rig.device("d1")
    device.previous = ""
    recorded: list[tuple[str, str, bytes, str]] = []
    for round_ in range(4):
        rig.now += 1000
        device.boot_id = f"b{round_}"
        nonce = nonce_of(rig)
        body = SessionBody(
            device_id="d1", nonce=nonce, boot_id=device.boot_id, previous=device.previous
        )
        request = msgspec.json.encode(
            SessionRequest(envelope=keys.sign_document(body, SESSION_TYPE, device.key))
        )
        answer = rig.ask("POST", "/d/v1/session", request)
        device.token = json.loads(answer.body)["token"]
        device.previous = hashlib.sha256(device.token.encode()).hexdigest()[:32]
        event = msgspec.json.encode(
            EventsRequest(events=(device.event("failed", reason="install.write"),))
        )
        device.ask("POST", "/d/v1/events", event)
        recorded += [
            ("POST", "/d/v1/session", request, ""),
            ("GET", "/d/v1/poll", b"", device.token),
        ]
        recorded += [("POST", "/d/v1/events", event, device.token)]
        for method, path, sent, token in [*recorded, *reversed(recorded)]:
            rig.ask(method, path, sent, authorization=f"Bearer {token}")
    assert row_of(rig, "d1").state == "accepted"
    assert device.poll().work is False
    assert not identity.trail_of(row_of(rig, "d1")).hints


# --- joining ---------------------------------------------------------------------------------------------------------------


def test_no_claim_that_is_not_good_lets_anybody_in(rig: Rig) -> None:
    now = int(rig.now)
    rig.claim("used up", count=1)
    assert rig.device("first", join=False).enrol("used up").status == 200
    rig.claim("expired", expires_at=now)
    rig.claim("other product", product="gw2")
    rig.claim("revoked", revoked_at=now)
    rig.claim("others", serials=["serial-somebody"])
    for number, token in enumerate(
        ["used up", "expired", "other product", "revoked", "others", "none", "", "x" * 200]
    ):
        device = rig.device(f"d{number}", join=False)
        assert device.enrol(token).code == "claim.invalid", token
        assert row_of(rig, f"d{number}") is None
    assert rig.device("d9", join=False).enrol("y" * 201).status == 400


def test_nothing_is_written_before_the_proof_was_checked(rig: Rig) -> None:
    device, other = rig.device("d1", join=False), Signer.from_seed(b"o" * 32)
    body = EnrolBody(
        device_id="d1", public_key=device.key.public.public, product="gw1", hardware=device.hardware
    )
    envelope = keys.sign_document(body, ENROL_TYPE, other)
    answer = rig.ask("POST", "/d/v1/enrol", EnrolRequest(envelope=envelope, claim=rig.claim()))
    assert answer.code == "sig.threshold"
    nobody = msgspec.structs.replace(envelope, signatures=())
    assert rig.ask("POST", "/d/v1/enrol", EnrolRequest(envelope=nobody)).status == 422
    assert row_of(rig, "d1") is None
    used = rig.read(lambda conn: device_queries.claim_by_token(conn, _sha("claim-1"))).used
    assert used == 0


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_who_keeps_failing_waits_and_a_site_behind_one_address_is_not_locked_out(rig: Rig) -> None:
    rig.address = "203.0.113.7"
    site = [rig.device(f"d{number}") for number in range(3)]
    stranger = rig.device("unknown", join=False)
    codes = []
    for _ in range(400):
        body = session_with(stranger, "ab" * 16)
        codes.append(rig.ask("POST", "/d/v1/session", body).code)
    assert codes[0] == "device.unknown"
    assert codes[-1] == "request.rate_limited"
    answer = rig.ask("POST", "/d/v1/session", session_with(stranger, "ab" * 16))
    assert answer.status == 429
    assert answer.headers["retry-after"]
    # devices of the site that hold a session do not notice
    assert all(one.poll().work is False for one in site)
    # from elsewhere everything is as before
    rig.address = "203.0.113.8"
    assert site[0].session().status == 200
    # and the site itself may join again as soon as the storm is over
    rig.address = "203.0.113.7"
    rig.now += 2
    assert site[1].session().status == 200
    rig.now += 120
    assert all(one.session().status == 200 for one in site for _ in range(20))


def test_an_ipv6_network_is_one_address() -> None:
    door = Door(per_s=1, burst=10, bad_per_s=1, bad=10)
    taken = [door.admits(f"2001:db8:1:2::{number:x}", 0.0) for number in range(20)]
    assert taken == [True] * 10 + [False] * 10
    assert door.admits("2001:db8:1:3::1", 0.0)
    assert door.admits("::ffff:192.0.2.1", 0.0)
    mapped = [door.admits("192.0.2.1", 0.0) for _ in range(10)]
    assert mapped == [True] * 9 + [False]


# --- floods, lies and slow requests ----------------------------------------------------------------------------------------


def test_a_flood_of_reports_is_answered_plainly_and_harms_nobody_else(rig: Rig) -> None:
    flood, other = rig.device("d1"), rig.device("d2")
    statuses: list[int] = []
    answer: Answer | None = None
    for _ in range(60):
        items = tuple(flood.event("heartbeat") for _ in range(256))
        answer = flood.ask("POST", "/d/v1/events", EventsRequest(events=items))
        statuses.append(answer.status)
    assert statuses[0] == 200
    assert answer is not None
    assert (answer.status, answer.code) == (429, "request.rate_limited")
    assert "more events than a device has to tell" in json.loads(answer.body)["detail"]
    assert answer.headers["retry-after"]
    assert sum(status == 200 for status in statuses) * 256 <= 10_000
    assert other.tell("heartbeat").acked_seq == 1
    assert flood.poll().work is False
    rig.now += 200
    assert flood.tell("heartbeat").acked_seq > 0


def metric_verdict(rig: Rig, rollout: int) -> bool:
    evidence = rig.read(lambda conn: telemetry.evidence(conn, rollout))
    gate = Metric(ratio=1.5, odds=1000, exposure_s=3600, devices=3, clump=1.0)
    return gate.judge(View(evidence=evidence), int(rig.now)).passed


def test_one_device_that_lies_stops_no_rollout_and_three_that_are_ill_do(rig: Rig) -> None:
    rig.now += 30 * 86_400
    updated = [rig.device(f"u{number}") for number in range(6)]
    control = [rig.device(f"c{number}") for number in range(6)]
    rollout = rig.rollout(rig.release(1))
    for one in updated:
        one.run(one.assignment())
    rig.now += 40 * 3600
    for one in [*updated, *control]:
        one.log_in()
        counter = 1 if one in updated else 0
        one.tell(
            "heartbeat", running_counter=counter, metrics=Metrics(errors=2, device_s=40 * 3600)
        )
    assert metric_verdict(rig, rollout)
    for _ in range(20):
        lie = Metrics(errors=1_000_000, device_s=1)
        updated[0].tell("heartbeat", running_counter=1, metrics=lie)
    assert metric_verdict(rig, rollout)
    found = rig.read(lambda conn: telemetry.evidence(conn, rollout)).updated["gw1-r1"]
    assert found.top > 1000
    assert found.errors < 100_000
    for one in updated[1:4]:
        one.tell("heartbeat", running_counter=1, metrics=Metrics(errors=60, device_s=3600))
    assert not metric_verdict(rig, rollout)


def test_no_device_has_lived_longer_than_the_clock_says(rig: Rig) -> None:
    """Device time that was never lived would water down the errors of all the others."""
    liar = rig.device("d1")
    rollout = rig.rollout(rig.release(1))
    for _ in range(50):
        liar.tell("heartbeat", metrics=Metrics(errors=0, device_s=40_000_000))
    rig.now += 3600
    liar.tell("heartbeat", metrics=Metrics(errors=0, device_s=40_000_000))
    found = rig.read(lambda conn: telemetry.evidence(conn, rollout)).control["gw1-r1"]
    assert found.device_s <= 86_400 + 3600


def test_an_oversized_body_is_refused_before_it_was_read(rig: Rig) -> None:
    device = rig.device("d1")
    big = b" " * ((1 << 20) + 1)
    for path in ("enrol", "session", "rekey", "nonce", "events", "assignment", "permit", "time"):
        answer = device.ask("POST", f"/d/v1/{path}", big)
        assert (answer.status, answer.code) == (413, "request.too_large"), path
    said = device.ask("POST", "/d/v1/events", b"{}", content_length=str(1 << 40))
    assert said.status == 413


def test_a_body_that_drips_or_stalls_is_given_up(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "_PIECE_S", 0.2)
    monkeypatch.setattr(asgi, "_BODY_S", 0.5)
    asked = 0

    async def post(pause_s: float) -> int:
        status = 0

        async def receive() -> dict[str, Any]:
            nonlocal asked
            asked += 1
            await asyncio.sleep(pause_s)
            return {"type": "http.request", "body": b" ", "more_body": True}

        async def send(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)

        scope = {
            "type": "http", "method": "POST", "path": "/d/v1/nonce", "headers": [],
            "query_string": b"", "client": ("192.0.2.1", 1), "raw_path": b"/d/v1/nonce",
        }  # fmt: skip
        await asyncio.wait_for(rig.app(scope, receive, send), 5)
        return status

    assert rig.loop.run_until_complete(post(60)) == 400
    asked = 0
    assert rig.loop.run_until_complete(post(0.05)) == 400
    assert asked < 20
