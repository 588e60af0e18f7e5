"""TUF metadata: bytes to typed documents and back. The door to `tuf.api.metadata`.

What stands here reads and writes; who is to be believed is decided in `core.verify`. Bytes are screened (size, strict JSON) before any library sees them,
because python-tuf takes duplicate keys, NaN and versions without bound. Source: TUF specification 1.0.34; Tidegate's own fields:
`docs/reference/metadata.md`.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar

import msgspec
from tuf.api.metadata import (  # type: ignore[attr-defined]  # it re-exports without __all__
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Signature,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError

from tidegate.core import caps
from tidegate.core.authority import Authorities, ProductExtra, Ring, RootExtra, TargetsExtra
from tidegate.core.codec import canonical, check_crit, field_names, screen, without_empty
from tidegate.core.errors import PublisherError
from tidegate.core.keys import PublicKey, Signer, by_keyid, library_key, public_key_from
from tidegate.core.release import ReleaseTarget

TOP_ROLES: Final = ("root", "targets", "snapshot", "timestamp")
_EXTRA: Final = "x-tidegate"
_ISSUED: Final = "x-tidegate-issued"
_SAFE: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-~")

S = TypeVar("S", Root, Targets, Snapshot, Timestamp)


@dataclass(frozen=True)
class SignedTarget:
    """A target with Tidegate's description of it. `length` and `sha256` are of the full payload container."""

    path: str
    length: int
    sha256: str
    release: ReleaseTarget


@dataclass(frozen=True)
class RoleKeys:
    """Keys of a role, and how many distinct ones must sign."""

    keys: tuple[PublicKey, ...]
    threshold: int


@dataclass(frozen=True)
class MetaInfo:
    """What snapshot and timestamp say of another document: version, length in bytes, digest."""

    version: int
    length: int | None
    sha256: str | None


@dataclass(frozen=True)
class Document(Generic[S]):
    """One parsed document; nothing is verified yet.

    Attributes:
        role: the role whose document it claims to be.
        body: the bytes as they came.
        inner: the library's view, for `core.verify`.
    """

    role: str
    body: bytes
    inner: Metadata[S]

    @property
    def signed(self) -> S:
        """Return the library's view of the signed part."""
        return self.inner.signed

    @property
    def version(self) -> int:
        """Return the version."""
        return self.inner.signed.version

    @property
    def expires_at(self) -> int:
        """Return the expiry, in unix seconds."""
        return int(self.inner.signed.expires.timestamp())

    @property
    def issued_at(self) -> int:
        """Return when an online role was signed, by its own word; 0 when it does not say."""
        found = self.inner.signed.unrecognized_fields.get(_ISSUED, 0)
        return found if type(found) is int and found > 0 else 0

    @property
    def sha256(self) -> str:
        """Return the digest of the bytes."""
        return hashlib.sha256(self.body).hexdigest()

    @property
    def signature_keyids(self) -> tuple[str, ...]:
        """Return the key ids that signatures stand under, verified or not."""
        return tuple(self.inner.signatures)

    @property
    def info(self) -> MetaInfo:
        """Return what a snapshot or timestamp must say of this document."""
        return MetaInfo(self.version, len(self.body), self.sha256)


RootDocument = Document[Root]
TargetsDocument = Document[Targets]
SnapshotDocument = Document[Snapshot]
TimestampDocument = Document[Timestamp]


# --- reading ----------------------------------------------------------------------------------------------------------


def parse_root(body: bytes) -> Document[Root]:
    """Parse untrusted bytes as root.

    Raises:
        PublisherError: `sig.oversized` or `sig.malformed`; so do the other parsers.
    """
    found = _parse(body, "root", Root, caps.ROOT_MAX)
    for role in found.signed.roles.values():
        _require_threshold(role)
    return found


def parse_targets(body: bytes, role: str = "targets") -> Document[Targets]:
    """Parse untrusted bytes as the targets role or one delegated from it."""
    found = _parse(body, role, Targets, caps.ROLE_MAX)
    delegations = found.signed.delegations
    for one in (delegations.roles or {}).values() if delegations else ():
        _require_threshold(one)
    if delegations and delegations.succinct_roles:
        _require_threshold(delegations.succinct_roles)
    return found


