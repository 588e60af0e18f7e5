"""What a device, or whoever pretends to be one, can send: every route answers in one of the protocol's words, and nothing is lost or let in."""

import contextlib
import hashlib
import http.client
import json
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.attack import problem_code, raw_request, spoiled
from tests.e2e.served import Served, serving
from tests.e2e.stranger import Stranger, give_claim

from tidegate.core import codec
from tidegate.core.keys import Signer, sign_envelope
from tidegate.core.protocol import ENROL_TYPE, EVENT_TYPE, SESSION_TYPE

pytestmark = pytest.mark.e2e

POSTS = ("enrol", "nonce", "session", "assignment", "permit", "events", "time")
CLAIM = "claim"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("bad")
    # Hundreds of wrong requests from one address are the point here.
    settings = folder / "tidegate.toml"
    settings.write_text("[joining]\nfailed_burst = 1000000\nburst = 1000000\n")
    with serving(folder / "data", "--config", str(settings)) as one:
        give_claim(one.data, CLAIM, count=10_000)
        yield one


@pytest.fixture
def device(served: Served, request: pytest.FixtureRequest) -> Stranger:
    name = "d-" + hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    made = Stranger(served, name, CLAIM)
    made.join()
    return made


@pytest.fixture(autouse=True)
def _unhurt(served: Served) -> Iterator[None]:
    """After every attack: the same process answers, and its log holds no fault."""
    pid, before = served.process.pid, len(served.log.read_text())
    yield
    assert served.process.poll() is None
    assert served.process.pid == pid
    assert served.ask("GET", "/healthz") == (200, b"ok\n")
    log = served.log.read_text()[before:]
    assert "Traceback" not in log, log[-3000:]


def _stored(served: Served, name: str) -> list[Any]:
    raw = sqlite3.connect(served.data / "tidegate.db", timeout=10)
    with contextlib.closing(raw):
        return raw.execute(
            "SELECT event.seq FROM event JOIN device ON device.row = event.device_row"
            " WHERE device.id = ? ORDER BY 1",
            (name,),
        ).fetchall()


@pytest.mark.parametrize("route", POSTS)
def test_every_spoiled_body_is_answered_in_the_protocols_words(
    device: Stranger, route: str
) -> None:
    faults = []
    for name, body in spoiled(device.good(route)):
        status, answer, kind = device.ask(route, body)
        if status == 200:
            json.loads(answer)
        elif status >= 500:
            faults.append((name, status, answer[:200]))
        else:
            problem_code(status, answer, kind)
    assert faults == []
    assert device.send(route, device.good(route))[0] in {200, 403, 404, 409}


@pytest.mark.parametrize("route", POSTS)
def test_a_body_over_a_megabyte_is_refused_before_it_is_read(
    served: Served, device: Stranger, route: str
) -> None:
    status, answer, kind = device.ask(route, b" " * ((1 << 20) + 1))
    assert problem_code(status, answer, kind) == "request.too_large"
    lie = f"POST /d/v1/{route} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {device.token}\r\n"
    lie += "content-length: 99999999999\r\n\r\n"
    assert b" 413 " in raw_request(served.port, lie.encode(), end=False)[:40]


@pytest.mark.parametrize("route", POSTS)
def test_an_endless_chunked_body_ends_at_the_limit(
    served: Served, device: Stranger, route: str
) -> None:
    head = f"POST /d/v1/{route} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {device.token}\r\n"
    head += "transfer-encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    answer = raw_request(served.port, head.encode() + chunk * 40, end=False)
    assert b" 413 " in answer[:40], answer[:200]


def test_a_body_that_ends_early_changes_nothing(served: Served, device: Stranger) -> None:
    body = codec.encode(device.good("events"))
    head = f"POST /d/v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {device.token}\r\n"
    head += f"content-length: {len(body)}\r\n\r\n"
    raw_request(served.port, head.encode() + body[:-1], patience_s=1)
    assert _stored(served, device.name) == []
    assert device.ask("events", body)[0] == 200
    assert _stored(served, device.name) == [(1,), (2,)]


def test_slow_bodies_keep_nobody_waiting(served: Served, device: Stranger) -> None:
    drips = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(100)]
    try:
        for number, one in enumerate(drips):
            one.sendall(
                b"POST /d/v1/enrol HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{"
                if number % 2
                else b"GET /d/v1/poll HTT"
            )
        began = time.monotonic()
        assert device.send("time", device.good("time"))[0] == 200
        assert time.monotonic() - began < 1
    finally:
        for one in drips:
            one.close()


