"""Bundles on disk: write one, read one, replace a document in it; build one from a release manifest.

The file is an uncompressed tar (`core.bundle`); two builds of the same inputs give the same bytes. Payloads are copied, never held in memory.
"""

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from tidegate.core.accept import check_index
from tidegate.core.authority import ProductExtra
from tidegate.core.bundle import (
    MANIFEST_NAME,
    BundleManifest,
    Member,
    attachment_name,
    document_name,
    encode_manifest,
    payload_name,
    read_document,
    read_manifest,
    require_for_server,
    require_member,
)
from tidegate.core.content import check_content
from tidegate.core.errors import ConfigError, PublisherError, RequestError, TransferError
from tidegate.core.mandate import with_mandates
from tidegate.core.metadata import (
    SignedTarget,
    TargetsDocument,
    make_product,
    parse_root,
    parse_snapshot,
    parse_targets,
    product_extra,
    product_role,
    signed_targets,
)
from tidegate.core.payload import HEADER_SIZE, Index, decode_segment, head_size
from tidegate.core.release import Attachment, FallbackTo, Part, PayloadRef, ReleaseTarget
from tidegate.core.ustar import END, PIECE, Reader, header, padding
from tidegate.publisher.content import image_of, signed_of
from tidegate.publisher.manifest import ComponentSpec, ReleaseSpec
from tidegate.publisher.pack import PUBLISH_LEVEL, Packed, Progress, pack


@dataclass(frozen=True)
class Bundle:
    """A bundle file that was read: manifest and documents; payloads stay in the file."""

    path: Path
    manifest: BundleManifest
    documents: Mapping[str, bytes]

    @property
    def role(self) -> str:
        """Return the product role that this bundle brings.

        Raises:
            PublisherError: `release.malformed`: it brings none.
        """
        for role in self.documents:
            if role.startswith("product/"):
                return role
        raise PublisherError("release.malformed", f"{self.path.name} holds no product role")

    @property
    def product(self) -> TargetsDocument:
        """Return the product role's document, parsed."""
        return parse_targets(self.documents[self.role], self.role)


@dataclass(frozen=True)
class Built:
    """What `build` made."""

    bundle: Path
    targets: tuple[SignedTarget, ...]
    packed: Mapping[str, Packed]


def build(
    spec: ReleaseSpec,
    out: Path,
    *,
    previous: bytes | None,
    now: int,
    level: int = PUBLISH_LEVEL,
    jobs: int = 2,
    progress: Progress | None = None,
    attached: Mapping[str, Sequence[tuple[Attachment, Path]]] | None = None,
    withdraw: Sequence[str] = (),
) -> Built:
    """Build an unsigned bundle: images into payloads, the next document of the product role around them.

    Args:
        spec: from `publisher.manifest.read_release`.
        out: folder for `PRODUCT-VERSION.bundle`.
        previous: the product role that is published now; None for the first release.
        now: unix seconds; the time that images and release bear, and from which expiry counts.
        level: zstd level.
        jobs: threads that compress.
        progress: called with bytes done and bytes in all, of each component.
        attached: what belongs to each component, by its name (`publisher.attach`).
        withdraw: versions that the next document names no more: no device installs them from then on.

    Raises:
        PublisherError: `compat.counter`, `release.exists`: it does not come after what is published; `release.malformed`.
        ConfigError: an image cannot be made.
    """
    role = product_role(spec.product)
    before = parse_targets(previous, role) if previous is not None else None
    published = signed_targets(before) if before is not None else {}
    _refuse_old(spec, published)
    published = _without(published, withdraw)
    out.mkdir(parents=True, exist_ok=True)
    packed: dict[str, Packed] = {}
    targets: list[SignedTarget] = []
    with tempfile.TemporaryDirectory(dir=out, prefix=".build-") as folder:
        payloads: dict[str, Path] = {}
        attachments: dict[str, Path] = {}
        parts: dict[str, Part] = {}
        for component in spec.components:
            image = image_of(component, Path(folder), now)
            container = Path(folder) / f"{component.name}.payload"
            made = pack(image, container, level=level, jobs=jobs, progress=progress)
            parts[component.name] = _part(component, image, made)
            check_payload(container, parts[component.name])
            packed[component.name] = made
            payloads[made.sha256] = container
        for component in spec.components:
            if component.beside:
                continue
            mine = (attached or {}).get(component.name, ())
            attachments |= {one.sha256: file for one, file in mine}
            named = tuple(one for one, _ in mine)
            targets.append(_target(spec, component, parts, published, now, named))
        body = make_product(
            version=before.version + 1 if before is not None else 1,
            expires_at=now + spec.expires_s,
            targets=[*published.values(), *targets],
            extra=_extra(spec, before, now),
        )
        bundle = out / f"{spec.product}-{spec.version}.bundle"
        write(
            bundle,
            {role: body},
            payloads,
            product=spec.product,
            version=spec.version,
            attachments=attachments,
        )
    return Built(bundle, tuple(targets), packed)


