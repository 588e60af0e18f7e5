"""A large signed repository in memory: many products with many releases each, every field of the schema used."""

import hashlib
from dataclasses import dataclass

from tidegate.core.authority import RootExtra
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
    product_role,
    sign,
)
from tidegate.core.release import (
    Attachment,
    FallbackTo,
    HealthCheck,
    HealthContract,
    Install,
    PayloadRef,
    ReleaseTarget,
    Requirement,
)

NOW = 1_795_000_000
DAY = 86_400


def signer(name: str) -> Signer:
    """Return the key that this name always gives."""
    return Signer.from_seed(hashlib.sha256(name.encode()).digest())


def digest(*words: object) -> str:
    """Return a digest that these words always give."""
    return hashlib.sha256(" ".join(map(str, words)).encode()).hexdigest()


def release(product: str, counter: int) -> SignedTarget:
    """Describe a release in every field that there is."""
    version = f"2.{counter}.0"
    full = PayloadRef(
        kind="full",
        sha256=digest(product, counter, "full"),
        length=80_000_000 + counter,
        index_sha256=digest(product, counter, "index"),
    )
    delta = PayloadRef(
        kind="delta",
        sha256=digest(product, counter, "delta"),
        length=4_000_000 + counter,
        index_sha256=digest(product, counter, "delta index"),
        base_sha256=digest(product, counter - 1, "image"),
    )
    attachments = tuple(
        Attachment(
            kind=kind,
            format=form,
            name=f"{product}-{version}.{kind}.json",
            sha256=digest(product, counter, kind),
            length=200_000 + counter,
        )
        for kind, form in (("sbom", "cyclonedx-1.5"), ("vex", "openvex"), ("provenance", "slsa-1"))
    )
    described = ReleaseTarget(
        product=product,
        version=version,
        release_counter=counter,
        security_version=6,
        channels=("pilot", "stable"),
        kind="security",
        hardware=(HardwareRange(product, 2, 7, (5,)),),
        from_counters=((max(1, counter - 30), counter),),
        min_agent="1.2.0",
        requires=(Requirement(component="mcu", counter_min=40),),
        install=Install(size=268_435_456, sha256=digest(product, counter, "image")),
        payloads=(full, delta),
        fallback_to=(FallbackTo(counter=counter, expires=NOW + 30 * DAY),),
        health=HealthContract(
            error_rate_per_hour=10,
            checks=(
                HealthCheck(name="boot", kind="boot"),
                HealthCheck(name="network", kind="network"),
                HealthCheck(name="core", kind="services", settings={"units": ["core.service"]}),
            ),
        ),
        built_at=NOW - DAY,
        source="git+https://git.example.com/firmware@" + digest(counter)[:40],
        attachments=attachments,
    )
    return SignedTarget(f"{product}/{version}/rootfs", full.length, full.sha256, described)


@dataclass(frozen=True)
class Made:
    """The repository as it is served, and its first root."""

    files: dict[str, bytes]
    anchor: bytes


def make(products: int, releases: int) -> Made:
    """Sign a repository with so many products, and so many releases of each."""
    names = [f"gw{n}" for n in range(1, products + 1)]
    keys = {name: signer(name) for name in names}
    root = _root()
    ring = {name: RoleKeys((key.public,), 1) for name, key in keys.items()}
    targets = sign(
        make_targets(version=1, expires_at=NOW + 180 * DAY, products=ring), signer("targets")
    )
    files = {file_name("root", 1): root, file_name("targets", 1): targets}
    named: dict[str, MetaInfo] = {"targets": parse_targets(targets).info}
    for name, key in keys.items():
        listed = [release(name, counter) for counter in range(2, releases + 2)]
        body = sign(make_product(version=1, expires_at=NOW + 90 * DAY, targets=listed), key)
        role = product_role(name)
        files[file_name(role, 1)] = body
        named[role] = MetaInfo(1, len(body), hashlib.sha256(body).hexdigest())
    online = NOW // 60
    snapshot = sign(
        make_snapshot(version=online, expires_at=NOW + 14 * DAY, issued_at=NOW, documents=named),
        signer("snapshot"),
    )
    timestamp = make_timestamp(
        version=online,
        expires_at=NOW + 2 * DAY,
        issued_at=NOW,
        snapshot=parse_snapshot(snapshot).info,
    )
    files[file_name("snapshot", online)] = snapshot
    files[file_name("timestamp", None)] = sign(timestamp, signer("timestamp"))
    return Made(files, root)


def _root() -> bytes:
    def ring(name: str, threshold: int = 1) -> RoleKeys:
        return RoleKeys(
            tuple(signer(f"{name}{n}" if n else name).public for n in range(threshold)), threshold
        )

    extra = RootExtra(
        authorities=authorities(
            epoch=1,
            director=ring("director"),
            incident=ring("incident", 2),
            audit=ring("audit"),
            director_max_s=7 * DAY,
            incident_max_s=14 * DAY,
        )
    )
    roles = {name: ring(name) for name in ("root", "targets", "snapshot", "timestamp")}
    body = make_root(version=1, expires_at=NOW + 365 * DAY, roles=roles, extra=extra)
    return sign(body, signer("root"))
