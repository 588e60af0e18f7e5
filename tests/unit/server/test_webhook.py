"""Webhooks: signed, at least once, with pauses, to configured addresses only; and the live stream beside them."""

import asyncio
import base64
import contextlib
import hmac
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.server.rig import Rig

from tidegate.core.errors import ConfigError
from tidegate.server import acts, incidents, messages, outbox
from tidegate.server.auth import Actor
from tidegate.server.channels import channels_of
from tidegate.server.config import Settings, Webhook
from tidegate.server.live import RESYNC, Live
from tidegate.server.notify import webhook
from tidegate.server.notify.webhook import Hook
from tidegate.server.operations import Operations
from tidegate.server.store import Connection, admin_log, changes

OLGA = Actor(name="olga", role="operator")
POLICY: dict[str, Any] = {"preset": "lab", "ring": [{"name": "all"}], "release": "gw1-1.1.0"}
SECRET = b"0123456789abcdef0123456789abcdef"
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


def _hook(receiver: Receiver, *events: str, secrets: tuple[bytes, ...] = (SECRET,)) -> Hook:
    return Hook(
        name="ops",
        url="http://127.0.0.1:9/x",
        secrets=secrets,
        events=events or ("rollout.halted",),
        post=receiver,
    )


def _halted(rig: Rig) -> None:
    rig.publish_trust()
    rig.release(1)
    rig.device()
    operations = Operations(rig.app.services)
    operations.create(POLICY, OLGA, "", int(rig.now))
    operations.act("gw1-1.1.0", "halt", OLGA, "screens black", int(rig.now))


def _signed(secret: bytes, headers: dict[str, str], body: bytes) -> str:
    """Sign as the specification says, with nothing of ours."""
    signed = b".".join(
        (headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body)
    )
    return "v1," + base64.b64encode(hmac.digest(secret, signed, "sha256")).decode()


def test_the_signature_is_the_one_of_the_specification() -> None:
    # the example of the specification's reference libraries
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    made = webhook.sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_halt_is_told_once_signed_over_id_time_and_body(rig: Rig) -> None:
    _halted(rig)
    receiver = Receiver(204)
    store, now = rig.app.store, int(rig.now)
    assert outbox.deliver(store, (_hook(receiver),), now) == 1
    assert outbox.deliver(store, (_hook(receiver),), now + 99) == 0
    ((url, body, headers),) = receiver.calls
    assert url == "http://127.0.0.1:9/x"
    told = json.loads(body)
    assert set(told) == {"type", "timestamp", "data"}
    assert (told["type"], told["data"]["rollout"], told["data"]["reason"]) == (
        "rollout.halted",
        "gw1-1.1.0",
        "screens black",
    )
    assert headers["webhook-timestamp"] == str(now)
    assert headers["webhook-signature"] == _signed(SECRET, headers, body)


def test_while_a_secret_is_changed_both_sign(rig: Rig) -> None:
    _halted(rig)
    receiver, other = Receiver(204), b"z" * 24
    outbox.deliver(rig.app.store, (_hook(receiver, secrets=(SECRET, other)),), int(rig.now))
    ((_, body, headers),) = receiver.calls
    assert headers["webhook-signature"].split() == [
        _signed(SECRET, headers, body), _signed(other, headers, body),
    ]  # fmt: skip


def test_the_word_is_owed_in_the_transaction_that_opens_the_incident(rig: Rig) -> None:
    _halted(rig)
    row = rig.read(lambda conn: acts.row_of(conn, "gw1-1.1.0"))

    def opens_and_fails(conn: Connection) -> None:
        incidents.open_one(
            conn, kind="halt", rollout=row, summary="x", because=[], by="olga", now=int(rig.now)
        )
        raise RuntimeError

    def owed() -> list[str]:
        rows = rig.read(lambda conn: admin_log.due_outbox(conn, ("event",), int(rig.now)))
        return [str(one["payload"]["incident"]) for one in rows if one["payload"]["event"] == "incident.opened"]  # fmt: skip

    def known() -> list[str]:
        return sorted(one.name for one in rig.read(incidents.listed)[0])

    with pytest.raises(RuntimeError):
        rig.write(opens_and_fails)
    assert owed() == known() == ["INC-2027-001"]


def test_a_receiver_that_is_away_is_called_again_with_the_same_id_and_body(rig: Rig) -> None:
    _halted(rig)
    receiver = Receiver(500, OSError("refused"), 200)
    store, now, hooks = rig.app.store, int(rig.now), (_hook(receiver),)
    assert outbox.deliver(store, hooks, now) == 0
    assert outbox.deliver(store, hooks, now + outbox.PAUSES_S[0] - 1) == 0
    assert len(receiver.calls) == 1
    assert outbox.deliver(store, hooks, now + 2 * outbox.PAUSES_S[1]) == 0
    (row,), _ = rig.read(outbox.listed)
    assert (row.state, row.tries, row.error) == ("retrying", 2, "OSError: refused")
    assert outbox.deliver(store, hooks, now + 1000) == 1
    assert len({(call[1], call[2]["webhook-id"]) for call in receiver.calls}) == 1
    (row,), _ = rig.read(outbox.listed)
    assert (row.state, row.tries, row.next_at) == ("delivered", 3, 0)


