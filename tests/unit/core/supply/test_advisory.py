from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.unit.core.supply import paper

from tidegate.core.errors import PublisherError
from tidegate.core.supply import documents
from tidegate.core.supply.advisory import (
    Advisory,
    Imported,
    Range,
    RangeEvent,
    Subject,
    concerns,
    in_range,
    judge,
)
from tidegate.core.supply.sbom import Part

SUBJECT = Subject(product="gw1", version="2.4.1", sha256=frozenset({"ab" * 32}))


def _read(value: object) -> Imported:
    return documents.read_advisories(paper.dumps(value))


def _part(name: str, version: str, purl: str) -> Part:
    body = paper.cyclonedx(paper.component(name, version, purl))
    found = documents.read("sbom", paper.dumps(body)).sbom
    assert found is not None
    return found.parts[0]


OLD = _part("openssl", "3.0.16-1~deb12u1", paper.OPENSSL)
NEW = _part(
    "openssl", "3.0.17-1~deb12u3", "pkg:deb/debian/openssl@3.0.17-1~deb12u3?distro=debian-12"
)


def _osv(**more: Any) -> Advisory:
    return _read(paper.osv(**more)).advisories[0]


def test_osv_concerns_what_is_older_than_the_fix() -> None:
    found = _osv()
    assert (found.id, found.severity, found.title[:13]) == (
        "CVE-2025-9230",
        "high",
        "Out-of-bounds",
    )
    assert found.published_at == 1_790_848_800
    assert concerns(found, OLD)
    assert not concerns(found, NEW)


def test_a_part_is_found_by_the_source_package_that_it_was_built_from() -> None:
    assert concerns(_osv(), _part("libssl3", "3.0.16-1~deb12u1", paper.LIBSSL))


@pytest.mark.parametrize(
    "purl",
    [
        "pkg:deb/ubuntu/openssl@3.0.16-1",
        "pkg:rpm/redhat/openssl@3.0.1",
        "pkg:generic/openssl@3.0.16",
        "pkg:deb/debian/openssl@3.0.16-1?distro=debian-13",
        "",
    ],
)
def test_a_package_of_another_world_or_release_is_another_package(purl: str) -> None:
    assert not concerns(_osv(), _part("openssl", "3.0.16-1", purl))


def test_an_rpm_has_its_epoch_whichever_way_it_is_written() -> None:
    events = [{"introduced": "0"}, {"fixed": "1:3.0.7-27.el9"}]
    package = {"ecosystem": "Rocky Linux:9", "name": "openssl"}
    found = _osv(
        affected=[{"package": package, "ranges": [{"type": "ECOSYSTEM", "events": events}]}]
    )
    for purl, expected in (
        ("pkg:rpm/rocky/openssl@3.0.7-27.el9?epoch=1&distro=rocky-9.4", False),
        ("pkg:rpm/rocky/openssl@3.0.7-24.el9?epoch=1&distro=rocky-9.4", True),
        ("pkg:rpm/rocky/openssl@1:3.0.7-27.el9?distro=rocky-9.4", False),
        ("pkg:rpm/rocky/openssl@3.0.7-24.el9?epoch=1&distro=rocky-8.9", False),
    ):
        version = purl.partition("@")[2].partition("?")[0]
        assert concerns(found, _part("openssl", version, purl)) is expected, purl


def test_a_part_without_a_version_counts_as_vulnerable() -> None:
    assert concerns(_osv(), _part("openssl", "", "pkg:deb/debian/openssl"))


def test_a_withdrawn_advisory_concerns_nobody() -> None:
    assert not concerns(_osv(withdrawn="2026-11-01T00:00:00Z"), OLD)


def _affected(**one: Any) -> Advisory:
    package = {"ecosystem": "PyPI", "name": "Requests"}
    return _osv(affected=[{"package": package} | one])


def test_listed_versions_and_ranges_both_count() -> None:
    events = [{"introduced": "2.0"}, {"last_affected": "2.3"}, {"introduced": "2.9"}]
    found = _affected(versions=["1.0.0"], ranges=[{"type": "ECOSYSTEM", "events": events}])
    hit = [
        one
        for one in ("0.9", "1.0", "1.1", "2.0rc1", "2.0", "2.3", "2.3.post1", "2.8", "2.9", "3.0")
        if concerns(found, _part("requests", one, f"pkg:pypi/requests@{one}"))
    ]
    assert hit == ["1.0", "2.0", "2.3", "2.9", "3.0"]


