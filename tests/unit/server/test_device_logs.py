"""Logs of devices that failed: asked of the first few, taken once, bounded, and shown as text whatever is in them."""

import zlib
from typing import Any

import pytest
from tests.unit.server.rig import Answer, Device, Rig
from tests.unit.server.test_api_routes import POLICY, Api, api

from tidegate.core.protocol import LOG_BYTES_MAX, AssignmentBody, LogAnswer, LogRequest
from tidegate.rollout.model import Deadlines, Policy, RingSpec
from tidegate.server import device_logs
from tidegate.server.store import hot

__all__ = ["api"]

EVIL = (
    "ok\x1b[2Jgone\x00\u202e <script>alert(1)</script>\n"
    "login token=abcdef0123456789 user\n"
    "Kernel panic - not syncing: Attempted to kill init!\n"
)


def rollout(rig: Rig) -> int:
    rig.publish_trust()
    policy = Policy(
        rings=(RingSpec(name="fleet", audience="", shares=(10_000,)),),
        deadlines=Deadlines(return_s=100, confirm_s=200),
    )
    return rig.rollout(rig.release(1), policy=policy)


def fail(
    device: Device, reason: str = "install.readback", **values: Any
) -> tuple[AssignmentBody, Any]:
    body = device.assignment()
    assert body.update, body
    return body, device.tell("failed", body, reason=reason, **values)


def send(device: Device, body: AssignmentBody, data: bytes, attempt: int = 1) -> Answer:
    assert body.update is not None
    return device.ask(
        "POST", "/d/v1/log", LogRequest(update=body.update, attempt=attempt, data=data)
    )


def kept(rig: Rig, row: int = 1) -> list[device_logs.LogFacts]:
    found: list[device_logs.LogFacts] = rig.read(lambda conn: device_logs.of_device(conn, row))
    return found


def test_the_answer_to_a_failure_asks_for_its_log_and_it_is_kept(rig: Rig) -> None:
    rollout(rig)
    device = rig.device()
    body, answer = fail(device)
    assert answer.want_log.update == body.update
    assert answer.want_log.attempt == 1
    assert [one.received_at for one in kept(rig)] == [None]
    assert send(device, body, zlib.compress(EVIL.encode())).as_(LogAnswer).kept
    [one] = kept(rig)
    assert one.received_at == int(rig.now)
    text = rig.read(lambda conn: device_logs.show(conn, 1, one.id)).text
    assert "Kernel panic" in text
    assert "abcdef0123456789" not in text
    assert "\x1b" not in text
    assert "\x00" not in text
    # sent again, because the answer was lost: it stays as it is
    assert send(device, body, zlib.compress(b"another")).as_(LogAnswer).kept
    assert rig.read(lambda conn: device_logs.show(conn, 1, one.id)).text == text


def test_who_did_not_hear_the_answer_is_asked_again_and_who_told_nothing_bad_is_not(
    rig: Rig,
) -> None:
    rollout(rig)
    device = rig.device()
    body = device.assignment()
    told = device.event("failed", body, reason="install.readback")
    assert device.report(told).want_log
    assert device.report(told).want_log
    assert not device.tell("heartbeat").want_log
    assert send(device, body, zlib.compress(b"x")).status == 200
    assert not device.report(told).want_log


def test_only_the_first_devices_of_each_reason_are_asked(rig: Rig) -> None:
    rig.more["logs_per_reason"] = 2
    rig.restart()
    rollout(rig)
    asked = [bool(fail(rig.device(f"d{number}"))[1].want_log) for number in range(4)]
    assert asked == [True, True, False, False]
    assert fail(rig.device("e"), "install.write")[1].want_log
    # a place that stayed empty for a day is somebody else's
    rig.now += device_logs.WISH_S + 1
    assert fail(rig.device("f"))[1].want_log


def test_nobody_is_asked_where_nobody_is_to_be_asked(rig: Rig) -> None:
    rig.more["logs_per_reason"] = 0
    rig.restart()
    rollout(rig)
    device = rig.device()
    body, answer = fail(device)
    assert not answer.want_log
    assert send(device, body, zlib.compress(b"x")).code == "request.conflict"


