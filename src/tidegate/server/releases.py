"""Releases: taken in from a bundle after a device's own checks, and withdrawn. A release never changes; the server can recall one but cannot make one.

Bytes first, then one transaction: a release is visible only when everything that a device will ask for is there.
"""

import contextlib
import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO

import msgspec

from tidegate.core.accept import AcceptedProduct, check_index
from tidegate.core.bundle import (
    read_document,
    read_manifest,
    require_for_server,
    require_member,
)
from tidegate.core.content import check_content
from tidegate.core.errors import PublisherError, TidegateError
from tidegate.core.metadata import SignedTarget, product_extra
from tidegate.core.payload import HEADER_SIZE, Index, decode_segment, head_size
from tidegate.core.release import Part, ReleaseTarget, release_sha256
from tidegate.core.supply.documents import Document
from tidegate.core.supply.policy import IngestRule
from tidegate.core.ustar import Reader
from tidegate.server import audit, quotas, recalls, supply
from tidegate.server.actors import FLEET, Actor, Place
from tidegate.server.blobs import Blob, Blobs
from tidegate.server.metadata import Repository
from tidegate.server.services import Services
from tidegate.server.store import Connection, changes, release_queries


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle brought: names of new releases (none when it was here before), of the roles that were published, of withdrawn releases."""

    releases: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()


def accept_bundle(services: Services, file: IO[bytes], *, actor: Actor, now: int) -> Published:
    """Take in a bundle (untrusted): check it as a device would, store its bytes, publish and record it at once. The same again changes nothing.

    Args:
        services: the server's parts.
        file: a stream of the tar file; read once, from front to back.
        actor: who sent it; needs `release.publish` for every product in it.
        now: unix seconds.

    Raises:
        PublisherError: the code with which a device would refuse it, or `release.*`, `supply.*`, `meta.no_root`.
        RequestError: `request.forbidden`.
        BusyError, ConfigError: `data.*`.
    """
    stored: list[str] = []
    rules = services.settings.ingest
    try:
        documents, carried = _read(file, services.blobs, stored)
        for place in _places(documents):
            actor.require("release.publish", place)
        accepted = _try(services, documents, now)
        new = [target for one in accepted for target in one.new]
        kept = [target for one in accepted for target in one.kept]
        origin = supply.admit(services.blobs, rules, new, kept, carried)
        for target in new:
            _check_payloads(services.blobs, target)

        def work(conn: Connection) -> Published:
            done = _publish(conn, services.repository, documents, origin, rules, actor.name, now)
            if done.releases or done.roles:
                thing = ", ".join(done.releases) or ", ".join(done.roles)
                detail = msgspec.to_builtins(done)
                audit.record(conn, now, actor.name, "release.publish", thing, detail)
            return done

        return services.store.write(work).result()
    except BaseException:
        for digest in stored:
            # the place that cannot be reached may be why it failed, and that is what is told
            with contextlib.suppress(TidegateError):
                services.blobs.delete(digest)
        raise


def publish_root(services: Services, body: bytes, *, actor: Actor, now: int) -> int:
    """Publish a root (untrusted bytes) and return its version. Raises like `Repository.publish_root`."""

    def work(conn: Connection) -> int:
        version = services.repository.publish_root(conn, body, now).version
        audit.record(conn, now, actor.name, "root.publish", "root", {"version": version})
        return version

    return services.store.write(work).result()


def publish_targets(services: Services, body: bytes, *, actor: Actor, now: int) -> int:
    """Publish a targets role (untrusted bytes) and return its version. Raises like `Repository.publish_targets`."""

    def work(conn: Connection) -> int:
        version = services.repository.publish_targets(conn, body, now).version
        audit.record(conn, now, actor.name, "targets.publish", "targets", {"version": version})
        return version

    return services.store.write(work).result()


# --- reading the file -------------------------------------------------------------------------------------------------


def _read(
    file: IO[bytes], blobs: Blobs, stored: list[str]
) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """Read documents into memory, payloads and attachments into the blobs; `stored` gets the digests that were not there before.

    Returns:
        The documents by role, and the digests of the attachments.
    """
    documents: dict[str, bytes] = {}
    reader = Reader(file.read)
    manifest = read_manifest(reader)
    require_for_server(manifest)
    for member in manifest.members:
        require_member(reader, member)
        if member.role is not None:
            documents[member.role] = read_document(reader, member)
        elif blobs.size(member.sha256) is None:
            blobs.put(member.sha256, reader.pieces())
            stored.append(member.sha256)
    if reader.next() is not None:
        raise PublisherError("release.malformed", "the bundle holds more than its manifest names")
    return documents, tuple(one.sha256 for one in manifest.attachments)


def _places(documents: dict[str, bytes]) -> list[Place]:
    """Return where what a bundle brings stands: at its products, above them if it has none."""
    roles = [role for role in documents if role.startswith("product/")]
    return [Place(product=one.removeprefix("product/")) for one in roles] or [FLEET]


# --- checking ---------------------------------------------------------------------------------------------------------


def _try(services: Services, documents: dict[str, bytes], now: int) -> list[AcceptedProduct]:
    """Return what the product roles of a bundle would bring. A trial transaction that is undone, since root and targets may come in the same bundle."""
    trial: list[AcceptedProduct] = []

    class _Undo(Exception):  # noqa: N818 - no error: it takes the trial back
        pass

    def work(conn: Connection) -> None:
        _publish_roles(conn, services.repository, documents, now)
        for role, body in documents.items():
            if role.startswith("product/"):
                product = role.removeprefix("product/")
                trial.append(services.repository.check_product(conn, product, body, now))
        raise _Undo

    if any(role.startswith("product/") for role in documents):
        with contextlib.suppress(_Undo):
            services.store.write(work).result()
    return trial


def _check_payloads(blobs: Blobs, target: SignedTarget) -> None:
    """Unpack every payload of a target as a device would."""
    for part in target.release.pieces:
        where = f"{target.path}: {part.component}"
        blob = blobs.open(part.full.sha256)
        if blob is None:
            raise PublisherError("release.malformed", f"{where}: its payload is not here")
        try:
            _check_blob(blob, part, where)
        finally:
            blob.close()


def _check_blob(blob: Blob, part: Part, where: str) -> None:
    if blob.size != part.full.length:
        raise PublisherError("release.malformed", f"{where}: {blob.size} bytes are stored")
    header = blob.read_at(0, HEADER_SIZE)
    head = blob.read_at(0, head_size(header))
    if hashlib.sha256(head).hexdigest() != part.full.index_sha256:
        raise PublisherError("release.malformed", f"{where}: another index than signed")
    index = Index.parse(head)
    check_index(index, part)
    with tempfile.TemporaryFile() as slot:
        _unpack(index, blob, slot)
        digest = hashlib.file_digest(slot, "sha256").hexdigest()
        if index.length != blob.size or digest != part.unpacked.sha256:
            raise PublisherError("release.malformed", f"{where}: does not unpack to its image")
        slot.seek(0)
        check_content(part, slot.read)


def _unpack(index: Index, blob: Blob, slot: IO[bytes]) -> None:
    """Unpack a payload as a device would, and go back to its beginning."""
    slot.truncate(index.image_size)
    for number, segment in enumerate(index.segments):
        plain = decode_segment(index, number, blob.read_at(segment.offset, segment.stored_length))
        for one in index.writes(number):
            slot.seek(one.target_offset)
            slot.write(plain[one.offset : one.offset + one.length])
    slot.seek(0)


# --- publishing -------------------------------------------------------------------------------------------------------


def _publish(
    conn: Connection,
    repository: Repository,
    documents: dict[str, bytes],
    origin: Mapping[str, Document],
    rules: Sequence[IngestRule],
    by: str,
    now: int,
) -> Published:
    _publish_roles(conn, repository, documents, now)
    made: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()
    for role, body in documents.items():
        if role.startswith("product/"):
            product = role.removeprefix("product/")
            accepted = repository.publish_product(conn, product, body, now, alone=False)
            made += _add_releases(conn, accepted, origin, rules, by, now)
            _stage(conn, product, accepted, now)
            withdrawn += _withdraw(conn, product, accepted, by, now)
    if documents:
        repository.complete(conn, now)
    quotas.require_within_storage(conn)
    return Published(releases=made, roles=tuple(documents), withdrawn=withdrawn)


def _publish_roles(
    conn: Connection, repository: Repository, documents: dict[str, bytes], now: int
) -> None:
    if "root" in documents:
        repository.publish_root(conn, documents["root"], now, alone=False)
    if "targets" in documents:
        repository.publish_targets(conn, documents["targets"], now, alone=False)


def _add_releases(
    conn: Connection,
    accepted: AcceptedProduct,
    origin: Mapping[str, Document],
    rules: Sequence[IngestRule],
    by: str,
    now: int,
) -> tuple[str, ...]:
    """Write the new releases: one for each counter, with an artifact for each target."""
    counters: dict[int, list[SignedTarget]] = {}
    for target in accepted.new:
        counters.setdefault(target.release.release_counter, []).append(target)
    for targets in counters.values():
        first = targets[0].release
        release_id = release_queries.add_release(
            conn, _release_values(first, targets, accepted.signers, by, now)
        )
        for target in targets:
            artifact_id = release_queries.add_artifact(conn, _artifact_values(release_id, target))
            supply.record(conn, artifact_id, target.release, origin, rules, by, now)
        changes.bump(conn, "release", first.name, now)
    return tuple(targets[0].release.name for targets in counters.values())


def _release_values(
    first: ReleaseTarget,
    targets: list[SignedTarget],
    signers: tuple[str, ...],
    by: str,
    now: int,
) -> dict[str, object]:
    return {
        "name": first.name,
        "product": first.product,
        "version": first.version,
        "counter": first.release_counter,
        "security_version": first.security_version,
        "release_sha256": release_sha256(one.release.digest for one in targets),
        "channels": sorted({channel for one in targets for channel in one.release.channels}),
        "kind": first.kind,
        "state": "live",
        "published_at": now,
        "published_by": by,
        "signers": list(signers),
    }


def _artifact_values(release_id: int, target: SignedTarget) -> dict[str, object]:
    return {
        "release_id": release_id,
        "path": target.path,
        "component": target.release.component,
        "install_sha256": target.release.install.sha256,
        "install_size": target.release.install.size,
        "length": target.length,
        "sha256": target.sha256,
        "target": msgspec.to_builtins(target.release),
    }


def _stage(conn: Connection, product: str, accepted: AcceptedProduct, now: int) -> None:
    """Note the mandates as this version of the product role has them; the plan goes by them from now on."""
    extra = product_extra(accepted.document)
    for one in release_queries.releases_of(conn, product):
        found = extra.mandate(one.counter)
        text = msgspec.json.encode(found).decode() if found is not None else None
        if text != one.mandate:
            release_queries.put_mandate(conn, product, one.counter, text)
            changes.bump(conn, "release", one.name, now)


def _withdraw(
    conn: Connection, product: str, accepted: AcceptedProduct, by: str, now: int
) -> tuple[str, ...]:
    """Recall what the product role does not stand by any more."""
    counters = set(product_extra(accepted.document).withdrawn)
    gone = {path.split("/")[1] for path in accepted.gone}
    found = [
        one
        for one in release_queries.releases_of(conn, product)
        if one.state == "live" and (one.counter in counters or one.version in gone)
    ]
    for one in found:
        recalls.recall(
            conn, one.name, "withdrawn by the product role", Actor(name=by, role=""), now
        )
    return tuple(one.name for one in found)