def _without(
    published: Mapping[str, SignedTarget], withdraw: Sequence[str]
) -> dict[str, SignedTarget]:
    """Leave versions out.

    Raises:
        RequestError: `request.not_found`: one that is not published.
    """
    unknown = set(withdraw) - {one.release.version for one in published.values()}
    if unknown:
        raise RequestError(
            "request.not_found", f"not published: {', '.join(sorted(unknown))}"[:200]
        )
    return {path: one for path, one in published.items() if one.release.version not in withdraw}


def _extra(spec: ReleaseSpec, before: TargetsDocument | None, now: int) -> ProductExtra:
    """Keep what the role demands already, and add this release's mandate."""
    kept = product_extra(before) if before is not None else ProductExtra()
    if spec.mandate is None:
        return kept
    return with_mandates(kept, (*kept.mandates, spec.mandate.mandate(spec.counter, now)))


def _refuse_old(spec: ReleaseSpec, published: Mapping[str, SignedTarget]) -> None:
    for one in published.values():
        if one.release.version == spec.version:
            raise PublisherError("release.exists", f"{one.release.name} is published already")
    highest = max((one.release.release_counter for one in published.values()), default=0)
    if spec.counter <= highest:
        raise PublisherError(
            "compat.counter", f"counter {spec.counter}, and {highest} is published already"
        )


def _target(
    spec: ReleaseSpec,
    component: ComponentSpec,
    parts: Mapping[str, Part],
    published: Mapping[str, SignedTarget],
    now: int,
    attachments: tuple[Attachment, ...] = (),
) -> SignedTarget:
    own = parts[component.name]
    others = tuple(parts[one.name] for one in spec.components if component.name in one.beside)
    # What an agent that does not know it would leave out, it must refuse.
    there = {"package": own.package, "settings": own.settings, "parts": others}
    values = {
        "product": spec.product,
        "version": spec.version,
        "release_counter": spec.counter,
        "security_version": spec.security_version,
        "channels": spec.channels,
        "kind": spec.kind,
        "component": component.name,
        "format": component.format,
        "hardware": component.hardware or spec.hardware,
        "from_counters": spec.from_counters,
        "min_agent": spec.min_agent,
        "requires": spec.requires,
        "install": own.install,
        "payloads": own.payloads,
        **{name: value for name, value in there.items() if value},
        "crit": tuple(name for name, value in there.items() if value),
        "fallback_to": _fallback(spec, component, published, now),
        "health": component.health or spec.health,
        "notes": spec.notes,
        "built_at": now,
        "source": spec.source,
        "attachments": attachments,
        "mirrors": spec.mirrors,
    }
    try:
        release = msgspec.convert(msgspec.to_builtins(values), type=ReleaseTarget)
    except msgspec.ValidationError as error:
        raise PublisherError("release.malformed", str(error)) from error
    path = f"{spec.product}/{spec.version}/{component.name}"
    return SignedTarget(path, own.full.length, own.full.sha256, release)


