"""Attachments and advisories, version texts, grants: what comes from build systems and other people's lists."""

import contextlib
from typing import Final

from tests.unit.core.supply import paper
from tests.unit.core.test_grant import GRANT

from fuzz.kind import Target, refusing
from tidegate.core import codec
from tidegate.core.errors import TidegateError
from tidegate.core.grant import GrantBody, require_sense
from tidegate.core.keys import SEED_BYTES, Signer
from tidegate.core.supply import documents, purl, versions

_ORDERS: Final[tuple[versions.Order, ...]] = ("deb", "rpm", "semver", "pep440", "generic")
_KINDS: Final = ("sbom", "vex", "provenance", "notes")
_WORDS: Final = (
    b'"purl"',
    b'"version"',
    b'"ranges"',
    b'"events"',
    b'"fixed"',
    b"pkg:deb/",
    b"[[[[",
    b"null",
    b"1e999",
)


def _attachment(body: bytes) -> None:
    for kind in _KINDS:
        with contextlib.suppress(TidegateError):
            documents.read(kind, body)


def _versions(body: bytes) -> None:
    """Two texts, and a third: whatever they are, every order of versions must be one."""
    one, _, rest = body.decode("utf-8", "replace").partition("\n")
    other, _, third = rest.partition("\n")
    for order in _ORDERS:
        said = versions.compare(order, one, other)
        assert (said > 0) == (versions.compare(order, other, one) < 0), (order, one, other)
        assert versions.compare(order, one, one) == 0, (order, one)
        if said < 0 and versions.compare(order, other, third) < 0:
            assert versions.compare(order, one, third) < 0, (order, one, other, third)
        versions.below(order, one, other)


def _purl(body: bytes) -> None:
    purl.parse(body.decode("utf-8", "replace"))


def _grant(body: bytes) -> None:
    require_sense(codec.decode_document(body, GrantBody))


def targets() -> tuple[Target, ...]:
    """Return the targets of this file."""
    key = Signer.from_seed(b"\x0b" * SEED_BYTES["ed25519"])
    part = paper.component("openssl", "3.0.16-1~deb12u1", paper.OPENSSL)
    papers = [
        paper.cyclonedx(part),
        paper.spdx(paper.package("openssl", "3.0.16", paper.OPENSSL)),
        paper.dsse(paper.statement("ab" * 32), key),
        paper.dsse(paper.statement_02("ab" * 32), key),
        paper.openvex(),
        paper.csaf(),
    ]
    # An SBOM may be 32 MiB; what a parser may cost is in proportion, and these inputs are small.
    attachments = tuple(paper.dumps(one) for one in papers)
    advisories = tuple(paper.dumps(one) for one in (paper.osv(), paper.openvex(), paper.csaf()))
    texts = (
        b"1:3.0.16-1~deb12u1\n3.0.17\n3.1",
        b"1.2.3-rc.1+b\n1.2.3\n1.3.0",
        b"2!1.0.post1.dev2\n1.0a1\n1",
        b"1.0-1.el9\n1.0^git1\n~",
    )
    return (
        Target("attachment", refusing(_attachment), attachments, _WORDS),
        Target("advisories", refusing(documents.read_advisories), advisories, _WORDS),
        Target("versions", refusing(_versions), texts),
        Target("purl", refusing(_purl), (paper.OPENSSL.encode(), paper.LIBSSL.encode())),
        Target(
            "grant",
            refusing(_grant),
            (codec.canonical(GRANT),),
            (b'"crit"', b'"cohort"', b'"from"', b"null"),
        ),
    )
