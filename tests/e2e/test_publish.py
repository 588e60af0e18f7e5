"""Trust and releases reach a real server by the command line, and what a device would refuse does not."""

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.served import Served, serving

from tidegate.cli import run
from tidegate.core.metadata import file_name, parse_root
from tidegate.core.payload import HEADER_SIZE, Index, head_size
from tidegate.core.verify import verify_release, walk_repository
from tidegate.publisher.bundle import read, replace_documents
from tidegate.publisher.ceremony import read_online
from tidegate.publisher.lab import Lab, make_lab
from tidegate.publisher.sign import sign_bundle

pytestmark = pytest.mark.e2e
Captured = pytest.CaptureFixture[str]

RELEASE = """
product = "gw1"
version = "{version}"
counter = {counter}
[hardware]
model = "gw1"
[[component]]
name = "rootfs"
directory = "tree"
size = "4MiB"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("publish")
    with serving(folder / "data") as served:
        yield served


@pytest.fixture(scope="module")
def lab(server: Served) -> Lab:
    online = read_online(server.data / "online.pub.json")
    return make_lab(server.data.parent / "lab", online, ["gw1"], now=int(time.time()))


@pytest.fixture
def shop(
    server: Served, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> Path:
    """A folder with a release to build, on the server's own machine; root and targets are published."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("TIDEGATE_SERVER", f"http://127.0.0.1:{server.port}")
    monkeypatch.setenv("TIDEGATE_DATA_DIR", str(server.data))
    for name in ("TIDEGATE_TOKEN", "TIDEGATE_TOKEN_FILE", "TIDEGATE_KEY_PASSPHRASE_FILE"):
        monkeypatch.delenv(name, raising=False)
    assert run(["release", "publish", str(lab.trust)]) == 0
    tree = tmp_path / "tree"
    tree.mkdir()
    for one in sorted(Path(json.__file__).parent.glob("*.py")):
        shutil.copyfile(one, tree / one.name)
    capsys.readouterr()
    return tmp_path


def build(shop: Path, lab: Lab, version: str, counter: int, *more: str) -> Path:
    (shop / "tree" / "version").write_text(version)
    (shop / "release.toml").write_text(RELEASE.format(version=version, counter=counter))
    assert run(["release", "build", "--fast", *more]) == 0
    bundle = shop / f"gw1-{version}.bundle"
    sign = ["release", "sign", str(bundle), "--key", str(lab.keys["product"])]
    assert run([*sign, "--version", version]) == 0
    return bundle


def files_of(server: Served, *, roots: int = 1) -> dict[str, bytes]:
    """Fetch the repository as a device does."""
    found = {}
    names = [file_name("root", n) for n in range(1, roots + 1)] + ["timestamp.json"]
    for name in names:
        status, found[name] = server.ask("GET", f"/d/v1/repo/{name}")
        assert status == 200
    version = json.loads(found["timestamp.json"])["signed"]["meta"]["snapshot.json"]["version"]
    snapshot = file_name("snapshot", version)
    found[snapshot] = server.ask("GET", f"/d/v1/repo/{snapshot}")[1]
    for name, meta in json.loads(found[snapshot])["signed"]["meta"].items():
        served = file_name(name.removesuffix(".json"), meta["version"])
        found[served] = server.ask("GET", f"/d/v1/repo/{served}")[1]
    return found


def test_a_release_goes_from_a_folder_to_what_devices_believe(
    server: Served, lab: Lab, shop: Path, capsys: Captured
) -> None:
    bundle = build(shop, lab, "1.0.0", 1)
    assert run(["release", "check", str(bundle)]) == 0
    capsys.readouterr()
    assert run(["release", "publish", str(bundle)]) == 0
    assert capsys.readouterr().out == "gw1-1.0.0\n"
    anchor = lab.root.read_bytes()
    trusted = walk_repository(files_of(server), anchor=anchor, now=int(time.time()))
    found = verify_release(trusted, "gw1/1.0.0/rootfs")
    token = (server.data / "bootstrap.token").read_text().strip()
    status, body = server.ask(
        "GET", f"/d/v1/blobs/{found.sha256}", headers={"authorization": f"Bearer {token}"}
    )
    assert status in (200, 401), "bytes are for devices; whoever gets them gets the signed ones"
    if status == 200:
        assert hashlib.sha256(body).hexdigest() == found.sha256
    container = read(bundle).manifest.payloads[0]
    assert container.sha256 == found.sha256
    assert run(["release", "list", "--json"]) == 0
    items = json.loads(capsys.readouterr().out)["items"]
    assert [(one["name"], one["counter"]) for one in items] == [("gw1-1.0.0", 1)]
    assert run(["release", "show", "gw1-1.0.0"]) == 0


def test_the_next_release_is_built_on_what_is_published(
    server: Served, lab: Lab, shop: Path, capsys: Captured
) -> None:
    bundle = build(shop, lab, "1.1.0", 2)
    assert read(bundle).product.version == 2
    assert run(["release", "publish", str(bundle), "--dry-run"]) == 0
    assert run(["release", "publish", str(bundle)]) == 0
    assert run(["release", "publish", str(bundle)]) == 0, "the same again is no error"


