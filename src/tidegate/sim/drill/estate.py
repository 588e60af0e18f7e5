"""What a rehearsal works on: the installation's own metadata and fleet, read from its data directory, with a scratch key in the place of every key.

Nothing is written there, and no key file is opened: whoever rehearses needs no secret. Documents keep their versions, thresholds, releases, mandates and ends;
only the keys in them are others, and so are the signatures.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from tidegate.core.accept import role_keys
from tidegate.core.errors import BusyError, ConfigError
from tidegate.core.keys import SEED_BYTES, PublicKey, Signer
from tidegate.core.metadata import (
    RoleKeys,
    RootDocument,
    TargetsDocument,
    authorities,
    keys_of,
    make_product,
    make_root,
    make_targets,
    parse_root,
    parse_targets,
    product_extra,
    product_role,
    products_of,
    root_extra,
    sign,
    signed_targets,
    targets_extra,
)
from tidegate.core.release import ReleaseTarget
from tidegate.server.store import device_queries, release_queries
from tidegate.server.store.sqlite import DATABASE_NAME, looking_at

#: Versions of a product role that are looked at, the newest included.
HISTORY: Final = 16
#: Roles and authorities that one server holds.
ONLINE: Final = ("snapshot", "timestamp", "director", "audit")
#: How often a database that changes meanwhile is copied again.
COPIES_MAX: Final = 10


@dataclass(frozen=True)
class Slot:
    """What a slot holds, by the device's own last word."""

    counter: int = 0
    sha256: str | None = None
    version: str = ""
    security_version: int = 0
    state: str = "empty"


@dataclass(frozen=True)
class Kind:
    """Devices that no rule tells apart, but for mandates, which know each by its id."""

    product: str
    model: str
    rev: int
    channel: str
    agent: str
    running: Slot
    other: Slot
    floor: int


@dataclass(frozen=True)
class Estate:
    """An installation, rekeyed.

    Attributes:
        root: with scratch keys.
        targets: with scratch keys.
        products: every version of each product role that is still there, newest last, with scratch keys.
        fleet: device ids by kind.
        recalled: names of releases that the server recalled, and that product roles still sign.
        left_out: devices of products that have no published role.
        keys: the scratch keys, by the identity of the real key whose place they take.
        now: unix seconds.
    """

    root: bytes
    targets: bytes
    products: Mapping[str, tuple[bytes, ...]]
    fleet: Mapping[Kind, tuple[str, ...]]
    recalled: frozenset[str]
    left_out: int
    keys: "ScratchKeys"
    now: int

    @property
    def root_document(self) -> RootDocument:
        """Return the root, parsed."""
        return parse_root(self.root)

    @property
    def targets_document(self) -> TargetsDocument:
        """Return targets, parsed."""
        return parse_targets(self.targets)

    def newest(self, product: str) -> TargetsDocument:
        """Return a product's present role."""
        return parse_targets(self.products[product][-1], product_role(product))

    def known(self, product: str) -> dict[str, ReleaseTarget]:
        """Return every release that a kept version of the role named, by the digest of its installed bytes."""
        found: dict[str, ReleaseTarget] = {}
        for body in self.products[product]:
            for one in signed_targets(parse_targets(body, product_role(product))).values():
                found[one.release.install.sha256] = one.release
        return found


@dataclass
class ScratchKeys:
    """Throw-away keys, one for each real key."""

    randomness: Callable[[int], bytes]
    made: dict[str, Signer] = field(default_factory=dict)

    def of(self, key: PublicKey) -> Signer:
        """Return the scratch key in the place of a real one: the same kind, the same name."""
        if key.identity not in self.made:
            self.made[key.identity] = self.new(key.keytype)
        return self.made[key.identity]

    def new(self, keytype: str = "ed25519") -> Signer:
        """Make one more."""
        return Signer.from_seed(self.randomness(SEED_BYTES[keytype]), keytype)

    def ring(self, real: RoleKeys) -> RoleKeys:
        """Return the role with scratch keys in it; names and threshold stay."""
        keys = tuple(self.of(key).public.called(key.name) for key in real.keys)
        return RoleKeys(keys, real.threshold)

    def signers(self, real: RoleKeys) -> tuple[Signer, ...]:
        """Return as many scratch signers as the role wants, or as many as there are."""
        return tuple(self.of(key) for key in real.keys)[: real.threshold]

    def holding(self, ring: RoleKeys) -> tuple[Signer, ...]:
        """Return the private halves of a ring that has scratch keys already."""
        by_identity = {one.public.identity: one for one in self.made.values()}
        return tuple(by_identity[key.identity] for key in ring.keys)


