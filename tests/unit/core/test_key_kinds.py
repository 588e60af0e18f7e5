"""The director's word, by a key of either kind: taken from the kind that root names, refused from any other."""

import pytest
from tests.unit.core.repo import NOW, Repo, signer

from tidegate.core.director import open_time
from tidegate.core.errors import PublisherError
from tidegate.core.keys import sign_document
from tidegate.core.metadata import parse_root
from tidegate.core.protocol import TIME_TYPE, TimeBody

BODY = TimeBody(device_id="dev-1", nonce="ab" * 16, time=NOW)


@pytest.mark.parametrize("keytype", ["ed25519", "ecdsa"])
def test_the_director_may_have_a_key_of_either_kind(keytype: str) -> None:
    director = signer("the director", keytype)
    root = parse_root(Repo(director=director).root_body())
    told = open_time(
        sign_document(BODY, TIME_TYPE, director), root, device_id="dev-1", nonce="ab" * 16
    )
    assert told == NOW
    for other in ("ed25519", "ecdsa"):
        stranger = sign_document(BODY, TIME_TYPE, signer("a stranger", other))
        with pytest.raises(PublisherError) as caught:
            open_time(stranger, root, device_id="dev-1", nonce="ab" * 16)
        assert caught.value.code == "sig.unknown_key"
