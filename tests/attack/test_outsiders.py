"""The theft exercise, the rows without a key of the server: one device, one uploader, one operator, against a real server process."""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.attack import works as vendor
from tests.attack.works import MAIN, Works
from tests.e2e.stranger import Stranger

from tidegate.core import codec, keys
from tidegate.core.bundle import CONTENT_TYPE
from tidegate.core.keys import Signer
from tidegate.core.protocol import EVENT_TYPE, Envelope, EventBody
from tidegate.publisher.sign import sign_bundle

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Works]:
    made = Works(tmp_path_factory.mktemp("t"))
    made.release(1)
    made.release(2)
    made.roll_out(2)
    yield made
    made.served.kill()


def _stranger(works: Works, name: str) -> Stranger:
    made = Stranger(works.served, name, works.claims[MAIN])
    made.join()
    return made


def _rows(works: Works, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(works.served.data / "tidegate.db", timeout=10)) as raw:
        return raw.execute(statement).fetchall()


def _told(device: Stranger, kind: str, body: dict[str, Any], **more: Any) -> tuple[int, Any]:
    device.seq += 1
    event = EventBody(
        device_id=more.pop("device_id", device.name),
        seq=device.seq,
        at=1,
        kind=kind,  # type: ignore[arg-type]
        update=body["update"],
        attempt=1,
        release_counter=2,
        **more,
    )
    envelope = keys.sign_document(event, EVENT_TYPE, more.pop("key", device.key))
    return device.send("events", {"events": [{"envelope": json.loads(codec.encode(envelope))}]})


def _assigned(device: Stranger) -> dict[str, Any]:
    status, answer = device.send("assignment", device.good("assignment"))
    assert status == 200, answer
    payload = keys.peek_payload(codec.decode(codec.encode(answer["envelope"]), Envelope))
    found: dict[str, Any] = json.loads(payload)
    return found


def test_one_device_with_its_key_lies_about_itself_and_counts_as_one(works: Works) -> None:
    mole, honest = _stranger(works, "mole"), _stranger(works, "honest")
    body = _assigned(mole)
    assert body["action"] == "install"
    for _ in range(20):  # it can: report that it went back, as often as it likes
        assert _told(mole, "reverted", body, reason="health.boot")[0] == 200
    view = works.control.rollout("gw1-to-2")
    assert view.count("reverted") + view.count("failed_after") + view.count("failed_before") <= 1
    assert view.state == "active", view.halt_reason
    # It can: fetch the bytes that it may have anyway.
    with contextlib.closing(works.served.connection()) as connection:
        path = f"/d/v1/blobs/{body['target']['sha256']}"
        connection.request("GET", path, headers={"authorization": f"Bearer {mole.token}"})
        assert connection.getresponse().status == 200
    # It cannot: speak for another, by name or by a session.
    before = _rows(works, "SELECT count(*) FROM event JOIN device ON device.row = event.device_row WHERE device.id = 'honest'")  # fmt: skip
    status, answer = _told(mole, "reverted", body, device_id="honest")
    assert status == 200
    assert answer["refused"]
    assert before == _rows(works, "SELECT count(*) FROM event JOIN device ON device.row = event.device_row WHERE device.id = 'honest'")  # fmt: skip
    imposter = Stranger(works.served, "honest", works.claims[MAIN])
    imposter.key = mole.key
    status, answer = imposter.send("session", imposter.good("session"))
    assert status == 422
    assert answer["code"] in {"sig.threshold", "sig.unknown_key"}
    # Nor ask what another is told, or be given an order under another's name.
    assert _assigned(mole)["device_id"] == "mole"
    assert _assigned(honest)["device_id"] == "honest"
    # Nor reach what people see and do.
    for path in ("/api/v1/devices", "/api/v1/rollouts", "/metrics/devices"):
        status, _ = works.served.ask("GET", path, headers={"authorization": f"Bearer {mole.token}"})
        assert status in {401, 404}, path