def parse_snapshot(body: bytes) -> Document[Snapshot]:
    """Parse untrusted bytes as snapshot."""
    found = _parse(body, "snapshot", Snapshot, caps.SNAPSHOT_MAX)
    if len(found.signed.meta) > caps.ROLES_MAX:
        raise PublisherError("sig.oversized", f"snapshot: over {caps.ROLES_MAX} roles")
    for meta in found.signed.meta.values():
        _require_int(meta.version)
    return found


def parse_timestamp(body: bytes) -> Document[Timestamp]:
    """Parse untrusted bytes as timestamp."""
    found = _parse(body, "timestamp", Timestamp, caps.TIMESTAMP_MAX)
    _require_int(found.signed.snapshot_meta.version)
    return found


def _parse(body: bytes, role: str, kind: type[S], limit: int) -> Document[S]:
    screen(body, limit)
    try:
        inner: Metadata[S] = Metadata.from_bytes(body)
    except (DeserializationError, RecursionError) as error:
        raise PublisherError(
            "sig.malformed", f"{role}: {error.__cause__ or error}"[:200]
        ) from error
    if not isinstance(inner.signed, kind):
        raise PublisherError("sig.malformed", f"{role}: of type {inner.signed.type!r}")
    _require_int(inner.signed.version)
    return Document(role, body, inner)


def _require_int(value: object) -> None:
    if type(value) is not int:  # JSON true is an int to Python
        raise PublisherError("sig.malformed", "a version or threshold is not a number")


def _require_threshold(role: Role) -> None:
    _require_int(role.threshold)
    if role.threshold > caps.THRESHOLD_MAX or len(role.keyids) > caps.KEYS_MAX:
        raise PublisherError("sig.malformed", "more keys than a role can have")


def root_extra(root: Document[Root]) -> RootExtra:
    """Read Tidegate's part of root.

    Raises:
        PublisherError: `sig.malformed`: missing, or not understood.
    """
    found = root.signed.unrecognized_fields.get(_EXTRA)
    if found is None:
        raise PublisherError("sig.malformed", "root: no x-tidegate in it")
    return _convert(found, RootExtra, "root: x-tidegate")


def product_extra(document: Document[Targets]) -> ProductExtra:
    """Read Tidegate's part of a product role; without one, nothing is demanded."""
    found = document.signed.unrecognized_fields.get(_EXTRA, {})
    return _convert(found, ProductExtra, f"{document.role}: x-tidegate")


def targets_extra(document: Document[Targets]) -> TargetsExtra:
    """Read Tidegate's part of targets; without one, every product needs two signers for `stable`."""
    found = document.signed.unrecognized_fields.get(_EXTRA, {})
    return _convert(found, TargetsExtra, "targets: x-tidegate")


def release_target(path: str, custom: object) -> ReleaseTarget:
    """Read the release description of a target (`custom.tidegate`).

    Raises:
        PublisherError: `sig.malformed`.
    """
    plain = custom.get("tidegate") if isinstance(custom, dict) else None
    if not isinstance(plain, dict):
        raise PublisherError("sig.malformed", f"{path}: no custom.tidegate")
    return _convert(plain, ReleaseTarget, path)


def signed_targets(document: Document[Targets]) -> dict[str, SignedTarget]:
    """Read every target of a product role, by path.

    Raises:
        PublisherError: `sig.malformed`.
    """
    return {path: signed_target(document, path) for path in document.signed.targets}


def signed_target(document: Document[Targets], path: str) -> SignedTarget:
    """Read one target of a product role and hold it against its own path and payloads.

    Raises:
        PublisherError: `sig.director_mismatch`: no such target; `sig.malformed`: it contradicts itself.
    """
    target = document.signed.targets.get(path)
    if target is None:
        raise PublisherError("sig.director_mismatch", f"{document.role} does not name {path}")
    release = release_target(path, target.custom)
    sha256 = target.hashes.get("sha256", "")
    full = [one for one in release.payloads if one.kind == "full"]
    if len(full) != 1 or (full[0].length, full[0].sha256) != (target.length, sha256):
        raise PublisherError("sig.malformed", f"{path}: its full payload is not the target")
    if any(sum(way.kind == "full" for way in one.payloads) != 1 for one in release.parts):
        raise PublisherError("sig.malformed", f"{path}: a part without one full payload")
    if not path.startswith(f"{release.product}/{release.version}/"):
        raise PublisherError("sig.malformed", f"{path}: product or version differ from the path")
    return SignedTarget(path, target.length, sha256, release)