@pytest.mark.parametrize(
    "head",
    [
        b"GET /d/v1/poll HTTP/1.1\r\nhost: x\r\nx-big: " + b"a" * (1 << 20) + b"\r\n\r\n",
        b"GET /d/v1/poll HTTP/1.1\r\nhost: x\r\n" + b"x: y\r\n" * 100_000 + b"\r\n",
        b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /d/v1/time HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n{}",
        b"POST /d/v1/time HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n{}",
        b"POST /d/v1/time HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=["long header", "many headers", "long path", "two lengths", "negative length", "smuggled", "tls", "http2"],
)  # fmt: skip
def test_a_request_that_is_none_costs_its_sender_the_connection(
    served: Served, head: bytes
) -> None:
    began = time.monotonic()
    answer = raw_request(served.port, head)
    assert answer == b"" or answer[9:10] == b"4", answer[:100]
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/d/v1/nothing", "request.not_found"),
        ("POST", "/d/v1/", "request.not_found"),
        ("POST", "/d/v1/poll", "request.method"),
        ("GET", "/d/v1/events", "request.method"),
        ("DELETE", "/d/v1/repo/timestamp.json", "request.method"),
        ("GET", "/d/v1/repo/../../online/director.key", "request.not_found"),
        ("GET", "/d/v1/repo/%2e%2e%2fonline%2fdirector.key", "request.not_found"),
        ("GET", "/d/v1/repo/product%2F..%2F..%2Fonline.json", "request.not_found"),
        ("GET", "/d/v1/blobs/../online/director.key", "request.not_found"),
        ("GET", "/d/v1/blobs/%2e%2e%2f%2e%2e%2fonline%2fdirector.key", "request.not_found"),
        ("GET", "/d/v1/blobs/" + "0" * 64 + "/../../../online/director.key", "request.not_found"),
        ("GET", "/d/v1/blobs/" + "Z" * 64, "request.not_found"),
        ("GET", "/d/v1/blobs/" + "0" * 100_00, "request.not_found"),
        ("GET", "/d/v1/blobs/%00", "request.not_found"),
    ],
)
def test_paths_lead_nowhere_but_where_they_should(
    served: Served, device: Stranger, method: str, path: str, code: str
) -> None:
    with contextlib.closing(served.connection()) as connection:
        connection.putrequest(method, path)
        connection.putheader("authorization", f"Bearer {device.token}")
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read()
    if path.startswith("/d/v1/repo/") and code == "request.not_found":
        # Every refresh of every device ends with a root that is not there yet: the answer costs no byte more than it must.
        assert (answer.status, body) == (404, b"")
        return
    assert problem_code(answer.status, body, answer.getheader("content-type")) == code


@pytest.mark.parametrize(
    "token",
    ["", "x", "Bearer", "Bearer ", "Bearer x", "Basic YTpi", "Bearer " + "A" * 60_000, "bearer \xff\xfe", "Bearer ../..", "changed"],
)  # fmt: skip
def test_a_token_that_is_none_opens_nothing(served: Served, device: Stranger, token: str) -> None:
    given = f"Bearer {device.token[:-4]}AAAA" if token == "changed" else token
    for method, path in [("GET", "/d/v1/poll"), ("GET", "/d/v1/blobs/" + "0" * 64)] + [
        ("POST", f"/d/v1/{one}") for one in ("assignment", "permit", "events", "time")
    ]:
        with contextlib.closing(served.connection()) as connection:
            connection.putrequest(method, path)
            connection.putheader("authorization", given.encode("latin-1"))
            connection.putheader("content-length", "2")
            connection.endheaders(b"{}")
            answer = connection.getresponse()
            body = answer.read()
        code = problem_code(answer.status, body, answer.getheader("content-type"))
        assert code == "session.expired"


DOCUMENTS = [("enrol", ENROL_TYPE), ("session", SESSION_TYPE), ("event", EVENT_TYPE)]


def _around(device: Stranger, document: str, envelope: object) -> tuple[int, bytes, str | None]:
    plain = codec.encode(envelope)
    if document == "event":
        return device.ask("events", b'{"events": [{"envelope": ' + plain + b"}]}")
    claim = b', "claim": "claim"' if document == "enrol" else b""
    return device.ask(document, b'{"envelope": ' + plain + claim + b"}")


def _was_refused(device: Stranger, answer: tuple[int, bytes, str | None], document: str) -> bool:
    status, body, kind = answer
    if document == "event":
        return status == 200 and (device.seq,) not in _stored(device.served, device.name)
    return status >= 400 and problem_code(status, body, kind) in {"sig.malformed", "sig.threshold", "sig.unknown_key"}  # fmt: skip


@pytest.mark.parametrize(("document", "payload_type"), DOCUMENTS)
def test_a_signed_document_that_wants_to_be_understood_and_is_not_is_refused(
    device: Stranger, document: str, payload_type: str
) -> None:
    device.seq = 7
    unknown = {**device.body(document), "mandate": {"max": 1}}
    critical = device.signed(payload_type, {**unknown, "crit": ["mandate"]})
    assert _was_refused(device, _around(device, document, critical), document)
    for odd in ("mandate", {"mandate": 1}, [1], [["mandate"]], 1):
        spoiled_crit = device.signed(payload_type, {**unknown, "crit": odd})
        assert _was_refused(device, _around(device, document, spoiled_crit), document)
    tolerated = device.signed(payload_type, {**unknown, "crit": []})
    assert not _was_refused(device, _around(device, document, tolerated), document)


