"""Identity as people work with it: a real agent process, the operator's commands, and what each prints."""

import hashlib
import json
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn
from tests.unit.agent.test_process import VirtualBoard
from tests.unit.server.rig import Rig

from tidegate.cli import run
from tidegate.core.keys import Signer
from tidegate.core.words import key_words
from tidegate.server import devices
from tidegate.server.auth import Actor
from tidegate.server.operations import auth_of
from tidegate.server.store import device_queries

pytestmark = pytest.mark.e2e
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path / "data")
    made.publish_trust()
    yield made
    made.close()


@pytest.fixture
def url(rig: Rig) -> Iterator[str]:
    config = uvicorn.Config(
        rig.app,
        port=0,
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 20
    while not server.started and time.monotonic() < end:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(20)


@pytest.fixture
def cli(
    rig: Rig,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Cli:
    root = Actor(name="root", role="admin")
    _, token = auth_of(rig.app.services).create_token("ci", "admin", root, int(rig.now))
    monkeypatch.setenv("TIDEGATE_SERVER", url)
    monkeypatch.setenv("TIDEGATE_TOKEN", token)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(list(arguments))
        found = capsys.readouterr()
        return code, found.out, found.err

    return call


@pytest.fixture
def board(rig: Rig, url: str, tmp_path: Path) -> VirtualBoard:
    folder = tmp_path / "board"
    folder.mkdir()
    (folder / "root.json").write_bytes(rig.ask("GET", "/d/v1/repo/1.root.json").body)
    (folder / "installed.json").write_bytes(b"{}")
    return VirtualBoard(folder, url)


def words_in(text: str) -> str:
    found = re.search(r"Fingerprint  ([a-z ]+)\n {13}([0-9a-f]{64})\n", text)
    assert found is not None, text
    assert key_words(found[2]) == found[1]
    return found[1]


def test_a_person_lets_in_the_device_that_shows_its_fingerprint(
    rig: Rig, cli: Cli, board: VirtualBoard
) -> None:
    asked = board.agent("enrol", "--no-claim")
    assert asked.returncode == 7, asked.stderr
    words = words_in(asked.stdout)
    key = board.folder / "state" / "device.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    code, out, _ = cli("device", "pending")
    assert (code, words in out) == (0, True)
    other = key_words(hashlib.sha256(b"another").hexdigest())
    code, _, err = cli("device", "approve", "dev-1", "--fingerprint", other)
    assert code == 6
    assert "not that of the key which asks" in err
    code, _, err = cli("device", "approve", "dev-1", "--fingerprint", "acorn actor")
    assert (code, "eight words" in err) == (2, True)
    code, out, _ = cli("device", "approve", "dev-1", "--fingerprint", words.upper())
    assert (code, out) == (0, "dev-1 is accepted.\n")
    assert "Joined: dev-1." in board.agent("enrol", "--no-claim").stdout

    done = board.agent("rekey")
    assert (done.returncode, "the old one is dead" in done.stdout) == (0, True)
    new = words_in(done.stdout)
    assert new != words
    assert new in cli("device", "show", "dev-1")[1]

    key.chmod(0o644)
    loose = board.agent("rekey")
    assert loose.returncode == 1
    assert "others may read it" in loose.stderr
    assert "chmod 600" in loose.stderr
    key.chmod(0o600)

    row = rig.read(lambda conn: device_queries.by_id(conn, "dev-1")).row
    rig.write(lambda conn: devices.set_state(conn, row, "quarantined", int(rig.now)))
    assert cli("device", "accept", "dev-1")[0] == 6
    waits = board.agent("rekey")
    assert waits.returncode == 7
    assert "tidegate device swap dev-1" in waits.stdout
    code, out, _ = cli("device", "swap", "dev-1", "--fingerprint", words_in(waits.stdout))
    assert (code, out) == (0, "dev-1 may come with its new key now.\n")
    assert "expected: " in cli("device", "show", "dev-1")[1]
    assert board.agent("rekey").returncode == 0
    assert json.loads(cli("device", "show", "dev-1", "--json")[1])["state"] == "accepted"

    # the board burns: another one says the same id
    for one in (board.folder / "state").iterdir():
        one.unlink()
    refused = board.agent("enrol", "--no-claim")
    assert refused.returncode == 1
    assert "belongs to another key" in refused.stderr
    assert cli("device", "swap", "dev-1", "--fingerprint", words_in(refused.stdout))[0] == 0
    assert "Joined: dev-1." in board.agent("enrol", "--no-claim").stdout


def test_a_factorys_list_comes_in_line_by_line(rig: Rig, cli: Cli) -> None:
    signers = [Signer.from_seed(hashlib.sha256(b"%d" % n).digest()) for n in range(1200)]
    lines = ["id,public_key,product,attributes.plant"]
    lines += [f"d{n},{one.public.public},gw1,north" for n, one in enumerate(signers)]
    lines[3] = "d2,not-a-key,gw1,north"
    lines[700] = "d699"
    lines[1100] = f"d1099,{signers[1099].public.public},gw2,north"
    Path("line.csv").write_text("\n".join(lines) + "\n")
    code, out, err = cli("device", "preauthorize", "line.csv")
    assert code == 2
    assert out.startswith("1,197 added, 0 known already, 3 refused\n")
    assert [int(one) for one in re.findall(r"line (\d+): ", out)] == [4, 701, 1101]
    assert "import the file again" in err
    lines[3] = f"d2,{signers[2].public.public},gw1,north"
    lines[700] = f"d699,{signers[699].public.public},gw1,north"
    lines[1100] = f"d1099,{signers[1099].public.public},gw1,north"
    Path("line.csv").write_text("\n".join(lines) + "\n")
    code, out, _ = cli("device", "preauthorize", "line.csv")
    assert (code, out) == (0, "3 added, 1,197 known already, 0 refused\n")
    device = rig.device("d7", join=False)
    device.key = signers[7]
    assert json.loads(device.enrol(None).body)["state"] == "accepted"
    code, out, _ = cli("device", "preauthorized", "--limit", "2000", "--json")
    items = json.loads(out)["items"]
    assert len(items) == 1200
    assert [one["id"] for one in items if one["used_at"]] == ["d7"]
    spare = signers[8].public.identity
    assert cli("device", "preauthorized", "--drop", spare)[0] == 0
    assert cli("device", "preauthorized", "--drop", spare)[0] == 5
    device = rig.device("d8", join=False)
    device.key = signers[8]
    assert json.loads(device.enrol(None).body)["state"] == "pending"


def test_ends_and_false_alarms_by_command(rig: Rig, cli: Cli) -> None:
    for name in ("d1", "d2"):
        rig.device(name)
    assert cli("device", "decommission", "d1")[0] == 2
    code, _, err = cli("device", "decommission", "d1", "--reason", "scrapped")
    assert (code, "confirmation" in err) == (2, True)
    assert cli("device", "decommission", "d1", "--yes", "--reason", "scrapped")[0] == 0
    assert "decommissioned" in cli("device", "show", "d1")[1]
    assert cli("device", "accept", "d1")[0] == 6
    assert cli("device", "swap", "d1", "--fingerprint", "ab" * 32)[0] == 6
    row = rig.read(lambda conn: device_queries.by_id(conn, "d2")).row
    rig.write(lambda conn: devices.set_state(conn, row, "quarantined", int(rig.now)))
    assert "d2" in cli("device", "list", "--state", "quarantined")[1]
    assert cli("device", "clear", "d2")[0] == 2
    assert cli("device", "clear", "d2", "--reason", "restored twice")[0] == 0
    assert cli("device", "clear", "d2", "--reason", "restored twice")[0] == 6
    assert cli("device", "rekey", "d2")[0] == 0
    assert "the device makes it when it asks next" in cli("device", "show", "d2")[1]
    code, _, err = cli("claim", "create", "gw2")
    assert code == 2
    assert 'nobody signs for "gw2"; did you mean "gw1"?' in err
