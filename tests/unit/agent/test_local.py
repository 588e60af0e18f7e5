"""The socket: verbs for people, and clients that misbehave."""

import select
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from tests.crash.lab import Device, Order, make_device

from tidegate.agent import main
from tidegate.agent.local import LocalServer, Request, ask
from tidegate.agent.runner import Runner
from tidegate.agent.state import (
    Idle,
    Staged,
)
from tidegate.agent.status import describe, lines
from tidegate.core.errors import TransferError


def staged() -> Device:
    device = make_device(1, 2)
    device.plane.halted = True
    device.plane.order = Order("install", device.plane.releases[1], "u-1")
    for runner in device.run(3600):
        if isinstance(runner.state.phase, Staged) and runner.state.wait is not None:
            break
    return device


@contextmanager
def listening(runner: Runner, path: Path) -> Iterator[LocalServer]:
    server = LocalServer(str(path), 0o660, None, runner)
    stop, wake = socket.socketpair()

    def serve() -> None:
        while True:
            ready, _, _ = select.select([stop, *server.watched], [], [], min(server.patience_s, 30))
            if stop in ready:
                return
            server.serve({one for one in ready if one is not stop})

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server
    finally:
        wake.send(b"x")
        thread.join()
        stop.close()
        wake.close()
        server.close()


def verb(device: Device, folder: Path, name: str, **more: Any) -> dict[str, Any]:
    assert device.runner is not None
    with listening(device.runner, folder / "sock"):
        return ask(folder / "sock", Request(verb=name, **more))


def test_status_says_what_it_waits_for_and_what_comes_then(tmp_path: Path) -> None:
    device = staged()
    found = verb(device, tmp_path, "status")["status"]
    assert found["schema"] == "tidegate.agent.status/1"
    assert found["running"]["release_counter"] == 1
    assert (found["update"]["state"], found["update"]["slot"]) == ("staged", "B")
    assert found["update"]["because"] == [
        {"code": "wait.permit", "detail": "the rollout is halted"}
    ]
    assert all(line.isascii() for line in lines(found))
    assert "Waiting   the rollout is halted" in lines(found)


def test_hold_and_release_are_written_down(tmp_path: Path) -> None:
    device = staged()
    assert verb(device, tmp_path, "hold", reason="field test")["ok"]
    assert device.runner is not None
    hold = device.runner.state.hold
    assert hold is not None
    assert hold.until_at == device.runner.now() + 7 * 86_400
    assert describe(device.runner)["holds"][0]["reason"] == "field test"
    assert verb(device, tmp_path, "release")["ok"]
    assert device.runner.state.hold is None


def test_a_hold_that_ends_in_the_past_is_refused(tmp_path: Path) -> None:
    answer = verb(staged(), tmp_path, "hold", until_at=5)
    assert (answer["ok"], answer["code"]) == (False, "request.invalid")


def test_revert_of_what_is_staged_declines_it(tmp_path: Path) -> None:
    device = staged()
    assert verb(device, tmp_path, "revert", reason="no")["ok"]
    assert device.runner is not None
    assert isinstance(device.runner.state.phase, Idle)
    assert device.runner.state.outbox[-1].kind == "declined"


def test_revert_without_a_confirmed_image_to_go_to_is_refused(tmp_path: Path) -> None:
    device = make_device(1)
    device.start()
    assert device.runner is not None
    device.runner.tick()
    answer = verb(device, tmp_path, "revert")
    assert (answer["ok"], answer["code"]) == (False, "request.conflict")


def test_confirm_without_a_trial_and_an_unknown_verb_are_refused(tmp_path: Path) -> None:
    device = staged()
    assert verb(device, tmp_path, "confirm")["code"] == "request.conflict"
    assert verb(device, tmp_path, "selfdestruct")["code"] == "request.invalid"


def test_the_socket_is_for_its_owner_and_group_alone(tmp_path: Path) -> None:
    device = staged()
    assert device.runner is not None
    server = LocalServer(str(tmp_path / "sock"), 0o660, None, device.runner)
    assert stat.S_IMODE((tmp_path / "sock").stat().st_mode) == 0o660
    server.close()
    assert not (tmp_path / "sock").exists()


def test_clients_that_misbehave_cost_nothing_but_a_moment(tmp_path: Path) -> None:
    device = staged()
    assert device.runner is not None
    path = tmp_path / "sock"
    with listening(device.runner, path):
        for body in (b"", b"not json\n", b'{"verb": 7}\n'):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.connect(str(path))
                client.sendall(body)
                client.shutdown(socket.SHUT_WR)
                answer = msgspec.json.decode(client.recv(4096))
                assert answer["code"] == "request.invalid"
        assert ask(path, Request(verb="status"))["ok"]


RUNS: dict[str, Any] = {
    "release": "gw1-1.0.0", "release_counter": 1, "sha256": "aa", "slot": "A", "confirmed": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("after", "code"),
    [
        ({"update": None, "running": RUNS}, 1),
        ({"update": None, "running": RUNS | {"sha256": "bb", "slot": "B"}}, 0),
        ({"update": {"release": "gw1-2.0.0", "state": "testing", "slot": "B"}, "running": RUNS}, 0),
    ],
)
def test_who_brought_a_bundle_is_told_also_when_the_device_restarts_meanwhile(
    after: dict[str, Any], code: int, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    whole = describe(staged_runner()) | after
    silence = TransferError("link.unreachable", "no agent answers")
    said: list[Any] = [
        {"bundle": {"state": "checking"}}, silence, silence, {"bundle": {"state": "none"}}, {"status": whole},
    ]  # fmt: skip

    def ask_in_turn(_path: str, _request: Request) -> Any:
        found = said.pop(0)
        if isinstance(found, TransferError):
            raise found
        return found

    monkeypatch.setattr("tidegate.agent.local.ask", ask_in_turn)
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    assert main._follow(SimpleNamespace(socket_path="sock"), "aa") == code  # type: ignore[arg-type]
    assert "The device restarted meanwhile." in capsys.readouterr().out


def staged_runner() -> Runner:
    runner = staged().runner
    assert runner is not None
    return runner
