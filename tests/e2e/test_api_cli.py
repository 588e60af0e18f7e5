"""The commands of operators over real HTTP, against a server with real devices behind it."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from tests.unit.server.rig import Rig

from tidegate.cli import run
from tidegate.cli.client import find_client
from tidegate.client import structs
from tidegate.core.release import Component
from tidegate.server.auth import Actor
from tidegate.server.operations import auth_of

pytestmark = pytest.mark.e2e
Captured = pytest.CaptureFixture[str]
Cli = Callable[..., tuple[int, str, str]]
POLICY = """
schema   = 1
release  = "gw1-1.1.0"
preset   = "lab"
guards   = [{ type = "failure_rate", max = "20%", sample = 3 }]

[[ring]]
name = "all"
"""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    rig = Rig(tmp_path / "data")
    rig.publish_trust()
    rig.release(1)
    root = Actor(name="root", role="admin")
    _, token = auth_of(rig.app.services).create_token("ci", "admin", root, int(rig.now))
    config = uvicorn.Config(rig.app, port=0, lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 20
    while not server.started and time.monotonic() < end:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    monkeypatch.setenv("TIDEGATE_SERVER", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("TIDEGATE_TOKEN", token)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    yield rig
    server.should_exit = True
    thread.join(20)
    rig.close()


@pytest.fixture
def cli(served: Rig, capsys: Captured) -> Cli:
    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(list(arguments))
        found = capsys.readouterr()
        return code, found.out, found.err

    return call


def test_a_snapshot_says_whom_it_meant_and_who_is_gone(served: Rig, cli: Cli) -> None:
    for number in range(3):
        served.device(f"d{number}")
    Path("rollout.toml").write_text(POLICY)
    code, out, _ = cli("rollout", "create", "--snapshot", "--dry-run")
    assert (code, "newcomers are out (lint.snapshot)" in out) == (0, True)
    code, _, err = cli("rollout", "create", "--snapshot", "--yes", "--reason", "these three")
    assert code == 0, err
    late = served.device("late")
    assert late.poll().work is False
    code, _, err = cli("device", "decommission", "d1", "--yes", "--reason", "scrapped")
    assert code == 0, err
    code, out, _ = cli("rollout", "show", "gw1-1.1.0")
    assert "Snapshot  of 3 devices" in out
    assert "1 gone since; newcomers are out" in out
    code, out, _ = cli("device", "why", "late")
    assert "it joined after the snapshot of" in out


def test_a_rollout_from_the_file_to_the_report(served: Rig, cli: Cli) -> None:
    devices = [served.device(f"d{n}") for n in range(4)]
    Path("rollout.toml").write_text(POLICY)

    code, out, err = cli("rollout", "create", "rollout.toml", "--dry-run")
    assert code == 0
    assert "would bring gw1-1.1.0 to 4 of 4 matching devices" in out
    assert "Nothing was written" in err

    code, out, err = cli("rollout", "create", "rollout.toml")
    assert (code, out) == (2, "")
    assert "error[request.confirmation_needed]" in err

    code, out, err = cli("rollout", "create", "rollout.toml", "--yes", "--reason", "first")
    assert (code, out) == (0, "gw1-1.1.0\n")

    for device in devices[:2]:
        device.run(device.assignment())
    code, out, _ = cli("rollout", "show", "gw1-1.1.0")
    assert code == 0
    assert "active" in out
    row = next(line for line in out.splitlines() if line.startswith("all "))
    assert row.split()[2:7] == ["4", "2", "2", "0", "2"]

    code, out, _ = cli("rollout", "explain", "gw1-1.1.0")
    assert code == 0
    assert out.startswith("gw1-1.1.0 is active")

    gone = devices[2].assignment()
    devices[2].tell("staged", gone)
    assert devices[2].permit(gone).envelope is not None
    code, out, err = cli("halt", "gw1-1.1.0", "--reason", "screens black")
    assert code == 0
    assert "HALTED gw1-1.1.0" in out
    assert "d2  permitted" in out
    assert "2 devices run it (confirmed)" in out
    assert cli("halt", "gw1-1.1.0")[0] == 0

    assert cli("rollout", "wait", "gw1-1.1.0", "--timeout", "5s")[0] == 10

    code, out, _ = cli("incident", "list", "--json")
    (incident,) = json.loads(out)["items"]
    code, out, err = cli("incident", "show", incident["name"])
    assert code == 0
    assert "Corrective action" in out
    assert "corrective action" in err
    assert cli("incident", "close", incident["name"])[0] == 6
    assert cli("incident", "note", incident["name"], "--action", "fixed the driver")[0] == 0
    assert cli("incident", "close", incident["name"], "--reason", "understood")[0] == 0
    code, _, _ = cli("incident", "export", incident["name"], "--out", "report.md")
    assert code == 0
    assert "fixed the driver" in Path("report.md").read_text()

    code, out, _ = cli("rollout", "log", "gw1-1.1.0")
    assert "screens black" in out
    assert cli("rollout", "cancel", "gw1-1.1.0")[0] == 2
    assert cli("rollout", "cancel", "gw1-1.1.0", "--reason", "done with it")[0] == 0


def test_the_cohort_is_brought_back_by_command(served: Rig, cli: Cli) -> None:
    device = served.device()
    Path("rollout.toml").write_text(POLICY)
    cli("rollout", "create", "--yes", "--reason", "r")
    device.run(device.assignment())
    served.release(2, fallback_to=(1,))
    cli("rollout", "create", "--release", "gw1-1.2.0", "--yes", "--reason", "r")
    device.run(device.assignment())
    device.assignment()
    cli("halt", "gw1-1.2.0")
    code, out, _ = cli("rollout", "fallback", "gw1-1.2.0", "--dry-run")
    assert code == 0
    assert "1 devices back to gw1-1.1.0" in out
    code, out, _ = cli("rollout", "fallback", "gw1-1.2.0", "--yes", "--reason", "errors")
    assert (code, out) == (0, "gw1-1.2.0.back1\n")
    assert device.assignment().action == "fallback"


def test_devices_are_listed_asked_held_and_let_in(served: Rig, cli: Cli) -> None:
    served.device("d1")
    served.device("d9", join=False).enrol(None)
    code, out, _ = cli("device", "list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["d1", "d9"]
    assert "d9" in cli("device", "pending")[1]
    assert cli("device", "accept", "d9")[0] == 0
    assert "nobody asks to join" in cli("device", "pending")[2]
    assert cli("device", "hold", "d1", "--reason", "bench")[0] == 0
    Path("rollout.toml").write_text(POLICY)
    cli("rollout", "create", "--yes", "--reason", "r")
    code, out, _ = cli("device", "why", "d1")
    assert "d1 is not updating, because it is held by" in out
    assert cli("device", "unhold", "d1")[0] == 0
    assert cli("device", "tag", "d1", "beta")[1] == "d1: beta\n"
    assert "d1" in cli("device", "list", "--query", "tag:beta")[1]
    assert cli("device", "revoke", "d1")[0] == 2
    assert cli("device", "revoke", "d1", "--reason", "stolen")[0] == 0
    code, _, err = cli("device", "show", "nothing")
    assert (code, "error[request.not_found]" in err) == (5, True)


def test_a_device_is_shown_with_what_it_keeps_beside_its_slots(served: Rig, cli: Cli) -> None:
    device = served.device("d1")
    device.assignment(components={"app": Component(counter=7, sha256="ab" * 32)})
    assert "  beside app  counter 7  abababababab\n" in cli("device", "show", "d1")[1]


def test_claims_groups_people_and_tokens(served: Rig, cli: Cli) -> None:
    code, out, _ = cli("claim", "create", "gw1", "--name", "line", "--out", "claim.token")
    assert (code, out) == (0, "line\n")
    token = Path("claim.token")
    assert token.stat().st_mode & 0o777 == 0o600
    device = served.device("d1", join=False)
    assert json.loads(device.enrol(token.read_text().strip()).body)["state"] == "accepted"
    assert cli("claim", "revoke", "line")[0] == 0
    Path("bench.txt").write_text("d1\n")
    assert cli("group", "create", "internal", "--devices", "bench.txt")[1] == "internal\n"
    assert "d1" in cli("group", "show", "internal")[1]
    assert cli("group", "create", "internal", "--query", "model = gw1")[0] == 6
    code, out, _ = cli("user", "create", "olga", "--role", "operator")
    assert (code, len(out.split("-"))) == (0, 6)
    assert "/sign-in/ticket?t=t_" in cli("user", "link", "olga")[1]
    assert "olga" in cli("user", "list")[1]
    assert cli("token", "create", "viewer-ci")[1].startswith("tg_")
    assert cli("token", "revoke", "viewer-ci")[0] == 0


def test_status_is_one_screen_and_json_names_its_schema(served: Rig, cli: Cli) -> None:
    served.device("d1")
    code, out, _ = cli("status")
    assert code == 0
    assert "1 devices" in out
    found: dict[str, Any] = json.loads(cli("status", "--json")[1])
    assert (found["schema"], found["devices"]) == ("tidegate.status/1", {"accepted": 1})


def test_without_a_token_it_says_so(served: Rig, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_TOKEN", "tg_wrong")
    code, out, err = cli("status")
    assert (code, out) == (4, "")
    assert "error[request.unauthenticated]" in err


def test_what_changes_is_told_on_the_stream(served: Rig) -> None:
    client = find_client(None, None)
    heard: list[str] = []

    def listen() -> None:
        for line in client.lines("/api/v1/stream"):
            heard.append(line)
            if line.startswith("data: "):
                return

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    end = time.monotonic() + 15
    while thread.is_alive() and time.monotonic() < end:
        number = len(heard) + int(time.monotonic() * 1000)
        client.groups_create(structs.NewGroup(name=f"g{number}", query="model = gw1"))
        thread.join(0.2)
    told = next(line for line in heard if line.startswith("data: "))
    assert json.loads(told.removeprefix("data: "))["kind"] == "group"
    assert "event: change" in heard


def test_what_waits_for_a_second_person_is_listed_and_no_token_decides_it(
    served: Rig, cli: Cli
) -> None:
    served.device("d1")
    cli("user", "create", "pia", "--role", "approver")
    Path("rollout.toml").write_text(POLICY)
    code, _, err = cli("rollout", "create", "--yes", "--reason", "monthly")
    assert code == 7
    assert "one more person has to approve" in err
    assert "monthly" in cli("rollout", "requests")[1]
    assert "waits for the approval of one more person" in cli("rollout", "show", "gw1-1.1.0")[1]
    assert cli("rollout", "approve", "gw1-1.1.0")[0] == 4
    assert cli("rollout", "decline", "gw1-1.1.0", "--reason", "no")[0] == 4


@pytest.mark.usefixtures("served")
def test_a_demo_does_not_bring_throw_away_keys_to_a_server_that_lives(cli: Cli) -> None:
    address = os.environ["TIDEGATE_SERVER"]
    code, _, err = cli("demo", "--exit", "--server", address, "--data", "demo")
    assert code == 1
    assert "has devices or releases; the demo wants a server for itself" in err
    assert [one.name for one in find_client(None, None).releases_list()] == ["gw1-1.1.0"]
