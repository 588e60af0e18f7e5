import base64

import msgspec
import pytest
from tests.unit.core.repo import ring, signer

from tidegate.core.errors import PublisherError
from tidegate.core.keys import (
    PublicKey,
    Signer,
    add_signature,
    by_keyid,
    device_key_sha256,
    open_envelope,
    public_key,
    public_key_from,
    sign_envelope,
)
from tidegate.core.protocol import ASSIGNMENT_TYPE, PERMIT_TYPE, Envelope

BODY = b'{"_type":"assignment"}'
A, B, P = signer("a"), signer("b"), signer("p", "ecdsa")


def code(envelope: Envelope, keys: dict[str, PublicKey], threshold: int = 1) -> str:
    with pytest.raises(PublisherError) as caught:
        open_envelope(envelope, ASSIGNMENT_TYPE, keys, threshold)
    return caught.value.code


@pytest.mark.parametrize("one", [A, P], ids=["ed25519", "p256"])
def test_an_envelope_gives_back_what_was_signed(one: Signer) -> None:
    envelope = sign_envelope(BODY, ASSIGNMENT_TYPE, one)
    assert open_envelope(envelope, ASSIGNMENT_TYPE, by_keyid([one.public]), 1) == BODY


@pytest.mark.parametrize("one", [A, P], ids=["ed25519", "p256"])
def test_a_changed_payload_is_refused(one: Signer) -> None:
    envelope = sign_envelope(BODY, ASSIGNMENT_TYPE, one)
    changed = msgspec.structs.replace(envelope, payload=base64.b64encode(BODY + b" ").decode())
    assert code(changed, by_keyid([one.public])) == "sig.threshold"


def test_a_document_of_one_type_cannot_stand_in_for_another() -> None:
    envelope = sign_envelope(BODY, PERMIT_TYPE, A)
    keys = by_keyid([A.public])
    assert code(envelope, keys) == "sig.malformed"
    renamed = msgspec.structs.replace(envelope, payload_type=ASSIGNMENT_TYPE)
    assert code(renamed, keys) == "sig.threshold"


def test_a_stranger_is_told_apart_from_too_few() -> None:
    envelope = sign_envelope(BODY, ASSIGNMENT_TYPE, A)
    assert code(envelope, by_keyid([B.public])) == "sig.unknown_key"
    assert code(envelope, by_keyid([A.public, B.public]), 2) == "sig.threshold"


def test_two_distinct_keys_meet_a_threshold_of_two() -> None:
    envelope = add_signature(sign_envelope(BODY, ASSIGNMENT_TYPE, A), P)
    assert open_envelope(envelope, ASSIGNMENT_TYPE, by_keyid([A.public, P.public]), 2) == BODY


def test_one_key_under_two_ids_counts_once() -> None:
    envelope = sign_envelope(BODY, ASSIGNMENT_TYPE, A)
    twice = msgspec.structs.replace(
        envelope,
        signatures=(
            envelope.signatures[0],
            msgspec.structs.replace(envelope.signatures[0], keyid="other"),
        ),
    )
    alias = public_key("ed25519", A.public.public.upper(), "other")
    assert code(twice, {A.public.keyid: A.public, "other": alias}, 2) == "sig.threshold"
    assert alias.identity == A.public.identity


def test_a_threshold_below_one_trusts_nobody() -> None:
    envelope = sign_envelope(BODY, ASSIGNMENT_TYPE, A)
    assert code(envelope, by_keyid([A.public]), 0) == "sig.threshold"


@pytest.mark.parametrize("field", ["payload", "sig"])
def test_what_is_not_base64_is_malformed(field: str) -> None:
    envelope = sign_envelope(BODY, ASSIGNMENT_TYPE, A)
    if field == "payload":
        broken = msgspec.structs.replace(envelope, payload="*" + envelope.payload)
    else:
        signature = msgspec.structs.replace(envelope.signatures[0], sig="*")
        broken = msgspec.structs.replace(envelope, signatures=(signature,))
    assert code(broken, by_keyid([A.public])) == "sig.malformed"


def test_two_signatures_under_one_id_are_malformed() -> None:
    envelope = sign_envelope(BODY, ASSIGNMENT_TYPE, A)
    twice = msgspec.structs.replace(envelope, signatures=envelope.signatures * 2)
    assert code(twice, by_keyid([A.public])) == "sig.malformed"


@pytest.mark.parametrize(
    ("keytype", "public"),
    [("ed25519", "ab"), ("ed25519", "zz" * 32), ("rsa", "x"), ("ecdsa", "no pem")],
)
def test_what_is_no_key_is_refused(keytype: str, public: str) -> None:
    with pytest.raises(PublisherError, match=r"sig\.malformed"):
        public_key(keytype, public)


def test_a_key_survives_being_written_and_read() -> None:
    for one in ring(A, P).keys:
        assert public_key_from(one.to_dict()) == one


def test_a_seed_gives_the_same_key_every_time_and_another_seed_another() -> None:
    assert Signer.from_seed(bytes(32)).public == Signer.from_seed(bytes(32)).public
    assert device_key_sha256("ed25519", A.public.public) != device_key_sha256(
        "ed25519", B.public.public
    )


def test_the_rfc_8032_vector_verifies() -> None:
    private = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    one = Signer.from_private(private)
    assert one.public.public == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert one.sign(b"").hex().startswith("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974")
