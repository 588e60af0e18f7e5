"""A team makes its trust and its first release with nothing but the command line and files."""

import json
import re
import subprocess
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


# --- ceremonies after the first -----------------------------------------------------------------------------------------


def next_root(here: Path) -> str:
    trust(here)
    make_keys("dora")
    text = (here / "ceremony.toml").read_text().replace("cleo.pub", "dora.pub")
    (here / "ceremony-2.toml").write_text(text)
    ok("root", "begin", "ceremony-2.toml", "--previous", "root.1.json")
    return words_of((here / "root.draft.json").read_bytes())


def test_whoever_signs_a_later_root_sees_who_comes_and_who_goes(
    here: Path, capsys: Captured
) -> None:
    words = next_root(here)
    shown = capsys.readouterr().err
    assert re.search(r"root +comes  dora ", shown)
    assert re.search(r"goes   cleo ", shown)
    ok("root", "sign", "root.draft.json", "--key", "ada.key", "--words", words)
    shown = capsys.readouterr().err
    assert re.search(r"root +comes  dora ", shown)
    assert "ada (you)" in shown
    ok("root", "show", "root.draft.json", "--json")
    (change,) = json.loads(capsys.readouterr().out)["changes"]["roles"]
    assert change["role"] == "root"
    assert [one["name"] for one in change["comes"]] == ["dora"]
    assert [one["name"] for one in change["goes"]] == ["cleo"]


def test_without_the_root_before_it_a_draft_shows_no_false_difference(
    here: Path, capsys: Captured
) -> None:
    words = next_root(here)
    (here / "root.1.json").rename(here / "away.json")
    capsys.readouterr()
    ok("root", "sign", "root.draft.json", "--key", "ada.key", "--words", words)
    shown = capsys.readouterr().err
    assert "what changes cannot be shown" in shown
    assert "comes" not in shown
    assert run(["root", "merge", "root.draft.json", "root.draft.ada.sig"]) == 3
    assert "error[sig.mix_and_match]" in capsys.readouterr().err


def test_a_stranger_is_stopped_before_signing(here: Path, capsys: Captured) -> None:
    words = next_root(here)
    make_keys("mallory")
    assert run(["root", "sign", "root.draft.json", "--key", "mallory.key", "--words", words]) == 3
    assert "error[sig.unknown_key]: mallory has no say" in capsys.readouterr().err
    assert not (here / "root.draft.mallory.sig").exists()


def test_a_draft_after_a_root_that_nobody_signed_is_refused(here: Path, capsys: Captured) -> None:
    begin(here)
    unsigned = ["root", "begin", "ceremony.toml", "--previous", "root.draft.json"]
    assert run([*unsigned, "--out", "next.json"]) == 3
    assert "error[sig." in capsys.readouterr().err
    assert not (here / "next.json").exists()


def test_the_keys_of_a_product_change_by_name(here: Path, capsys: Captured) -> None:
    trust(here)
    make_keys("tom")
    change = ["product", "keys", "gw1", "--previous", "targets.1.json"]
    ok(*change, "--remove", "sam", "--add", "tom.pub.json")
    shown = capsys.readouterr().err
    assert re.search(r"gw1 +comes  tom ", shown)
    assert re.search(r"goes   sam ", shown)
    assert run([*change, "--remove", "nobody"]) == 5
    assert run([*change, "--remove", "sam"]) == 3  # two needed of one key
    assert "error[sig.threshold]" in capsys.readouterr().err
    assert run([*change, "--needs", "2", "--one-signer"]) == 2
    assert run(["product", "keys", "gw9", "--previous", "targets.1.json", "--needs", "1"]) == 5


def test_a_shop_of_one_is_told_what_that_means(here: Path, capsys: Captured) -> None:
    make_keys("rita")
    ok("product", "add", "gw1", "--key", "rita.pub.json")
    assert "nothing may go to stable" in capsys.readouterr().err
    ok("product", "add", "gw1", "--key", "rita.pub.json", "--one-signer")
    assert "ONE person can release to stable" in capsys.readouterr().err


def test_two_keys_of_one_name_in_one_role_are_refused(here: Path, capsys: Captured) -> None:
    make_keys("ada")
    (here / "two").mkdir()
    ok("keys", "new", "two/ada", "-q")
    both = ["--key", "ada.pub.json", "--key", "two/ada.pub.json"]
    assert run(["product", "add", "gw1", *both, "--needs", "2"]) == 1
    assert "two keys are called ada" in capsys.readouterr().err


