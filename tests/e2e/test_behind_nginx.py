"""Two server processes behind the real nginx with the configuration that is shipped: only its ports, names of files and the two processes are replaced."""

import contextlib
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.e2e.served import Served, free_port

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
SHIPPED = Path(__file__).resolve().parents[2] / "packaging" / "server" / "nginx.conf"
BIG = 48 << 20

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(200),
    pytest.mark.skipif(
        NGINX is None, reason="tier: nginx is not here; install the Debian package nginx-light"
    ),
]


@dataclass
class Front:
    port: int
    folder: Path
    processes: list[Served]
    context: ssl.SSLContext

    def connection(self, source: str = "127.0.0.1") -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            "localhost", self.port, timeout=20, context=self.context, source_address=(source, 0)
        )

    def ask(
        self, method: str, path: str, source: str = "127.0.0.1", **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        with contextlib.closing(self.connection(source)) as connection:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, headers=named)
            answer = connection.getresponse()
            return answer.status, answer.read(), dict(answer.getheaders())

    @property
    def token(self) -> str:
        return (self.processes[0].data / "bootstrap.token").read_text().strip()

    def lines(self) -> list[dict[str, object]]:
        """Return the lines about requests in the logs of both."""
        found = []
        for text in {one.log.read_text() for one in self.processes}:
            found += [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        return [line for line in found if line["logger"] == "tidegate.access"]


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("nginx")
    certificate = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-keyout", "key.pem", "-out", "fullchain.pem", "-days", "2", "-subj", "/CN=localhost",
        "-addext", "subjectAltName=DNS:localhost",
    ]  # fmt: skip
    subprocess.run(certificate, cwd=folder, check=True, capture_output=True)
    config = folder / "tidegate.toml"
    config.write_text('[http]\ntrusted_proxies = ["127.0.0.1"]\n[log]\nformat = "json"\n')
    options = ("--config", str(config), "--shared")
    with contextlib.ExitStack() as stack:
        processes = [Served(folder / "data", *options) for _ in range(2)]
        for one in processes:
            stack.callback(lambda one=one: one.process.poll() is None and one.kill())  # type: ignore[misc]
        port = free_port()
        running = subprocess.Popen(
            [str(NGINX), "-p", str(folder), "-c", str(_configured(folder, port, processes))],
            stderr=subprocess.DEVNULL,
        )
        stack.callback(running.wait, 10)
        stack.callback(running.terminate)
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            time.sleep(0.05)
        context = ssl.create_default_context(cafile=str(folder / "fullchain.pem"))
        yield Front(port, folder, processes, context)


def _configured(folder: Path, port: int, processes: list[Served]) -> Path:
    """Write the shipped file with the places of this test; each must be found in it."""
    text = SHIPPED.read_text()
    for old, new in {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "127.0.0.1:8441": f"127.0.0.1:{processes[0].port}",
        "127.0.0.1:8442": f"127.0.0.1:{processes[1].port}",
        "/etc/tidegate/tls/": f"{folder}/",
        "/var/lib/tidegate-server/blobs/": f"{folder}/data/blobs/",
    }.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "site.conf").write_text(text)
    whole = folder / "nginx.conf"
    places = "".join(
        f"{one}_temp_path {folder}/{one}_temp;"
        for one in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    whole.write_text(
        f"daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log warn;\n"
        "events { worker_connections 512; }\n"
        f"http {{ access_log off; {places} include {folder}/site.conf; }}\n"
    )
    return whole


def test_it_answers_over_tls_1_3(front: Front) -> None:
    with contextlib.closing(front.connection()) as connection:
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b"ok\n"
        tls = connection.sock
        assert isinstance(tls, ssl.SSLSocket)
        assert tls.version() == "TLSv1.3"


def test_the_real_address_is_seen_and_not_the_one_that_the_client_tells(front: Front) -> None:
    headers = {"X_Forwarded_For": "203.0.113.99", "Forwarded": "for=203.0.113.98"}
    name = "request-of-this-test"
    status, _, got = front.ask(
        "GET", "/api/v1/rollouts", "127.0.0.2",
        X_Request_Id=name, Authorization=f"Bearer {front.token}", **headers,
    )  # fmt: skip
    assert status == 200
    assert got["x-request-id"] == name
    found: list[dict[str, object]] = []
    until = time.monotonic() + 5  # it is logged when the answer is out
    while not found and time.monotonic() < until:
        found = [one for one in front.lines() if one.get("request") == name]
    assert [one["client"] for one in found] == ["127.0.0.2"]


def test_metrics_and_readiness_are_not_shown_to_the_world(front: Front) -> None:
    assert front.ask("GET", "/metrics")[0] == 404
    assert front.ask("GET", "/readyz")[0] == 404
    # nor is the proxy taken for this machine itself
    assert front.processes[0].ask("GET", "/metrics")[0] == 200
    passed_on = {"x-forwarded-for": "198.51.100.7"}
    assert front.processes[0].ask("GET", "/metrics", headers=passed_on)[0] == 401


def test_events_go_out_as_they_happen(front: Front) -> None:
    with contextlib.closing(front.connection()) as connection:
        connection.request(
            "GET", "/api/v1/events/stream", headers={"Authorization": f"Bearer {front.token}"}
        )
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.getheader("content-type", "").startswith("text/event-stream")
        began = time.monotonic()
        made = json.dumps({"name": "g1", "query": "product == gw1"}).encode()
        with contextlib.closing(front.connection()) as other:
            sent = {"Authorization": f"Bearer {front.token}", "Content-Type": "application/json"}
            other.request("POST", "/api/v1/groups", made, sent)
            assert other.getresponse().status in {200, 201}
        seen = b""
        while b"group" not in seen:
            seen += answer.read1(4096)
            assert time.monotonic() - began < 10, seen
        assert time.monotonic() - began < 5


def test_a_large_body_goes_through_in_pieces_and_is_not_gathered_on_the_proxys_disk(
    front: Front,
) -> None:
    """It is refused by the server, which has read enough of it, not by nginx, which would say 413 at a megabyte."""
    piece = b"x" * (1 << 20)
    with contextlib.closing(front.connection()) as connection:
        connection.putrequest("POST", "/api/v1/bundles")
        connection.putheader("Authorization", f"Bearer {front.token}")
        connection.putheader("Content-Length", str(BIG))
        connection.endheaders()
        sent = 0
        with contextlib.suppress(OSError):
            while sent < BIG:
                connection.send(piece)
                sent += len(piece)
        gathered = [one for one in (front.folder / "client_body_temp").rglob("*") if one.is_file()]
        assert gathered == []
        with contextlib.suppress(OSError, http.client.HTTPException):
            answer = connection.getresponse()
            assert answer.status in {400, 401, 404, 405, 422}
            assert answer.getheader("content-type", "").startswith("application/problem+json")
    assert sent > 2 << 20


def test_a_process_that_ends_is_not_missed(front: Front) -> None:
    front.processes[1].kill()
    for _ in range(20):
        assert front.ask("GET", "/healthz")[0] == 200
