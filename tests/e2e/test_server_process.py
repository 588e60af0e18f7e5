"""The server as a process: starts, stops, dies, and what a second one is told."""

import contextlib
import hashlib
import http.client
import json
import os
import random
import sqlite3
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.served import Served, first_password, free_port, run, serving

from tidegate.core import codec, keys
from tidegate.core.hardware import Hardware
from tidegate.core.keys import Signer
from tidegate.core.protocol import (
    ENROL_TYPE,
    EVENT_TYPE,
    SESSION_TYPE,
    EnrolBody,
    EnrolRequest,
    EventBody,
    EventItem,
    EventsRequest,
    SessionBody,
    SessionRequest,
)

pytestmark = pytest.mark.e2e


def _give_claim(data: Path, token: str) -> None:
    """Make a claim as an operator would have; the server is not running."""
    raw = sqlite3.connect(data / "tidegate.db")
    raw.execute(
        "INSERT INTO claim (name, token_sha256, product, max_count, expires_at, created_at, created_by)"
        " VALUES ('c', ?, 'gw1', 100, ?, 0, 'test')",
        (hashlib.sha256(token.encode()).hexdigest(), int(time.time()) + 3600),
    )
    raw.commit()
    raw.close()


class _Device:
    def __init__(self, served: Served, name: str) -> None:
        self.served, self.name = served, name
        self.key = Signer.from_seed(hashlib.sha256(name.encode()).digest())
        self.token = ""

    def enrol(self, claim: str) -> None:
        body = EnrolBody(
            device_id=self.name,
            public_key=self.key.public.public,
            product="gw1",
            hardware=Hardware("gw1", 1),
        )
        envelope = keys.sign_document(body, ENROL_TYPE, self.key)
        request = EnrolRequest(envelope=envelope, claim=claim)
        assert self.send("enrol", request)["state"] == "accepted"

    def log_in(self) -> int:
        nonce = self.send("nonce", {})["nonce"]
        body = SessionBody(device_id=self.name, nonce=nonce, boot_id="b1")
        envelope = keys.sign_document(body, SESSION_TYPE, self.key)
        answer = self.send("session", SessionRequest(envelope=envelope))
        self.token = answer["token"]
        return int(answer["acked_seq"])

    def send(self, route: str, value: object) -> dict[str, Any]:
        plain = json.loads(codec.encode(value))
        found: dict[str, Any] = self.served.post(f"/d/v1/{route}", plain, self.token)
        return found

    def events(self, first: int, count: int) -> EventsRequest:
        items = []
        for seq in range(first, first + count):
            body = EventBody(device_id=self.name, seq=seq, at=1, kind="heartbeat")
            if seq % 3 == 0:
                body = EventBody(
                    device_id=self.name, seq=seq, at=1, kind="failed", reason="install.write"
                )
                items.append(EventItem(envelope=keys.sign_document(body, EVENT_TYPE, self.key)))
            else:
                items.append(EventItem(body=body))
        return EventsRequest(events=tuple(items))


