"""Attachments at the server's door, and the policy of channels."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.core.supply import paper
from tests.unit.server.chain import Chain, bom
from tests.unit.server.rig import Rig

from tidegate.core.errors import TidegateError
from tidegate.core.keys import Signer
from tidegate.core.metadata import (
    make_product,
    parse_targets,
    product_extra,
    sign,
    signed_targets,
)
from tidegate.core.supply.policy import IngestRule
from tidegate.publisher import attach
from tidegate.publisher.bundle import extract_member, read, write
from tidegate.server import inquiry

CI = Signer.from_seed(b"c" * 32)
OLD, NEW = "3.0.16-1~deb12u1", "3.0.17-1~deb12u3"


@pytest.fixture
def chain(rig: Rig, tmp_path: Path) -> Chain:
    return Chain.on(rig, tmp_path / "lab")


def _code(work: Callable[[], Any]) -> str:
    with pytest.raises(TidegateError) as caught:
        work()
    return caught.value.code


def test_attachments_are_published_with_what_was_read_from_them(chain: Chain) -> None:
    image = hashlib.sha256(chain.image(1) + b"rootfs").hexdigest()
    documents = {
        "sbom": bom(OLD),
        "vex": paper.openvex(),
        "provenance": paper.dsse(paper.statement(image), CI),
        "notes": b"what is new",
    }
    chain.demand(IngestRule(needs=("sbom", "provenance"), signers=(CI.public,)))
    chain.publish(1, documents)
    found = chain.rig.read(lambda conn: inquiry.release(conn, "gw1-1.1.0"))
    notes = {one.kind: one for one in found.attachments}
    assert set(notes) == {"sbom", "vex", "provenance", "notes"}
    assert (notes["sbom"].format, notes["sbom"].notes.parts) == ("cyclonedx-1.6", 2)
    assert notes["vex"].notes.statements == 1
    origin = notes["provenance"].notes
    assert (origin.builder, origin.covers, origin.signer) == (paper.BUILDER, True, CI.public.keyid)
    signed = found.artifacts[0].target.attachments
    assert {one.sha256 for one in signed} == {one.sha256 for one in found.attachments}
    for one in signed:
        assert chain.rig.app.services.blobs.size(one.sha256) == one.length


def test_the_same_bundle_again_changes_nothing(chain: Chain) -> None:
    body = chain.bundle(1, {"sbom": bom(OLD)}).read_bytes()
    assert chain.accept(body).releases == ("gw1-1.1.0",)
    assert chain.accept(body).releases == ()


def _rewritten(chain: Chain, bundle: Path, **changed: Path) -> bytes:
    """Write the bundle again with other bytes in the place of an attachment; the manifest tells the truth about them."""
    found = read(bundle)
    payloads: dict[str, Path] = {}
    attachments: dict[str, Path] = {}
    for member in found.manifest.members:
        if member.role is None:
            file = bundle.parent / member.sha256
            extract_member(bundle, member, file)
            (payloads if member.payload else attachments)[member.sha256] = file
    if "extra" in changed:
        file = changed["extra"]
        attachments[hashlib.sha256(file.read_bytes()).hexdigest()] = file
    if "missing" in changed:
        attachments = {}
    write(
        bundle,
        found.documents,
        payloads,
        product="gw1",
        version=found.manifest.version,
        attachments=attachments,
    )
    return bundle.read_bytes()


@pytest.mark.parametrize("spoil", ["missing", "extra", "bytes", "length", "format", "kind"])
def test_an_attachment_that_is_not_what_was_signed_is_refused(
    chain: Chain, tmp_path: Path, spoil: str
) -> None:
    bundle = chain.bundle(1, {"sbom": bom(OLD)})
    stranger = tmp_path / "stranger.json"
    stranger.write_bytes(json.dumps(bom(NEW)).encode())
    expected = "supply.attachment"
    if spoil in {"missing", "extra"}:
        body = _rewritten(chain, bundle, **{spoil: stranger})
    elif spoil == "bytes":
        body = bundle.read_bytes().replace(b'"openssl"', b'"opens5l"', 1)
        expected = "download.hash"
    else:
        changed = {"length": 7} if spoil == "length" else {spoil: "notes"}
        found = read(bundle)
        one = next(iter(signed_targets(found.product).values()))
        other = msgspec.structs.replace(one.release.attachments[0], **changed)
        release = msgspec.structs.replace(one.release, attachments=(other,))
        target = type(one)(one.path, one.length, one.sha256, release)
        document = found.product
        again = make_product(
            version=document.version,
            expires_at=document.expires_at,
            targets=[target],
            extra=product_extra(document),
        )
        from tidegate.publisher.bundle import replace_documents

        replace_documents(bundle, {"product/gw1": sign(again, chain.lab.signer("product"))})
        body = bundle.read_bytes()
    sbom = read(chain.bundle(1, {"sbom": bom(OLD)})).manifest.attachments[0].sha256
    assert _code(lambda: chain.accept(body)) == expected
    assert "product/gw1" not in chain.rig.app.services.repository.versions
    assert chain.rig.app.services.blobs.size(sbom) is None


@pytest.mark.parametrize(
    ("documents", "word"),
    [
        ({}, "no sbom is attached"),
        ({"sbom": bom(OLD)}, "no provenance is attached"),
        ({"sbom": paper.cyclonedx(), "provenance": "good"}, "names no part"),
        ({"sbom": bom(OLD), "provenance": "other image"}, "speaks of its image"),
        ({"sbom": bom(OLD), "provenance": "stranger"}, "signed by none"),
        ({"sbom": bom(OLD), "provenance": "builder"}, "builder"),
        ({"sbom": bom(OLD), "provenance": "source"}, "source"),
    ],
    ids=str,
)
def test_a_release_of_unproven_origin_is_kept_out_of_stable_and_may_be_pilot(
    chain: Chain, documents: dict[str, Any], word: str
) -> None:
    rule = IngestRule(
        needs=("sbom", "provenance"),
        builders=(paper.BUILDER,),
        sources=(f"{paper.REPOSITORY}@refs/tags/*",),
        signers=(CI.public,),
    )
    chain.demand(rule)
    image = hashlib.sha256(chain.image(1) + b"rootfs").hexdigest()
    how = documents.get("provenance")
    if how is not None:
        body = paper.statement("ab" * 32 if how == "other image" else image)
        if how == "builder":
            body = paper.statement(image, builder="https://evil.example")
        elif how == "source":
            body = paper.statement(image, ref="refs/heads/main")
        signer = Signer.from_seed(b"s" * 32) if how == "stranger" else CI
        documents = {**documents, "provenance": paper.dsse(body, signer)}
    with pytest.raises(TidegateError) as caught:
        chain.publish(1, documents)
    assert caught.value.code == "supply.policy"
    assert word in caught.value.detail
    assert "gw1-1.1.0 rootfs in stable" in caught.value.detail
    assert caught.value.hint
    assert "product/gw1" not in chain.rig.app.services.repository.versions
    chain.publish(1, documents, channels=("pilot",))


def test_every_artifact_of_a_release_must_be_proven(chain: Chain) -> None:
    chain.demand(IngestRule(signers=(CI.public,)))
    one = hashlib.sha256(chain.image(1) + b"rootfs").hexdigest()
    other = hashlib.sha256(chain.image(1) + b"mcu").hexdigest()
    parts = (("rootfs", 0, 9), ("mcu", 0, 9))
    documents = {"provenance": paper.dsse(paper.statement(one), CI)}
    assert _code(lambda: chain.publish(1, documents, parts=parts)) == "supply.policy"
    documents = {"provenance": paper.dsse(paper.statement(one, other), CI)}
    chain.publish(1, documents, parts=parts)


def test_a_rule_of_later_does_not_touch_what_is_published(chain: Chain) -> None:
    chain.publish(1, channels=("stable",))
    chain.demand(IngestRule(needs=("sbom",)))
    chain.publish(2, {"sbom": bom(OLD)})
    assert _code(lambda: chain.publish(3)) == "supply.policy"


@pytest.mark.parametrize("channels", [("pilot",), ("stable",)])
def test_an_image_that_is_in_a_channel_already_may_come_again_there_and_nowhere_else(
    chain: Chain, tmp_path: Path, channels: tuple[str, ...]
) -> None:
    """A rule never stands in the way back to what the channel had before the rule."""
    chain.publish(1, channels=channels)
    chain.demand(IngestRule(needs=("sbom",)))
    held = chain.rig.app.services.repository._view.newest["product/gw1"].body
    one = next(iter(signed_targets(parse_targets(held, "product/gw1")).values()))
    values = {"version": "1.1.0.r2", "release_counter": 2, "channels": ("stable",)}
    release = msgspec.structs.replace(one.release, **values)
    again = type(one)("gw1/1.1.0.r2/rootfs", one.length, one.sha256, release)
    body = make_product(version=2, expires_at=int(chain.rig.now) + 9999, targets=[one, again])
    bundle = tmp_path / "again.bundle"
    signed = sign(body, chain.lab.signer("product"))
    write(bundle, {"product/gw1": signed}, {}, product="gw1", version="1.1.0.r2")
    if channels == ("stable",):
        assert chain.accept(bundle.read_bytes()).releases == ("gw1-1.1.0.r2",)
    else:
        assert _code(lambda: chain.accept(bundle.read_bytes())) == "supply.policy"


def test_attaching_to_a_bundle_that_nobody_has_signed_is_part_of_what_is_signed_then(
    chain: Chain, tmp_path: Path
) -> None:
    bundle = chain.bundle(1, signed=False)
    file = tmp_path / "my bom (1).json"
    file.write_bytes(json.dumps(bom(OLD)).encode())
    added = attach.attach(bundle, [("sbom", file)])
    assert [one.signed.name for one in added] == ["my_bom__1_.json"]
    attach.attach(bundle, [("sbom", file)])
    from tidegate.publisher.sign import sign_bundle

    sign_bundle(bundle, chain.lab.signer("product"))
    assert _code(lambda: attach.attach(bundle, [("sbom", file)])) == "request.conflict"
    chain.accept(bundle.read_bytes())
    found = chain.rig.read(lambda conn: inquiry.release(conn, "gw1-1.1.0"))
    assert [one.kind for one in found.attachments] == ["sbom"]