def test_a_tenant_is_asked_for_no_more_than_so_many_a_day(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_logs, "PER_DAY", 1)
    rollout(rig)
    assert fail(rig.device("a"))[1].want_log
    assert not fail(rig.device("b"), "install.write")[1].want_log


def test_what_was_not_asked_for_is_refused(rig: Rig) -> None:
    rollout(rig)
    device, other = rig.device("a"), rig.device("b")
    body, _ = fail(device)
    assert send(device, body, zlib.compress(b"x"), attempt=2).code == "request.conflict"
    assert send(other, body, zlib.compress(b"x")).code == "request.conflict"
    rig.now += device_logs.WISH_S + 1
    device.log_in()
    assert send(device, body, zlib.compress(b"x")).code == "request.conflict"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"not packed", "request.invalid"),
        (zlib.compress(b"cut" * 1_000)[:-5], "request.invalid"),
        (zlib.compress(bytes(100 << 20), 9)[:LOG_BYTES_MAX], "request.too_large"),
        (zlib.compress(bytes(device_logs.TEXT_MAX + 1)), "request.too_large"),
        (b"x" * (LOG_BYTES_MAX + 1), "request.invalid"),
        (b"", "request.invalid"),
    ],
)
def test_what_is_too_large_or_no_log_is_refused_and_the_wish_stands(
    rig: Rig, data: bytes, code: str
) -> None:
    rollout(rig)
    device = rig.device()
    body, _ = fail(device)
    assert send(device, body, data).code == code
    assert [one.received_at for one in kept(rig)] == [None]
    assert send(device, body, zlib.compress(b"good")).status == 200


def test_the_newest_five_of_a_device_are_kept_and_old_ones_go(rig: Rig) -> None:
    rig.publish_trust()
    device = rig.device()
    for number in range(1, 8):
        rig.rollout(rig.release(number), name=f"r{number}")
        body, answer = fail(device)
        assert answer.want_log
        assert send(device, body, zlib.compress(f"log {number}".encode())).status == 200
        rig.write(lambda conn: hot.raise_gate_epoch(conn, "default"))
    assert [one.rollout for one in kept(rig)] == ["r7", "r6", "r5", "r4", "r3"]


def test_an_incident_shows_the_log_that_was_asked_for_where_the_outcome_brought_none(
    rig: Rig,
) -> None:
    from tidegate.server import reports

    number = rollout(rig)
    body, _ = fail(rig.device("a"))
    silent, _ = fail(rig.device("b"), "install.write")
    assert silent.update
    send(Device(rig, "a", token=""), body, b"")  # nobody's word without a token
    device = rig.device("c")
    third, _ = fail(device, "install.space", log="its own words")
    send(device, third, zlib.compress(b"another"))
    first = Device(rig, "a")
    first.log_in()
    send(first, body, zlib.compress(EVIL.encode()))
    logs = {one.device: one.text for one in rig.read(lambda conn: reports._logs(conn, number, ""))}
    assert "Kernel panic" in logs["a"]
    assert logs["c"] == "its own words"


def test_the_api_lists_and_shows_them(api: Api) -> None:
    rig = api.rig
    device = rig.device("d9")
    api.post("/rollouts", {**POLICY, "release": "gw1-1.1.0", "guards": []})
    body, answer = fail(device)
    assert answer.want_log
    [item] = api.get("/devices/d9/logs")["items"]
    assert (item["received_at"], item["chars"]) == (None, 0)
    send(device, body, zlib.compress(EVIL.encode()))
    [item] = api.get("/devices/d9/logs")["items"]
    shown = api.get(f"/devices/d9/logs/{item['id']}")
    assert len(shown["text"]) == item["chars"] > 0
    assert "Kernel panic" in shown["text"]
    for wrong in ("d9/logs/99", "nobody/logs"):
        with pytest.raises(AssertionError):
            api.get(f"/devices/{wrong}")