@pytest.mark.parametrize(("document", "payload_type"), DOCUMENTS)
def test_no_document_stands_in_for_another_and_no_key_for_another(
    device: Stranger, document: str, payload_type: str
) -> None:
    device.seq = 9
    body = device.body(document)
    others = [one for _, one in DOCUMENTS if one != payload_type]
    wrong = [device.signed(other, body) for other in others]
    thief = Stranger(device.served, device.name, CLAIM)
    thief.key = Signer.from_seed(b"t" * 32)
    wrong.append(thief.signed(payload_type, body))
    for envelope in wrong:
        assert _was_refused(device, _around(device, document, envelope), document)


@pytest.mark.parametrize(("document", "payload_type"), DOCUMENTS)
def test_spoiled_signed_documents_are_refused_whoever_signed_them(
    device: Stranger, document: str, payload_type: str
) -> None:
    device.seq = 3
    faults = []
    for name, payload in spoiled(device.body(document)):
        if len(payload) > 60_000:
            continue  # an envelope that large is refused as a message; the spoiled bodies show it
        answer = _around(device, document, sign_envelope(payload, payload_type, device.key))
        if answer[0] >= 500:
            faults.append((name, answer[0], answer[1][:200]))
    assert faults == []


def test_a_name_that_only_looks_like_another_is_no_name(served: Served) -> None:
    for name in (
        "victim\n",
        "victim ",
        " victim",
        "vic\u200btim",
        "victim\x00",
        "VICTIM/../victim",
    ):
        twin = Stranger(served, name, CLAIM)
        plain = {**Stranger(served, "victim2", CLAIM).body("enrol"), "device_id": name}
        plain["public_key"] = twin.key.public.public
        answer = _around(twin, "enrol", twin.signed(ENROL_TYPE, plain))
        assert _was_refused(twin, answer, "enrol"), name


def test_events_of_another_device_are_never_counted(device: Stranger, served: Served) -> None:
    victim = Stranger(served, "victim", CLAIM)
    victim.join()
    events = device.good("events")
    events["events"][0]["body"]["device_id"] = "victim"
    status, answer = device.send("events", events)
    assert status == 200
    assert [1, "request.invalid"] in answer["refused"]
    assert _stored(served, "victim") == []


def test_an_event_sent_a_hundred_times_is_one_event(device: Stranger, served: Served) -> None:
    body = codec.encode(device.good("events"))

    def send() -> None:
        for _ in range(25):
            assert device.ask("events", body)[0] == 200

    threads = [threading.Thread(target=send) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert _stored(served, device.name) == [(1,), (2,)]


def test_a_session_request_is_good_once(device: Stranger) -> None:
    body = codec.encode(device.good("session"))
    assert device.ask("session", body)[0] == 200
    status, answer, kind = device.ask("session", body)
    assert problem_code(status, answer, kind) == "session.expired"


def test_a_claim_that_is_used_up_or_made_up_lets_nobody_in(served: Served) -> None:
    give_claim(served.data, "one-only", name="one", count=1)
    first = Stranger(served, "first", "one-only")
    assert first.send("enrol", first.good("enrol"))[1]["state"] == "accepted"
    for name, claim in [("second", "one-only"), ("third", "made-up"), ("fourth", "' OR 1=1 --")]:
        late = Stranger(served, name, claim)
        status, answer, kind = late.ask("enrol", codec.encode(late.good("enrol")))
        assert problem_code(status, answer, kind) == "claim.invalid"
    assert first.send("enrol", first.good("enrol"))[1]["state"] == "accepted"


def test_another_key_never_takes_over_a_name(device: Stranger, served: Served) -> None:
    thief = Stranger(served, device.name, CLAIM)
    thief.key = Signer.from_seed(b"t" * 32)
    status, answer, kind = thief.ask("enrol", codec.encode(thief.good("enrol")))
    assert problem_code(status, answer, kind) == "request.conflict"
    assert device.send("time", device.good("time"))[0] == 200


@pytest.mark.parametrize(
    "value",
    ["bytes=5-1", "bytes=-0", "bytes=99999999999999999999-", "bytes=0-0,5-6", "lines=1-2", "bytes=a-b", "bytes=" + "9" * 5000 + "-", "bytes=--5", ""],
)  # fmt: skip
def test_odd_ranges_are_answered_as_http_says(served: Served, device: Stranger, value: str) -> None:
    content = b"0123456789" * 1000
    digest = hashlib.sha256(content).hexdigest()
    path: Path = served.data / "blobs" / digest[:2] / digest
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with contextlib.closing(served.connection()) as connection:
        headers = {"authorization": f"Bearer {device.token}", "range": value}
        connection.request("GET", f"/d/v1/blobs/{digest}", headers=headers)
        answer: http.client.HTTPResponse = connection.getresponse()
        body = answer.read()
    assert answer.status in {200, 206, 416}
    if answer.status == 200:
        assert body == content
