"""A team makes its trust and its first release with nothing but the command line and files."""

import json
from pathlib import Path

import pytest
from tests.unit.core.repo import signer

from tidegate.cli import run
from tidegate.core.metadata import parse_root, parse_targets
from tidegate.publisher.ceremony import words_of

Captured = pytest.CaptureFixture[str]
ONLINE = ("snapshot", "timestamp", "director", "audit")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "word").write_text("a passphrase for tests\n")
    monkeypatch.setenv("TIDEGATE_KEY_PASSPHRASE_FILE", str(tmp_path / "word"))
    monkeypatch.setattr("tidegate.publisher.keyfile.MEMORY_KIB", 64)
    online = {name: signer(f"online {name}").public.to_dict() for name in ONLINE}
    (tmp_path / "online.pub.json").write_text(json.dumps(online))
    return tmp_path


def ok(*arguments: str) -> None:
    assert run(list(arguments)) == 0, arguments


def make_keys(*names: str) -> None:
    for name in names:
        ok("keys", "new", name, "-q")


def begin(here: Path) -> str:
    make_keys("ada", "ben", "cleo", "t1", "i1", "rita", "sam")
    (here / "ceremony.toml").write_text(
        'tenant = "acme"\nonline = "online.pub.json"\n'
        '[root]\nneeds = 2\nkeys = ["ada.pub.json", "ben.pub.json", "cleo.pub.json"]\n'
        '[targets]\nkeys = ["t1.pub.json"]\n[incident]\nkeys = ["i1.pub.json"]\n'
    )
    ok("root", "begin", "ceremony.toml")
    return words_of((here / "root.draft.json").read_bytes())


def trust(here: Path) -> None:
    words = begin(here)
    for name in ("ada", "ben"):
        ok("root", "sign", "root.draft.json", "--key", f"{name}.key", "--words", words)
    ok("root", "merge", "root.draft.json", "root.draft.ada.sig", "root.draft.ben.sig")
    ok("product", "add", "gw1", "--key", "rita.pub.json", "--key", "sam.pub.json", "--needs", "2")
    words = words_of((here / "targets.draft.json").read_bytes())
    ok("targets", "sign", "targets.draft.json", "--key", "t1.key", "--words", words)
    ok("targets", "merge", "targets.draft.json", "targets.draft.t1.sig", "--root", "root.1.json")


def test_the_whole_way_from_keys_to_a_checked_release(here: Path, capsys: Captured) -> None:
    trust(here)
    ok("root", "check", "root.1.json")
    ok("targets", "check", "targets.1.json", "--root", "root.1.json")
    assert parse_root((here / "root.1.json").read_bytes()).version == 1
    (here / "image").write_bytes(b"".join(b"%d\n" % n for n in range(5_000)))
    (here / "release.toml").write_text(
        'product = "gw1"\nversion = "1.0.0"\ncounter = 1\n[hardware]\nmodel = "gw1"\n'
        '[[component]]\nname = "rootfs"\nimage = "image"\n'
    )
    ok("release", "build", "--first", "--fast")
    capsys.readouterr()
    ok("release", "sign", "gw1-1.0.0.bundle", "--key", "rita.key", "--version", "1.0.0")
    assert capsys.readouterr().out == "gw1-1.0.0.bundle\n"
    check = ["release", "check", "gw1-1.0.0.bundle", "--targets", "targets.1.json", "--first"]
    assert run(check) == 7
    assert "error[meta.incomplete]" in capsys.readouterr().err
    ok("release", "sign", "gw1-1.0.0.bundle", "--key", "sam.key", "--version", "1.0.0")
    capsys.readouterr()
    ok(*check, "--json")
    assert json.loads(capsys.readouterr().out)["new"] == ["gw1/1.0.0/rootfs"]