def _part(component: ComponentSpec, image: Path, packed: Packed) -> Part:
    full = PayloadRef(
        kind="full", sha256=packed.sha256, length=packed.length, index_sha256=packed.index_sha256
    )
    values = {
        "component": component.name,
        "format": component.format,
        "payloads": (full,),
        "settings": component.settings,
        **signed_of(component, image, packed),
    }
    try:
        return msgspec.convert(msgspec.to_builtins(values), type=Part)
    except msgspec.ValidationError as error:
        raise PublisherError("release.malformed", str(error)) from error


def _fallback(
    spec: ReleaseSpec, component: ComponentSpec, published: Mapping[str, SignedTarget], now: int
) -> tuple[FallbackTo, ...]:
    """Allow the way back to the predecessor of this component, or to the releases named instead, for as long as the manifest says."""
    earlier = {
        one.release.release_counter
        for one in published.values()
        if one.release.component == component.name and one.release.release_counter < spec.counter
    }
    unknown = set(spec.fallback_to) - {one.release.release_counter for one in published.values()}
    if unknown:
        named = ", ".join(map(str, sorted(unknown)))
        raise PublisherError("release.malformed", f"fallback_to: no release has counter {named}")
    wanted = earlier & set(spec.fallback_to) if spec.fallback_to else {max(earlier, default=0)}
    if not spec.fallback_s:
        return ()
    expires = now + spec.fallback_s
    return tuple(FallbackTo(counter=one, expires=expires) for one in sorted(wanted) if one)


def check_payload(container: Path, part: Part) -> Index:
    """Unpack a container as a device would and hold the result against what is signed.

    Raises:
        PublisherError: `release.malformed` or `sig.malformed`.
        TransferError: `download.*`: the container is damaged.
    """
    with container.open("rb") as file, tempfile.TemporaryFile() as plain:
        head = file.read(HEADER_SIZE)
        head += file.read(head_size(head) - HEADER_SIZE)
        if hashlib.sha256(head).hexdigest() != part.full.index_sha256:
            raise TransferError("download.hash", "the payload's index is not the one signed")
        index = Index.parse(head)
        check_index(index, part)
        _unpack(index, file, plain)
        digest = hashlib.file_digest(plain, "sha256").hexdigest()
        if digest != part.unpacked.sha256 or index.length != container.stat().st_size:
            raise PublisherError("release.malformed", "the payload does not unpack to the image")
        plain.seek(0)
        check_content(part, plain.read)
    return index


def _unpack(index: Index, file: BinaryIO, plain: BinaryIO) -> None:
    """Unpack into a sparse file, as into a slot."""
    plain.truncate(index.image_size)
    for number, segment in enumerate(index.segments):
        file.seek(segment.offset)
        piece = decode_segment(index, number, file.read(segment.stored_length))
        for one in index.writes(number):
            plain.seek(one.target_offset)
            plain.write(piece[one.offset : one.offset + one.length])
    plain.seek(0)


# --- the file -----------------------------------------------------------------------------------------------------------