def read_estate(folder: Path, *, now: int, randomness: Callable[[int], bytes]) -> Estate:
    """Read an installation and put scratch keys in the place of its keys.

    Args:
        folder: the server's data directory; only read.
        now: unix seconds.
        randomness: unpredictable bytes.

    Raises:
        ConfigError: `config.unreadable`: no database there; `meta.no_root`: nothing was published yet; `data.*`.
    """
    if not (folder / DATABASE_NAME).is_file():
        raise ConfigError("config.unreadable", f"{folder} holds no {DATABASE_NAME}")
    with tempfile.TemporaryDirectory(prefix="tidegate-drill-") as scratch:
        _copy_database(folder, Path(scratch))
        with looking_at(Path(scratch)) as conn:
            documents = release_queries.documents(conn, HISTORY)
            rows = [
                dict(zip(device_queries.DRILL_COLUMNS, row, strict=True))
                for row in device_queries.in_the_field(conn)
            ]
            recalled = frozenset(release_queries.recalled(conn))
    by_role: dict[str, list[bytes]] = {}
    for row in documents:
        by_role.setdefault(row.role, []).append(row.body)
    if not {"root", "targets"} <= set(by_role):
        raise ConfigError("meta.no_root", f"{folder}: no root and targets are published yet")
    root, targets = parse_root(by_role["root"][-1]), parse_targets(by_role["targets"][-1])
    keys = ScratchKeys(randomness)
    products = {
        name: tuple(_product(body, name, targets, keys) for body in by_role[product_role(name)])
        for name in products_of(targets)
        if product_role(name) in by_role
    }
    made = Estate(
        _root(root, keys), _targets(targets, root, keys), products, {}, recalled, 0, keys, now
    )
    fleet: dict[Kind, list[str]] = {}
    left_out = 0
    releases = {name: made.known(name) for name in products}
    for device in rows:
        if device["product"] in products:
            fleet.setdefault(_kind(device, releases[device["product"]]), []).append(device["id"])
        else:
            left_out += 1
    return Estate(
        made.root, made.targets, products,
        {kind: tuple(ids) for kind, ids in fleet.items()}, recalled, left_out, keys, now,
    )  # fmt: skip


def _copy_database(folder: Path, scratch: Path) -> None:
    """Copy the database file by file: opening it, even to read, would make files beside it.

    Raises:
        BusyError: `data.locked`: a server writes so often that no two looks are alike.
    """
    for _ in range(COPIES_MAX):
        before = _stamps(folder)
        for stale in scratch.iterdir():
            stale.unlink()
        for name in before:
            shutil.copyfile(folder / name, scratch / name)
        if _stamps(folder) == before:
            return
    raise BusyError("data.locked", f"{folder} is written to all the time; drill on a backup")


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    paths = [folder / name for name in (DATABASE_NAME, f"{DATABASE_NAME}-wal")]
    found = {path.name: path.stat() for path in paths if path.is_file()}
    return {name: (one.st_size, one.st_mtime_ns) for name, one in found.items()}


def footprint(folder: Path) -> dict[str, str]:
    """Return the digest of every file of a data directory; of payloads, which are named by their digest, their size."""
    return {name: digest for name, digest in _digests(folder)}  # noqa: C416 - reads as what it is


def _digests(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if not path.is_file() or path.is_symlink():
            continue
        if name.parts[0] == "blobs":
            yield str(name), str(path.stat().st_size)
            continue
        with path.open("rb") as file:
            yield str(name), hashlib.file_digest(file, "sha256").hexdigest()


# --- documents under scratch keys -----------------------------------------------------------------------------------------


def _root(root: RootDocument, keys: ScratchKeys) -> bytes:
    real, extra = role_keys(root), root_extra(root)
    roles = {name: keys.ring(ring) for name, ring in real.items()}
    body = make_root(
        version=root.version,
        expires_at=root.expires_at,
        roles=roles,
        extra=msgspec.structs.replace(
            extra,
            authorities=authorities(
                epoch=extra.authorities.epoch,
                director=roles["director"],
                incident=roles["incident"],
                audit=roles["audit"],
                director_max_s=extra.authorities.director.max_validity_s,
                incident_max_s=extra.authorities.incident.max_validity_s,
            ),
        ),
    )
    return sign(body, *keys.signers(real["root"]))


def _targets(targets: TargetsDocument, root: RootDocument, keys: ScratchKeys) -> bytes:
    body = make_targets(
        version=targets.version,
        expires_at=targets.expires_at,
        products={
            name: keys.ring(keys_of(targets, product_role(name))) for name in products_of(targets)
        },
        one_signer=targets_extra(targets).one_signer,
    )
    return sign(body, *keys.signers(keys_of(root, "targets")))


def _product(body: bytes, name: str, targets: TargetsDocument, keys: ScratchKeys) -> bytes:
    document = parse_targets(body, product_role(name))
    made = make_product(
        version=document.version,
        expires_at=document.expires_at,
        targets=signed_targets(document).values(),
        extra=product_extra(document),
    )
    return sign(made, *keys.signers(keys_of(targets, product_role(name))))


# --- the fleet ------------------------------------------------------------------------------------------------------------


def _kind(device: Mapping[str, Any], known: Mapping[str, ReleaseTarget]) -> Kind:
    slots = msgspec.json.decode(device["slots"] or "{}")
    digest = device["running_sha256"]
    others = [one for one in slots.values() if one.get("sha256") not in {None, digest}]
    other = others[0] if len(others) == 1 else {}
    signed = known.get(digest or "")
    before = known.get(other.get("sha256") or "")
    floor = int(device["security_floor"])
    return Kind(
        product=device["product"],
        model=device["model"],
        rev=int(device["rev"]),
        channel=device["channel"],
        agent=device["agent"],
        running=Slot(
            counter=int(device["running_counter"]),
            sha256=digest,
            version=device["running_version"],
            security_version=signed.security_version if signed is not None else floor,
            state="confirmed",
        ),
        other=Slot(
            counter=int(other.get("release_counter", 0)),
            sha256=other.get("sha256"),
            version=str(other.get("version", "")),
            security_version=before.security_version if before is not None else 0,
            state=str(other.get("state", "empty")),
        ),
        floor=floor,
    )
