"""Sign a bundle: one holder of a product key adds one signature to the product role in it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tidegate.core.accept import AcceptedProduct, accept_release
from tidegate.core.authority import Mandate
from tidegate.core.errors import PublisherError
from tidegate.core.keys import Signer
from tidegate.core.metadata import (
    RoleKeys,
    SignedTarget,
    TargetsDocument,
    parse_targets,
    product_extra,
    sign,
    signed_targets,
    strip_signatures,
)
from tidegate.publisher.bundle import (
    Bundle,
    check_payload,
    extract_member,
    read,
    replace_documents,
)
from tidegate.publisher.ceremony import Progress, progress
from tidegate.publisher.words import digest_words


@dataclass(frozen=True)
class Summary:
    """What somebody is about to sign.

    Attributes:
        product: the product.
        version: of the release that this bundle brings.
        targets: everything that the product role names afterwards, newest first.
        words: digest words of the document.
        signatures: key ids that signed already, verified or not.
        mandates: staging schedules of the role, by counter.
    """

    product: str
    version: str
    targets: tuple[SignedTarget, ...]
    words: str
    signatures: tuple[str, ...]
    mandates: tuple[Mandate, ...] = ()


def summary(path: Path) -> Summary:
    """Say what a bundle asks to be signed.

    Raises:
        PublisherError: `release.malformed`, `sig.malformed`. ConfigError: `config.unreadable`.
    """
    bundle = read(path)
    document = bundle.product
    targets = sorted(
        signed_targets(document).values(), key=lambda one: -one.release.release_counter
    )
    return Summary(
        product=bundle.role.removeprefix("product/"),
        version=bundle.manifest.version,
        targets=tuple(targets),
        words=digest_words(strip_signatures(document.body)),
        signatures=document.signature_keyids,
        mandates=product_extra(document).mandates,
    )


def sign_bundle(path: Path, signer: Signer) -> None:
    """Add a signature to the product role of a bundle. Signing twice changes nothing.

    Raises:
        PublisherError: `release.malformed`, `sig.malformed`. ConfigError: `config.unreadable`.
    """
    bundle = read(path)
    document = bundle.product
    if signer.public.keyid in document.signature_keyids and signer.public.keytype == "ed25519":
        # Ed25519 gives the same signature again; P-256 does not, and either is good
        again = sign(strip_signatures(document.body), signer)
        found = parse_targets(again, bundle.role).inner.signatures[signer.public.keyid]
        if document.inner.signatures[signer.public.keyid] == found:
            return
    replace_documents(path, {bundle.role: sign(document.body, signer)})


def bundle_progress(path: Path, holders: RoleKeys) -> Progress:
    """Say who of the product's keys signed a bundle.

    Raises:
        PublisherError: `release.malformed`. ConfigError: `config.unreadable`.
    """
    bundle = read(path)
    return progress(bundle.product.body, holders)


def check_bundle(
    path: Path, *, targets: TargetsDocument, previous: bytes | None, now: int, folder: Path
) -> AcceptedProduct:
    """Check all that a device would: signatures, order, description, and every payload unpacked again.

    Args:
        path: the bundle.
        targets: the believed targets role.
        previous: the product role that is published now; None for the first.
        now: unix seconds.
        folder: where payloads may be unpacked.

    Raises:
        PublisherError: with the code that devices and server would give. TransferError: a payload is damaged.
    """
    bundle = read(path)
    product = bundle.role.removeprefix("product/")
    accepted = accept_release(
        bundle.product.body, product=product, targets=targets, previous=previous, now=now
    )
    for one in first_time(accepted.new, previous, bundle.role):
        _check_payloads(bundle, one, folder)
    return accepted


def first_time(
    new: Iterable[SignedTarget], previous: bytes | None, role: str
) -> tuple[SignedTarget, ...]:
    """Return those of new targets whose bytes are not published yet: others were checked when they were, and come in no bundle again.

    Raises:
        PublisherError: `sig.malformed`.
    """
    known = [] if previous is None else signed_targets(parse_targets(previous, role)).values()
    return tuple(one for one in new if not any(_same_bytes(one, before) for before in known))


def _same_bytes(one: SignedTarget, before: SignedTarget) -> bool:
    mine, theirs = one.release, before.release
    return (one.length, one.sha256, mine.pieces, mine.attachments) == (
        before.length, before.sha256, theirs.pieces, theirs.attachments
    )  # fmt: skip


def _check_payloads(bundle: Bundle, one: SignedTarget, folder: Path) -> None:
    for part in one.release.pieces:
        digest = part.full.sha256
        member = next((m for m in bundle.manifest.payloads if m.sha256 == digest), None)
        if member is None:
            raise PublisherError(
                "release.malformed",
                f"{one.path}: the payload of {part.component} is not in the bundle",
            )
        container = folder / digest
        extract_member(bundle.path, member, container)
        try:
            check_payload(container, part)
        finally:
            container.unlink()
