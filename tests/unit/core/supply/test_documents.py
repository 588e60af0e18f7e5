import hashlib
import json
from typing import Any

import pytest
from tests.unit.core.supply import paper

from tidegate.core.errors import PublisherError
from tidegate.core.keys import Signer
from tidegate.core.metadata import release_target
from tidegate.core.release import Attachment
from tidegate.core.supply import documents

KEY = Signer.from_seed(b"k" * 32)
DIGEST = "ab" * 32


def _code(kind: str, body: bytes) -> str:
    with pytest.raises(PublisherError) as caught:
        documents.read(kind, body)
    assert caught.value.detail
    return caught.value.code


@pytest.mark.parametrize("version", ["1.4", "1.5", "1.6"])
def test_cyclonedx_is_read_with_what_is_nested_in_it(version: str) -> None:
    inner = paper.component("zlib", "1.3.1", "pkg:generic/zlib@1.3.1")
    body = paper.cyclonedx(
        paper.component("libssl3", "3.0.16-1~deb12u1", paper.LIBSSL, components=[inner]),
        paper.component("core", "17.0.1", "pkg:npm/%40angular/core@17.0.1", group="@angular"),
        paper.component("passwd", "", type="file"),
        paper.component("pytest", "8", scope="excluded"),
        version=version,
    )
    found = documents.read("sbom", paper.dumps(body))
    assert found.format == f"cyclonedx-{version}"
    assert found.sbom is not None
    parts = {one.name: one for one in found.sbom.parts}
    assert set(parts) == {"libssl3", "zlib", "@angular/core"}
    assert parts["libssl3"].key == "deb/debian/libssl3"
    assert parts["libssl3"].source_key == "deb/debian/openssl"
    assert parts["libssl3"].alias == "openssl"
    assert parts["libssl3"].distro == "debian-12"


@pytest.mark.parametrize("version", ["SPDX-2.2", "SPDX-2.3"])
def test_spdx_is_read(version: str) -> None:
    body = paper.spdx(
        paper.package("openssl", "3.0.16", "pkg:generic/openssl@3.0.16"),
        paper.package("busybox", "NOASSERTION"),
        version=version,
    )
    found = documents.read("sbom", paper.dumps(body))
    assert found.format == f"spdx-{version[5:]}"
    assert found.sbom is not None
    assert [(one.name, one.version, one.key) for one in found.sbom.parts] == [
        ("openssl", "3.0.16", "generic/openssl"),
        ("busybox", "", ""),
    ]


def test_a_part_with_a_strange_package_url_is_kept_by_its_name() -> None:
    strange = paper.component("openssl", "3.0.16", "pkg:deb/%zz/openssl")
    found = documents.read("sbom", paper.dumps(paper.cyclonedx(strange)))
    assert found.sbom is not None
    assert found.sbom.unread == 1
    assert [(one.name, one.purl) for one in found.sbom.parts] == [("openssl", "")]


def test_control_characters_in_names_do_not_reach_anybody() -> None:
    bad = paper.component("open\u202essl\x1b[2J", "1")
    found = documents.read("sbom", paper.dumps(paper.cyclonedx(bad)))
    assert found.sbom is not None
    assert found.sbom.parts[0].name == "open\ufffdssl\ufffd[2J"