def write(
    path: Path,
    documents: Mapping[str, bytes],
    payloads: Mapping[str, Path],
    *,
    product: str | None = None,
    version: str = "",
    attachments: Mapping[str, Path] | None = None,
    roots: Sequence[bytes] | None = None,
) -> BundleManifest:
    """Write a bundle; it appears whole or not at all.

    Args:
        path: replaced.
        documents: bytes by role (`root`, `targets`, `product/NAME`; offline also `snapshot` and `timestamp`).
        payloads: container files by their SHA-256.
        product: for people.
        version: for people.
        attachments: files by their SHA-256.
        roots: the chain of roots of an offline bundle; None = a bundle for a server.
    """
    chain = [("root", body) for body in roots or ()]
    ordered = [*chain, *sorted(documents.items(), key=lambda item: _rank(item[0]))]
    bodies = {document_name(role, version_of(role, body)): body for role, body in ordered}
    attachments = attachments or {}
    members = [
        Member(name=name, length=len(body), sha256=hashlib.sha256(body).hexdigest())
        for name, body in bodies.items()
    ]
    members += [
        Member(name=name(digest), length=file.stat().st_size, sha256=digest)
        for name, files in ((attachment_name, attachments), (payload_name, payloads))
        for digest, file in sorted(files.items())
    ]
    manifest = BundleManifest(
        schema="tidegate.bundle/1" if roots is None else "tidegate.offline/1",
        product=product,
        version=version,
        members=tuple(members),
    )
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as out:
        _add(out, MANIFEST_NAME, encode_manifest(manifest))
        for member in members:
            if member.role is not None:
                _add(out, member.name, bodies[member.name])
            else:
                out.write(header(member.name, member.length))
                files = payloads if member.payload else attachments
                with files[member.sha256].open("rb") as file:
                    shutil.copyfileobj(file, out, PIECE)
                out.write(padding(member.length))
        out.write(END)
    part.replace(path)
    return manifest


def read(path: Path) -> Bundle:
    """Read a bundle's manifest and documents, each held against the manifest.

    Raises:
        ConfigError: `config.unreadable`. PublisherError: `release.malformed`, `sig.oversized`.
    """
    documents = {}
    with _opened(path) as reader:
        manifest = read_manifest(reader)
        require_for_server(manifest)
        for member in manifest.members:
            require_member(reader, member)
            if member.role is not None:
                documents[member.role] = read_document(reader, member)
    return Bundle(path, manifest, documents)


def extract_member(path: Path, member: Member, out: Path) -> None:
    """Write one payload or attachment of a bundle to `out`, checking its digest.

    Raises:
        PublisherError: `release.malformed`: not there, or not whole. TransferError: `download.hash`: other bytes, as a device would say.
    """
    digest = hashlib.sha256()
    with _opened(path) as reader, out.open("wb") as sink:
        while (found := reader.next()) is not None and found[0] != member.name:
            pass
        if found is None:
            raise PublisherError("release.malformed", f"{path.name}: no {member.name}")
        for piece in reader.pieces():
            digest.update(piece)
            sink.write(piece)
    if digest.hexdigest() != member.sha256:
        raise TransferError("download.hash", f"{member.name}: other bytes than its name says")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Reader]:
    try:
        with path.open("rb") as file:
            yield Reader(file.read)
    except OSError as error:
        raise ConfigError("config.unreadable", f"{path}: {error.strerror}") from error
    except PublisherError as error:
        raise PublisherError(error.code, f"{path.name}: {error.detail}") from error


def replace_documents(path: Path, documents: Mapping[str, bytes]) -> None:
    """Replace or add documents in a bundle; payloads and attachments are copied as they are."""
    bundle = read(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".bundle-") as folder:
        payloads: dict[str, Path] = {}
        attachments: dict[str, Path] = {}
        for member in (*bundle.manifest.payloads, *bundle.manifest.attachments):
            files = payloads if member.payload else attachments
            files[member.sha256] = Path(folder) / member.name.replace("/", "-")
            extract_member(path, member, files[member.sha256])
        write(
            path,
            {**bundle.documents, **documents},
            payloads,
            product=bundle.manifest.product,
            version=bundle.manifest.version,
            attachments=attachments,
        )


def _rank(role: str) -> tuple[int, str]:
    return {"root": 0, "targets": 1}.get(role, 2), role


def version_of(role: str, body: bytes) -> int | None:
    """Return the number in a document's name; None for the timestamp, which has none."""
    match role:
        case "timestamp":
            return None
        case "root":
            return parse_root(body).version
        case "snapshot":
            return parse_snapshot(body).version
        case _:
            return parse_targets(body, role).version


def _add(out: BinaryIO, name: str, body: bytes) -> None:
    out.write(header(name, len(body)) + body + padding(len(body)))
