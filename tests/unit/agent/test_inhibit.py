"""Inhibitors: held by connections, left in files, put into the directory by hand; and clients that misbehave."""

import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.unit.agent.test_local import listening, staged

from tidegate.agent.holding import Holder
from tidegate.agent.inhibit import HELD_MAX, LISTED_MAX, Inhibitors, listed
from tidegate.agent.local import CLIENTS_MAX, LocalServer, Request, ask, connect
from tidegate.agent.runner import Runner
from tidegate.agent.state import Activating, Staged
from tidegate.core.errors import RequestError, TransferError


@pytest.fixture
def runner() -> Runner:
    found = staged().runner
    assert found is not None
    return found


@pytest.fixture
def path(runner: Runner, tmp_path: Path) -> Iterator[Path]:
    runner.lookout.inhibitors.directory = str(tmp_path / "inhibit.d")
    with listening(runner, tmp_path / "sock"):
        yield tmp_path / "sock"


def until(found: object) -> None:
    """Wait until a condition holds; the server runs beside us."""
    assert callable(found)
    end = time.monotonic() + 10
    while not found():
        assert time.monotonic() < end, "it never became so"
        time.sleep(0.01)


def inhibitors(path: Path) -> list[str]:
    found: list[str] = ask(path, Request(verb="status"))["status"]["inhibitors"]
    return found


SURGERY = Request(verb="inhibit", who="pump", reason="a patient is connected")


def test_an_inhibitor_is_held_as_long_as_the_connection(path: Path, runner: Runner) -> None:
    answer, connection = connect(path, SURGERY)
    assert answer["ok"]
    assert inhibitors(path) == ["pump: a patient is connected"]
    assert "wait.inhibitor" in {one.code for one in runner.because()}
    connection.close()
    until(lambda: inhibitors(path) == [])