def test_a_receiver_that_never_answers_is_given_up_and_can_be_told_again(rig: Rig) -> None:
    _halted(rig)
    receiver = Receiver(*[500] * 100)
    now, hooks = int(rig.now), (_hook(receiver),)
    for step in range(100):
        outbox.deliver(rig.app.store, hooks, now + step * 10_000)
    assert len(receiver.calls) == outbox.TRIES_MAX
    (dead,), _ = rig.read(lambda conn: outbox.listed(conn, state="dead"))
    assert (dead.event, dead.error, dead.about) == (
        "rollout.halted",
        "answered 500",
        "INC-2027-001",
    )
    receiver.answers = [200]
    rig.write(lambda conn: outbox.replay(conn, dead.number, OLGA, now))
    assert outbox.deliver(rig.app.store, hooks, now) == 1
    assert receiver.calls[-1][2]["webhook-id"] == receiver.calls[0][2]["webhook-id"] == dead.id
    assert rig.read(lambda conn: outbox.listed(conn, state="dead"))[0] == []


def test_a_receiver_that_is_gone_for_good_is_not_called_again(rig: Rig) -> None:
    _halted(rig)
    receiver = Receiver(410)
    outbox.deliver(rig.app.store, (_hook(receiver),), int(rig.now))
    assert outbox.deliver(rig.app.store, (_hook(receiver),), int(rig.now) + 10**6) == 0
    assert len(receiver.calls) == 1


def test_only_configured_addresses_are_called(rig: Rig) -> None:
    _halted(rig)
    store, now = rig.app.store, int(rig.now)
    outbox.deliver(store, (_hook(Receiver(500)),), now)
    assert outbox.deliver(store, (), now + 1000) == 0
    (dead,), _ = rig.read(lambda conn: outbox.listed(conn, state="dead"))
    assert dead.error == "this channel is not configured any more"


class Handler(BaseHTTPRequestHandler):
    """Keeps what comes; answers with the server's `status`, and a place to go on to."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((self.path, body))  # type: ignore[attr-defined]
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@contextlib.contextmanager
def _listening(status: int = 200) -> Iterator[Any]:
    server: Any = HTTPServer(("127.0.0.1", 0), Handler)
    server.got, server.status = [], status
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def test_a_real_call_reaches_a_real_receiver(rig: Rig) -> None:
    _halted(rig)
    with _listening() as server:
        url = f"http://127.0.0.1:{server.server_port}/hook?x=1"
        hook = Hook(name="ops", url=url, secrets=(SECRET,))
        assert outbox.deliver(rig.app.store, (hook,), int(rig.now)) == 2
    assert [path for path, _ in server.got] == ["/hook?x=1"] * 2
    assert [json.loads(body)["type"] for _, body in server.got] == ["incident.opened", "rollout.halted"]  # fmt: skip


def test_a_redirect_is_not_followed(rig: Rig) -> None:
    _halted(rig)
    with _listening(307) as server:
        url = f"http://127.0.0.1:{server.server_port}/hook"
        hook = Hook(name="ops", url=url, secrets=(SECRET,), events=("rollout.halted",))
        assert outbox.deliver(rig.app.store, (hook,), int(rig.now)) == 0
    assert [path for path, _ in server.got] == ["/hook"]


def test_a_receiver_that_drips_its_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "WHOLE_S", 0.3)
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def drip() -> None:
        taken, _ = listener.accept()
        with contextlib.suppress(OSError):
            while not over.wait(0.05):
                taken.sendall(b"H")
        taken.close()

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    try:
        with pytest.raises((OSError, http.client.HTTPException)):
            webhook.call(f"http://127.0.0.1:{listener.getsockname()[1]}/", b"{}", {})
    finally:
        over.set()
        listener.close()
        thread.join(5)


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "http://", "gopher://x", "http://user:pw@host/", "http://[::1", "http://a b/"],
)  # fmt: skip
def test_an_address_that_is_none_ends_the_start(tmp_path: Path, url: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    settings = Settings(webhooks=(Webhook(name="a", url=url, secret_file=str(secret)),))
    with pytest.raises(ConfigError) as caught:
        channels_of(settings)
    assert caught.value.code == "config.invalid"


@pytest.mark.parametrize(
    "change",
    [
        {"secret_file": ""},
        {"secret_file": "/nowhere"},
        {"events": ("rollout.halt",)},
        {"secret": b"short"},
        {"secret": b"whsec_!!!"},
        {"secret": b"\n"},
        {"twice": True},
    ],
)
def test_a_mistake_in_a_webhook_is_said_at_the_start(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(change.pop("secret", SECRET))
    twice = change.pop("twice", False)
    one = Webhook(**{"name": "a", "url": "http://127.0.0.1:9/", "secret_file": str(secret), **change})  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        channels_of(Settings(webhooks=(one, one) if twice else (one,)))
    assert "a" in caught.value.detail
    assert "short" not in caught.value.detail


def test_a_secret_in_the_form_of_the_specification_is_decoded() -> None:
    assert webhook.secrets_of(b"whsec_" + base64.b64encode(SECRET) + b"\n" + SECRET, "x") == (
        SECRET,
        SECRET,
    )


def test_a_secret_that_cannot_be_read_keeps_what_is_owed(rig: Rig) -> None:
    _halted(rig)
    bad = Webhook(name="a", url="http://127.0.0.1:9/", secret_file="/nowhere/secret")
    services = rig.app.services
    services.settings = msgspec.structs.replace(services.settings, webhooks=(bad,))
    assert rig.app.deliver(int(rig.now)) == 0
    owed = rig.read(lambda conn: admin_log.due_outbox(conn, ("event",), int(rig.now)))
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
        await stream.aclose()
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
        await stream.aclose()
        return heard

    assert rig.loop.run_until_complete(watch()) == RESYNC