def test_other_words_are_not_signed(here: Path, capsys: Captured) -> None:
    begin(here)
    wrong = ["root", "sign", "root.draft.json", "--key", "ada.key", "--words", "wolf plaza"]
    assert run(wrong) == 2
    assert "error[request.confirmation_needed]" in capsys.readouterr().err
    assert not (here / "root.draft.ada.sig").exists()


def test_signing_does_not_show_the_words(here: Path, capsys: Captured) -> None:
    words = begin(here)
    capsys.readouterr()
    ok("root", "sign", "root.draft.json", "--key", "ada.key", "--words", words)
    captured = capsys.readouterr()
    assert words not in captured.out + captured.err


def test_one_signature_of_two_is_incomplete(here: Path, capsys: Captured) -> None:
    words = begin(here)
    ok("root", "sign", "root.draft.json", "--key", "ada.key", "--words", words)
    assert run(["root", "merge", "root.draft.json", "root.draft.ada.sig"]) == 7
    assert "error[meta.incomplete]" in capsys.readouterr().err
    assert not (here / "root.1.json").exists()


def test_a_key_used_twice_is_refused(here: Path, capsys: Captured) -> None:
    make_keys("ada")
    (here / "ceremony.toml").write_text(
        'online = "online.pub.json"\n[root]\nkeys = ["ada.pub.json"]\n'
        '[targets]\nkeys = ["ada.pub.json"]\n[incident]\nkeys = ["ada.pub.json"]\n'
    )
    assert run(["root", "begin", "ceremony.toml"]) == 3
    assert "error[key.trust_levels]" in capsys.readouterr().err
    twice = ["product", "add", "gw1", "--key", "ada.pub.json", "--key", "ada.pub.json"]
    assert run(twice) == 3


def test_products_are_added_to_what_is_there(here: Path) -> None:
    trust(here)
    ok("product", "add", "gw2", "--key", "sam.pub.json", "--previous", "targets.1.json")
    draft = parse_targets((here / "targets.draft.json").read_bytes())
    assert (draft.version, sorted(draft.signed.delegations.roles or {})) == (  # type: ignore[union-attr]
        2,
        ["product/gw1", "product/gw2"],
    )


def test_keys_are_listed_and_shown_without_their_secret(here: Path, capsys: Captured) -> None:
    make_keys("ada")
    capsys.readouterr()
    ok("keys", "list", "--json")
    items = json.loads(capsys.readouterr().out)["items"]
    assert [one["file"] for one in items] == ["ada.key", "ada.pub.json"]
    ok("keys", "show", "ada.key")
    shown = capsys.readouterr().out
    ok("keys", "show", "ada.pub.json")
    assert capsys.readouterr().out == shown
    ok("keys", "export-pub", "ada.key")
    assert json.loads(capsys.readouterr().out)["schema"] == "tidegate.public_key/1"


def test_a_passphrase_changes(
    here: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_keys("ada")
    (here / "next").write_text("another passphrase")
    monkeypatch.setenv("TIDEGATE_NEW_PASSPHRASE_FILE", str(here / "next"))
    ok("keys", "change-pass", "ada.key")
    assert run(["keys", "change-pass", "ada.key"]) == 1
    assert "error[key.passphrase]" in capsys.readouterr().err


def test_without_a_terminal_nothing_is_asked(
    here: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TIDEGATE_KEY_PASSPHRASE_FILE")
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert run(["keys", "new", "ada"]) == 1
    assert "error[key.passphrase]" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["root", "show", "nowhere.json"],
        ["root", "check", "word"],
        ["targets", "show", "word"],
        ["release", "sign", "word", "--key", "word", "--version", "1"],
        ["release", "build", "nowhere.toml", "--first"],
        ["keys", "show", "word"],
    ],
    ids=" ".join,
)
def test_a_wrong_file_is_one_clear_error(
    here: Path, capsys: Captured, arguments: list[str]
) -> None:
    assert run(arguments) in (1, 3)
    assert capsys.readouterr().err.startswith("error[")
