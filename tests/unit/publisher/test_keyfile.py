import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from tidegate.core.errors import ConfigError
from tidegate.publisher.keyfile import (
    NewKey,
    change_passphrase,
    import_key,
    new_key,
    open_key,
    read_public,
)

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


# --- keys from elsewhere ------------------------------------------------------------------------------------------------

PEMS = {
    "ed25519": ["genpkey", "-algorithm", "ed25519"],
    "ecdsa": ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
}


def pem(path: Path, *words: str) -> Path:
    subprocess.run(["openssl", *words, "-out", str(path)], check=True, capture_output=True)
    return path


def sealed_pem(folder: Path, kind: str) -> Path:
    plain = pem(folder / f"{kind}.pem", *PEMS[kind])
    how = ["pkcs8", "-topk8", "-scrypt", "-in", str(plain), "-passout", f"pass:{WORD}"]
    return pem(folder / f"{kind}.sealed.pem", *how)


def bring(source: Path, path: Path, word: str = WORD) -> NewKey:
    return import_key(source, path, "ada", lambda: word, lambda: WORD, memory_kib=64)


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_a_key_that_openssl_sealed_with_scrypt_is_taken_in(path: Path, kind: str) -> None:
    source = sealed_pem(path.parent, kind)
    made = bring(source, path)
    shown = subprocess.run(
        ["openssl", "pkey", "-in", str(path.parent / f"{kind}.pem"), "-pubout", "-outform", "DER"],
        check=True,
        capture_output=True,
    ).stdout
    assert made.public.key.identity == hashlib.sha256(shown).hexdigest()
    signer = open_key(path, WORD)
    assert made.public.key.verifies(signer.sign(b"x"), b"x")


def test_an_unsealed_pem_is_taken_in_without_a_question(path: Path) -> None:
    source = pem(path.parent / "k.pem", *PEMS["ed25519"])
    made = import_key(
        source, path, "ada", lambda: pytest.fail("asked"), lambda: WORD, memory_kib=64
    )
    assert open_key(path, WORD).public == made.public.key


def test_a_wrong_passphrase_of_a_pem_leaves_nothing_behind(path: Path) -> None:
    source = sealed_pem(path.parent, "ed25519")
    with pytest.raises(ConfigError) as caught:
        bring(source, path, "another passphrase")
    assert caught.value.code == "key.passphrase"
    assert not path.exists()


@pytest.mark.parametrize(
    "words",
    [
        ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
        ["genpkey", "-algorithm", "x25519"],
    ],
)
def test_keys_that_devices_cannot_verify_are_refused(path: Path, words: list[str]) -> None:
    source = pem(path.parent / "k.pem", *words)
    with pytest.raises(ConfigError) as caught:
        bring(source, path)
    assert caught.value.code == "key.malformed"


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"-----BEGIN PRIVATE KEY-----\nAAAA\n", b"\0" * 99]
)
def test_what_is_no_pem_is_refused(path: Path, content: bytes) -> None:
    source = path.parent / "x"
    source.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        bring(source, path)
    assert caught.value.code == "key.malformed"


def test_a_pem_in_place_of_a_key_file_says_how_to_bring_it_in(path: Path) -> None:
    pem(path, *PEMS["ed25519"])
    with pytest.raises(ConfigError) as caught:
        open_key(path, WORD)
    assert caught.value.code == "key.foreign"
    assert "tidegate keys import" in caught.value.hint
    with pytest.raises(ConfigError) as caught:
        read_public(path)
    assert caught.value.code == "key.foreign"


def test_a_public_half_in_place_of_a_key_is_named(path: Path) -> None:
    make(path)
    with pytest.raises(ConfigError, match="public half"):
        open_key(path.with_name("ada.pub.json"), WORD)


def test_a_file_that_was_cut_off_is_told_at_every_length(path: Path) -> None:
    make(path)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 2, 7):
        path.write_bytes(whole[:length])
        assert code(path) == "key.malformed"


def test_a_public_half_under_the_id_of_another_key_is_refused(path: Path) -> None:
    make(path)
    beside = path.with_name("ada.pub.json")
    plain = json.loads(beside.read_text())
    beside.write_text(json.dumps(plain | {"keyid": "ab" * 32}))
    with pytest.raises(ConfigError) as caught:
        read_public(beside)
    assert caught.value.code == "key.malformed"


@pytest.mark.parametrize("name", ["../ada", "a/b", "", " ada", "ada\n", "a" * 65])
def test_a_name_that_could_not_be_a_files_is_refused(path: Path, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        new_key(path, name, WORD, memory_kib=64)
    assert caught.value.code == "config.invalid"
    assert not path.exists()


def test_the_passphrase_is_asked_only_when_the_file_can_be_read(path: Path) -> None:
    path.write_text("nothing")
    with pytest.raises(ConfigError):
        open_key(path, lambda: pytest.fail("asked"))