def test_who_publishes_what_was_recalled_is_told(lab: Lab, shop: Path, capsys: Captured) -> None:
    bundle = build(shop, lab, "1.2.0", 3)
    assert run(["release", "publish", str(bundle)]) == 0
    assert "rollout create" in capsys.readouterr().err
    assert run(["release", "recall", "gw1-1.2.0", "--reason", "bricks"]) == 0
    capsys.readouterr()
    assert run(["release", "publish", str(bundle)]) == 0
    told = capsys.readouterr().err
    assert "gw1-1.2.0 is recalled" in told
    assert "rollout create" not in told
    assert run(["release", "re-release", "gw1-1.2.0"]) == 0
    assert "gw1-1.2.0 was recalled" in capsys.readouterr().err


def test_an_edit_says_first_what_it_comes_to(lab: Lab, shop: Path, capsys: Captured) -> None:
    assert run(["release", "publish", str(build(shop, lab, "1.3.0", 4))]) == 0
    rollout = 'release = "gw1-1.3.0"\npreset = "normal"\ndraft = true\n'
    (shop / "rollout.toml").write_text(rollout)
    assert run(["rollout", "create", "rollout.toml", "--yes", "--reason", "new"]) == 0
    late = rollout + '[delivery]\ndeadline = "2020-01-01T00:00:00Z"\n'
    (shop / "late.toml").write_text(late)
    capsys.readouterr()
    assert run(["rollout", "edit", "gw1-1.3.0", "late.toml", "--dry-run"]) == 2
    assert "lint.deadline_past" in capsys.readouterr().err
    edit = ["rollout", "edit", "gw1-1.3.0", "--ring-audience", "pilot=not group:nobody"]
    assert run([*edit, "--dry-run"]) == 0
    told = capsys.readouterr()
    assert "warning  there is no group nobody" in told.out
    assert "Nothing was changed" in told.err
    assert run(["rollout", "show", "gw1-1.3.0", "--json"]) == 0
    assert "group:nobody" not in capsys.readouterr().out
    assert run(edit) == 2, "nobody is there to confirm it"
    assert "there is no group nobody" in capsys.readouterr().err
    assert run([*edit, "--yes", "--reason", "all but them"]) == 0
    assert "there is no group nobody" in capsys.readouterr().err


def refused(capsys: Captured, bundle: Path, code: str, exit_code: int) -> None:
    capsys.readouterr()
    assert run(["release", "publish", str(bundle), "--json"]) == exit_code
    problem = json.loads(capsys.readouterr().err)
    assert (problem["code"], problem["exit"]) == (code, exit_code)


def test_tampered_bytes_are_not_published(lab: Lab, shop: Path, capsys: Captured) -> None:
    bundle = build(shop, lab, "2.0.0", 10)
    whole = bundle.read_bytes()
    container = whole[whole.index(b"TDGP") :]
    first = Index.parse(container[: head_size(container[:HEADER_SIZE])]).segments[0]
    body = bytearray(whole)
    body[whole.index(b"TDGP") + first.offset + 9] ^= 1
    bundle.write_bytes(body)
    refused(capsys, bundle, "download.hash", 3)


def test_a_foreign_signature_is_not_published(lab: Lab, shop: Path, capsys: Captured) -> None:
    bundle = build(shop, lab, "2.0.0", 10)
    document = json.loads(read(bundle).product.body)
    document["signatures"] = []
    replace_documents(bundle, {"product/gw1": json.dumps(document).encode()})
    sign_bundle(bundle, lab.signer("incident"))
    refused(capsys, bundle, "sig.unknown_key", 3)


def test_a_downgrade_is_not_published(lab: Lab, shop: Path, capsys: Captured) -> None:
    (shop / "release.toml").write_text(RELEASE.format(version="0.9.0", counter=1))
    assert run(["release", "build", "--fast"]) == 3
    assert "error[compat.counter]" in capsys.readouterr().err
    bundle = build(shop, lab, "0.9.0", 1, "--first")
    capsys.readouterr()
    assert run(["release", "publish", str(bundle)]) in (3, 6)
    assert capsys.readouterr().err.startswith(("error[sig.rollback]", "error[release.exists]"))


def test_a_foreign_root_is_not_published(
    server: Served, shop: Path, tmp_path: Path, capsys: Captured
) -> None:
    online = read_online(server.data / "online.pub.json")
    other = make_lab(tmp_path / "other", online, ["gw1"], now=int(time.time()))
    capsys.readouterr()
    assert run(["root", "publish", str(other.root)]) in (3, 6)
    assert "error[" in capsys.readouterr().err
    served = server.ask("GET", "/d/v1/repo/1.root.json")[1]
    assert parse_root(served).body != other.root.read_bytes()


def test_strangers_publish_nothing(
    lab: Lab, shop: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TIDEGATE_DATA_DIR")
    capsys.readouterr()
    assert run(["release", "publish", str(lab.trust)]) == 4
    assert "error[request.unauthenticated]" in capsys.readouterr().err
