import base64
from typing import Any

import pytest
from tests.unit.core.supply import paper

from tidegate.core.errors import PublisherError
from tidegate.core.hardware import HardwareRange
from tidegate.core.keys import SEED_BYTES, Signer
from tidegate.core.release import Attachment, Install, PayloadRef, ReleaseTarget
from tidegate.core.supply import documents, policy
from tidegate.core.supply.documents import Document
from tidegate.core.supply.policy import IngestRule, findings

IMAGE, OTHER = "ab" * 32, "cd" * 32
ED, P256 = (Signer.from_seed(bytes([7]) * SEED_BYTES[one], one) for one in ("ed25519", "ecdsa"))
STRANGER = Signer.from_seed(b"s" * 32)
ALL = IngestRule(
    needs=("sbom", "provenance"),
    builders=(paper.BUILDER,),
    sources=(f"git+{paper.REPOSITORY}@refs/tags/v*",),
    signers=(ED.public, P256.public),
)


def _target(
    *kinds: str, channels: tuple[str, ...] = ("stable",), product: str = "gw1"
) -> ReleaseTarget:
    return ReleaseTarget(
        product=product,
        version="2.4.1",
        release_counter=118,
        security_version=1,
        channels=channels,
        hardware=(HardwareRange("gw1"),),
        install=Install(size=1, sha256=IMAGE),
        payloads=(PayloadRef(kind="full", sha256=OTHER, length=1, index_sha256=OTHER),),
        attachments=tuple(
            Attachment(kind=one, format="x", name=one, sha256=_name(one), length=1) for one in kinds
        ),
    )  # fmt: skip


def _name(kind: str) -> str:
    return kind.encode().hex().ljust(64, "0")


def _documents(*envelopes: dict[str, Any], parts: int = 1) -> dict[str, Document]:
    bom = paper.cyclonedx(*[paper.component("zlib", "1")] * parts)
    found = {_name("sbom"): documents.read("sbom", paper.dumps(bom))}
    claims = tuple(
        claim
        for one in envelopes
        for claim in documents.read("provenance", paper.dumps(one)).claims
    )
    if claims:
        found[_name("provenance")] = Document(kind="provenance", format="slsa-1", claims=claims)
    return found


def _said(*envelopes: dict[str, Any], rule: IngestRule = ALL) -> list[str]:
    return findings([rule], _target("sbom", "provenance"), _documents(*envelopes))


@pytest.mark.parametrize("signer", [ED, P256])
@pytest.mark.parametrize("body", [paper.statement(IMAGE), paper.statement_02(OTHER, IMAGE)])
def test_a_release_of_proven_origin_may_be_stable(signer: Signer, body: dict[str, Any]) -> None:
    assert _said(paper.dsse(body, signer)) == []
    assert _said(paper.dsse(body, signer, keyid="whatever")) == []


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"builder": paper.BUILDER + "x"}, "builder"),
        ({"builder": "https://evil.example"}, "builder"),
        ({"repository": paper.REPOSITORY + "-fork"}, "source"),
        ({"repository": "https://git.example.com.evil.example/acme/gw1"}, "source"),
        ({"repository": ""}, "source unknown"),
        ({"ref": "refs/heads/main"}, "source"),
        ({"ref": ""}, "source"),
        ({"repository": paper.REPOSITORY + "@refs/tags/v1@", "ref": "refs/heads/x"}, "source"),
    ],
)
def test_what_is_not_allowed_is_named(changed: dict[str, str], word: str) -> None:
    found = _said(paper.dsse(paper.statement(IMAGE, **changed), ED))
    assert len(found) == 1
    assert word in found[0]


def test_a_dependency_that_comes_from_the_right_place_is_no_source() -> None:
    body = paper.statement(IMAGE, repository="https://evil.example/x")
    definition = body["predicate"]["buildDefinition"]
    definition["resolvedDependencies"] = [{"uri": f"git+{paper.REPOSITORY}@refs/tags/v2"}]
    assert "source" in _said(paper.dsse(body, ED))[0]


def test_the_image_must_be_among_the_subjects() -> None:
    assert "speaks of its image" in _said(paper.dsse(paper.statement(OTHER), ED))[0]


