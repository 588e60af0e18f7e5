"""A line an event, with the id of its request; and nothing that is secret in any of them."""

import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.server.caller import ask_over
from tests.unit.server.rig import Rig
from tests.unit.server.test_api_routes import Api

from tidegate.core.protocol import EventsRequest
from tidegate.server import logs
from tidegate.server.auth import Actor, Auth
from tidegate.server.store.origin import ORIGIN, Origin

BOSS = Actor(name="boss", role="admin")


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Everything that is logged from now on, down to `debug`, as JSON lines."""
    written = io.StringIO()
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers.clear()
    monkeypatch.setattr(sys, "stderr", written)
    logs.set_up("debug", "json")
    yield written
    root.handlers[:] = before
    root.setLevel(level)


def told(written: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_a_request_of_a_person_is_one_line_that_its_answer_names(
    rig: Rig, lines: io.StringIO
) -> None:
    api = Api(rig)
    answer = api.call("GET", "/rollouts?state=active", role="viewer")
    found = [one for one in told(lines) if one["logger"] == "tidegate.access"]
    assert len(found) == 1
    line = found[0]
    assert line["request"] == answer.headers["x-request-id"]
    assert (line["method"], line["path"], line["status"]) == ("GET", "/api/v1/rollouts", 200)
    assert (line["actor"], line["client"]) == ("token:t-viewer", "192.0.2.1")
    assert "active" not in json.dumps(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["at"])


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("abcdef12-3456", True), ("0" * 64, True), ("0" * 65, False), ("short", False),
        ("a b c d e f g h", False), ('"}, "level": "x', False),
        ("zeilen\numbruch", False),
    ],
)  # fmt: skip
def test_an_id_is_taken_over_when_it_looks_like_one(rig: Rig, given: str, taken: bool) -> None:
    for path in ("/d/v1/nonce", "/api/v1/rollouts"):
        answer = rig.loop.run_until_complete(
            ask_over(rig.app, "POST", path, {"x-request-id": given}, b"", b"")
        )
        found = answer.headers["x-request-id"]
        assert (found == given) == taken
        assert re.fullmatch(r"[0-9a-f]{16}", found) or taken


def test_lines_of_a_fault_carry_the_id_that_the_caller_got(
    rig: Rig, lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("on purpose")

    device = rig.device()
    monkeypatch.setattr("tidegate.server.telemetry.open_items", fail)
    answer = device.ask("POST", "/d/v1/events", EventsRequest(events=(device.event("heartbeat"),)))
    assert answer.status == 500
    line = next(one for one in told(lines) if "error" in one)
    assert line["request"] == answer.headers["x-request-id"]
    assert "ZeroDivisionError: on purpose" in line["error"]
    assert line["level"] == "error"


def test_polls_are_counted_and_not_logged(rig: Rig, lines: io.StringIO) -> None:
    device = rig.device()
    before = lines.getvalue()
    for _ in range(20):
        rig.ask("GET", "/d/v1/poll", authorization=f"Bearer {device.token}")
    assert lines.getvalue() == before
    assert rig.app.services.counters.polls == 20


def test_requests_are_counted_by_class_of_status(rig: Rig) -> None:
    api = Api(rig)
    api.call("GET", "/rollouts")
    api.call("GET", "/rollouts/none")
    assert 'tidegate_requests_total{status="2xx"} 1.0' in rig.scrape()
    assert 'tidegate_requests_total{status="4xx"} 1.0' in rig.scrape()


def test_a_line_stays_one_line_whatever_is_in_it(lines: io.StringIO) -> None:
    logging.getLogger("tidegate.x").warning("a\nb %s", "\x1b[31m\u2028")
    assert len(lines.getvalue().rstrip("\n").split("\n")) == 1
    assert told(lines)[0]["message"] == "a\nb \x1b[31m\u2028"


def test_text_carries_the_id_too(
    rig: Rig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = logging.LogRecord("tidegate.x", logging.INFO, "", 1, "hello", None, None)
    before = ORIGIN.set(Origin("abc", ""))
    logs._Numbered().filter(record)
    ORIGIN.reset(before)
    assert logging.Formatter(logs.TEXT).format(record).endswith("INFO tidegate.x: hello [abc]")


def test_no_secret_is_ever_logged(rig: Rig, lines: io.StringIO, tmp_path: Path) -> None:
    """Everything that makes or takes a secret is done once, well and badly; then every line is searched for each of them."""
    rig.publish_trust()
    rig.rollout(rig.release(1, payload=b"x" * 99))
    secrets: dict[str, str] = {}
    api = Api(rig)
    secrets |= {f"token {role}": token for role, token in api.tokens.items()}
    claim = api.post(
        "/claims", {"name": "c", "product": "gw1", "max_count": 5, "expires_in_s": 900}
    )
    secrets["claim"] = next(one for one in claim.values() if isinstance(one, str) and len(one) > 20)
    made = api.post("/tokens", {"name": "ci", "role": "viewer"})
    secrets["api token"] = made["token"]
    auth = Auth(rig.app.store, token_bytes=rig.random.randbytes)
    password = auth.first_account(int(rig.now))
    assert password is not None
    secrets["password"] = password
    form = f"name=admin&password={password}".encode()
    for sent in (form, form + b"wrong"):
        kind = {"content-type": "application/x-www-form-urlencoded"}
        answer = rig.loop.run_until_complete(ask_over(rig.app, "POST", "/sign-in", kind, sent, b""))
        cookie = answer.headers.get("set-cookie", "")
        if cookie:
            secrets["cookie"] = cookie.partition("=")[2].partition(";")[0]
    device = rig.device()
    secrets["session"] = device.token
    body = device.assignment()
    device.run(body)
    rig.ask("GET", "/d/v1/poll", authorization=f"Bearer {device.token}x")
    rig.ask("POST", "/d/v1/enrol", b'{"claim": "' + secrets["claim"].encode() + b'"}')
    for wrong in (secrets["api token"] + "x", secrets["session"]):
        headers = {"authorization": f"Bearer {wrong}"}
        query = f"token={wrong}".encode()
        rig.loop.run_until_complete(
            ask_over(rig.app, "GET", "/api/v1/rollouts", headers, b"", query)
        )
    for file in (rig.folder / "online").iterdir():
        secrets[file.name] = file.read_bytes().hex()
    rig.app.tick(int(rig.now))
    assert auth.sign_in("admin", f"{password}x", "192.0.2.1", int(rig.now)) is None
    secrets["ticket"] = auth.sign_in_link_ticket("admin", int(rig.now))
    ticket = f"ticket={secrets['ticket']}".encode()
    rig.loop.run_until_complete(ask_over(rig.app, "GET", "/sign-in/ticket", {}, b"", ticket))
    text = lines.getvalue()
    assert len(text.splitlines()) >= 8
    assert len(secrets) >= 13
    for name, secret in secrets.items():
        assert len(secret) >= 8, name
        assert secret not in text, name