def _deep(levels: int) -> bytes:
    one: dict[str, Any] = paper.component("leaf", "1")
    for _ in range(levels):
        one = paper.component("box", "1", components=[one])
    return json.dumps(paper.cyclonedx(one)).encode()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "supply.malformed"),
        (b"[]", "supply.malformed"),
        (b"\xff\xfe{}", "supply.malformed"),
        (b"\xef\xbb\xbf{}", "supply.malformed"),
        (b"{" * 100_000, "supply.too_large"),
        (b"[" * 65 + b"]" * 65, "supply.too_large"),
        (b'{"a": NaN}', "supply.malformed"),
        (b'{"a": 1e999}', "supply.malformed"),
        (b'{"a": "\\ud800"}', "supply.malformed"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "supply.malformed"),
        (b'{"bomFormat": "CycloneDX", "bomFormat": "CycloneDX"}', "supply.malformed"),
        (b'{"a": [' + b"0," * 1_600_000 + b"0]}", "supply.too_large"),
        (b"{}", "supply.unknown_format"),
        (paper.dumps(paper.cyclonedx(version="1.3")), "supply.unknown_format"),
        (paper.dumps(paper.cyclonedx(version="9.9")), "supply.unknown_format"),
        (paper.dumps(paper.spdx(version="SPDX-3.0")), "supply.unknown_format"),
        (paper.dumps({**paper.cyclonedx(), "components": "all"}), "supply.malformed"),
        (paper.dumps({**paper.cyclonedx(), "components": [7]}), "supply.malformed"),
        (paper.dumps(paper.cyclonedx({"type": "library"})), "supply.malformed"),
        (paper.dumps(paper.cyclonedx(paper.component("", "1"))), "supply.malformed"),
        (paper.dumps(paper.cyclonedx(paper.component("x" * 5_000, "1"))), "supply.malformed"),
        (paper.dumps(paper.cyclonedx({"type": "library", "name": {"a": 1}})), "supply.malformed"),
        (paper.dumps({**paper.spdx(), "SPDXID": "SPDXRef-Package"}), "supply.malformed"),
        (_deep(40), "supply.too_large"),
    ],
    ids=str,
)
def test_a_bill_of_materials_that_is_none_is_refused(body: bytes, code: str) -> None:
    assert _code("sbom", body) == code


@pytest.mark.parametrize("kind", ["sbom", "vex", "provenance", "notes", "licences"])
def test_what_is_too_large_is_refused_before_it_is_parsed(kind: str) -> None:
    assert _code(kind, b" " * (documents.limit_of(kind) + 1)) == "supply.too_large"


def test_a_kind_that_is_not_known_is_refused() -> None:
    assert _code("malware", b"{}") == "supply.unknown_format"


@pytest.mark.parametrize("body", [b"", b" \n", b"\xff\xfe", b"a\0b"])
def test_notes_are_text(body: bytes) -> None:
    assert _code("notes", body) == "supply.malformed"


def test_provenance_of_both_versions_is_read_one_envelope_a_line() -> None:
    one, other = (
        paper.dsse(paper.statement(DIGEST), KEY),
        paper.dsse(paper.statement_02(DIGEST), KEY),
    )
    body = json.dumps(one).encode() + b"\n" + json.dumps(other).encode() + b"\n"
    found = documents.read("provenance", body)
    assert [claim.format for claim in found.claims] == ["slsa-1", "slsa-0.2"]
    for claim in found.claims:
        assert claim.builder == paper.BUILDER
        assert claim.source == f"{paper.REPOSITORY}@refs/tags/v2.4.1"
        assert claim.subjects == (DIGEST,)


@pytest.mark.parametrize(
    ("asked", "source"),
    [
        ({"repository": "https://h.example/a/b", "ref": "refs/tags/v1"}, "https://h.example/a/b@refs/tags/v1"),
        ({"source": "git+https://h.example/a/b@refs/tags/v1"}, "https://h.example/a/b@refs/tags/v1"),
        ({"sourceToBuild": {"repository": "https://h.example/a/b.git"}}, "https://h.example/a/b"),
        ({"configSource": {"uri": "git+https://h.example/a/b"}}, "https://h.example/a/b"),
        ({}, "https://git.example.com/acme/base@main"),
    ],
)  # fmt: skip
def test_the_source_is_found_where_builders_write_it(asked: dict[str, Any], source: str) -> None:
    body = paper.statement(DIGEST)
    body["predicate"]["buildDefinition"]["externalParameters"] = asked
    envelope = paper.dsse(body, KEY)
    for one in (envelope, {"mediaType": "application/x", "dsseEnvelope": envelope}):
        assert documents.read("provenance", paper.dumps(one)).claims[0].source == source