def test_one_statement_must_fulfil_everything() -> None:
    """The right builder in one statement and the right source in another prove nothing together."""
    one = paper.dsse(paper.statement(IMAGE, builder="https://evil.example"), ED)
    other = paper.dsse(paper.statement(IMAGE, repository="https://evil.example/x"), ED)
    assert len(_said(one, other)) == 1
    assert _said(one, other, paper.dsse(paper.statement(IMAGE), ED)) == []


def _flipped(envelope: dict[str, Any]) -> dict[str, Any]:
    payload = base64.b64decode(envelope["payload"]).replace(
        b"refs/tags/v2.4.1", b"refs/tags/v9.9.9"
    )
    return {**envelope, "payload": base64.b64encode(payload).decode()}


@pytest.mark.parametrize(
    "envelope",
    [
        paper.dsse(paper.statement(IMAGE), STRANGER),
        paper.dsse(paper.statement(IMAGE), STRANGER, keyid=ED.public.keyid),
        _flipped(paper.dsse(paper.statement(IMAGE), ED)),
        _flipped(paper.dsse(paper.statement(IMAGE), P256)),
        {**paper.dsse(paper.statement(IMAGE), ED), "signatures": [{"sig": ""}]},
        {**paper.dsse(paper.statement(IMAGE), ED), "signatures": [{"sig": "AAAA", "keyid": "x"}]},
    ],
)
def test_provenance_that_none_of_the_keys_signed_proves_nothing(envelope: dict[str, Any]) -> None:
    assert "signed by none" in _said(envelope)[0]


def test_what_is_missing_is_named_and_an_empty_bill_of_materials_counts_as_missing() -> None:
    found = findings([ALL], _target(), {})
    assert [one.partition(": ")[2] for one in found] == ["no sbom is attached", "no provenance is attached"]  # fmt: skip
    empty = findings([IngestRule(needs=("sbom",))], _target("sbom"), _documents(parts=0))
    assert "names no part" in empty[0]


def test_naming_builders_alone_demands_provenance() -> None:
    rule = IngestRule(builders=("*",))
    assert "no provenance" in findings([rule], _target("sbom"), _documents())[0]


def test_other_channels_and_products_are_not_guarded() -> None:
    assert findings([ALL], _target(channels=("pilot",)), {}) == []
    rule = IngestRule(product="gw2", needs=("sbom",))
    assert findings([rule], _target(), {}) == []
    assert findings([ALL], _target(channels=("pilot", "stable")), {}) != []
    assert findings([ALL], _target(), {}, policy.channels_of([_target(channels=("pilot",))])) != []
    assert findings([ALL], _target(), {}, policy.channels_of([_target()])) == []
    with pytest.raises(PublisherError) as caught:
        policy.require([ALL], [_target()], {})
    assert caught.value.code == "supply.policy"
    assert "release attach" in caught.value.hint


def test_without_the_documents_the_kinds_that_are_missing_are_named_all_the_same() -> None:
    assert policy.unattached([ALL], _target("sbom", "provenance"), {}) == []
    found = policy.unattached([IngestRule(builders=("*",))], _target("sbom"), {})
    assert [one.partition(": ")[2] for one in found] == ["no provenance is attached"]
    assert policy.unattached([ALL], _target(), policy.channels_of([_target()])) == []


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("https://git.example.com/acme/*", "https://git.example.com/acme/gw1", True),
        ("https://git.example.com/acme/*", "https://git.example.com/acme/gw1/evil", False),
        ("https://git.example.com/*/gw1", "https://git.example.com/acme/gw1.git", True),
        ("git+https://git.example.com/acme/gw1.git", "https://git.example.com/acme/gw1", True),
        ("https://git.example.com/acme/gw1", "https://git.example.com/acme/gw1?x=1", False),
    ],
)
def test_a_star_stays_within_its_part_of_the_repository(
    pattern: str, text: str, expected: bool
) -> None:
    rule = IngestRule(sources=(pattern,))
    envelope = paper.dsse(paper.statement(IMAGE, repository=text), STRANGER)
    assert (_said(envelope, rule=rule) == []) is expected


def test_a_pattern_of_many_stars_takes_no_time() -> None:
    rule = IngestRule(builders=("*a" * 200 + "b",))
    envelope = paper.dsse(paper.statement(IMAGE, builder="a" * 1000), ED)
    assert "builder" in _said(envelope, rule=rule)[0]
