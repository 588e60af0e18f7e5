"""A small signed repository for tests: real keys, real documents, every part replaceable."""

import hashlib
from dataclasses import dataclass, field, replace

import msgspec

from tidegate.core.authority import ProductExtra, RootExtra
from tidegate.core.hardware import HardwareRange
from tidegate.core.keys import Signer
from tidegate.core.metadata import (
    MetaInfo,
    RoleKeys,
    SignedTarget,
    authorities,
    file_name,
    make_product,
    make_root,
    make_snapshot,
    make_targets,
    make_timestamp,
    parse_snapshot,
    parse_targets,
    sign,
)
from tidegate.core.release import FallbackTo, Install, PayloadRef, ReleaseTarget
from tidegate.core.verify import Seen, TrustedSet, walk_repository

NOW = 1_795_000_000
DAY = 86_400


def signer(name: str, keytype: str = "ed25519") -> Signer:
    """Make the key that this name always gives."""
    seed = hashlib.sha384(name.encode()).digest()
    return Signer.from_seed(seed[:32] if keytype == "ed25519" else seed, keytype)


def ring(*signers: Signer, threshold: int = 1) -> RoleKeys:
    """Put the public halves of signers into a role."""
    return RoleKeys(tuple(one.public for one in signers), threshold)


def release(counter: int = 118, version: str | None = None, **changes: object) -> SignedTarget:
    """Describe a release of gw1; its digests follow from its counter."""
    version = version or f"2.{counter}"
    digest = hashlib.sha256(f"payload {counter}".encode()).hexdigest()
    target = ReleaseTarget(
        product="gw1",
        version=version,
        release_counter=counter,
        security_version=6,
        channels=("stable",),
        hardware=(HardwareRange("gw1", 2, 7),),
        install=Install(size=4096, sha256=hashlib.sha256(f"image {counter}".encode()).hexdigest()),
        payloads=(PayloadRef(kind="full", sha256=digest, length=1000, index_sha256="ab" * 32),),
        fallback_to=(FallbackTo(counter=counter - 1, expires=NOW + 30 * DAY),),
    )
    target = msgspec.structs.replace(target, **changes)
    return SignedTarget(f"gw1/{version}/rootfs", 1000, digest, target)


@dataclass(frozen=True)
class Repo:
    """What a repository is made of; `files()` signs and writes it."""

    roots: tuple[Signer, ...] = tuple(signer(f"root {n}") for n in range(3))
    targets: tuple[Signer, ...] = tuple(signer(f"targets {n}") for n in range(2))
    product: tuple[Signer, ...] = (signer("product"),)
    product_threshold: int = 1
    snapshot: Signer = field(default_factory=lambda: signer("snapshot"))
    timestamp: Signer = field(default_factory=lambda: signer("timestamp"))
    director: Signer = field(default_factory=lambda: signer("director"))
    incident: RoleKeys = field(
        default_factory=lambda: ring(signer("incident 0"), signer("incident 1"), threshold=2)
    )
    incident_max_s: int = 30 * DAY
    strict_fallback: bool = False
    epoch: int = 1
    root_version: int = 1
    targets_version: int = 1
    product_version: int = 1
    online: int = 100
    snapshot_version: int = 0
    expires: dict[str, int] = field(default_factory=dict)
    releases: tuple[SignedTarget, ...] = (release(117), release(118))
    product_extra: ProductExtra = field(default_factory=ProductExtra)

    def but(self, **changes: object) -> "Repo":
        """Return the repository with some parts replaced."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def at(self, role: str) -> int:
        """Return when a role's document expires."""
        return self.expires.get(role, NOW + 30 * DAY)

    def root_body(self, *signers: Signer) -> bytes:
        """Return root, signed by two of its keys unless told otherwise."""
        extra = RootExtra(
            strict_fallback=self.strict_fallback,
            authorities=authorities(
                epoch=self.epoch,
                director=ring(self.director),
                incident=self.incident,
                audit=ring(signer("audit")),
                director_max_s=7 * DAY,
                incident_max_s=self.incident_max_s,
            ),
        )
        roles = {
            "root": ring(*self.roots, threshold=2),
            "targets": ring(*self.targets, threshold=2),
            "snapshot": ring(self.snapshot),
            "timestamp": ring(self.timestamp),
        }
        body = make_root(
            version=self.root_version, expires_at=self.at("root"), roles=roles, extra=extra
        )
        return sign(body, *(signers or self.roots[:2]))

    def targets_body(self) -> bytes:
        """Return the targets role."""
        products = {"gw1": ring(*self.product, threshold=self.product_threshold)}
        body = make_targets(
            version=self.targets_version,
            expires_at=self.at("targets"),
            products=products,
            one_signer=products if self.product_threshold == 1 else (),
        )
        return sign(body, *self.targets)

    def product_body(self, *signers: Signer) -> bytes:
        """Return the product role."""
        body = make_product(
            version=self.product_version,
            expires_at=self.at("product"),
            targets=self.releases,
            extra=self.product_extra,
        )
        return sign(body, *(signers or self.product))

    def snapshot_body(self, documents: dict[str, MetaInfo] | None = None) -> bytes:
        """Return snapshot over targets and product."""
        named = documents or {
            "targets": parse_targets(self.targets_body()).info,
            "product/gw1": parse_targets(self.product_body(), "product/gw1").info,
        }
        body = make_snapshot(
            version=self.snapshot_version or self.online,
            expires_at=self.at("snapshot"),
            issued_at=NOW,
            documents=named,
        )
        return sign(body, self.snapshot)

    def timestamp_body(self, snapshot: MetaInfo | None = None) -> bytes:
        """Return timestamp over snapshot."""
        info = snapshot or parse_snapshot(self.snapshot_body()).info
        body = make_timestamp(
            version=self.online, expires_at=self.at("timestamp"), issued_at=NOW, snapshot=info
        )
        return sign(body, self.timestamp)

    def files(self) -> dict[str, bytes]:
        """Return everything under the names it is served by."""
        online = self.snapshot_version or self.online
        return {
            file_name("root", self.root_version): self.root_body(),
            file_name("timestamp", None): self.timestamp_body(),
            file_name("snapshot", online): self.snapshot_body(),
            file_name("targets", self.targets_version): self.targets_body(),
            file_name("product/gw1", self.product_version): self.product_body(),
        }

    def trusted(self, *, now: int = NOW, seen: Seen | None = None) -> TrustedSet:
        """Take the whole repository as a device does."""
        return walk_repository(self.files(), anchor=self.root_body(), now=now, seen=seen)
