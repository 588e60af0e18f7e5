"""The supply chain at the server's door: attachments are held against what is signed, read, and judged by the policy of the channel; then written down."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from tidegate.core.errors import PublisherError
from tidegate.core.metadata import SignedTarget
from tidegate.core.release import Attachment, ReleaseTarget
from tidegate.core.supply import documents, policy
from tidegate.core.supply.documents import Document
from tidegate.core.supply.policy import IngestRule
from tidegate.core.supply.sbom import Sbom
from tidegate.server import advisories
from tidegate.server.blobs import Blobs
from tidegate.server.store import Connection
from tidegate.server.store import supply as rows


class AttachmentNotes(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was read from an attachment, for people.

    Attributes:
        parts: of a bill of materials.
        unread: package URLs in it that could not be read.
        statements: of a VEX document.
        builder, source: of provenance: what its statement about this image claims.
        covers: whether a statement speaks of this image.
        signer: key id of the key of this server's policy that signed it; empty where none did, or none is named.
    """

    parts: int = 0
    unread: int = 0
    statements: int = 0
    builder: str = ""
    source: str = ""
    covers: bool = False
    signer: str = ""


def admit(
    blobs: Blobs,
    rules: Sequence[IngestRule],
    new: Iterable[SignedTarget],
    kept: Iterable[SignedTarget],
    carried: Iterable[str],
) -> dict[str, Document]:
    """Read the attachments of new targets and judge them. Nothing is written.

    Args:
        blobs: where the bundle's bytes are.
        rules: what channels demand.
        new: targets that are about to be published.
        kept: targets that are published already.
        carried: digests of the attachments in the bundle.

    Returns:
        The documents by digest.

    Raises:
        PublisherError: `supply.*`.
    """
    new, kept = tuple(new), tuple(kept)
    named = {one.sha256 for target in (*new, *kept) for one in target.release.attachments}
    for digest in carried:
        if digest not in named:
            raise PublisherError(
                "supply.attachment",
                f"the bundle carries {digest[:16]}…, which nothing signed names",
            )
    found: dict[str, Document] = {}
    for target in new:
        for signed in target.release.attachments:
            if signed.sha256 not in found:
                found[signed.sha256] = _read(blobs, signed)
            elif found[signed.sha256].kind != signed.kind:
                raise PublisherError("supply.attachment", f"{signed.name}: signed as two kinds")
    policy.require(rules, [one.release for one in new], found, [one.release for one in kept])
    return found


def _read(blobs: Blobs, signed: Attachment) -> Document:
    limit = documents.limit_of(signed.kind)
    blob = blobs.open(signed.sha256)
    if blob is None:
        raise PublisherError("supply.attachment", f"{signed.name} is not in the bundle")
    try:
        if blob.size != signed.length:
            raise PublisherError("supply.attachment", f"{signed.name}: not the length signed")
        if blob.size > limit:
            raise PublisherError(
                "supply.too_large", f"{signed.name}: {blob.size} bytes; at most {limit} are taken"
            )
        body = blob.read_at(0, blob.size)
    finally:
        blob.close()
    return documents.check_attachment(signed, body, hashlib.sha256(body).hexdigest())


def record(
    conn: Connection,
    artifact_id: int,
    release: ReleaseTarget,
    found: Mapping[str, Document],
    rules: Sequence[IngestRule],
    by: str,
    now: int,
) -> None:
    """Write down the attachments of a new artifact: the parts it is made of, what is said about it, and which advisories concern it.

    Raises:
        PublisherError: `supply.attachment`: one was not read: what is published changed in between.
    """
    for one in release.attachments:
        document = found.get(one.sha256)
        if document is None:
            raise PublisherError("supply.attachment", f"{one.name} was not read")
        notes = _notes(document, release, rules)
        rows.add_attachment(
            conn,
            {
                "artifact_id": artifact_id,
                **msgspec.structs.asdict(one),
                "notes": msgspec.to_builtins(notes),
            },
        )
        if document.sbom is not None and not rows.has_parts(conn, one.sha256):
            rows.add_parts(conn, _part_rows(one.sha256, document.sbom))
        if document.vex is not None:
            advisories.add_statements(conn, document.vex, by, now, artifact_id=artifact_id)
    advisories.match_artifact(conn, artifact_id)


def _part_rows(digest: str, sbom: Sbom) -> list[dict[str, object]]:
    return [
        {
            "sbom_sha256": digest,
            **msgspec.structs.asdict(one),
            "name_key": one.name.lower(),
            "alias_key": one.alias.lower(),
        }
        for one in dict.fromkeys(sbom.parts)
    ]


def _notes(
    document: Document, release: ReleaseTarget, rules: Sequence[IngestRule]
) -> AttachmentNotes:
    if document.sbom is not None:
        return AttachmentNotes(parts=len(document.sbom.parts), unread=document.sbom.unread)
    if document.vex is not None:
        return AttachmentNotes(statements=len(document.vex.statements))
    if not document.claims:
        return AttachmentNotes()
    mine = [one for one in document.claims if release.install.sha256 in one.subjects]
    claim = (mine or list(document.claims))[0]
    keys = [key for rule in rules if rule.product in {"*", release.product} for key in rule.signers]
    signer = policy.signed_by(claim, keys)
    return AttachmentNotes(
        builder=claim.builder,
        source=claim.source,
        covers=bool(mine),
        signer=signer.keyid if signer else "",
    )