K = TypeVar("K", RootExtra, TargetsExtra, ProductExtra, ReleaseTarget)


def _convert(plain: object, kind: type[K], where: str) -> K:
    try:
        if isinstance(plain, dict):
            check_crit(plain.get("crit"), field_names(kind))
        return msgspec.convert(plain, type=kind)
    except msgspec.ValidationError as error:
        raise PublisherError("sig.malformed", f"{where}: {error}"[:300]) from error
    except PublisherError as error:
        raise PublisherError(error.code, f"{where}: {error.detail}") from error


# --- writing ----------------------------------------------------------------------------------------------------------


def make_root(
    *, version: int, expires_at: int, roles: Mapping[str, RoleKeys], extra: RootExtra
) -> bytes:
    """Write an unsigned root. `roles` holds the four top roles."""
    keys = {key.keyid: key for role in roles.values() for key in role.keys}
    signed = Root(
        version=version,
        expires=_when(expires_at),
        keys={keyid: library_key(key) for keyid, key in keys.items()},
        roles={
            name: Role([k.keyid for k in roles[name].keys], roles[name].threshold)
            for name in TOP_ROLES
        },
        consistent_snapshot=True,
        unrecognized_fields={_EXTRA: _builtins(extra)},
    )
    return _body(Metadata(signed))


def make_targets(
    *,
    version: int,
    expires_at: int,
    products: Mapping[str, RoleKeys],
    one_signer: Iterable[str] = (),
) -> bytes:
    """Write an unsigned targets role that only delegates: each product to its own role, terminating, no images.

    Products in `one_signer` are excused from the second signature that channel `stable` wants.
    """
    alone = TargetsExtra(one_signer=tuple(sorted(one_signer)))
    keys = {key.keyid: key for role in products.values() for key in role.keys}
    roles = {
        product_role(name): DelegatedRole(
            product_role(name), [k.keyid for k in role.keys], role.threshold, True, [f"{name}/*/*"]
        )
        for name, role in products.items()
    }
    delegations = Delegations({keyid: library_key(key) for keyid, key in keys.items()}, roles)
    signed = Targets(
        version=version,
        expires=_when(expires_at),
        targets={},
        delegations=delegations if roles else None,
        unrecognized_fields={_EXTRA: _builtins(alone)} if alone.one_signer else {},
    )
    return _body(Metadata(signed))


def make_product(
    *,
    version: int,
    expires_at: int,
    targets: Iterable[SignedTarget],
    extra: ProductExtra | None = None,
) -> bytes:
    """Write an unsigned product role."""
    files = {
        one.path: TargetFile(
            one.length,
            {"sha256": one.sha256},
            one.path,
            {"custom": {"tidegate": without_empty(_builtins(one.release))}},
        )
        for one in targets
    }
    signed = Targets(
        version=version,
        expires=_when(expires_at),
        targets=files,
        unrecognized_fields={_EXTRA: _builtins(extra or ProductExtra())},
    )
    return _body(Metadata(signed))


def make_snapshot(
    *, version: int, expires_at: int, issued_at: int, documents: Mapping[str, MetaInfo]
) -> bytes:
    """Write an unsigned snapshot. `documents` maps role names (`targets`, `product/gw1`) to what they are."""
    signed = Snapshot(
        version=version,
        expires=_when(expires_at),
        meta={f"{role}.json": _meta_file(info) for role, info in documents.items()},
        unrecognized_fields={_ISSUED: issued_at},
    )
    return _body(Metadata(signed))


def make_timestamp(*, version: int, expires_at: int, issued_at: int, snapshot: MetaInfo) -> bytes:
    """Write an unsigned timestamp."""
    signed = Timestamp(
        version=version,
        expires=_when(expires_at),
        snapshot_meta=_meta_file(snapshot),
        unrecognized_fields={_ISSUED: issued_at},
    )
    return _body(Metadata(signed))


