"""Traces go to a collector beside everything else: what people do and the planner, never what devices ask, and never in anybody's way."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.unit.server.rig import Rig

from tidegate.core.errors import ConfigError
from tidegate.server import spans
from tidegate.server.spans import Spans


class Collector:
    """Takes OTLP in JSON, as a collector does, and keeps what it got."""

    def __init__(self) -> None:
        got: list[tuple[str, str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                got.append((self.path, self.headers["content-type"], json.loads(body)))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.got = got
        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def spans(self) -> list[dict[str, Any]]:
        return [
            span
            for _, _, body in self.got
            for resource in body["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.server.shutdown()
    made.server.server_close()


@contextmanager
def served(folder: Path, endpoint: str) -> Iterator[Rig]:
    made = Rig(folder / "traced", more={"otel_endpoint": endpoint})
    try:
        yield made
    finally:
        made.close()


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def attributes(span: dict[str, Any]) -> dict[str, str]:
    return {one["key"]: next(iter(one["value"].values())) for one in span["attributes"]}


def test_an_act_and_a_look_of_the_planner_arrive_and_what_devices_ask_does_not(
    tmp_path: Path, collector: Collector
) -> None:
    with served(tmp_path, collector.url) as rig:
        rig.publish_trust()
        device = rig.device()
        device.poll()
        device.tell("heartbeat")
        device.assignment()
        rig.app.tick()
        answer = rig.ask("POST", "/api/v1/rollouts?token=hidden", {"secret": "hidden"})
        assert answer.status >= 400
        rig.ask("GET", "/api/v1/rollouts")
        until(lambda: len(collector.spans) >= 2)
    assert {path for path, _, _ in collector.got} == {"/v1/traces"}
    assert {kind for _, kind, _ in collector.got} == {"application/json"}
    assert [one["name"] for one in collector.spans] == ["planner.tick", "POST"]
    act = collector.spans[1]
    told = attributes(act)
    assert told["http.response.status_code"] == str(answer.status)
    assert told["tidegate.request"] == answer.headers["x-request-id"]
    assert (len(act["traceId"]), len(act["spanId"])) == (32, 16)
    assert int(act["endTimeUnixNano"]) >= int(act["startTimeUnixNano"]) > 1e18
    assert "hidden" not in json.dumps(collector.got)


def test_a_collector_that_never_answers_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spans, "WAITING_MAX", 4)
    monkeypatch.setattr(spans, "BATCH", 1)
    monkeypatch.setattr(spans, "TIMEOUT_S", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        made = Spans(f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        for _ in range(200):
            with made.span("act"):
                pass
        assert time.monotonic() - began < spans.TIMEOUT_S
        assert made.dropped > 100
        made.close()
    assert made.dropped == 200


def test_what_waits_is_sent_at_the_end(collector: Collector) -> None:
    made = Spans(collector.url)
    with pytest.raises(ValueError, match="no"), made.span("act"):
        raise ValueError("no")
    made.close()
    [span] = collector.spans
    assert span["status"] == {"code": 2, "message": "ValueError"}


def test_where_nobody_wants_them_there_is_no_thread() -> None:
    before = threading.active_count()
    made = Spans("")
    with made.span("act"):
        assert threading.active_count() == before
    assert not made.on
    made.close()


@pytest.mark.parametrize("wrong", ["collector", "ftp://x", "http://"])
def test_what_is_no_address_ends_the_start(wrong: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Spans(wrong)
    assert caught.value.code == "config.invalid"
