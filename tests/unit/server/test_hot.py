"""The device side against bad input: each ends in one problem with a code."""

import asyncio
import hashlib
import json
import threading
from typing import Any

import msgspec
import pytest
from tests.unit.server.rig import Rig, ask

from tidegate.core import codec, keys
from tidegate.core.keys import Signer
from tidegate.core.protocol import (
    ENROL_TYPE,
    SESSION_TYPE,
    TIME_TYPE,
    EnrolBody,
    EnrolRequest,
    SessionBody,
    SessionRequest,
    TimeAnswer,
    TimeBody,
    TimeRequest,
)
from tidegate.server.store import device_queries

BLOB = bytes(range(256)) * 4096
DIGEST = hashlib.sha256(BLOB).hexdigest()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "request.invalid"),
        (b"{", 400, "request.invalid"),
        (b"[]", 400, "request.invalid"),
        (b'{"envelope": 5}', 400, "request.invalid"),
        (b"\xff\xfe\x00", 400, "request.invalid"),
        (b'{"envelope":{"payload":"!!","payloadType":"x","signatures":[]}}', 422, "sig.malformed"),
        (b"[" * 200_000, 400, "request.invalid"),
        (b" " * (1 << 20) + b" ", 413, "request.too_large"),
    ],
)
@pytest.mark.parametrize("route", ["enrol", "session"])
def test_a_bad_body_is_one_problem_with_a_code(
    rig: Rig, route: str, body: bytes, status: int, code: str
) -> None:
    answer = rig.ask("POST", f"/d/v1/{route}", body)
    assert (answer.status, answer.code) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert json.loads(answer.body)["type"] == f"urn:tidegate:error:{code}"


def test_a_body_is_not_read_further_than_its_limit(rig: Rig) -> None:
    read = 0

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 1 << 18
        return {"type": "http.request", "body": bytes(1 << 18), "more_body": True}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": "/d/v1/enrol",
        "headers": [],
        "client": None,
    }
    rig.loop.run_until_complete(rig.app(scope, receive, send))
    assert sent[0]["status"] == 413
    assert read <= (1 << 20) + (1 << 18)


def test_a_declared_length_over_the_limit_is_refused_unread(rig: Rig) -> None:
    answer = rig.ask("POST", "/d/v1/enrol", b"{}", content_length="99999999")
    assert answer.code == "request.too_large"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/d/v1/poll", 405), ("GET", "/d/v1/enrol", 405), ("DELETE", "/d/v1/repo/x", 405),
        ("GET", "/d/v1/", 404), ("GET", "/d/v1/nothing", 404), ("GET", "/d/v1/repo/9.root.json", 404),
        ("GET", "/d/v1/repo/../../etc/passwd", 404),
    ],
)  # fmt: skip
def test_wrong_roads_are_named(rig: Rig, method: str, path: str, status: int) -> None:
    assert rig.ask(method, path).status == status


@pytest.mark.parametrize("path", ["poll", "blobs/" + DIGEST])
@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer nonsense", "Basic Zm9v", "Bearer v1.AAAA"]
)
def test_without_a_good_token_nothing_is_told(rig: Rig, path: str, header: str) -> None:
    answer = rig.ask("GET", f"/d/v1/{path}", authorization=header)
    assert (answer.status, answer.code) == (401, "session.expired")