def test_of_several_repositories_none_is_the_source() -> None:
    body = paper.statement(DIGEST)
    definition = body["predicate"]["buildDefinition"]
    definition["externalParameters"] = {}
    definition["resolvedDependencies"].append({"uri": "git+https://h.example/a/b"})
    found = documents.read("provenance", paper.dumps(paper.dsse(body, KEY)))
    assert found.claims[0].source == ""


def _changed(**more: Any) -> bytes:
    return paper.dumps(paper.dsse({**paper.statement(DIGEST), **more}, KEY))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (paper.dumps(paper.statement(DIGEST)), "supply.unknown_format"),
        (paper.dumps({**paper.dsse(paper.statement(DIGEST), KEY), "payloadType": "text/plain"}), "supply.unknown_format"),
        (paper.dumps({**paper.dsse(paper.statement(DIGEST), KEY), "payload": "%%%"}), "supply.malformed"),
        (paper.dumps({**paper.dsse(paper.statement(DIGEST), KEY), "signatures": []}), "supply.malformed"),
        (_changed(_type="https://in-toto.io/Statement/v7"), "supply.unknown_format"),
        (_changed(predicateType="https://spdx.dev/Document"), "supply.unknown_format"),
        (_changed(subject=[]), "supply.malformed"),
        (_changed(subject=[{"digest": {"sha256": "short"}}]), "supply.malformed"),
        (_changed(predicate={"runDetails": {}}), "supply.malformed"),
        (b"\n".join([json.dumps(paper.dsse(paper.statement(DIGEST), KEY)).encode()] * 65), "supply.too_large"),
    ],
    ids=str,
)  # fmt: skip
def test_provenance_that_is_none_is_refused(body: bytes, code: str) -> None:
    assert _code("provenance", body) == code


def test_an_attachment_is_held_against_what_was_signed_about_it() -> None:
    body = paper.dumps(paper.cyclonedx(paper.component("zlib", "1")))
    digest = hashlib.sha256(body).hexdigest()
    signed = Attachment(kind="sbom", format="cyclonedx-1.6", name="bom.json", sha256=digest, length=len(body))  # fmt: skip
    assert documents.check_attachment(signed, body, digest).format == "cyclonedx-1.6"
    for other in (
        Attachment(
            kind="sbom", format="cyclonedx-1.6", name="b", sha256="0" * 64, length=len(body)
        ),
        Attachment(kind="sbom", format="cyclonedx-1.6", name="b", sha256=digest, length=1),
        Attachment(kind="sbom", format="spdx-2.3", name="b", sha256=digest, length=len(body)),
    ):
        with pytest.raises(PublisherError) as caught:
            documents.check_attachment(other, body, digest)
        assert caught.value.code == "supply.attachment"


def test_a_device_reads_a_target_with_attachments_of_kinds_that_it_does_not_know() -> None:
    digest = "ab" * 32
    full = {"kind": "full", "sha256": digest, "length": 9, "index_sha256": digest}
    future = {"kind": "hologram", "format": "h-9", "name": "x.holo", "sha256": digest, "length": 1}
    custom: dict[str, Any] = {
        "tidegate": {
            "product": "gw1",
            "version": "1.0.0",
            "release_counter": 1,
            "security_version": 0,
            "channels": ["stable"],
            "hardware": [{"model": "gw1"}],
            "install": {"size": 1, "sha256": digest},
            "payloads": [full],
            "attachments": [future],
        }
    }
    found = release_target("gw1/1.0.0/rootfs", custom)
    assert [one.kind for one in found.attachments] == ["hologram"]
    for wrong in ("../../etc/passwd", "a/b", "", ".hidden", "x\n"):
        custom["tidegate"]["attachments"] = [{**future, "name": wrong}]
        with pytest.raises(PublisherError) as caught:
            release_target("gw1/1.0.0/rootfs", custom)
        assert caught.value.code == "sig.malformed"