def sign(body: bytes, *signers: Signer) -> bytes:
    """Add signatures to a document; one by the same key id is replaced.

    Raises:
        PublisherError: `sig.malformed`.
    """
    inner = _any(body)
    for signer in signers:
        keyid = signer.public.keyid
        inner.signatures[keyid] = Signature(keyid, signer.sign(inner.signed_bytes).hex())
    return _body(inner)


def detached_signature(body: bytes, signer: Signer) -> str:
    """Sign a document without touching it; hex. Join it with `attach`."""
    return signer.sign(_any(body).signed_bytes).hex()


def attach(body: bytes, keyid: str, signature: str) -> bytes:
    """Put a detached signature into a document."""
    inner = _any(body)
    inner.signatures[keyid] = Signature(keyid, signature)
    return _body(inner)


def strip_signatures(body: bytes) -> bytes:
    """Return the document without signatures: what its digest words are made of."""
    inner = _any(body)
    inner.signatures.clear()
    return _body(inner)


def keys_of(document: Document[Root] | Document[Targets], role: str) -> RoleKeys:
    """Return who may sign for `role`, by the word of a root or targets document. Keys that cannot be read are left out.

    Raises:
        PublisherError: `sig.malformed`: no such role.
    """
    try:
        found = document.signed.get_delegated_role(role)
    except ValueError as error:
        raise PublisherError(
            "sig.malformed", f"{document.role} does not delegate {role}"
        ) from error
    keys = []
    for keyid in found.keyids:
        try:
            keys.append(public_key_from(document.signed.get_key(keyid).to_dict(), keyid))
        except (ValueError, PublisherError):
            continue
    return RoleKeys(tuple(keys), found.threshold)


def products_of(targets: Document[Targets]) -> tuple[str, ...]:
    """Return the names of the products that a targets role delegates, in order."""
    delegations = targets.signed.delegations
    names = (delegations.roles or {}) if delegations else {}
    return tuple(
        sorted(one.removeprefix("product/") for one in names if one.startswith("product/"))
    )


def authorities(
    *,
    epoch: int,
    director: RoleKeys,
    incident: RoleKeys,
    audit: RoleKeys,
    director_max_s: int,
    incident_max_s: int,
) -> Authorities:
    """Describe the authorities that are no TUF roles."""
    keys = by_keyid((*director.keys, *incident.keys, *audit.keys))
    return Authorities(
        epoch=epoch,
        director=_ring(director, director_max_s),
        incident=_ring(incident, incident_max_s),
        audit=_ring(audit, 0),
        keys={keyid: key.to_dict() for keyid, key in keys.items()},
    )


def product_role(product: str) -> str:
    """Return the role that signs a product's releases."""
    return f"product/{product}"


def product_of(path: str) -> str:
    """Return the product of a target path (`gw1/2.4.1/rootfs`)."""
    return path.partition("/")[0]


def file_name(role: str, version: int | None) -> str:
    """Return the name under which a repository serves a document: `3.product%2Fgw1.json`; timestamp has no number."""
    safe = "".join(chr(one) if one in _SAFE else f"%{one:02X}" for one in role.encode())
    return f"{safe}.json" if version is None else f"{version}.{safe}.json"


def online_version(now: int, previous: int) -> int:
    """Number an online document by the clock (minutes), so that a server restored from a backup never goes back.

    Args:
        now: unix seconds.
        previous: the highest version known to have been published; 0 for none.
    """
    return max(previous + 1, now // 60)


def _ring(role: RoleKeys, max_validity_s: int) -> Ring:
    keyids = tuple(key.keyid for key in role.keys)
    return Ring(keyids=keyids, threshold=role.threshold, max_validity_s=max_validity_s)


def _any(body: bytes) -> Metadata[Any]:
    screen(body, caps.ROLE_MAX)
    try:
        return Metadata.from_bytes(body)
    except (DeserializationError, RecursionError) as error:
        raise PublisherError("sig.malformed", str(error)[:200]) from error


def _meta_file(info: MetaInfo) -> MetaFile:
    hashes = {"sha256": info.sha256} if info.sha256 else None
    return MetaFile(info.version, info.length, hashes)


def _when(at: int) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def _builtins(value: object) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(value)
    return found


def _body(inner: Metadata[Any]) -> bytes:
    return canonical(inner.to_dict())
