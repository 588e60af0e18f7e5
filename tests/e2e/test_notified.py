"""The word to the world survives the server: killed between the commit of a halt and its delivery, it delivers after the restart, under the same id."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.served import Served

from tidegate.sim.virtual_board import wait_for

pytestmark = pytest.mark.e2e


class Handler(BaseHTTPRequestHandler):
    """Takes a call in, and does not answer before it may."""

    def do_POST(self) -> None:
        server: Any = self.server
        body = self.rfile.read(int(self.headers["content-length"]))
        server.calls.append((self.headers["webhook-id"], json.loads(body)["type"]))
        if server.silent.is_set():
            server.over.wait(30)
            return
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.calls, server.silent, server.over = [], threading.Event(), threading.Event()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.mark.timeout(120)
def test_a_server_killed_before_it_was_heard_tells_again_under_the_same_id(
    tmp_path: Path, receiver: Any
) -> None:
    secret, config = tmp_path / "secret", tmp_path / "tidegate.toml"
    secret.write_text("0123456789abcdef0123456789abcdef\n")
    config.write_text(
        f'[[webhook]]\nname = "ops"\nurl = "http://127.0.0.1:{receiver.server_port}/hook"\n'
        f'secret_file = "{secret}"\nevents = ["incident.opened"]\n'
    )
    receiver.silent.set()
    served = Served(tmp_path / "data", "--config", str(config))
    try:
        token = (served.data / "bootstrap.token").read_text().strip()
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        body = json.dumps({"summary": "smoke in Lyon"}).encode()
        status, answer = served.ask("POST", "/api/v1/incidents", body, headers)
        assert status == 201, answer
        assert wait_for(lambda: len(receiver.calls) == 1, 40)
        served.kill()
        receiver.silent.clear()
        served.start()
        assert wait_for(lambda: len(receiver.calls) == 2, 40)
        assert receiver.calls[0] == receiver.calls[1]

        def told() -> dict[str, Any]:
            status, answer = served.ask("GET", "/api/v1/notifications", None, headers)
            assert status == 200, answer
            found: dict[str, Any] = json.loads(answer)
            return found

        assert wait_for(lambda: told()["items"][0]["state"] == "delivered", 20)
        (one,) = told()["items"]
        assert one["id"] == receiver.calls[0][0]
        assert told()["channels"] == [
            {"name": "ops", "kind": "webhook", "place": "http://127.0.0.1", "events": ["incident.opened"]},
        ]  # fmt: skip
        text = served.log.read_text()
        assert "0123456789abcdef" not in text
        assert "/hook" not in text
    finally:
        if served.process.poll() is None:
            served.kill()
