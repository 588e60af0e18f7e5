"""A stolen server cannot slip anything into what offline keys sign next: what it has published is verified before it is built on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.unit.core.repo import NOW, Repo, release, signer

from tidegate.cli._anchor import explain_anchor, find_anchor
from tidegate.cli.output import Output
from tidegate.client import Client
from tidegate.core.accept import role_keys
from tidegate.core.authority import RootExtra
from tidegate.core.errors import PublisherError, RequestError
from tidegate.core.metadata import make_root, parse_root, root_extra, sign
from tidegate.publisher.publish import first_root, published

GOOD = Repo()
ANCHOR = GOOD.root_body()


class _Files:
    """A server that is nothing but its repository's files."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files

    def get_bytes(self, path: str) -> bytes:
        name = path.removeprefix("/d/v1/repo/")
        if name not in self.files:
            raise RequestError("request.not_found", name)
        return self.files[name]


def test_what_is_published_is_taken_as_a_device_takes_it() -> None:
    found = published(_Files(GOOD.files()), ANCHOR, "gw1", now=NOW)
    assert found is not None
    assert found.roles["product/gw1"].body == GOOD.product_body()


def test_nothing_published_is_nothing() -> None:
    assert published(_Files({"1.root.json": ANCHOR}), ANCHOR, "gw1", now=NOW) is None
    assert first_root(_Files({})) is None


@pytest.mark.parametrize(
    ("files", "code"),
    [
        (
            GOOD.but(releases=(release(117), release(666)), product=(signer("thief"),)).files()
            | {"1.targets.json": GOOD.targets_body()},
            "sig.mix_and_match",
        ),
        (GOOD.but(timestamp=signer("thief")).files() | {"1.root.json": ANCHOR}, "sig.unknown_key"),
        (
            GOOD.but(roots=tuple(signer(f"t{n}") for n in range(3)), root_version=2).files(),
            "sig.unknown_key",
        ),
        (GOOD.files() | {"timestamp.json": b"{}"}, "sig.malformed"),
    ],
    ids=["targets of its own", "foreign timestamp", "foreign root", "no metadata"],
)
def test_what_a_device_would_refuse_is_not_built_on(files: dict[str, bytes], code: str) -> None:
    with pytest.raises(PublisherError) as caught:
        published(_Files(files), ANCHOR, "gw1", now=NOW)
    assert caught.value.code == code


def test_a_thief_of_the_online_keys_cannot_add_a_target() -> None:
    """Snapshot and timestamp are honest-looking; the product role is the thief's own."""
    stolen = GOOD.but(releases=(release(117), release(666)), product=(signer("thief"),))
    files = stolen.files()
    honest = GOOD.targets_body()
    from tidegate.core.metadata import parse_snapshot, parse_targets

    named = {
        "targets": parse_targets(honest).info,
        "product/gw1": parse_targets(stolen.product_body(), "product/gw1").info,
    }
    snapshot = GOOD.snapshot_body(named)
    files |= {
        "1.targets.json": honest,
        "100.snapshot.json": snapshot,
        "timestamp.json": GOOD.timestamp_body(parse_snapshot(snapshot).info),
    }
    with pytest.raises(PublisherError) as caught:
        published(_Files(files), ANCHOR, "gw1", now=NOW)
    assert caught.value.code == "sig.unknown_key"


# --- which root is believed -----------------------------------------------------------------------------------------------


class _Server(Client):
    """A client whose server is nothing but files."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        super().__init__("http://ota.example")
        self._files = _Files(files)

    def get_bytes(self, path: str, **_: Any) -> bytes:
        return self._files.get_bytes(path)


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Output:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("TIDEGATE_ROOT", raising=False)
    return Output(json=False, quiet=False)


def test_the_first_root_seen_is_kept_and_its_words_are_told(
    out: Output, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert find_anchor(None, _Server({"1.root.json": ANCHOR}), out) == ANCHOR
    assert "Compare its words" in capsys.readouterr().err
    other = GOOD.but(roots=tuple(signer(f"t{n}") for n in range(3))).root_body()
    replaced = _Server({"1.root.json": other})
    assert find_anchor(None, replaced, out) == ANCHOR
    error = explain_anchor(PublisherError("sig.unknown_key", "x"), replaced)
    assert str(tmp_path) in error.detail


def test_a_named_root_wins(out: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "root.json"
    path.write_bytes(b"named")
    assert find_anchor(path, _Server({"1.root.json": ANCHOR}), out) == b"named"
    monkeypatch.setenv("TIDEGATE_ROOT", str(path))
    assert find_anchor(None, _Server({"1.root.json": ANCHOR}), out) == b"named"


def test_a_lab_root_is_never_kept(out: Output, tmp_path: Path) -> None:
    root = parse_root(ANCHOR)
    extra = RootExtra(lab=True, authorities=root_extra(root).authorities)
    made = make_root(version=1, expires_at=root.expires_at, roles=role_keys(root), extra=extra)
    lab = sign(made, *GOOD.roots[:2])
    assert find_anchor(None, _Server({"1.root.json": lab}), out) == lab
    assert not (tmp_path / "tidegate" / "roots").exists()


def test_without_any_root_there_is_none(out: Output) -> None:
    assert find_anchor(None, _Server({}), out) is None
