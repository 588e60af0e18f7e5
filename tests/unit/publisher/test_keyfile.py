import json
from pathlib import Path

import pytest

from tidegate.core.errors import ConfigError
from tidegate.publisher.keyfile import change_passphrase, new_key, open_key, read_public

WORD = "correct horse battery"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ada.key"


def make(path: Path) -> None:
    new_key(path, "ada", WORD, role="root", memory_kib=64)


def code(path: Path, word: str = WORD) -> str:
    with pytest.raises(ConfigError) as caught:
        open_key(path, word)
    return caught.value.code


@pytest.mark.parametrize("keytype", ["ed25519", "ecdsa"])
def test_a_key_opens_with_its_passphrase_and_signs(path: Path, keytype: str) -> None:
    made = new_key(path, "ada", WORD, keytype=keytype, memory_kib=64)  # type: ignore[arg-type]
    signer = open_key(path, WORD)
    assert signer.public == made.public.key
    assert signer.public.verifies(signer.sign(b"x"), b"x")


def test_only_its_owner_may_read_it_and_it_holds_no_private_key(path: Path) -> None:
    seed = bytes(range(32))
    new_key(path, "ada", WORD, randomness=lambda n: seed[:n], memory_kib=64)
    assert path.stat().st_mode & 0o777 == 0o600
    assert seed.hex() not in path.read_text()
    assert sorted(one.name for one in path.parent.iterdir()) == ["ada.key", "ada.pub.json"]


def test_the_cost_of_a_new_key_is_64_mib_and_three_passes(path: Path) -> None:
    new_key(path, "ada", WORD)
    plain = json.loads(path.read_text())
    assert (plain["kdf"], plain["memory_kib"], plain["passes"]) == ("argon2id", 65_536, 3)


def test_the_public_half_reads_from_either_file(path: Path) -> None:
    make(path)
    assert read_public(path) == read_public(path.with_name("ada.pub.json"))
    assert read_public(path).role == "root"


def test_a_wrong_passphrase_is_told_from_a_damaged_file(path: Path) -> None:
    make(path)
    assert code(path, "another passphrase") == "key.passphrase"
    path.write_text("{")
    assert code(path) == "key.malformed"
    path.unlink()
    assert code(path) == "key.missing"


def test_text_that_is_no_base64_is_a_damaged_file(path: Path) -> None:
    make(path)
    plain = json.loads(path.read_text())
    path.write_text(json.dumps(plain | {"salt": "\u00e9" * 24}))
    assert code(path) == "key.malformed"


@pytest.mark.parametrize("field", ["name", "role", "keyid"])
def test_a_changed_header_does_not_open(path: Path, field: str) -> None:
    make(path)
    plain = json.loads(path.read_text())
    plain[field] = "targets" if field == "role" else "mallory"
    path.write_text(json.dumps(plain))
    assert code(path) == "key.passphrase"


def test_a_hostile_file_cannot_ask_for_all_memory(path: Path) -> None:
    make(path)
    plain = json.loads(path.read_text())
    plain["memory_kib"] = 1 << 40
    path.write_text(json.dumps(plain))
    assert code(path) == "key.malformed"
    path.write_bytes(b"x" * (1 << 20))
    assert code(path) == "key.malformed"


def test_a_key_is_never_overwritten(path: Path) -> None:
    make(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError):
        make(path)
    assert path.read_bytes() == before


def test_a_short_passphrase_is_refused(path: Path) -> None:
    with pytest.raises(ConfigError):
        new_key(path, "ada", "short")
    assert not path.exists()


def test_a_new_passphrase_replaces_the_old(path: Path) -> None:
    make(path)
    public = open_key(path, WORD).public
    change_passphrase(path, WORD, "another passphrase")
    assert code(path) == "key.passphrase"
    assert open_key(path, "another passphrase").public == public
