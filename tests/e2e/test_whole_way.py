"""From an empty folder to a fallback, with nothing but the printed commands: what a person, or a script with `--json` and exit codes, lives through."""

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.served import environment, free_port

from tidegate.sim import images
from tidegate.sim.virtual_board import wait_for

pytestmark = pytest.mark.e2e

ROLLOUT = 'release = "gateway-{version}"\npreset = "lab"\n[[ring]]\nname = "all"\naudience = "rest"\nsoak = "1s"\n'
HEALTH = 'schema = 1\nwarm_up = "2s"\nevery = "1s"\ngive_up = "30s"\n[[check]]\nname = "app"\ntype = "command"\nrun = ["true"]\n'
BOARD = (
    *("sim", "board", "board1", "--claim-file", "claim.txt", "--root", "lab/root.1.json"),
    *("--image", "image", "--size", "8MiB", "--version", "0.9.0"),
)


class Person:
    """Someone at a shell, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{free_port()}"
        self.stays: list[subprocess.Popen[bytes]] = []

    def run(
        self, *words: str, code: int = 0, module: str = "tidegate.cli", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command; its exit code has to be this one."""
        done = subprocess.run(
            [sys.executable, "-m", module, *words],
            cwd=self.folder,
            env={**environment(), "TIDEGATE_SERVER": self.url, **variables},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        return done

    def json(self, *words: str, code: int = 0) -> Any:
        return json.loads(self.run(*words, "--json", code=code).stdout)

    def agent(self, *words: str) -> str:
        return self.run(
            *words, "--config", "board1/agent.toml", module="tidegate.agent.main"
        ).stdout

    def stay(self, *words: str) -> None:
        """Start something that goes on."""
        with (self.folder / f"stays-{len(self.stays)}.log").open("wb") as log:
            command = [sys.executable, "-m", "tidegate.cli", *words]
            variables = {**environment(), "TIDEGATE_SERVER": self.url}
            self.stays.append(
                subprocess.Popen(command, cwd=self.folder, env=variables, stdout=log, stderr=log)
            )

    def release(self, version: str, counter: int) -> str:
        """Make a release of what stands in `image/`; returns the digest that a slot must have."""
        manifest = self.folder / "release.toml"
        text = manifest.read_text()
        text = text.replace('version = "1.0.0"', f'version = "{version}"')
        manifest.write_text(text.replace("counter = 1", f"counter = {counter}"))
        (self.folder / "image" / "etc" / "version").write_text(version)
        bundle = f"gateway-{version}.bundle"
        assert self.run("release", "build", "release.toml").stdout.splitlines()[-1] == bundle
        self.run("release", "publish", bundle, code=7)  # nobody has signed it yet
        self.run("release", "sign", bundle, "--key", "lab/keys/product.key", "--version", version)
        self.run("release", "publish", bundle)
        manifest.write_text(text)
        found = self.json("release", "show", f"gateway-{version}")
        (self.folder / "rollout.toml").write_text(ROLLOUT.format(version=version))
        return str(found["artifacts"][0]["install_sha256"])

    def create(self) -> str:
        words = ("rollout", "create", "rollout.toml", "--yes", "--reason", "because")
        return str(self.json(*words)["name"])

    def device(self) -> dict[str, Any]:
        return dict(self.json("device", "list")["items"][0])

    def phase(self) -> str:
        return str((self.device()["update"] or {}).get("state"))

    def slot(self) -> str:
        """Return the digest of what the board booted."""
        name = self.json_of_agent()["running"]["slot"]
        return hashlib.sha256((self.folder / f"board1/slot-{name}.img").read_bytes()).hexdigest()

    def json_of_agent(self) -> Any:
        return json.loads(self.agent("status", "--json"))


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Person]:
    made = Person(tmp_path)
    yield made
    for process in reversed(made.stays):
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()


def _set_up(person: Person) -> None:
    person.run("init", "--lab")
    folder = person.folder
    (folder / "health.toml").write_text(HEALTH)
    images.make_tree(folder / "image", images.TreeSpec("0.9.0"))
    person.run("status", code=8)  # nobody serves yet
    person.stay("serve", "--listen", person.url.removeprefix("http://"))
    log = folder / "stays-0.log"
    assert wait_for(lambda: "Listening on" in log.read_text(), 30), log.read_text()
    person.run("release", "publish", "lab/trust.bundle")
    person.run("claim", "create", "gateway", "--out", "claim.txt")
    assert (folder / "claim.txt").stat().st_mode & 0o077 == 0
    person.stay(*BOARD, "--server", person.url)
    assert wait_for(lambda: len(person.json("device", "list")["items"]) == 1, 30)


@pytest.mark.timeout(170)
def test_the_whole_way_by_the_printed_commands(person: Person) -> None:
    _set_up(person)
    first = person.release("1.0.0", 1)
    person.run("rollout", "create", "rollout.toml", code=2)  # would widen, and nobody is asked
    good = person.create()
    person.run("rollout", "wait", good, "--timeout", "60s")
    assert person.phase() == "confirmed"
    assert person.device()["running_version"] == "1.0.0"
    assert person.slot() == first

    second = person.release("1.1.0", 2)
    person.agent("hold", "a patient is connected")
    held = person.create()
    assert wait_for(lambda: "held" in person.run("device", "why", "board1").stdout, 20)
    _halt(person, held)
    person.agent("release")
    assert "halted" in person.run("device", "why", "board1").stdout
    assert person.slot() == first

    person.run("rollout", "resume", held, "--yes", "--reason", "the radio is mended")
    person.run("rollout", "wait", held, "--timeout", "60s")
    assert (person.device()["running_version"], person.slot()) == ("1.1.0", second)
    _go_back(person, held)
    assert (person.device()["running_version"], person.slot()) == ("1.0.0", first)
    _tells(person, held)


def _halt(person: Person, name: str) -> None:
    person.run("halt", name, "--reason", "screens black in Lyon")
    person.run("halt", name)  # again: nothing changes
    assert person.json("rollout", "show", name)["state"] == "halted"
    person.run("rollout", "wait", name, "--timeout", "5s", code=10)
    person.run("halt", "nothing-1.0.0", code=5)


def _go_back(person: Person, name: str) -> None:
    words = ("rollout", "fallback", name, "--yes", "--reason", "errors in the field")
    person.run(*words, code=6)  # what goes on is not ordered back
    person.run("halt", name)
    child = str(person.json(*words)["name"])
    person.run("rollout", "wait", child, "--timeout", "60s")


def _tells(person: Person, name: str) -> None:
    incidents = person.json("incident", "list")["items"]
    assert [one["rollout"] for one in incidents].count(name) == len(incidents) > 0
    shown = "".join(person.run("incident", "show", one["name"]).stdout for one in incidents)
    assert "screens black in Lyon" in shown
    story = person.run("rollout", "log", name).stdout
    for word in ("halt", "resume", "fallback"):
        assert word in story
    person.run("status", code=4, TIDEGATE_TOKEN="tg_nobody")
