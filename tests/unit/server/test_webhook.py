"""Webhooks: signed, at least once, with pauses, to configured addresses only; and the live stream beside them."""

import asyncio
import hashlib
import hmac
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.server.rig import Rig

from tidegate.core.errors import ConfigError
from tidegate.server.auth import Actor
from tidegate.server.config import Settings, Webhook
from tidegate.server.live import RESYNC, Live
from tidegate.server.notify import webhook
from tidegate.server.notify.webhook import Hook
from tidegate.server.operations import Operations, hooks_of
from tidegate.server.store import Connection, admin_log, changes
from tidegate.server.tick import tick

OLGA = Actor(name="olga", role="operator")
POLICY: dict[str, Any] = {"preset": "lab", "ring": [{"name": "all"}], "release": "gw1-1.1.0"}
HOOK = Hook(name="ops", url="http://127.0.0.1:9/x", secret=b"s3cret", events=("rollout.halted",))
Call = tuple[str, bytes, dict[str, str]]


class Receiver:
    """Answers calls as told, and remembers them."""

    def __init__(self, *answers: int | Exception) -> None:
        self.answers = list(answers)
        self.calls: list[Call] = []

    def __call__(self, url: str, body: bytes, headers: dict[str, str]) -> int:
        self.calls.append((url, body, headers))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def _halted(rig: Rig) -> None:
    rig.publish_trust()
    rig.release(1)
    rig.device()
    operations = Operations(rig.app.services)
    operations.create(POLICY, OLGA, "", int(rig.now))
    operations.act("gw1-1.1.0", "halt", OLGA, "screens black", int(rig.now))


def test_a_halt_is_told_once_signed_over_time_and_body(rig: Rig) -> None:
    _halted(rig)
    receiver = Receiver(204)
    store, now = rig.app.store, int(rig.now)
    assert webhook.deliver(store, (HOOK,), now, receiver) == 1
    assert webhook.deliver(store, (HOOK,), now + 99, receiver) == 0
    ((url, body, headers),) = receiver.calls
    assert url == HOOK.url
    told = json.loads(body)
    assert (told["event"], told["rollout"], told["reason"]) == (
        "rollout.halted",
        "gw1-1.1.0",
        "screens black",
    )
    expected = hmac.new(b"s3cret", f"{now}.".encode() + body, hashlib.sha256).hexdigest()
    assert headers["Tidegate-Signature"] == f"t={now},v1={expected}"


def test_a_receiver_that_is_away_is_called_again_with_the_same_delivery(rig: Rig) -> None:
    _halted(rig)
    receiver = Receiver(500, OSError("refused"), 200)
    store, now = rig.app.store, int(rig.now)
    assert webhook.deliver(store, (HOOK,), now, receiver) == 0
    assert webhook.deliver(store, (HOOK,), now + webhook.PAUSES_S[0] - 1, receiver) == 0
    assert len(receiver.calls) == 1
    assert webhook.deliver(store, (HOOK,), now + webhook.PAUSES_S[0], receiver) == 0
    assert webhook.deliver(store, (HOOK,), now + 1000, receiver) == 1
    assert len({call[2]["Tidegate-Delivery"] for call in receiver.calls}) == 1


def test_a_receiver_that_never_answers_is_given_up(rig: Rig) -> None:
    _halted(rig)
    receiver = Receiver(*[500] * 100)
    now = int(rig.now)
    for step in range(100):
        webhook.deliver(rig.app.store, (HOOK,), now + step * 10_000, receiver)
    assert len(receiver.calls) == webhook.TRIES_MAX


def test_only_configured_addresses_are_called(rig: Rig) -> None:
    _halted(rig)
    store, now = rig.app.store, int(rig.now)
    webhook.deliver(store, (HOOK,), now, Receiver(500))
    receiver = Receiver()
    assert webhook.deliver(store, (), now + 1000, receiver) == 0
    assert receiver.calls == []
    assert store.read(lambda conn: admin_log.due_outbox(conn, "webhook", now + 10**6)) == []


def test_a_real_call_reaches_a_real_receiver(rig: Rig) -> None:
    got: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            got.append((self.headers["tidegate-event"], body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        _halted(rig)
        hook = Hook(name="ops", url=f"http://127.0.0.1:{server.server_port}/hook?x=1", secret=b"s")
        assert webhook.deliver(rig.app.store, (hook,), int(rig.now)) == 2
    finally:
        server.shutdown()
        server.server_close()
    assert [event for event, _ in got] == ["incident.opened", "rollout.halted"]


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "http://", "gopher://x", "http://user:pw@host/"]
)
def test_an_address_that_is_none_ends_the_start(tmp_path: Path, url: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"x")
    settings = Settings(webhooks=(Webhook(name="a", url=url, secret_file=str(secret)),))
    with pytest.raises(ConfigError) as caught:
        hooks_of(settings)
    assert caught.value.code == "config.invalid"


def test_a_secret_that_cannot_be_read_keeps_what_is_owed(rig: Rig) -> None:
    _halted(rig)
    bad = Webhook(name="a", url="http://127.0.0.1:9/", secret_file="/nowhere/secret")
    services = rig.app.services
    services.settings = msgspec.structs.replace(services.settings, webhooks=(bad,))
    assert tick(services, int(rig.now)).leader is True
    owed = rig.read(lambda conn: admin_log.due_outbox(conn, "event", int(rig.now)))
    assert len(owed) == 2


# --- the live stream ------------------------------------------------------------------------------------------------


def _bump(kind: str, key: str) -> Any:
    def work(conn: Connection) -> None:
        changes.bump(conn, kind, key, 1)

    return work


def test_a_watcher_hears_of_changes_in_order_and_of_silence(rig: Rig) -> None:
    live = Live(rig.app.store)

    async def watch() -> list[Any]:
        stream = live.stream(0.2)
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.05)
        await asyncio.wrap_future(rig.app.store.write(_bump("rollout", "a")))
        await asyncio.wrap_future(rig.app.store.write(_bump("inner", "x")))
        await asyncio.wrap_future(rig.app.store.write(_bump("incident", "b")))
        heard = [await first, await anext(stream), await anext(stream)]
        await stream.aclose()  # type: ignore[attr-defined]
        return heard

    heard = rig.loop.run_until_complete(watch())
    assert [(one.kind, one.key) if one else None for one in heard] == [
        ("rollout", "a"), ("incident", "b"), None,
    ]  # fmt: skip
    assert live.watchers == 0


def test_a_watcher_that_falls_behind_is_told_to_look_anew(rig: Rig) -> None:
    live = Live(rig.app.store)

    async def watch() -> Any:
        stream = live.stream(1)
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.05)
        await asyncio.wrap_future(rig.app.store.write(_bump("rollout", "first")))
        await first
        for number in range(300):
            await asyncio.wrap_future(rig.app.store.write(_bump("device", str(number))))
        await asyncio.sleep(0.05)
        heard = await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        return heard

    assert rig.loop.run_until_complete(watch()) == RESYNC
