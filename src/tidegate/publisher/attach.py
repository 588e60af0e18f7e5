"""Attachments on the build machine: read and recognised before they are signed for, added to a bundle that nobody has signed yet."""

import hashlib
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tidegate.core.errors import ConfigError, PublisherError, RequestError
from tidegate.core.metadata import SignedTarget, make_product, product_extra, signed_targets
from tidegate.core.release import Attachment, ReleaseTarget
from tidegate.core.supply import documents
from tidegate.core.supply.documents import ATTACHMENTS_MAX, Document
from tidegate.publisher.bundle import Bundle, extract_member, read, write
from tidegate.publisher.manifest import ReleaseSpec


@dataclass(frozen=True)
class Attached:
    """A file that belongs to a release: what is signed about it, where it is, what it says."""

    signed: Attachment
    path: Path
    document: Document


def open_attachment(kind: str, path: Path) -> Attached:
    """Read a file and find out what it is. Its size is looked at first.

    Raises:
        ConfigError: `config.unreadable`. PublisherError: `supply.*`, naming the file.
    """
    limit = documents.limit_of(kind)
    try:
        size = path.stat().st_size
        if size > limit:
            raise PublisherError(
                "supply.too_large", f"{path}: {size} bytes; at most {limit} are taken"
            )
        body = path.read_bytes()
    except OSError as error:
        raise ConfigError("config.unreadable", f"{path}: {error.strerror}") from error
    try:
        document = documents.read(kind, body)
    except PublisherError as error:
        raise PublisherError(error.code, f"{path}: {error.detail}") from error
    signed = Attachment(
        kind=kind,
        format=document.format,
        name=_file_name(path.name),
        sha256=hashlib.sha256(body).hexdigest(),
        length=len(body),
    )
    return Attached(signed, path, document)


def open_all(files: Iterable[tuple[str, Path]]) -> tuple[Attached, ...]:
    """Read files as (kind, path); one that is named twice counts once.

    Raises:
        ConfigError, PublisherError: as `open_attachment`; `supply.too_large`: more than an artifact may have.
    """
    found = {(one.signed.kind, one.signed.sha256): one for one in _opened(files)}
    if len(found) > ATTACHMENTS_MAX:
        raise PublisherError("supply.too_large", f"more than {ATTACHMENTS_MAX} attachments")
    return tuple(found.values())


def _opened(files: Iterable[tuple[str, Path]]) -> Iterable[Attached]:
    return (open_attachment(kind, path) for kind, path in files)


def _file_name(name: str) -> str:
    found = re.sub(r"[^A-Za-z0-9._+~-]", "_", name)[-100:].lstrip("._+~-")
    return found or "attachment"


def attach(
    path: Path, files: Iterable[tuple[str, Path]], component: str | None = None
) -> tuple[Attached, ...]:
    """Add attachments to the release that a bundle brings. What is there already stays.

    Args:
        path: the bundle; replaced.
        files: (kind, path).
        component: only to this artifact; None = to every one of the release.

    Raises:
        RequestError: `request.conflict`: somebody signed it already; `request.not_found`: no such component.
        ConfigError, PublisherError: as `open_all`.
    """  # fmt: skip
    bundle = read(path)
    document = bundle.product
    if document.signature_keyids:
        raise RequestError(
            "request.conflict",
            f"{path.name} is signed already, and attachments are part of what is signed",
            hint="attach before the first signature: build it again, attach, then sign",
        )
    new = open_all(files)
    targets = []
    touched = False
    for one in signed_targets(document).values():
        mine = one.release.version == bundle.manifest.version
        if mine and component in {None, one.release.component}:
            touched = True
            targets.append(_with(one, new))
        else:
            targets.append(one)
    if not touched:
        raise RequestError("request.not_found", f"{path.name} brings no component {component}")
    body = make_product(
        version=document.version,
        expires_at=document.expires_at,
        targets=targets,
        extra=product_extra(document),
    )
    _rewrite(bundle, body, new)
    return new


def _with(target: SignedTarget, new: tuple[Attached, ...]) -> SignedTarget:
    known = {(one.kind, one.sha256) for one in target.release.attachments}
    added = [one.signed for one in new if (one.signed.kind, one.signed.sha256) not in known]
    attachments = (*target.release.attachments, *added)
    if len(attachments) > ATTACHMENTS_MAX:
        raise PublisherError("supply.too_large", f"more than {ATTACHMENTS_MAX} attachments")
    release: ReleaseTarget = msgspec.structs.replace(target.release, attachments=attachments)
    return SignedTarget(target.path, target.length, target.sha256, release)


def _rewrite(bundle: Bundle, body: bytes, new: tuple[Attached, ...]) -> None:
    with tempfile.TemporaryDirectory(dir=bundle.path.parent, prefix=".attach-") as folder:
        kept = {}
        for member in bundle.manifest.members:
            if member.role is None:
                kept[member.name] = Path(folder) / member.sha256
                extract_member(bundle.path, member, kept[member.name])
        write(
            bundle.path,
            {**bundle.documents, bundle.role: body},
            {one.payload: kept[one.name] for one in bundle.manifest.payloads if one.payload},
            product=bundle.manifest.product,
            version=bundle.manifest.version,
            attachments={
                **{one.sha256: kept[one.name] for one in bundle.manifest.attachments},
                **{one.signed.sha256: one.path for one in new},
            },
        )


def read_attachments(bundle: Bundle, targets: Iterable[SignedTarget]) -> dict[str, Document]:
    """Return the attachments of a bundle's targets by digest, each held against what is signed about it.

    Raises:
        PublisherError: `supply.*`: missing, other bytes, or not what it is signed as.
    """
    members = {one.sha256: one for one in bundle.manifest.attachments}
    found: dict[str, Document] = {}
    with tempfile.TemporaryDirectory(prefix="tidegate-") as folder:
        for signed in (one for target in targets for one in target.release.attachments):
            if signed.sha256 in found:
                continue
            member = members.get(signed.sha256)
            if member is None or member.length != signed.length:
                raise PublisherError("supply.attachment", f"{signed.name} is not in the bundle")
            if member.length > documents.limit_of(signed.kind):
                raise PublisherError("supply.too_large", f"{signed.name}: {member.length} bytes")
            file = Path(folder) / signed.sha256
            extract_member(bundle.path, member, file)
            body = file.read_bytes()
            digest = hashlib.sha256(body).hexdigest()
            found[signed.sha256] = documents.check_attachment(signed, body, digest)
            file.unlink()
    return found


def unproven(targets: Iterable[SignedTarget], found: Mapping[str, Document]) -> list[str]:
    """Return the paths of artifacts whose provenance speaks of other images than theirs."""
    paths = []
    for one in targets:
        claims = [
            claim
            for attachment in one.release.attachments
            if attachment.sha256 in found
            for claim in found[attachment.sha256].claims
        ]
        if claims and not any(one.release.install.sha256 in claim.subjects for claim in claims):
            paths.append(one.path)
    return paths


def of_spec(
    spec: ReleaseSpec, more: Iterable[tuple[str, Path]] = ()
) -> dict[str, tuple[Attached, ...]]:
    """Open what a manifest, and `more` beside it, attach to each component; by the component's name.

    Raises:
        ConfigError, PublisherError: as `open_all`.
    """
    common = (*spec.attachments, *more)
    return {one.name: open_all((*common, *one.attachments)) for one in spec.components}
