"""What is wrong around a process: its clock, its disk, its files. Each ends in one clear line with a code and a way out, or does no harm at all."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.plant import Plant, slot_digest
from tests.e2e.served import Served, environment, run, serving
from tests.e2e.stranger import Stranger

from tidegate.core import codec
from tidegate.core.protocol import EventBody, EventItem, EventsRequest
from tidegate.sim.api import Api
from tidegate.sim.control import Control
from tidegate.sim.link import HttpWire
from tidegate.sim.virtual_board import VirtualBoard, wait_for
from tidegate.sim.workshop import Workshop

pytestmark = pytest.mark.e2e

NAME = "board-1"


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path)
    yield made
    if made.served.process.poll() is None:
        made.served.kill()


def _is_one_clear_message(stderr: str, code: str) -> None:
    first, *rest = stderr.splitlines()
    assert first.startswith(f"error[{code}]: "), stderr
    assert any(line.startswith("  do    ") for line in rest), stderr
    assert "Traceback" not in stderr
    assert len(rest) <= 4, stderr


# --- the clock -----------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(100)
@pytest.mark.parametrize("wrong", [60, 4_083_955_200], ids=["1970", "2099"])
def test_a_device_whose_clock_is_wrong_takes_a_release_all_the_same(
    plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: int
) -> None:
    folder = plant.board(NAME, plant.release(1))
    plant.release(2)
    # Every Python process of the board, the agent and its workers, starts at this time.
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(
        f"import time\nreal, began = time.time, time.time()\ntime.time = lambda: {wrong} + real() - began\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'clock'}:{environment()['PYTHONPATH']}")
    board = VirtualBoard(folder)
    board.start()
    try:
        assert wait_for(lambda: NAME in plant.control.running(), 20)
        rollout = plant.roll_out(2)
        assert plant.ends(rollout, "completed"), plant.control.rollout(rollout)
    finally:
        board.stop()
    assert slot_digest(folder, board.running) == plant.digests[2]
    # The device's opinion of the time is kept as such, and nothing is reckoned by it.
    opinions = plant.rows("SELECT DISTINCT at, received_at FROM event WHERE kind = 'confirmed'")
    assert all(abs(at - wrong) < 200 < abs(received - at) for at, received in opinions)


# --- the disk ------------------------------------------------------------------------------------------------------------


class _Cramped(Served):
    """A server whose data directory is a small file system of its own, in its own mount namespace."""

    def start(self) -> None:
        inner = [sys.executable, "-m", "tidegate.cli", "serve", "--data", str(self.data), "--listen", f"127.0.0.1:{self.port}"]  # fmt: skip
        script = 'mount -t tmpfs -o size=4m none "$0" && exec "$@"'
        command = ["unshare", "-rm", "sh", "-c", script, str(self.data), *inner]
        self.data.mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment())
        assert wait_for(lambda: self.said("Listening on"), 30), self.log.read_text()

    def claim(self) -> str:
        inside = Path(f"/proc/{self.process.pid}/root{self.data}")
        token = (inside / "bootstrap.token").read_text().strip()
        control = Control(Api(HttpWire("127.0.0.1", self.port), token))
        Workshop(self.data.with_name("shop"), "gw1", control)
        return control.make_claim("gw1", 1)


@pytest.fixture
def cramped(tmp_path: Path) -> Iterator[_Cramped]:
    probe = subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "none", str(tmp_path)],
        capture_output=True,
        check=False,
    )
    if probe.returncode:
        pytest.skip(
            "tier: full disk: nobody may mount here; needs unshare of the Debian package util-linux and leave to use it"
        )
    served = _Cramped(tmp_path / "data")
    yield served
    served.kill()


def test_a_full_disk_is_said_and_nothing_acknowledged_is_lost(cramped: _Cramped) -> None:
    device = Stranger(cramped, "d1", cramped.claim())
    device.join()
    acked, answer = 0, (200, b"", "")
    while acked < 2000:
        events = [
            EventItem(
                body=EventBody(
                    device_id="d1", seq=acked + n, at=1, kind="security", log="x" * 16_000
                )
            )
            for n in range(1, 11)
        ]
        answer = device.ask("events", codec.encode(EventsRequest(events=tuple(events))))  # type: ignore[assignment]
        if answer[0] != 200:
            break
        acked = json.loads(answer[1])["acked_seq"]
    assert (answer[0], json.loads(answer[1])["code"]) == (507, "data.full")
    assert acked > 0
    assert cramped.ask("GET", "/healthz")[0] == 200
    assert device.ask("poll", b"")[0] == 405
    assert not cramped.said("Traceback"), cramped.log.read_text()[-2000:]
    status, answered = device.send("session", device.good("session"))
    assert status == 507 or answered["acked_seq"] == acked


def test_files_leave_the_last_of_a_disk_to_events_and_to_what_people_do(cramped: _Cramped) -> None:
    device = Stranger(cramped, "d1", cramped.claim())
    device.join()
    inside = Path(f"/proc/{cramped.process.pid}/root{cramped.data}")
    token = (inside / "bootstrap.token").read_text().strip()
    sent = {"authorization": f"Bearer {token}", "content-type": "application/json"}

    def ask(method: str, path: str, body: bytes, kind: str = "application/json") -> tuple[int, Any]:
        status, answer = cramped.ask(method, f"/api/v1{path}", body, {**sent, "content-type": kind})
        return status, json.loads(answer)

    refused = 0
    for count in (3 << 20, 1 << 20, 1 << 19, 1 << 18, 1 << 17):
        promise = json.dumps({"sha256": f"{count:064x}", "length": count}).encode()
        name = ask("POST", "/uploads", promise)[1]["id"]
        part = bytes(count)
        status, answer = ask("PATCH", f"/uploads/{name}?offset=0", part, "application/octet-stream")
        if status != 200:
            assert (status, answer["code"]) == (507, "data.full")
            refused += 1
    assert ask("POST", "/bundles", bytes(6 << 20), "application/x-tar")[0] == 507
    assert refused
    assert cramped.ask("GET", "/readyz")[0] == 200
    assert device.send("events", device.good("events"))[0] == 200
    assert ask("POST", "/groups", b'{"name": "g1"}')[0] == 201


# --- files ---------------------------------------------------------------------------------------------------------------

CONFIGS: dict[str, tuple[str, str]] = {
    "no toml": ("[http\nlisten=", "config.invalid"),
    "not utf-8": ("\udcff", "config.invalid"),
    "unknown key": ("[http]\nlisten_on = '127.0.0.1:0'\n", "config.unknown_key"),
    "unknown section": ("[htpp]\n", "config.unknown_key"),
    "no unit": ("[poll]\ninterval = 300\n", "config.invalid"),
    "wrong kind": ("[http]\nlisten = 5\n", "config.invalid"),
    "no port": ("[http]\nlisten = '127.0.0.1:99999999'\n", "config.invalid"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_damaged_configuration_names_file_and_key_and_starts_nothing(
    tmp_path: Path, name: str
) -> None:
    text, code = CONFIGS[name]
    path = tmp_path / "tidegate.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    found = run("serve", "--config", str(path), "--data", str(tmp_path / "data"))
    assert found.returncode in {1, 2}
    _is_one_clear_message(found.stderr, code)
    assert not (tmp_path / "data").exists()


def test_a_configuration_that_is_not_there_is_said(tmp_path: Path) -> None:
    found = run("serve", "--config", str(tmp_path / "no.toml"), "--data", str(tmp_path / "data"))
    assert found.returncode in {1, 2}
    assert found.stderr.startswith(("error[config.unreadable]", "error[config.missing]"))
    assert not (tmp_path / "data").exists()


def test_a_damaged_online_key_is_said_and_left_as_it_is(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serving(data) as served:
        served.stop()
    key = data / "online" / "snapshot.key"
    key.write_bytes(b"not a key")
    found = run("serve", "--data", str(data), "--listen", "127.0.0.1:0")
    _is_one_clear_message(found.stderr, "key.malformed")
    assert key.read_bytes() == b"not a key"


# --- the agent -----------------------------------------------------------------------------------------------------------


def _agent(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tidegate.agent.main", *words, "--config", str(folder / "agent.toml")]  # fmt: skip
    variables = {**environment(), "TIDEGATE_SLOT": "A", "TIDEGATE_BOOT_ID": "b"}
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=30, check=False)  # fmt: skip


def _edit(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text()))


AGENTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no configuration": (lambda at: (at / "agent.toml").unlink(), "config.unreadable"),
    "no toml": (lambda at: (at / "agent.toml").write_text("[device"), "config.invalid"),
    "unknown key": (lambda at: _edit(at / "agent.toml", lambda s: s.replace("interval", "intervall")), "config.invalid"),
    "no root": (lambda at: (at / "root.json").unlink(), "config.invalid"),
    "no server": (lambda at: _edit(at / "agent.toml", lambda s: s.replace("http://", "gopher://")), "config.invalid"),
    "state under a file": (lambda at: _edit(at / "agent.toml", lambda s: s.replace('/state"', '/root.json/state"')), "install.write"),
    "no boot record": (lambda at: (at / "boot.json").write_bytes(b"garbage"), "activate.bootloader"),
}  # fmt: skip


def test_an_agent_that_cannot_run_says_why_and_changes_nothing(plant: Plant) -> None:
    image = plant.release(1)
    wrong = []
    for number, (name, (spoil, code)) in enumerate(AGENTS.items()):
        folder = plant.board(f"bad-{number}", image)
        before = [slot_digest(folder, slot) for slot in "AB"]
        spoil(folder)
        found = _agent(folder, "run", "--once")
        lines = found.stderr.splitlines() or [""]
        clear = lines[0].startswith(f"error[{code}]: ") and not any(
            "error[" in one for one in lines[1:]
        )
        if not clear or found.returncode not in {1, 2}:
            wrong.append((name, found.returncode, found.stderr[-400:]))
        assert [slot_digest(folder, slot) for slot in "AB"] == before
    assert wrong == [], "\n".join(map(str, wrong))


def test_a_second_agent_on_the_same_state_is_told_so(plant: Plant) -> None:
    folder = plant.board(NAME, plant.release(1))
    board = VirtualBoard(folder)
    board.start()
    try:
        assert wait_for(lambda: NAME in plant.control.running(), 20)
        found = _agent(folder, "run", "--once")
        assert found.returncode == 1
        assert found.stderr.startswith("error[agent.locked]")
        assert board.crashes == 0
        assert board.pid is not None
        os.kill(board.pid, 0)
    finally:
        board.stop()