def test_the_calendar_reads_documents_and_writes_an_icalendar(here: Path, capsys: Captured) -> None:
    trust(here)
    capsys.readouterr()
    ok("keys", "calendar", "root.1.json", "targets.1.json", "--json")
    items = json.loads(capsys.readouterr().out)["items"]
    assert [(one["role"], one["level"]) for one in items] == [("targets", "ok"), ("root", "ok")]
    ok("keys", "calendar", "root.1.json", "--ics")
    shown = capsys.readouterr().out
    assert shown.startswith("BEGIN:VCALENDAR")
    assert shown.count("BEGIN:VALARM") == 4
    (here / "x").write_text("{}")
    assert run(["keys", "calendar", "x"]) == 3
    assert run(["keys", "calendar", "missing"]) == 1


def test_a_pem_key_is_imported_by_command(here: Path, capsys: Captured) -> None:
    source = here / "ci.pem"
    command = ["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(source)]
    subprocess.run(command, check=True, capture_output=True)
    ok("keys", "import", "ci", "--role", "product", "--from", "ci.pem")
    ok("keys", "show", "ci.key")
    assert "for product" in capsys.readouterr().out
    assert run(["keys", "import", "ci", "--from", "ci.pem"]) == 1
    assert run(["keys", "import", "other", "--from", "absent.pem"]) == 5
    assert run(["root", "sign", "root.draft.json", "--key", "ci.pem"]) == 1


# --- files that are not what they should be -------------------------------------------------------------------------------

GARBAGE = (
    b"",
    b"{}",
    b"[]",
    b"null",
    b"\xff\xfe",
    b"{" * 5_000,
    b'{"signed": {"_type": "root"}, "signatures": []}',
    b'{"signed": {"_type": "targets"}, "signatures": [{"keyid": "a", "sig": "zz"}]}',
    b'{"schema": "tidegate.public_key/1"}',
    b'{"schema": "tidegate.key/1", "name": "a"}',
    b"-----BEGIN PRIVATE KEY-----",
    b"x" * 300_000,
)
COMMANDS = (
    "root show x",
    "root sign x --key ada.key --words w",
    "root sign root.draft.json --key x --words w",
    "root merge x root.draft.ada.sig",
    "root merge root.draft.json x",
    "root check x",
    "root check root.1.json --against x",
    "root begin ceremony.toml --previous x --out y",
    "root begin x --out y",
    "targets show x",
    "targets begin --previous x --out y",
    "targets check x --root root.1.json",
    "targets check targets.1.json --root x",
    "targets merge x targets.draft.t1.sig --root root.1.json",
    "product add gw3 --key x --out y",
    "product keys gw1 --needs 1 --previous x --out y",
    "product re-sign gw1 --previous x --out y",
    "product sign x --key rita.key --words w",
    "product check x --targets targets.1.json",
    "product merge x targets.draft.t1.sig --targets targets.1.json",
    "keys show x",
    "keys export-pub x",
    "keys change-pass x",
    "keys import z --from x",
    "keys calendar x",
    "root publish root.1.json --with x",
)


def test_no_file_that_is_given_makes_a_command_fall_over(here: Path, capsys: Captured) -> None:
    trust(here)
    for garbage in GARBAGE:
        (here / "x").write_bytes(garbage)
        for command in COMMANDS:
            code = run(command.split())
            shown = capsys.readouterr().err
            assert code not in {0, 70}, (command, garbage[:60], shown)
            assert "error[" in shown, (command, garbage[:60])


def test_signatures_that_are_no_hexadecimal_count_for_nothing(here: Path, capsys: Captured) -> None:
    trust(here)
    plain = json.loads((here / "root.1.json").read_bytes())
    for text in ("zz", "abc", "", "00" * 64, "\u00e9"):
        plain["signatures"][0]["sig"] = text
        (here / "root.x.json").write_text(json.dumps(plain))
        assert run(["root", "check", "root.x.json"]) in {3, 7}, text
        capsys.readouterr()


@pytest.mark.parametrize("expires", ["99999999d", "1s", "-5d", "soon", "0"])
def test_a_validity_that_makes_no_sense_is_refused(
    here: Path, capsys: Captured, expires: str
) -> None:
    begin(here)
    text = (here / "ceremony.toml").read_text()
    (here / "c.toml").write_text(f'expires = "{expires}"\n{text}')
    assert run(["root", "begin", "c.toml"]) == 1
    assert "error[config.invalid]" in capsys.readouterr().err