def _api(works: Works, token: str, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:  # fmt: skip
    raw = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    sent = {"authorization": f"Bearer {token}", "content-type": "application/json", **named}
    status, answer = works.served.ask(method, f"/api/v1{path}", raw, sent)
    found = json.loads(answer) if answer else {}
    return status, str(found.get("code", "")) if isinstance(found, dict) else ""


def _token(works: Works, role: str) -> str:
    made = works.control.api.post("/tokens", {"name": role, "role": role}, key=f"token-{role}")
    return str(made["token"])


def test_a_ci_uploaders_token_hands_in_and_decides_nothing(works: Works, tmp_path: Path) -> None:
    token = _token(works, "uploader")
    unsigned = works.build(3).bundle
    half = tmp_path / "half.bundle"
    half.write_bytes(unsigned.read_bytes())
    sign_bundle(half, works.offline.main[0])
    forged = tmp_path / "forged.bundle"
    forged.write_bytes(unsigned.read_bytes())
    sign_bundle(forged, vendor.signer("ci"))
    sign_bundle(forged, Signer.from_seed(b"c" * 32))
    for file, code in ((unsigned, "sig.unknown_key"), (half, "sig.threshold"), (forged, "sig.unknown_key")):  # fmt: skip
        found = _api(works, token, "POST", "/bundles", file.read_bytes(), content_type=CONTENT_TYPE)
        assert found[1] == code, file.name
    names = [one["name"] for one in works.control.api.pages("/releases")]
    assert "gw1-1.3.0" not in names
    rollout = {"name": "mine", "release": "gw1-1.2.0", "preset": "lab", "ring": [{"name": "all"}]}
    for path, body in (
        ("/rollouts", rollout),
        ("/rollouts/gw1-to-2/advance", {"ring": "all", "reason": "r"}),
        ("/releases/gw1-1.1.0/recall", {"reason": "r"}),
        ("/claims", {"name": "c", "product": MAIN, "max_count": 1}),
        ("/tokens", {"name": "t", "role": "admin"}),
        ("/root", {}),
    ):
        status, code = _api(works, token, "POST", path, body, idempotency_key=path[1:])
        assert status in {403, 404, 405}, (path, status, code)
        assert code in {"request.forbidden", "request.not_found", "request.method"}, path
    # It can: hand in what release signers signed.
    for one in works.offline.main:
        sign_bundle(unsigned, one)
    found = _api(works, token, "POST", "/bundles", unsigned.read_bytes(), content_type=CONTENT_TYPE)
    assert found[0] in {200, 201}, found


def test_one_operators_account_stops_alone_and_widens_with_another(
    works: Works, tmp_path: Path
) -> None:
    api = works.control.api
    for name, role in (("olga", "operator"), ("pia", "approver")):
        account = {"name": name, "role": role, "password": f"correct horse battery {name}"}
        api.post("/accounts", account, key=f"account-{name}")
    token = _token(works, "operator")
    wish = {"name": "x", "role": "admin", "password": "correct horse battery"}
    assert _api(works, token, "POST", "/accounts", wish, idempotency_key="a")[1] == "request.forbidden"  # fmt: skip
    assert _api(works, token, "POST", "/tokens", {"name": "t", "role": "admin"}, idempotency_key="b")[1] == "request.forbidden"  # fmt: skip
    # Halting takes one; going on after it takes two, and nobody is a second person to himself.
    name = "gw1-to-2"
    status, _ = _api(works, token, "POST", f"/rollouts/{name}/halt", {"reason": "stop"}, idempotency_key="h")  # fmt: skip
    assert status == 200
    assert works.control.rollout(name).state == "halted"
    status, _ = _api(works, token, "POST", f"/rollouts/{name}/resume", {"reason": "go on"}, idempotency_key="r")  # fmt: skip
    assert status in {200, 202}
    assert works.control.rollout(name).state == "halted"
    status, code = _api(works, token, "POST", f"/rollouts/{name}/approve", {"reason": "me too"}, idempotency_key="p")  # fmt: skip
    assert (status, code) == (403, "request.forbidden")
    assert works.control.rollout(name).state == "halted"
    # Nor does an operator sign anything: what he uploads is refused as anybody's.
    unsigned = works.build(4).bundle
    found = _api(works, token, "POST", "/bundles", unsigned.read_bytes(), content_type=CONTENT_TYPE)
    assert found[1] == "sig.unknown_key"