@pytest.mark.parametrize(
    ("events", "hit"),
    [
        ("introduced=0", "1 2 3"),
        ("introduced=2 fixed=3", "2"),
        ("fixed=3 introduced=2", "2"),
        ("introduced=0 fixed=2 introduced=3", "1 3"),
        ("introduced=0 limit=3", "1 2"),
        ("introduced=0 limit=*", "1 2 3"),
        ("introduced=2 fixed=2", "2 3"),
        ("introduced=0 last_affected=1", "1"),
    ],
)
def test_ranges_are_evaluated_as_the_schema_says(events: str, hit: str) -> None:
    made = tuple(
        msgspec.convert({"kind": kind, "version": version}, type=RangeEvent)
        for kind, _, version in (one.partition("=") for one in events.split())
    )
    one = Range(order="semver", events=made)
    assert [version for version in ("1", "2", "3") if in_range(one, version)] == hit.split()


def test_a_range_of_commits_alone_concerns_nobody() -> None:
    events = [{"introduced": "0"}, {"fixed": "abc"}]
    found = _affected(ranges=[{"type": "GIT", "repo": "https://x.example", "events": events}])
    assert not concerns(found, _part("requests", "1.0", "pkg:pypi/requests@1.0"))


def test_csaf_brings_an_advisory_and_what_is_fixed() -> None:
    found = _read(paper.csaf())
    advisory = found.advisories[0]
    assert (advisory.id, advisory.aliases) == ("ACME-2026-007", ("CVE-2025-9230",))
    assert advisory.severity == "high"
    assert concerns(advisory, OLD)
    assert not concerns(advisory, NEW)
    assert {one.status for one in found.statements} == {"affected", "fixed"}


@pytest.mark.parametrize(
    ("text", "hit"),
    [
        ("vers:deb/>=3.0.0|<3.0.17", "3.0.0 3.0.16"),
        ("<=3.0.16", "1.1 3.0.0 3.0.16"),
        ("vers:deb/*", "1.1 3.0.0 3.0.16 3.0.17"),
        ("vers:deb/1.1|>=3.0.17", "1.1 3.0.17"),
        (">= 3.0.0, < 3.0.16", "3.0.0"),
    ],
)
def test_version_ranges_of_csaf_are_read(text: str, hit: str) -> None:
    body = paper.csaf()
    body["product_tree"]["branches"][0]["branches"][0]["branches"][0]["name"] = text
    advisory = _read(body).advisories[0]
    versions = ("1.1", "3.0.0", "3.0.16", "3.0.17")
    parts = {one: _part("openssl", one, f"pkg:deb/debian/openssl@{one}") for one in versions}
    assert [one for one, part in parts.items() if concerns(advisory, part)] == hit.split()


def _verdict(
    value: object, part: Part = OLD, *, own: bool = False, subject: Subject = SUBJECT
) -> str:
    said = _read(value).statements
    return judge(_osv(), part, subject, [(one, own) for one in said]).status


def test_without_a_statement_a_finding_stands() -> None:
    assert judge(_osv(), OLD, SUBJECT, []).status == "affected"


@pytest.mark.parametrize("status", ["not_affected", "fixed", "under_investigation", "affected"])
def test_a_statement_about_the_product_is_taken(status: str) -> None:
    assert _verdict(paper.openvex(status=status)) == status


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (paper.openvex(product="pkg:generic/gw2@2.4.1"), "affected"),
        (paper.openvex(product="pkg:generic/gw1@9.9.9"), "affected"),
        (paper.openvex(product="pkg:generic/gw1"), "not_affected"),
        (paper.openvex(part="pkg:deb/debian/zlib"), "affected"),
        (paper.openvex(part="pkg:deb/debian/openssl@9"), "affected"),
        (paper.openvex(part=""), "not_affected"),
        (paper.openvex(vulnerability="CVE-2020-1"), "affected"),
        (paper.openvex(vulnerability="ghsa-xxxx-yyyy-zzzz"), "not_affected"),
        (paper.openvex(product="pkg:deb/debian/openssl", part=""), "not_affected"),
        (paper.openvex(product="pkg:deb/debian/openssl@3.0.1", part=""), "affected"),
        (paper.openvex(product="https://acme.example/gw1"), "affected"),
    ],
)
def test_a_statement_silences_only_what_it_names(value: dict[str, Any], expected: str) -> None:
    assert _verdict(value) == expected


