"""The guide to the supply chain is carried out as it stands, against a server of its own."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.servers import free_port, wait_for
from tests.unit.core.supply import paper

from tidegate.core.metadata import signed_targets
from tidegate.publisher.bundle import read
from tidegate.publisher.keyfile import open_key

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "guides" / "supply-chain.md").read_text()

pytestmark = pytest.mark.e2e


def _calls() -> list[list[str]]:
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)).splitlines()
    calls = [shlex.split(line, comments=True)[1:] for line in lines]
    return [words for words in calls if words]


class Desk:
    """A folder, a terminal with a server in it, and another one beside."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.server: subprocess.Popen[bytes] | None = None
        (folder / "passphrase").write_text("correct horse battery staple\n")
        self.env = {
            **os.environ,
            "PYTHONPATH": str(ROOT / "src"),
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
            "TIDEGATE_SERVER": f"http://127.0.0.1:{self.port}",
            "TIDEGATE_KEY_PASSPHRASE_FILE": str(folder / "passphrase"),
        }

    def run(self, *words: str, lab: bool = False) -> "subprocess.CompletedProcess[str]":
        env = self.env
        if lab:
            env = env | {"TIDEGATE_KEY_PASSPHRASE_FILE": str(self.folder / "lab/keys/passphrase")}
        command = [sys.executable, "-m", "tidegate.cli", *words]
        return subprocess.run(
            command,
            cwd=self.folder,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def serve(self) -> None:
        command = [sys.executable, "-m", "tidegate.cli", "serve"]
        with (self.folder / "serve.log").open("wb") as log:
            self.server = subprocess.Popen(
                command, cwd=self.folder, env=self.env, stdout=log, stderr=log
            )
        wait_for(self.port, self.server)

    def close(self) -> None:
        if self.server is not None:
            self.server.terminate()
            self.server.wait(20)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    result = made.run("init", "--lab")
    assert result.returncode == 0, result.stderr
    for name, text in re.findall(r"```(?:toml|json) (\S+)\n(.*?)```", GUIDE, re.DOTALL):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    config = tmp_path / "tidegate.toml"
    config.write_text(config.read_text().replace(":8440", f":{made.port}"))
    release = tmp_path / "release.toml"
    more = (tmp_path / "release.attachments.toml").read_text()
    release.write_text(release.read_text() + "\n" + more)
    yield made
    made.close()


def _build_provenance(desk: Desk) -> None:
    """Do what the builder does after the image is there: name its digest, sign with its key."""
    bundle = read(desk.folder / "gateway-1.0.0.bundle")
    image = next(iter(signed_targets(bundle.product).values())).release.install.sha256
    said = paper.statement(
        image,
        builder="https://ci.example.com/builders/firmware@v3",
        repository="https://git.example.com/acme/gateway",
        ref="refs/tags/v1.0.0",
    )
    signer = open_key(desk.folder / "ci.key", "correct horse battery staple")
    (desk.folder / "rootfs.intoto.jsonl").write_text(json.dumps(paper.dsse(said, signer)) + "\n")


def _type(desk: Desk, words: list[str]) -> str:
    lab = words[:2] == ["release", "sign"]
    more = ["--version", "1.0.0"] if lab else []
    more += ["--root", "lab/root.1.json"] if words[:2] == ["release", "check"] else []
    result = desk.run(*words, *more, lab=lab)
    assert result.returncode == 0, f"{words}\n{result.stdout}{result.stderr}"
    return result.stdout + result.stderr


@pytest.mark.timeout(240)
def test_the_guide_ends_with_an_answer_and_a_silenced_advisory(desk: Desk) -> None:
    said: dict[str, str] = {}
    calls = _calls()
    assert len(calls) > 15
    for words in calls:
        if words[0] == "serve":
            desk.serve()
            continue
        if words[:2] == ["release", "attach"]:
            # before that, check says what the guide says it would
            _build_provenance(desk)
        said[" ".join(words)] = _type(desk, words)
    assert "2 parts" in said["release build release.toml --first"]
    assert "its origin is proven" in said["release check gateway-1.0.0.bundle --first"]
    fetched = next((desk.folder / "fetched").iterdir())
    assert fetched.read_bytes() == (desk.folder / "bom.cdx.json").read_bytes()
    assert "gateway-1.0.0" in said["components find openssl --below 3.0.17"]
    assert "not_affected" in said["advisories show CVE-2025-9230"]
    assert "vulnerable_code_not_in_execute_path" in said["advisories show CVE-2025-9230"]


@pytest.mark.timeout(240)
def test_without_provenance_check_and_server_say_the_same(desk: Desk) -> None:
    desk.run("keys", "new", "ci", "--role", "any")
    desk.serve()
    for words in (
        ["release", "publish", "lab/trust.bundle"],
        ["release", "build", "release.toml", "--first"],
        ["release", "sign", "gateway-1.0.0.bundle", "--key", "lab/keys/product.key"],
    ):
        _type(desk, words)
    bundle = "gateway-1.0.0.bundle"
    checked = desk.run("release", "check", bundle, "--first", "--root", "lab/root.1.json", "--json")
    published = desk.run("release", "publish", bundle, "--json")
    offline = desk.run(
        *("release", "check", bundle, "--first", "--targets", "lab/trust.bundle"),
        *("--policy", "tidegate.toml", "--json"),
    )
    for result in (checked, published, offline):
        problem = json.loads(result.stderr)
        assert (result.returncode, problem["code"]) == (3, "supply.policy"), result.stderr
        assert "no provenance is attached" in problem["detail"]
        assert "release attach" in problem["hint"]


def test_a_bad_file_does_not_keep_the_others_out(desk: Desk) -> None:
    desk.run("keys", "new", "ci", "--role", "any")
    desk.serve()
    (desk.folder / "bad.json").write_text('{"id": "X", "affected": 7}')
    (desk.folder / "huge.json").write_bytes(b" " * ((16 << 20) + 1))
    (desk.folder / "deep.json").write_bytes(b'{"a":' * 5_000)
    names = ("bad.json", "huge.json", "CVE-2025-9230.json", "deep.json", "none.json")
    result = desk.run("advisories", "import", *names, "--json")
    found = {one["file"]: one for one in json.loads(result.stdout)["items"]}
    assert result.returncode == 3
    assert found["CVE-2025-9230.json"]["ok"] is True
    codes = {name: one.get("code") for name, one in found.items() if not one["ok"]}
    assert codes == {
        "bad.json": "supply.malformed",
        "huge.json": "supply.too_large",
        "deep.json": "supply.too_large",
        "none.json": "config.unreadable",
    }
