"""Keys in a PKCS#11 token (SoftHSM) and in key services: what they sign is what devices take, and every failure says what to do."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.tokens import PIN, Tokens
from tests.unit.core.repo import DAY, NOW, signer
from tests.unit.publisher.test_ceremony import ADA, BEN, sigs, spec

from tidegate.cli import run
from tidegate.core.errors import ConfigError
from tidegate.core.keys import PublicKey, open_envelope, sign_envelope
from tidegate.core.metadata import RoleKeys, keys_of, parse_root, sign
from tidegate.core.verify import TrustedSet
from tidegate.publisher.ceremony import begin_root, merge, sign_draft, words_of
from tidegate.publisher.keyfile import read_public
from tidegate.publisher.signers import import_public, is_uri, open_signer


def pin(_what: str) -> str:
    return PIN


@pytest.fixture
def plugged(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYKCS11LIB", tokens.library)


def code(act: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        act()
    assert PIN not in str(caught.value)
    return caught.value.code


def in_token(number: int = 2) -> tuple[str, PublicKey]:
    return import_public(f"hsm:{number}?label=ada", pin)


def test_a_root_of_one_token_key_and_file_keys_is_taken_by_a_device(plugged: None) -> None:
    uri, public = in_token()
    ada = open_signer(uri, public, pin)
    ringed = RoleKeys((public, BEN.public, ADA.public), 2)
    draft = begin_root(spec(root=ringed), previous=None, now=NOW)
    root = merge(draft, sigs(draft, ada, BEN), [keys_of(parse_root(draft), "root")])
    assert TrustedSet(root, now=NOW).root.version == 1
    later = begin_root(spec(root=ringed), previous=root, now=NOW + DAY)
    second = merge(later, sigs(later, ada, ADA), [ringed])
    trusted = TrustedSet(root, now=NOW)
    trusted.update_root(second)
    assert trusted.root.version == 2


def test_a_token_signs_documents_and_envelopes_like_a_file(plugged: None) -> None:
    uri, public = in_token(3)
    there = open_signer(uri, public, pin)
    envelope = sign_envelope(b"x", "application/x", there)
    assert open_envelope(envelope, "application/x", {public.keyid: public}, 1) == b"x"
    draft = begin_root(spec(root=RoleKeys((public,), 1)), previous=None, now=NOW)
    assert TrustedSet(sign(draft, there), now=NOW).root.version == 1


def test_the_uri_that_is_kept_names_the_token(plugged: None) -> None:
    uri, public = import_public("hsm:2", pin)
    assert uri == "hsm:2?label=ada"
    assert public.keytype == "ecdsa"


def test_a_wrong_pin_is_told_from_a_missing_token(
    plugged: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, public = in_token()
    assert code(lambda: open_signer(uri, public, lambda _: "000000").sign(b"x")) == "key.passphrase"
    assert code(lambda: import_public("hsm:2?label=ben", pin)) == "key.token"
    assert code(lambda: import_public("hsm:9?label=ada", pin)) == "key.token"
    assert code(lambda: import_public("hsm:nine?label=ada", pin)) == "key.token"
    monkeypatch.delenv("PYKCS11LIB")
    assert code(lambda: open_signer(uri, public, pin).sign(b"x")) == "key.token"


def test_a_key_that_devices_cannot_verify_is_refused(plugged: None) -> None:
    assert code(lambda: in_token(4)) == "key.malformed"


def test_another_key_in_the_tokens_place_is_noticed_before_its_signature_is_used(
    plugged: None,
) -> None:
    _, public = in_token(2)
    swapped = open_signer("hsm:3?label=ada", public, pin)
    draft = begin_root(spec(), previous=None, now=NOW)
    assert code(lambda: sign_draft(draft, swapped, "ada", now=NOW)) == "key.malformed"


def test_a_token_key_goes_through_the_command_line(
    plugged: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pin").write_text(f"{PIN}\n")
    monkeypatch.setenv("TIDEGATE_PIN_FILE", str(tmp_path / "pin"))
    assert run(["keys", "import", "ada-root", "--role", "root", "--from", "hsm:2?label=ada"]) == 0
    draft = begin_root(spec(root=ring_of_file(tmp_path)), previous=None, now=NOW)
    (tmp_path / "root.draft.json").write_bytes(draft)
    words = words_of(draft)
    sign_it = ["root", "sign", "root.draft.json", "--key", "ada-root.pub.json", "--words", words]
    assert run(sign_it) == 0
    assert run(["root", "merge", "root.draft.json", "root.draft.ada-root.sig"]) == 0
    assert (tmp_path / "root.1.json").is_file()
    said = capsys.readouterr()
    everything = (
        said.out
        + said.err
        + "".join(one.read_text() for one in tmp_path.glob("*.json") if one.name != "pin")
    )
    assert PIN not in everything


def ring_of_file(folder: Path) -> RoleKeys:
    return RoleKeys((read_public(folder / "ada-root.pub.json").key, BEN.public), 1)


@pytest.mark.parametrize(
    ("uri", "library"),
    [
        ("awskms:alias/root", "boto3"),
        ("gcpkms:projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1", "google"),
        ("azurekms://vault.vault.azure.net/keys/root/1", "azure"),
        ("hv:root/1", "hvac"),
    ],
)
def test_a_key_service_without_its_library_says_which_one_is_missing(
    uri: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the one of these that is here for other reasons
    monkeypatch.setattr("securesystemslib.signer._aws_signer.AWS_IMPORT_ERROR", "boto3 wanted")
    public = signer("kms", "ecdsa").public
    assert is_uri(uri)
    for act in (lambda: import_public(uri, pin), lambda: open_signer(uri, public, pin).sign(b"x")):
        with pytest.raises(ConfigError) as caught:
            act()
        assert caught.value.code == "key.library"
        assert library in caught.value.hint


@pytest.mark.parametrize(
    "uri", ["file:/etc/passwd?encrypted=false", "file2:/x", "ftp:x", "nothing"]
)
def test_other_uris_are_refused(uri: str) -> None:
    assert code(lambda: import_public(uri, pin)) == "key.token"


def test_a_file_is_no_uri() -> None:
    assert not is_uri("ci.pem")
    assert not is_uri("/tmp/x:y.pem")
    assert is_uri("hsm:")