def test_a_statement_attached_to_a_release_speaks_of_it_whatever_it_calls_it() -> None:
    value = paper.openvex(product="https://acme.example/gw1")
    assert _verdict(value, own=True) == "not_affected"
    assert _verdict(paper.openvex(product="pkg:generic/gw2"), own=True) == "affected"


def test_a_statement_may_name_an_image_by_its_digest() -> None:
    value = paper.openvex(part="")
    value["statements"][0]["products"] = [{"@id": "urn:image", "hashes": {"sha-256": "AB" * 32}}]
    assert _verdict(value) == "not_affected"
    other = Subject(product="gw1", version="2.4.1", sha256=frozenset({"cd" * 32}))
    assert _verdict(value, subject=other) == "affected"


def test_the_latest_statement_wins_whatever_the_order() -> None:
    early = _read(paper.openvex(at="2026-11-01T00:00:00Z")).statements
    late = _read(paper.openvex(status="affected", at="2026-11-03T00:00:00Z")).statements
    for said in (early + late, late + early):
        assert judge(_osv(), OLD, SUBJECT, [(one, False) for one in said]).status == "affected"


def test_csaf_statements_narrow_to_the_part_inside_the_product() -> None:
    impact = [{"category": "impact", "details": "not reachable", "product_ids": ["GW1:OLD"]}]
    flags = [{"label": "vulnerable_code_not_present", "product_ids": ["GW1:OLD"]}]
    value = paper.csaf(
        product_status={"known_not_affected": ["GW1:OLD"]}, flags=flags, threats=impact
    )
    said = [(one, False) for one in _read(value).statements]
    found = judge(_osv(), OLD, SUBJECT, said)
    assert (found.status, found.justification) == ("not_affected", "vulnerable_code_not_present")
    assert found.note == "not reachable"
    assert judge(_osv(), _part("zlib", "1", "pkg:deb/debian/zlib@1"), SUBJECT, said).status == "affected"  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [
        paper.osv(aliases=["CVE-1"] * 30_000),
        paper.osv(affected=[{"package": {"ecosystem": "npm", "name": "x"}, "ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}] * 600}]}]),
        paper.openvex(products=[{"@id": "pkg:generic/x"}] * 60_000),
        paper.csaf() | {"vulnerabilities": [{"cve": f"CVE-{number}"} for number in range(6_000)]},
    ],
    ids=["aliases", "events", "products", "advisories"],
)  # fmt: skip
def test_what_would_cost_too_much_to_match_is_refused(value: object) -> None:
    with pytest.raises(PublisherError) as caught:
        _read(value)
    assert caught.value.code == "supply.too_large"


def _without(key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    return {name: one for name, one in make().items() if name != key}


_LOOP = {"product_reference": "X", "relates_to_product_reference": "X", "full_product_name": {"product_id": "X"}}  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"id": 7, "affected": []},
        {"id": "", "affected": []},
        paper.osv(modified="yesterday"),
        paper.osv(affected={}),
        paper.osv(affected=[{"package": {}}]),
        paper.osv(affected=[{"package": {"ecosystem": "npm", "name": "x"}, "ranges": [{"type": "SEMVER", "events": [{"fixed": "1"}]}]}]),
        paper.osv(affected=[{"package": {"purl": "pkg:%%%"}}]),
        _without("@id", paper.openvex),
        _without("statements", paper.openvex),
        paper.openvex(status="harmless"),
        paper.openvex(justification=""),
        paper.openvex(part="openssl"),
        paper.openvex(products=[]),
        paper.openvex(products=[{}]),
        paper.openvex(vulnerability=""),
        paper.csaf(product_status={"known_affected": ["NOBODY"]}),
        {**paper.csaf(), "product_tree": {"relationships": [_LOOP]}},
        {**paper.csaf(), "document": {**paper.csaf()["document"], "csaf_version": "3.0"}},
        {**paper.csaf(), "product_tree": {"full_product_names": [{"product_id": "A", "name": "a"}] * 2}},
    ],
    ids=str,
)  # fmt: skip
def test_a_file_that_is_no_advisory_is_refused(value: object) -> None:
    with pytest.raises(PublisherError) as caught:
        _read(value)
    assert caught.value.code in {"supply.malformed", "supply.unknown_format"}