def test_everything_acknowledged_is_there_after_kill_9(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serving(data) as served:
        served.stop()
        _give_claim(data, "claim")
        served.start()
        devices = [_Device(served, f"d{number}") for number in range(4)]
        for device in devices:
            device.enrol("claim")
            device.log_in()
        acked = {device.name: 0 for device in devices}
        chance = random.Random(7)
        for _ in range(3):
            _report_until_killed(served, devices, acked, 0.3 + chance.random() / 2)
            served.start()
            for device in devices:
                told = device.log_in()
                assert told >= acked[device.name]
                acked[device.name] = told
        served.stop()
    raw = sqlite3.connect(data / "tidegate.db")
    stored = dict(
        raw.execute(
            "SELECT device.id, count(*) FROM event JOIN device ON device.row = event.device_row GROUP BY 1"
        )
    )
    raw.close()
    assert stored == acked
    assert min(acked.values()) > 5


def _report_until_killed(
    served: Served, devices: list[_Device], acked: dict[str, int], after_s: float
) -> None:
    def report(device: _Device) -> None:
        try:
            while True:
                answer = device.send("events", device.events(acked[device.name] + 1, 5))
                acked[device.name] = int(answer["acked_seq"])
        except (OSError, http.client.HTTPException):
            return

    threads = [threading.Thread(target=report, args=(one,)) for one in devices]
    for thread in threads:
        thread.start()
    time.sleep(after_s)
    served.kill()
    for thread in threads:
        thread.join(20)


def test_a_stop_is_orderly_and_the_second_start_is_quiet(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as served:
        password = first_password(served.data)
        assert served.said("admin.password")
        assert not served.said(password)  # what is said is kept in a log
        assert (served.data / "admin.password").stat().st_mode & 0o777 == 0o600
        assert served.ask("GET", "/healthz") == (200, b"ok\n")
        assert served.stop() == 0
        served.log.write_text("")
        served.start()
        assert not served.said("admin.password")
        assert not served.said("Traceback")


def test_a_second_server_on_the_same_data_is_told_so(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as served:
        second = run("serve", "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0")
        assert second.returncode == 9
        assert second.stderr.startswith("error[data.locked]")
        assert "  do    " in second.stderr
        assert served.ask("GET", "/healthz")[0] == 200


def test_servers_that_share_a_directory_see_each_other_and_outlive_each_other(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    with serving(data, "--shared") as one, serving(data, "--shared") as two:
        alone = run("serve", "--data", str(data), "--listen", "127.0.0.1:0")
        assert alone.stderr.startswith("error[data.locked]")
        assert "--shared" in alone.stderr
        token = (data / "bootstrap.token").read_text().strip()
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}

        def make(where: Served, name: str) -> None:
            body = json.dumps({"name": name}).encode()
            status, text = where.ask("POST", "/api/v1/groups", body, headers)
            assert status == 201, text

        def names(where: Served) -> set[str]:
            status, text = where.ask("GET", "/api/v1/groups", None, headers)
            assert status == 200
            return {str(item["name"]) for item in json.loads(text)["items"]}

        make(one, "first")
        make(two, "second")
        assert names(one) == names(two) == {"first", "second"}
        one.kill()
        make(two, "third")  # what it left behind is found out, and waited for by nobody
        one.start()
        make(one, "fourth")
        assert names(one) == names(two) == {"first", "second", "third", "fourth"}
        assert two.stop() == 0
        make(one, "fifth")


def test_a_port_that_is_taken_is_named_and_nothing_is_made(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as served:
        second = run(
            "serve", "--data", str(tmp_path / "other"), "--listen", f"127.0.0.1:{served.port}"
        )
        assert second.stderr.startswith("error[serve.port_taken]")
        assert second.returncode != 0
        assert not (tmp_path / "other").exists()


def test_without_tls_only_this_machine_is_served(tmp_path: Path) -> None:
    found = run("serve", "--data", str(tmp_path / "data"), "--listen", f"0.0.0.0:{free_port()}")
    assert found.stderr.startswith("error[serve.no_tls]")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        ("newer", "data.newer_schema"), ("garbage", "data.damaged"), ("key", "key.missing"),
        ("read_only", "data.read_only"),
    ],
)  # fmt: skip
def test_a_data_directory_that_cannot_be_used_is_one_clear_line(
    tmp_path: Path, spoil: str, code: str
) -> None:
    data = tmp_path / "data"
    with serving(data) as served:
        served.stop()
    before = {one.name: one.read_bytes() for one in (data / "online").iterdir()}
    if spoil == "newer":
        raw = sqlite3.connect(data / "tidegate.db")
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
        raw.commit()
        raw.close()
    elif spoil == "garbage":
        for name in ("tidegate.db-wal", "tidegate.db-shm"):
            (data / name).unlink(missing_ok=True)
        (data / "tidegate.db").write_bytes(b"garbage" * 5000)
    elif spoil == "key":
        (data / "online" / "director.key").unlink()
        before.pop("director.key")
    else:
        data = Path("/proc/self/nothing")
    found = run("serve", "--data", str(data), "--listen", "127.0.0.1:0")
    assert found.returncode != 0
    assert found.stdout == ""
    assert found.stderr.splitlines()[0].startswith(f"error[{code}]"), found.stderr
    assert "Traceback" not in found.stderr
    if spoil != "read_only":
        assert {one.name: one.read_bytes() for one in (data / "online").iterdir()} == before


def test_secrets_are_for_this_user_alone(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as served:
        for path in [served.data, served.data / "online"]:
            assert path.stat().st_mode & 0o077 == 0, path
        for path in [*(served.data / "online").iterdir(), served.data / "bootstrap.token", served.data / "tidegate.db"]:  # fmt: skip
            assert path.stat().st_mode & 0o077 == 0, path


def test_tls_by_an_own_authority_is_what_clients_can_check(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--tls") as served:
        context = ssl.create_default_context(cafile=str(served.data / "tls" / "ca.pem"))
        connection = served.connection(context)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        connection.close()
        stranger = served.connection(ssl.create_default_context())
        with pytest.raises(ssl.SSLCertVerificationError):
            stranger.request("GET", "/healthz")


def test_a_broken_request_line_does_not_hurt_the_server(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as served:
        import socket

        for junk in (b"\x00" * 4000 + b"\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", os.urandom(3000)):
            with socket.create_connection(("127.0.0.1", served.port), timeout=5) as raw:
                raw.sendall(junk)
                raw.settimeout(3)
                with contextlib.suppress(TimeoutError):
                    raw.recv(1000)
        assert served.ask("GET", "/healthz")[0] == 200
