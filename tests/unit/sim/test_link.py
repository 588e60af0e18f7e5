"""The simulated link fails the ways links fail, with the codes of the port."""

import asyncio
from collections.abc import Mapping
from random import Random
from typing import Any

import pytest

from tidegate.core.errors import TransferError
from tidegate.sim.clock import DeviceClock, VirtualTimeline
from tidegate.sim.faults import LinkFaults
from tidegate.sim.link import Answer, AsgiWire, HttpWire, Pattern, SimLink, Tampered, flip_byte

BODY = bytes(range(200))


class Echo:
    """A wire that always brings the same body."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> Answer:
        self.paths.append(path)
        return Answer(200, {"etag": '"x"'}, BODY)


def _link(
    faults: LinkFaults | None = None, pattern: Pattern | None = None
) -> tuple[SimLink, DeviceClock, VirtualTimeline]:
    timeline = VirtualTimeline()
    clock = DeviceClock(timeline, Random(1))
    return SimLink(Echo(), clock, Random(2), faults=faults, pattern=pattern), clock, timeline


def _code(link: SimLink, path: str = "/d/v1/poll") -> str | None:
    try:
        answer = link.request("GET", path)
        while answer.read(64):
            pass
    except TransferError as error:
        return error.code
    return None


def test_a_body_takes_the_time_that_its_link_needs() -> None:
    link, clock, _ = _link(LinkFaults(latency_s=1.0, bytes_per_s=100.0))
    assert link.request("GET", "/d/v1/blobs/aa").read(1000) == BODY
    assert clock.monotonic() == pytest.approx(3.0)


def test_a_truncated_body_ends_in_an_error_and_not_in_silence() -> None:
    link, _, _ = _link(LinkFaults(truncate_at=70, truncations=1))
    answer = link.request("GET", "/d/v1/blobs/aa")
    assert answer.read(1000) == BODY[:70]
    with pytest.raises(TransferError) as error:
        answer.read(1)
    assert error.value.code == "download.truncated"
    assert _code(link, "/d/v1/blobs/aa") is None


def test_a_lossy_link_loses_about_as_much_as_it_should() -> None:
    link, _, _ = _link(LinkFaults(loss_ratio=0.3))
    lost = [_code(link) for _ in range(500)].count("download.timeout")
    assert 110 < lost < 190


def test_some_lost_requests_reached_the_server_and_only_their_answer_got_lost() -> None:
    link, _, _ = _link(LinkFaults(loss_ratio=1.0))
    for _ in range(100):
        assert _code(link) == "download.timeout"
    assert isinstance(link.wire, Echo)
    assert 25 < len(link.wire.paths) < 75


def test_a_device_without_network_reaches_nobody_until_its_hours_come() -> None:
    pattern = Pattern(period_s=100.0, start_s=60.0, length_s=20.0)
    link, _, timeline = _link(pattern=pattern)
    assert _code(link) == "download.dns"
    assert pattern.next_online(0.0) == 60.0
    timeline.wait_until(60.0)
    assert _code(link) is None
    assert pattern.next_online(85.0) == 160.0


def test_a_lying_proxy_changes_only_its_own_path() -> None:
    wire = Tampered(Echo(), "/blobs/", flip_byte(-1))
    assert wire.send("GET", "/d/v1/poll", {}, None).body == BODY
    assert wire.send("GET", "/d/v1/blobs/aa", {}, None).body == BODY[:-1] + bytes([BODY[-1] ^ 1])
    assert wire.changed == 1


def test_a_server_in_this_process_is_called_like_any_other() -> None:
    seen: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        seen.update(scope, body=message["body"])
        await send({"type": "http.response.start", "status": 201, "headers": [(b"ETag", b"1")]})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})

    loop = asyncio.new_event_loop()
    try:
        wire = AsgiWire(app, loop)
        answer = wire.send("POST", "/d/v1/a%2Fb?x=1", {"Authorization": "t"}, b"body")
    finally:
        loop.close()
    assert (answer.status, answer.headers, answer.body) == (201, {"etag": "1"}, b"ab")
    assert (
        seen["path"],
        seen["raw_path"],
        seen["query_string"],
    ) == ("/d/v1/a/b", b"/d/v1/a%2Fb", b"x=1")
    assert seen["body"] == b"body"
    assert (b"authorization", b"t") in seen["headers"]


def test_nobody_listening_is_a_refusal() -> None:
    with pytest.raises(TransferError) as error:
        HttpWire("127.0.0.1", 1).send("GET", "/", {}, None)
    assert error.value.code == "download.refused"
