"""Fallback grants on the holders' side: read a draft, say what it would allow, sign it, put signatures into it, check it.

The same files and habits as the ceremonies of root and targets (`publisher.ceremony`): a draft is the unsigned document itself, here a DSSE envelope; its words
are compared by voice; a signature is a small file without secrets. What comes out is checked by the code that devices run (`core.grant`).
"""

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from tidegate.core.codec import DOCUMENT_MAX, decode_document
from tidegate.core.errors import ConfigError, PublisherError
from tidegate.core.grant import GRANT_TYPE, GrantBody, accept_grant, open_grant
from tidegate.core.keys import PublicKey, Signer, add_signature, open_envelope, peek_payload
from tidegate.core.metadata import RoleKeys, RootDocument, SignedTarget, product_role, root_extra
from tidegate.core.protocol import Envelope, EnvelopeSignature
from tidegate.core.verify import TrustedSet, have
from tidegate.publisher.ceremony import Progress, SignatureFile
from tidegate.publisher.words import digest_words

_FILE_MAX: Final = 3 * DOCUMENT_MAX


def read_grant(path: Path) -> tuple[Envelope, GrantBody]:
    """Read a grant or a draft of one; nothing is verified yet.

    Raises:
        ConfigError: `config.unreadable`. PublisherError: `sig.oversized`, `sig.malformed`.
    """
    try:
        body = path.read_bytes()
    except OSError as error:
        raise ConfigError("config.unreadable", f"{path}: {error.strerror}") from error
    if len(body) > _FILE_MAX:
        raise PublisherError("sig.oversized", f"{path.name}: {len(body)} bytes")
    try:
        envelope = msgspec.json.decode(body, type=Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PublisherError("sig.malformed", f"{path.name}: no grant: {error}") from error
    if envelope.payload_type != GRANT_TYPE:
        raise PublisherError("sig.malformed", f"{path.name}: no document of type {GRANT_TYPE}")
    return envelope, decode_document(peek_payload(envelope), GrantBody)


def write_grant(path: Path, envelope: Envelope) -> None:
    """Write a grant or a draft of one."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(envelope), indent=1) + b"\n")


def words_of(envelope: Envelope) -> str:
    """Return the words of a grant; signatures do not change them."""
    return digest_words(peek_payload(envelope))


def holders_of(root: RootDocument) -> RoleKeys:
    """Return who may sign grants, and how many of them must."""
    extra = root_extra(root)
    keys = tuple(extra.keys("incident").values())
    return RoleKeys(keys, extra.authorities.incident.threshold)


def sign_grant(envelope: Envelope, signer: Signer, name: str, *, now: int) -> SignatureFile:
    """Sign a draft; the result holds no secret."""
    bare = msgspec.structs.replace(envelope, signatures=())
    made = add_signature(bare, signer).signatures[0]
    return SignatureFile(
        name=name,
        keyid=made.keyid,
        signature=base64.b64decode(made.sig).hex(),
        words=words_of(envelope),
        signed_at=now,
    )


def merge_grant(
    envelope: Envelope, signatures: Sequence[SignatureFile], holders: RoleKeys
) -> Envelope:
    """Put signatures into a grant; each must be good, on this very document, by one of its holders.

    Raises:
        PublisherError: `sig.mix_and_match`: a signature on another document; `sig.unknown_key`: by somebody who has no say; `sig.threshold`: not good.
    """
    words = words_of(envelope)
    known = {key.keyid: key for key in holders.keys}
    found = {one.keyid: one for one in envelope.signatures}
    for one in signatures:
        if one.words != words:
            raise PublisherError("sig.mix_and_match", f"{one.name} signed another document")
        if one.keyid not in known:
            raise PublisherError("sig.unknown_key", f"{one.name} has no say in this document")
        sig = base64.b64encode(bytes.fromhex(one.signature)).decode()
        made = EnvelopeSignature(keyid=one.keyid, sig=sig)
        if not _good(envelope, made, known[one.keyid]):
            raise PublisherError("sig.threshold", f"{one.name}: the signature is not good")
        found[one.keyid] = made
    return msgspec.structs.replace(envelope, signatures=tuple(found.values()))


def grant_progress(envelope: Envelope, holders: RoleKeys) -> Progress:
    """Say who signed a grant, verified."""
    given = {one.keyid: one for one in envelope.signatures}
    signed = tuple(
        key for key in holders.keys if key.keyid in given and _good(envelope, given[key.keyid], key)
    )
    unsigned = tuple(key for key in holders.keys if key not in signed)
    serial = decode_document(peek_payload(envelope), GrantBody).serial
    return Progress("the grant", serial, holders.threshold, signed, unsigned)


def check_grant_file(
    envelope: Envelope, trusted: TrustedSet, *, now: int
) -> tuple[GrantBody, tuple[SignedTarget, ...]]:
    """Check a grant with the code of devices, as far as that can be done without one of them.

    Args:
        envelope: untrusted.
        trusted: what is published, verified, the grant's product with it.
        now: unix seconds.

    Returns:
        The grant, and the images that it leads back to.

    Raises:
        PublisherError: the code with which devices would refuse it.
    """
    grant = open_grant(envelope, trusted.root)
    role = product_role(grant.product)
    document = have(trusted.roles.get(role), role)
    return grant, accept_grant(grant, root=trusted.root, document=document, now=now)


def describe_grant(grant: GrantBody) -> list[str]:
    """Say in lines for people what a grant allows. Texts in it are untrusted: whoever shows them escapes them."""
    reach = ", ".join(f"{one.model} {one.rev_min} to {one.rev_max}" for one in grant.hardware)
    left = ", ".join(sorted({str(one.release_counter) for one in grant.leaving}))
    back = grant.to[0]
    versions = ", ".join(sorted({one.path.split("/")[1] for one in grant.to if "/" in one.path}))
    cohort = grant.cohort
    who = (
        "EVERY device that runs what is left"
        if cohort.all
        else f"{cohort.count:,} devices, Merkle root {(cohort.merkle_root or '')[:12]}"
    )
    lines = [
        "a DOWNGRADE.",
        f"  product   {grant.product}, hardware {reach}",
        f"  from      counter {left}: {', '.join(one.sha256[:12] for one in grant.leaving)}",
        f"  to        {versions}, counter {back.release_counter}, security_version {back.security_version}",
        f"  who       {who}",
        f"  until     {_moment(grant.expires)}, each device once",
        f"  after it  nothing below counter {grant.resume.min_counter} is installed",
        f"  serial    {grant.serial}, epoch {grant.epoch}",
        f"  incident  {grant.incident}, asked for by {grant.asked_by or 'nobody named'}",
        f"  reason    {grant.reason}",
    ]
    if grant.not_before:
        lines.insert(6, f"  not before {_moment(grant.not_before)}")
    return lines


def _good(envelope: Envelope, one: EnvelopeSignature, key: PublicKey) -> bool:
    alone = msgspec.structs.replace(envelope, signatures=(one,))
    try:
        open_envelope(alone, GRANT_TYPE, {key.keyid: key}, 1)
    except PublisherError:
        return False
    return True


def _moment(at: int) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"
