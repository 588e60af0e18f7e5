"""Attachments of a release: which kinds there are, which formats are taken, how large they may be; and files of advisories."""

from typing import Any, Final

import msgspec

from tidegate.core.errors import PublisherError
from tidegate.core.release import Attachment, Sha256
from tidegate.core.supply import csaf, openvex, osv, provenance, sbom
from tidegate.core.supply.advisory import Imported
from tidegate.core.supply.provenance import Claim
from tidegate.core.supply.reading import malformed, read_object
from tidegate.core.supply.sbom import Sbom

_MIB: Final = 1 << 20
#: Kinds of attachment → most bytes of one. Looked at before anything is parsed.
LIMITS: Final[dict[str, int]] = {
    "sbom": 32 * _MIB,
    "vex": 8 * _MIB,
    "provenance": 4 * _MIB,
    "notes": 1 * _MIB,
    "licences": 8 * _MIB,
}
#: Most bytes of a file of advisories.
ADVISORY_MAX: Final = 16 * _MIB
#: Characters of a version in an advisory.
VERSION_MAX: Final = 256
#: Attachments of one artifact.
ATTACHMENTS_MAX: Final = 16


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """An attachment that was read: what it is, and what of it is used."""

    kind: str
    format: str
    sbom: Sbom | None = None
    claims: tuple[Claim, ...] = ()
    vex: Imported | None = None


def limit_of(kind: str) -> int:
    """Return the most bytes of an attachment.

    Raises:
        PublisherError: `supply.unknown_format`: there is no such kind.
    """
    found = LIMITS.get(kind)
    if found is None:
        raise PublisherError(
            "supply.unknown_format", f"attachments are {', '.join(LIMITS)}; not {kind[:40]}"
        )
    return found


def read(kind: str, body: bytes) -> Document:
    """Read an attachment (untrusted) of a kind, finding out its format.

    Raises:
        PublisherError: `supply.too_large`, `supply.malformed`, `supply.unknown_format`.
    """
    limit = limit_of(kind)
    if len(body) > limit:
        raise PublisherError("supply.too_large", f"{len(body)} bytes; at most {limit} are taken")
    if kind == "provenance":
        claims = provenance.read(body, limit)
        return Document(kind=kind, format=claims[0].format, claims=claims)
    if kind in {"notes", "licences"}:
        return Document(kind=kind, format=_text(body))
    plain = read_object(body, limit)
    if kind == "sbom" and (sbom.is_cyclonedx(plain) or sbom.is_spdx(plain)):
        found = sbom.read(plain)
        return Document(kind=kind, format=found.format, sbom=found)
    if kind == "vex" and (openvex.is_openvex(plain) or csaf.is_csaf(plain)):
        statements = _advisory(plain)
        return Document(kind=kind, format=statements.format, vex=statements)
    wanted = {"sbom": "CycloneDX or SPDX", "vex": "OpenVEX or CSAF"}[kind]
    raise PublisherError("supply.unknown_format", f"neither {wanted.replace(' or ', ' nor ')} JSON")


def read_advisories(body: bytes) -> Imported:
    """Read a file of advisories or statements (untrusted): OSV, CSAF or OpenVEX.

    Raises:
        PublisherError: `supply.too_large`, `supply.malformed`, `supply.unknown_format`.
    """
    return _advisory(read_object(body, ADVISORY_MAX))


def _advisory(plain: dict[str, Any]) -> Imported:
    for is_one, read_one in (
        (csaf.is_csaf, csaf.read),
        (openvex.is_openvex, openvex.read),
        (osv.is_osv, osv.read),
    ):
        if is_one(plain):
            return _bounded(read_one(plain))
    raise PublisherError("supply.unknown_format", "neither OSV, CSAF 2.0 nor OpenVEX JSON")


def _bounded(found: Imported) -> Imported:
    """Refuse what would cost too much to match: every part of every release is held against it."""
    every = [each for one in found.advisories for each in one.affected]
    ranges = [each for one in every for each in one.ranges]
    counts = {
        "advisories": (len(found.advisories), 5_000),
        "statements": (len(found.statements), 10_000),
        "names": (
            sum(len(one.aliases) for one in found.advisories)
            + sum(len(one.vulnerabilities) for one in found.statements),
            20_000,
        ),
        "products": (sum(len(one.products) for one in found.statements), 50_000),
        "packages": (len(every), 50_000),
        "ranges": (len(ranges), 50_000),
        "events of one range": (max((len(one.events) for one in ranges), default=0), 500),
    }
    for what, (count, most) in counts.items():
        if count > most:
            raise PublisherError("supply.too_large", f"{count} {what}; at most {most} are taken")
    texts = [one.version for each in ranges for one in each.events]
    texts += [one for each in every for one in each.versions]
    if any(len(one) > VERSION_MAX for one in texts):
        raise malformed(f"a version of more than {VERSION_MAX} characters")
    return found


def _text(body: bytes) -> str:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise malformed("not UTF-8 text") from error
    if "\0" in text or not text.strip():
        raise malformed("no text")
    return "text"


def check_attachment(one: Attachment, body: bytes, sha256: Sha256) -> Document:
    """Hold bytes against what was signed about them, and read them.

    Args:
        one: from the signed target.
        body: what came under its digest.
        sha256: digest of `body`, as the caller computed it.

    Raises:
        PublisherError: `supply.attachment`: other bytes, or another format than signed; `supply.*` as `read`.
    """
    if (len(body), sha256) != (one.length, one.sha256):
        raise PublisherError("supply.attachment", f"{one.name}: not the bytes that were signed")
    try:
        found = read(one.kind, body)
    except PublisherError as error:
        raise PublisherError(error.code, f"{one.name}: {error.detail}") from error
    if found.format != one.format:
        raise PublisherError(
            "supply.attachment", f"{one.name}: is {found.format}, signed as {one.format}"
        )
    return found
