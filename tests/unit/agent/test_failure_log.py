"""The log of a failure on the device: sent when it is wanted and nothing else is to be done, bounded, without secrets, or not at all if its owner says so."""

import json
import zlib
from random import Random
from typing import Any

import msgspec
import pytest
from tests.crash.lab import make_device

from tidegate.agent.net.failure_log import packed
from tidegate.agent.net.uplink import LOG_TRIES, Uplink
from tidegate.core import codec
from tidegate.core.errors import TransferError
from tidegate.core.protocol import LOG_BYTES_MAX, EventsAnswer, LogRequest, LogWish

WISH = LogWish(update="u-1", attempt=1)


class Answered:
    status = 200
    headers: dict[str, str] = {}  # noqa: RUF012 - a double of one test

    def __init__(self, body: bytes) -> None:
        self._body = body

    def read(self, count: int) -> bytes:
        found, self._body = self._body, b""
        return found

    def close(self) -> None:
        pass


class Wire:
    """A server that asks for a log, and notes what it gets."""

    def __init__(self, *, wants: bool = True, takes: bool = True) -> None:
        self.wants, self.takes = wants, takes
        self.asked: list[str] = []
        self.logs: list[LogRequest] = []

    def request(self, method: str, path: str, *, body: bytes | None = None, **_: Any) -> Answered:
        self.asked.append(path)
        if path == "/d/v1/poll":
            return Answered(b'{"work":false,"poll_after_s":60,"gate_epoch":1}')
        if path == "/d/v1/events":
            answer = EventsAnswer(acked_seq=1, want_log=WISH if self.wants else msgspec.UNSET)
            return Answered(codec.encode(answer))
        self.logs.append(msgspec.json.decode(body or b"", type=LogRequest))
        if not self.takes:
            raise TransferError("download.timeout", "")
        return Answered(json.dumps({"kept": True}).encode())


def uplink(wire: Wire, log: str = "it broke", **settings: Any) -> Uplink:
    device = make_device(1, 2, **settings)
    made = Uplink(wire, device.clock, device.settings, lambda: log)
    made.line.token = "token"
    return made


def test_it_is_sent_once_after_the_outcome_when_there_is_nothing_else_to_do() -> None:
    wire = Wire()
    made = uplink(wire)
    made.poll(30.0)
    assert made.post(()) == 1
    assert wire.logs == []
    made.poll(0.0)  # something is under way here
    assert wire.logs == []
    made.poll(30.0)
    made.poll(30.0)
    [sent] = wire.logs
    assert (sent.update, sent.attempt) == ("u-1", 1)
    assert zlib.decompress(sent.data) == b"it broke"


@pytest.mark.parametrize(("wants", "settings"), [(False, {}), (True, {"send_logs": False})])
def test_it_is_not_sent_where_nobody_asks_or_the_owner_says_no(
    wants: bool, settings: dict[str, Any]
) -> None:
    wire = Wire(wants=wants)
    made = uplink(wire, **settings)
    made.post(())
    made.poll(30.0)
    assert wire.logs == []


def test_a_link_that_does_not_carry_it_is_tried_a_few_times() -> None:
    wire = Wire(takes=False)
    made = uplink(wire)
    made.post(())
    for _ in range(10):
        made.poll(30.0)
    assert len(wire.logs) == LOG_TRIES


def test_what_is_packed_fits_and_ends_where_the_log_ends() -> None:
    noise = Random(1)
    log = "\n".join(str(noise.random()) for _ in range(40_000)) + "\npanic token=hunter22"
    data = packed(log)
    assert len(data) <= LOG_BYTES_MAX
    text = zlib.decompress(data).decode()
    assert len(text) > 60_000
    assert text.endswith("panic token=[hidden]")
    assert zlib.decompress(packed("")) == b""
