import json
from typing import Any

import pytest

from tidegate.core.bundle import (
    BundleManifest,
    Member,
    document_name,
    encode_manifest,
    parse_manifest,
    payload_name,
)
from tidegate.core.errors import PublisherError

DIGEST = "ab" * 32
MEMBERS = (
    Member(name=document_name("root", 2), length=10, sha256=DIGEST),
    Member(name=document_name("product/gw-1.x", 3), length=10, sha256=DIGEST),
    Member(name=payload_name(DIGEST), length=1 << 30, sha256=DIGEST),
)
GOOD = BundleManifest(product="gw1", version="1.0", members=MEMBERS)


def test_a_manifest_survives_and_names_roles_and_payloads() -> None:
    found = parse_manifest(encode_manifest(GOOD))
    assert found == GOOD
    assert [one.role for one in found.members] == ["root", "product/gw-1.x", None]
    assert [one.payload for one in found.payloads] == [DIGEST]
    assert found.document("targets") is None


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"name": "../../etc/passwd"}, "release.malformed"),
        ({"name": "metadata/1.snapshot.json"}, "release.malformed"),
        ({"name": "metadata/0.root.json"}, "release.malformed"),
        ({"name": "metadata/1.product%2F../x.json"}, "release.malformed"),
        ({"name": "payloads/" + "cd" * 32}, "release.malformed"),
        ({"name": document_name("product/gw-1.x", 3)}, "release.malformed"),
        ({"length": 64 << 10 | 1}, "sig.oversized"),
        ({"length": -1}, "release.malformed"),
        ({"sha256": "xy"}, "release.malformed"),
    ],
)
def test_a_hostile_manifest_is_refused(change: dict[str, Any], code: str) -> None:
    plain = json.loads(encode_manifest(GOOD))
    plain["members"][0] |= change
    with pytest.raises(PublisherError) as caught:
        parse_manifest(json.dumps(plain).encode())
    assert caught.value.code == code


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff", b"x" * (300 << 10), b"[" * 5000])
def test_what_is_no_manifest_is_refused(body: bytes) -> None:
    with pytest.raises(PublisherError):
        parse_manifest(body)
