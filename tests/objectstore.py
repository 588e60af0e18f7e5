"""An S3 that runs on this machine (moto, in an environment of its own), and a double between it and us that fails and lies.

`moto_server` is somebody else's idea of S3; `Faulty` knows nothing of S3: it passes HTTP on, and changes what it is told to.
"""

import contextlib
import functools
import http.client
import os
import re
import socket
import struct
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest

from tidegate.server.blobs.s3 import S3Blobs, create
from tidegate.server.config import Settings

_HOME = Path(__file__).resolve().parents[1] / ".cache" / "moto"
#: A copy of the tree says whose environment it uses.
SERVER = Path(os.environ.get("TIDEGATE_MOTO") or _HOME) / "bin" / "moto_server"
_RUNNING = re.compile(r"Running on (http://127\.0\.0\.1:\d+)")


@contextlib.contextmanager
def running_moto(log: Path) -> Iterator[str]:
    """Start moto on a free port of the loopback interface and give its address; ended by its id."""
    if not SERVER.is_file():
        pytest.skip("tier: object store: tools/setup moto")
    with log.open("wb") as out:
        process = subprocess.Popen(
            [SERVER, "-H", "127.0.0.1", "-p", "0"], stdout=out, stderr=subprocess.STDOUT
        )
    try:
        until = time.monotonic() + 60
        while not (found := _RUNNING.search(log.read_text("utf-8", "replace"))):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, "moto did not start"
            time.sleep(0.05)
        yield found[1]
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_moto(tmp_path_factory.mktemp("moto") / "log") as address:
        yield address


@pytest.fixture
def bucket(moto: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of an empty bucket, with credentials for it in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tests")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nobody-knows")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    name = f"tidegate-{uuid.uuid4().hex[:12]}"
    raw_client(moto).create_bucket(Bucket=name)
    return name


@functools.cache
def raw_client(address: str) -> Any:
    """Return boto3's client of the store, past ours."""
    return boto3.session.Session().client("s3", endpoint_url=address)


def settings_for(address: str, bucket: str, **more: Any) -> Settings:
    return Settings(
        blobs_url=f"s3://{bucket}/fleet",
        blobs_endpoint=address,
        blobs_addressing="path",
        **more,
    )


def blobs_at(address: str, bucket: str, **more: Any) -> S3Blobs:
    return create(settings_for(address, bucket, **more).blobs, Path())


class Exchange:
    """One request and its answer, as a fault may change them."""

    def __init__(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        self.method, self.path, self.headers, self.body = method, path, headers, body
        self.status = 0
        self.answer: dict[str, str] = {}
        self.content = b""
        #: Break off after so many bytes of the body; None = send all.
        self.cut: int | None = None
        #: Break off by a reset, which may take along what was sent before.
        self.rst = False
        #: Pass on so many bytes of the request's body, then hang up on both sides, and do `then`.
        self.lose: int | None = None
        self.then: Callable[[], None] = lambda: None
        #: Wait so long before each KiB.
        self.drip_s = 0.0


Fault = Callable[[Exchange], None]


class Faulty:
    """HTTP in front of `target`. `before` changes a request on its way there, `after` its answer; `refuse` answers instead; `reset` hangs up."""

    def __init__(self, target: str) -> None:
        self.place = urlsplit(target).netloc
        self.before: Fault | None = None
        self.after: Fault | None = None
        #: Answer with this status instead, so many times.
        self.refuse: tuple[int, int] = (0, 0)
        self.reset = 0
        #: Answers wait for this.
        self.go = threading.Event()
        self.go.set()
        self.seen: list[Exchange] = []
        handler = type("Handler", (_Handler,), {"double": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    double: Faulty

    def handle_one_request(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle_one_request()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._pass
        raise AttributeError(name)

    def _pass(self) -> None:
        double = self.double
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        one = Exchange(self.command, self.path, dict(self.headers.items()), body)
        double.seen.append(one)
        double.go.wait(60)
        status, times = double.refuse
        if double.reset:
            double.reset -= 1
            self._hang_up()
            return
        if times:
            double.refuse = (status, times - 1)
            one.status = status
        elif not self._ask(one):
            self._hang_up()
            return
        self._answer(one)

    def _ask(self, one: Exchange) -> bool:
        if self.double.before is not None:
            self.double.before(one)
        connection = http.client.HTTPConnection(self.double.place, timeout=60)
        sent = {name: value for name, value in one.headers.items() if name.lower() != "expect"}
        if one.lose is not None:
            connection.putrequest(one.method, one.path, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                connection.putheader(name, value)
            connection.endheaders(one.body[: one.lose])
            time.sleep(0.2)
            connection.close()
            one.then()
            return False
        connection.request(one.method, one.path, one.body, sent)
        answer = connection.getresponse()
        one.status, one.content = answer.status, answer.read()
        one.answer = {name.lower(): value for name, value in answer.getheaders()}
        one.answer.pop("transfer-encoding", None)
        connection.close()
        if self.double.after is not None:
            self.double.after(one)
        return True

    def _answer(self, one: Exchange) -> None:
        one.answer.setdefault("content-length", str(len(one.content)))
        self.send_response_only(one.status)
        for name, value in one.answer.items():
            if name != "connection":
                self.send_header(name, value)
        self.end_headers()
        if one.method == "HEAD":
            return
        content = one.content if one.cut is None else one.content[: one.cut]
        step = 1024 if one.drip_s else max(1, len(content))
        for start in range(0, len(content), step):
            time.sleep(one.drip_s)
            self.wfile.write(content[start : start + step])
        if one.rst:
            self._hang_up()
        self.close_connection = self.close_connection or one.cut is not None

    def _hang_up(self) -> None:
        self.wfile.flush()
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.shutdown(socket.SHUT_RD)
        self.connection.close()
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def faulty(moto: str) -> Iterator[Faulty]:
    double = Faulty(moto)
    yield double
    double.close()