def test_an_application_that_crashes_lets_go(path: Path) -> None:
    code = f"""
import socket, sys, time
s = socket.socket(socket.AF_UNIX); s.connect({str(path)!r})
s.sendall(b'{{"verb": "inhibit", "who": "pump", "reason": "busy"}}\\n'); s.recv(1000)
print("held", flush=True); time.sleep(60)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    assert inhibitors(path) == ["pump: busy"]
    child.send_signal(signal.SIGKILL)
    child.wait()
    until(lambda: inhibitors(path) == [])


def test_several_count_each_for_itself_and_one_may_end_by_itself(
    path: Path, runner: Runner
) -> None:
    first = connect(path, SURGERY)[1]
    second = connect(path, msgspec.structs.replace(SURGERY, who="arm", for_s=50))[1]
    assert len(inhibitors(path)) == 2
    clock = runner.ports.clock
    clock.sleep(51)
    assert inhibitors(path) == ["pump: a patient is connected"]
    first.close()
    second.close()


def test_without_a_why_and_after_the_boot_flag_it_is_refused(path: Path, runner: Runner) -> None:
    assert ask(path, Request(verb="inhibit"))["code"] == "request.invalid"
    phase = runner.state.phase
    assert isinstance(phase, Staged)
    armed = Activating(update=phase.update, nonce_mono=0.0, nonce_boot="", armed=True)
    runner.state = msgspec.structs.replace(runner.state, phase=armed)
    answer, connection = connect(path, SURGERY)
    connection.close()
    assert (answer["ok"], answer["code"]) == (False, "request.conflict")
    assert inhibitors(path) == []


def test_one_that_is_left_behind_stands_in_a_file_ends_by_itself_and_can_be_taken_away(
    path: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "inhibit.d"
    left = msgspec.structs.replace(SURGERY, detached=True, for_s=3600)
    answer = ask(path, left)
    assert answer["ok"]
    boot_s = int((folder / answer["name"]).read_text().split()[-1])
    said = f"{answer['name']}: pump: a patient is connected"
    assert listed(str(folder), boot_s - 1.0) == (said,)
    assert listed(str(folder), float(boot_s)) == ()
    assert list(folder.iterdir()) == []
    answer = ask(path, left)
    assert ask(path, Request(verb="uninhibit", name=answer["name"]))["ok"]
    assert list(folder.iterdir()) == []
    for name in (answer["name"], "../sock", "agent-../../x", "by-hand", ""):
        assert ask(path, Request(verb="uninhibit", name=name))["code"] == "request.not_found"
    assert ask(path, msgspec.structs.replace(left, for_s=0))["code"] == "request.invalid"
    assert ask(path, msgspec.structs.replace(left, for_s=10**9))["code"] == "request.invalid"


def test_files_by_hand_hold_also_when_they_are_odd(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "binary").write_bytes(b"\x1b[31m\xff\x00 red\nmore")
    (tmp_path / "endless").write_bytes(b"x" * 5000)
    (tmp_path / "never").write_bytes(b"odd\nuntil-boot soon\n")
    (tmp_path / ".hidden").touch()
    (tmp_path / "folder").mkdir()
    found = listed(str(tmp_path), 1e9)
    assert [one.partition(":")[0] for one in found] == ["binary", "empty", "endless", "never"]
    assert all(one.isprintable() and len(one) < 200 for one in found)
    assert listed(str(tmp_path / "nothing"), 0.0) == ()


def test_a_directory_with_many_files_is_not_read_without_end(tmp_path: Path) -> None:
    for number in range(LISTED_MAX + 50):
        (tmp_path / f"{number:04}").touch()
    assert len(listed(str(tmp_path), 0.0)) == LISTED_MAX


def test_there_is_an_end_to_how_many_are_held(runner: Runner) -> None:
    kept = Inhibitors(runner.ports.clock, tuple)
    for _ in range(HELD_MAX):
        kept.hold("who", "why", 0)
    with pytest.raises(RequestError) as caught:
        kept.hold("who", "why", 0)
    assert caught.value.code == "request.rate_limited"


# --- clients that misbehave -------------------------------------------------------------------------------------------


def test_silent_clients_keep_nobody_waiting_and_are_let_go(path: Path) -> None:
    silent = []
    for _ in range(20):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.connect(str(path))
        client.sendall(b'{"verb": "sta')
        silent.append(client)
    began = time.monotonic()
    assert ask(path, Request(verb="status"))["ok"]
    assert time.monotonic() - began < 1.0
    for client in silent:
        client.settimeout(10)
        assert client.recv(100) == b""
        client.close()


def test_a_flood_of_connections_locks_nobody_out_for_long(path: Path) -> None:
    clients = []
    for _ in range(CLIENTS_MAX + 40):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.connect(str(path))
        clients.append(client)
    last = clients[-1]
    assert select.select([last], [], [], 10)[0]
    assert msgspec.json.decode(last.recv(4096))["code"] == "request.rate_limited"
    for client in clients:
        client.close()
    until(lambda: ask(path, Request(verb="status"))["ok"])


def test_a_client_that_never_reads_and_one_that_never_ends_its_line_cost_nothing(
    path: Path,
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as endless:
        endless.settimeout(10)
        endless.connect(str(path))
        with pytest.raises(BrokenPipeError):
            endless.sendall(b"x" * 50_000_000)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as deaf:
        deaf.connect(str(path))
        deaf.sendall(b'{"verb": "status"}\n' * 2000)
        assert ask(path, Request(verb="status"))["ok"]


def test_the_server_never_waits(runner: Runner, tmp_path: Path) -> None:
    now = [100.0]
    server = LocalServer(str(tmp_path / "s"), 0o600, None, runner, lambda: now[0])
    assert server.patience_s == float("inf")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(tmp_path / "s"))
        server.serve(set(server.watched))
        assert server.patience_s == 2.0
        now[0] += 3
        server.serve(set())
        assert len(server.watched) == 1
    server.close()


# --- the command ------------------------------------------------------------------------------------------------------

UNDER = """
import sys
from tidegate.agent.holding import Holder
from tidegate.agent.verbs import Request
request = Request(verb="inhibit", who="pump", reason="busy")
sys.exit(Holder(sys.argv[1], request).run(sys.argv[2:]))
"""


def under(path: Path, script: str) -> "subprocess.Popen[bytes]":
    """Run a shell script under an inhibitor, in a process of its own: signals are arranged there."""
    words = [sys.executable, "-c", UNDER, str(path), "sh", "-c", script]
    return subprocess.Popen(words, stderr=subprocess.DEVNULL)


def test_a_command_runs_under_an_inhibitor_and_its_code_comes_back(
    path: Path, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    process = under(path, f"while [ ! -e {go} ]; do sleep 0.02; done; exit 7")
    until(lambda: inhibitors(path) == ["pump: busy"])
    go.touch()
    assert process.wait(10) == 7
    until(lambda: inhibitors(path) == [])


def test_a_signal_is_passed_on_and_a_killed_command_has_a_code(path: Path, tmp_path: Path) -> None:
    up = tmp_path / "up"
    process = under(path, f"touch {up}; exec sleep 60")
    until(up.exists)
    assert inhibitors(path) == ["pump: busy"]
    process.terminate()
    assert process.wait(10) == 128 + signal.SIGTERM
    until(lambda: inhibitors(path) == [])


def test_a_command_that_is_not_there_has_a_code(path: Path) -> None:
    words = [sys.executable, "-c", UNDER, str(path), "/no/such/command"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 127
    assert "error[config.unreadable]: /no/such/command" in done.stderr


def test_without_an_agent_the_command_is_not_started(tmp_path: Path) -> None:
    with pytest.raises(TransferError) as caught:
        Holder(str(tmp_path / "none"), SURGERY).run(["touch", str(tmp_path / "ran")])
    assert caught.value.code == "link.unreachable"
    assert not (tmp_path / "ran").exists()


def test_an_agent_that_comes_back_is_told_again(runner: Runner, tmp_path: Path) -> None:
    sock, go = tmp_path / "sock", tmp_path / "go"
    with listening(runner, sock):
        process = under(sock, f"while [ ! -e {go} ]; do sleep 0.02; done")
        until(lambda: inhibitors(sock) == ["pump: busy"])
    with listening(runner, sock):
        until(lambda: inhibitors(sock) == ["pump: busy"])
        go.touch()
        assert process.wait(10) == 0