def test_a_poll_that_changed_nothing_is_304(rig: Rig) -> None:
    device = rig.device()
    first = device.ask("GET", "/d/v1/poll")
    again = device.ask("GET", "/d/v1/poll", if_none_match=first.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    rig.publish_trust()
    rig.rollout(rig.release(1))
    third = device.ask("GET", "/d/v1/poll", if_none_match=first.headers["etag"])
    assert third.status == 200


def test_polls_are_spread_around_the_interval(rig: Rig) -> None:
    rig.claim()
    found = {rig.device(f"d{number}").poll().poll_after_s for number in range(16)}
    assert len(found) == 8
    assert min(found) >= 285
    assert max(found) <= 315


def test_a_revoked_device_is_out_at_once(rig: Rig) -> None:
    from tidegate.server import devices

    device = rig.device()
    row = rig.read(lambda conn: device_queries.by_id(conn, "d1")).row
    rig.write(lambda conn: devices.set_state(conn, row, "revoked", int(rig.now)))
    assert device.ask("GET", "/d/v1/poll").code == "device.revoked"
    assert device.session().code == "device.revoked"


def test_a_device_that_left_and_was_accepted_again_needs_a_new_session(rig: Rig) -> None:
    from tidegate.server import devices

    device = rig.device()
    row = rig.read(lambda conn: device_queries.by_id(conn, "d1")).row
    for state in ("quarantined", "accepted"):
        rig.write(lambda conn, state=state: devices.set_state(conn, row, state, int(rig.now)))
    assert device.ask("GET", "/d/v1/poll").code == "session.expired"
    device.log_in()
    assert device.poll().work is False


# --- joining ---


def test_a_device_without_a_claim_waits_for_a_person(rig: Rig) -> None:
    device = rig.device(join=False)
    assert json.loads(device.enrol(None).body)["state"] == "pending"
    assert device.session().code == "device.pending"
    rig.claim()
    assert json.loads(device.enrol("claim-1").body)["state"] == "accepted"


def test_enrolling_again_is_safe_and_another_key_is_refused(rig: Rig) -> None:
    device = rig.device()
    assert json.loads(device.enrol("claim-1").body)["state"] == "accepted"
    device.key = Signer.from_seed(b"x" * 32)
    answer = device.enrol("claim-1")
    assert (answer.status, answer.code) == (409, "request.conflict")


@pytest.mark.parametrize(
    "values",
    [
        {"product": "other"}, {"expires_at": 1}, {"revoked_at": 1}, {"count": 0},
        {"serials": ["another"]},
    ],
)  # fmt: skip
def test_a_claim_that_does_not_fit_is_refused(rig: Rig, values: dict[str, Any]) -> None:
    rig.claim("token", **values)
    answer = rig.device(join=False).enrol("token")
    assert (answer.status, answer.code) == (403, "claim.invalid")
    assert rig.read(lambda conn: device_queries.by_id(conn, "d1")) is None


def test_a_claim_is_never_used_more_often_than_it_may(rig: Rig) -> None:
    rig.claim("token", count=3)
    devices = [rig.device(f"d{number}", join=False) for number in range(6)]

    def request(device: Any) -> bytes:
        body = EnrolBody(
            device_id=device.id, public_key=device.key.public.public, product="gw1",
            hardware=device.hardware,
        )  # fmt: skip
        envelope = keys.sign_document(body, ENROL_TYPE, device.key)
        return codec.encode(EnrolRequest(envelope=envelope, claim="token"))

    async def all_at_once() -> list[int]:
        answers = await asyncio.gather(
            *(ask(rig.app, "POST", "/d/v1/enrol", {}, request(one)) for one in devices)
        )
        return sorted(one.status for one in answers)

    assert rig.loop.run_until_complete(all_at_once()) == [200, 200, 200, 403, 403, 403]


def test_a_device_must_prove_the_key_that_it_names(rig: Rig) -> None:
    rig.claim()
    honest, thief = rig.device("d1", join=False), Signer.from_seed(b"t" * 32)
    body = EnrolBody(
        device_id="d1", public_key=honest.key.public.public, product="gw1", hardware=honest.hardware
    )
    envelope = keys.sign_document(body, ENROL_TYPE, thief)
    answer = rig.ask("POST", "/d/v1/enrol", EnrolRequest(envelope=envelope, claim="claim-1"))
    assert answer.code == "sig.threshold"


def test_a_session_request_cannot_be_played_again(rig: Rig) -> None:
    device = rig.device()
    nonce = json.loads(rig.ask("POST", "/d/v1/nonce").body)["nonce"]
    body = SessionBody(device_id="d1", nonce=nonce, boot_id="b")
    request = SessionRequest(envelope=keys.sign_document(body, SESSION_TYPE, device.key))
    assert rig.ask("POST", "/d/v1/session", request).status == 200
    assert rig.ask("POST", "/d/v1/session", request).code == "session.expired"


# --- bytes ---


@pytest.fixture
def blob(rig: Rig) -> Any:
    rig.app.services.blobs.put(DIGEST, [BLOB])
    device = rig.device()

    def get(method: str = "GET", **headers: str) -> Any:
        return device.ask(method, f"/d/v1/blobs/{DIGEST}", **headers)

    return get


def test_bytes_come_whole_or_from_where_they_were_cut_off(blob: Any) -> None:
    whole = blob()
    assert whole.body == BLOB
    tag = whole.headers["etag"]
    assert tag == f'"{DIGEST}"'
    part = blob(range="bytes=300000-", if_range=tag)
    assert (part.status, part.body) == (206, BLOB[300_000:])
    assert part.headers["content-range"] == f"bytes 300000-{len(BLOB) - 1}/{len(BLOB)}"
    assert int(part.headers["content-length"]) == len(part.body)
    changed = blob(range="bytes=300000-", if_range='"other"')
    assert (changed.status, changed.body) == (200, BLOB)


def test_head_tells_the_size_and_sends_nothing(blob: Any) -> None:
    answer = blob("HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-length"] == str(len(BLOB))
    assert answer.headers["accept-ranges"] == "bytes"


def test_a_range_outside_is_416_with_the_size(blob: Any) -> None:
    answer = blob(range=f"bytes={len(BLOB)}-")
    assert answer.status == 416
    assert answer.headers["content-range"] == f"bytes */{len(BLOB)}"


def test_what_the_client_has_is_not_sent_again(blob: Any) -> None:
    assert blob(if_none_match=f'"{DIGEST}"').status == 304


def test_an_unknown_blob_is_404(rig: Rig) -> None:
    assert rig.device().ask("GET", "/d/v1/blobs/" + "0" * 64).status == 404


# --- time, events ---


@pytest.mark.parametrize("now", [5, 4_070_908_800])
def test_time_is_told_whatever_the_clock_says(rig: Rig, now: int) -> None:
    rig.now = now
    device = rig.device()
    answer = device.ask("POST", "/d/v1/time", TimeRequest(nonce="ab" * 16)).as_(TimeAnswer)
    director = rig.app.services.keys.director.public
    body = keys.open_document(answer.envelope, TIME_TYPE, TimeBody, {director.keyid: director})
    assert (body.time, body.nonce, body.device_id) == (now, "ab" * 16, "d1")


def test_more_events_than_can_wait_are_refused_for_later(rig: Rig) -> None:
    device = rig.device()
    started, gate = threading.Event(), threading.Event()

    def block(_: object) -> None:
        started.set()
        gate.wait(5)

    rig.app.services.settings = msgspec.structs.replace(rig.app.services.settings, events_queue=1)
    rig.app.store.write(block)
    assert started.wait(5)
    waiting = [rig.app.store.write(lambda _: None) for _ in range(3)]
    answer = device.ask("POST", "/d/v1/events", b"{}")
    gate.set()
    assert (answer.status, answer.code) == (503, "server.busy")
    assert answer.headers["retry-after"] == "5"
    for one in waiting:
        one.result(5)


def test_an_event_of_another_device_is_refused(rig: Rig) -> None:
    one, two = rig.device("d1"), rig.device("d2")
    foreign = two.event("heartbeat")
    answer = one.report(foreign)
    assert answer.refused == ((1, "request.invalid"),)
