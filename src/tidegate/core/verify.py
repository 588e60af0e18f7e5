"""Who is to be believed: the decisions of the TUF client workflow.

`TrustedSet` takes documents in the order of TUF specification 1.0.34, section 5, and keeps only what is signed by enough *distinct public keys*, neither
older than what was seen before, nor expired, nor foreign to its neighbours. It fetches nothing, stores nothing and reads no clock: `agent.trust.store` does the
I/O on a device, and the server runs the same code over what it is about to publish (`core.accept`).

What python-tuf's own client leaves open and is closed here: thresholds count keys and not names; length and digest are always demanded in timestamp and
snapshot; versions that were seen survive the loss of the cached files (`Seen`); a cached document gets no benefit of the doubt.
What the director may say to a device stands in `core.director`.
"""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from tuf.api.metadata import (  # type: ignore[attr-defined]  # it re-exports without __all__
    MetaFile,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)

from tidegate.core.authority import Mandate, RootExtra
from tidegate.core.caps import ROLE_MAX, ROOT_MAX, SNAPSHOT_MAX, TIMESTAMP_MAX
from tidegate.core.errors import PublisherError, TidegateError
from tidegate.core.keys import identity
from tidegate.core.metadata import (
    Document,
    MetaInfo,
    S,
    SignedTarget,
    file_name,
    parse_root,
    parse_snapshot,
    parse_targets,
    parse_timestamp,
    product_extra,
    product_of,
    product_role,
    root_extra,
    signed_target,
)

#: A chain of roots longer than this is not walked in one go.
ROOTS_MAX: Final = 256


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """Highest versions believed so far: what a device keeps beside its cached files, so that losing those opens no way back.

    They hold as long as root names the same keys for timestamp and snapshot (`online_keys`): when a root ceremony replaces those, everything that the old keys
    said is forgotten, which is the way out of a fast-forward attack.
    """

    online_keys: Annotated[str, Meta(max_length=64)] = ""
    timestamp: Annotated[int, Meta(ge=0)] = 0
    snapshot: Annotated[int, Meta(ge=0)] = 0
    roles: Annotated[dict[str, int], Meta(max_length=4096)] = {}


class TrustedSet:
    """Documents that are believed, each verified against the one before it.

    Order: `update_root` for each newer root; then `update_timestamp` (a cached one first, the fetched one after it); `update_snapshot`; `update_targets`;
    `update_product`. A call that raises changes nothing.
    """

    def __init__(
        self, root: bytes, *, now: int, seen: Seen | None = None, strict: bool = True
    ) -> None:
        """Start from a root that is trusted already: part of the image, or stored after an earlier update.

        Args:
            root: the anchor's bytes.
            now: unix seconds; the reference for every expiry.
            seen: what `seen` was at the end of the last time.
            strict: demand length and digest in timestamp and snapshot. Only conformance tests of foreign repositories switch it off.

        Raises:
            PublisherError: `sig.*`: the anchor itself is damaged.
        """
        document = parse_root(root)
        require_signed(document, "root", document)
        self.now = now
        self.root: Document[Root] = document
        self.timestamp: Document[Timestamp] | None = None
        self.snapshot: Document[Snapshot] | None = None
        self.roles: dict[str, Document[Targets]] = {}
        self._strict = strict
        self._seen = seen or Seen()
        self._recovered = False
        self._forget_what_replaced_keys_said()

    @property
    def seen(self) -> Seen:
        """Return the highest versions believed so far, to be stored."""
        return self._seen

    @property
    def recovered(self) -> bool:
        """Say whether root replaced the online keys since `seen` was noted: what was cached of timestamp and snapshot counts no more (5.3.11)."""
        return self._recovered

    @property
    def targets(self) -> Document[Targets]:
        """Return the targets role, which must have been taken."""
        return have(self.roles.get("targets"), "targets")

    @property
    def extra(self) -> RootExtra:
        """Return Tidegate's part of root."""
        return root_extra(self.root)

    # --- taking documents ---

    def update_root(self, body: bytes) -> None:
        """Take the next root: signed by the old threshold and by its own, one version on (5.3).

        Raises:
            PublisherError: `sig.*`.
        """
        new = parse_root(body)
        require_signed(self.root, "root", new)
        if new.version != self.root.version + 1:
            raise PublisherError(
                "sig.rollback", f"root {self.root.version + 1} was due, not {new.version}"
            )
        require_signed(new, "root", new)
        _require_epoch(self.root, new)
        self.root = new
        self._forget_what_replaced_keys_said()

    def update_timestamp(self, body: bytes, *, cached: bool = False) -> bool:
        """Take a timestamp (5.4). One that was cached may have expired: it still bars older ones.

        Returns:
            False when it is the version that is held already.

        Raises:
            PublisherError: `sig.*`.
        """
        self._require_fresh(self.root)
        new = parse_timestamp(body)
        require_signed(self.root, "timestamp", new)
        if self.timestamp is not None and new.version == self.timestamp.version:
            return False
        meta = new.signed.snapshot_meta
        _require_not_older("timestamp", new.version, self._seen.timestamp)
        _require_not_older("snapshot", meta.version, self._seen.snapshot)
        self._require_complete(meta, "timestamp")
        if not cached:
            self._require_fresh(new)
        self.timestamp = new
        self._seen = msgspec.structs.replace(
            self._seen, timestamp=new.version, snapshot=meta.version
        )
        return True

    def update_snapshot(self, body: bytes) -> None:
        """Take the snapshot that timestamp names (5.5).

        Raises:
            PublisherError: `sig.*`.
        """
        timestamp = have(self.timestamp, "timestamp")
        self._require_fresh(timestamp)
        _require_size(body, SNAPSHOT_MAX)
        meta = timestamp.signed.snapshot_meta
        _require_match(meta, body, "snapshot")
        new = parse_snapshot(body)
        require_signed(self.root, "snapshot", new)
        _require_version(new, meta.version)
        roles = {name.removesuffix(".json"): one.version for name, one in new.signed.meta.items()}
        for role, version in self._seen.roles.items():
            _require_not_older(role, roles.get(role, 0), version)
        self._require_fresh(new)
        self.snapshot = new
        self._seen = msgspec.structs.replace(self._seen, roles=roles)

    def update_targets(self, body: bytes) -> None:
        """Take the targets role that snapshot names (5.6).

        Raises:
            PublisherError: `sig.*`.
        """
        self.update_role("targets", None, body)

    def update_product(self, product: str, body: bytes) -> None:
        """Take a product's role (5.6.7): delegated by targets, named by snapshot.

        Raises:
            PublisherError: `sig.*`.
        """
        self.update_role(product_role(product), "targets", body)

    def update_role(self, role: str, delegator: str | None, body: bytes) -> None:
        """Take any targets role; `delegator` is the role whose word counts for its keys, None = root.

        Raises:
            PublisherError: `sig.*`.
        """
        snapshot = have(self.snapshot, "snapshot")
        self._require_fresh(snapshot)
        _require_size(body, ROLE_MAX)
        meta = snapshot.signed.meta.get(f"{role}.json")
        if meta is None:
            raise PublisherError("sig.mix_and_match", f"snapshot does not name {role}")
        self._require_complete(meta, f"snapshot on {role}")
        _require_match(meta, body, role)
        new = parse_targets(body, role)
        parent: Document[Root] | Document[Targets] = (
            self.root if delegator is None else have(self.roles.get(delegator), delegator)
        )
        require_signed(parent, role, new)
        _require_version(new, meta.version)
        self._require_fresh(new)
        self.roles[role] = new

    # --- asking ---

    def expected(self, role: str) -> MetaInfo | None:
        """Return what is to be fetched next as `role` (`snapshot`, `targets`, `product/gw1`); None when nobody names it."""
        if role == "snapshot":
            return _info(have(self.timestamp, "timestamp").signed.snapshot_meta)
        meta = have(self.snapshot, "snapshot").signed.meta.get(f"{role}.json")
        return None if meta is None else _info(meta)

    def limit(self, role: str) -> int:
        """Return the most bytes that may be read for `role`."""
        if role in ("root", "timestamp"):
            return ROOT_MAX if role == "root" else TIMESTAMP_MAX
        most = SNAPSHOT_MAX if role == "snapshot" else ROLE_MAX
        info = self.expected(role)
        return most if info is None or info.length is None else min(most, info.length)

    def _require_fresh(self, document: Document[S]) -> None:
        if self.now >= document.expires_at:
            raise PublisherError(
                "sig.expired",
                f"{document.role} {document.version} expired at {document.expires_at}",
            )

    def _require_complete(self, meta: MetaFile, where: str) -> None:
        if self._strict and (meta.length is None or "sha256" not in (meta.hashes or {})):
            raise PublisherError("sig.malformed", f"{where}: no length or no digest")

    def _forget_what_replaced_keys_said(self) -> None:
        present = _online_keys(self.root)
        if self._seen.online_keys != present:
            self._recovered = self._recovered or self._seen.online_keys != ""
            self._seen = Seen(online_keys=present)


def require_signed(
    delegator: Document[Root] | Document[Targets], role: str, document: Document[S]
) -> frozenset[str]:
    """Return the identities of the keys that signed `document` as `role`, if there are enough of them.

    Raises:
        PublisherError: `sig.unknown_key`: none of the keys it is signed under is trusted for this role; `sig.threshold`; `sig.malformed`: no such role.
    """
    try:
        trusted = delegator.signed.get_delegated_role(role)
        result = delegator.signed.get_verification_result(
            role, document.inner.signed_bytes, document.inner.signatures
        )
    except ValueError as error:
        raise PublisherError(
            "sig.unknown_key", f"{delegator.role} does not delegate {role}"
        ) from error
    good = frozenset(_identity(key.to_dict()) for key in result.signed.values())
    if len(good) >= trusted.threshold:
        return good
    if not set(document.inner.signatures) & set(trusted.keyids):
        by = "by nobody who may" if document.inner.signatures else "by nobody"
        raise PublisherError("sig.unknown_key", f"{role}: signed {by}")
    raise PublisherError(
        "sig.threshold", f"{role}: {len(good)} of {trusted.threshold} distinct keys signed"
    )


def verify_release(trusted: TrustedSet, path: str) -> SignedTarget:
    """Return the release behind a target path, if its product's role says so now.

    Raises:
        PublisherError: `sig.director_mismatch`: not there, or withdrawn; `sig.malformed`.
    """
    product = product_of(path)
    role = product_role(product)
    document = trusted.roles.get(role)
    if document is None:
        raise PublisherError("sig.director_mismatch", f"no believed document of {role}")
    delegations = trusted.targets.signed.delegations
    delegated = (delegations.roles or {}).get(role) if delegations else None
    if delegated is None or not delegated.is_delegated_path(path):
        raise PublisherError("sig.director_mismatch", f"{role} may not speak for {path}")
    found = signed_target(document, path)
    if found.release.product != product:
        raise PublisherError("sig.malformed", f"{path}: product differs from the path")
    if found.release.release_counter in product_extra(document).withdrawn:
        raise PublisherError("sig.director_mismatch", f"{path} was withdrawn")
    return found


def product_floor(trusted: TrustedSet, product: str, model: str) -> int:
    """Return the security floor that the product role sets for a model; 0 = none.

    A device's own floor rises to min(security_version of the image it confirmed, this), never further.
    """
    document = have(trusted.roles.get(product_role(product)), product_role(product))
    floors = product_extra(document).product_floor
    return max((one.security_floor for one in floors if one.model == model), default=0)


def mandate_of(trusted: TrustedSet, product: str, counter: int) -> Mandate | None:
    """Return the staging schedule that the product role signed for a release; None = it left that to the server."""
    document = have(trusted.roles.get(product_role(product)), product_role(product))
    return product_extra(document).mandate(counter)


def issued_at(trusted: TrustedSet) -> int:
    """Return when the newest of the believed online documents was signed, by its own word, in unix seconds; 0 when none says."""
    return max(
        trusted.timestamp.issued_at if trusted.timestamp else 0,
        trusted.snapshot.issued_at if trusted.snapshot else 0,
    )


# --- a whole repository at once -----------------------------------------------------------------------------------------


def walk_repository(
    files: Mapping[str, bytes], *, anchor: bytes, now: int, seen: Seen | None = None
) -> TrustedSet:
    """Take a whole repository as a device does that starts from `anchor`.

    Args:
        files: bytes by served name (`2.root.json`, `timestamp.json`, …).
        anchor: a trusted root.
        now: unix seconds.
        seen: what was believed before.

    Raises:
        PublisherError: `sig.*`, as the device would; `sig.mix_and_match` where a file is missing.
    """
    trusted = TrustedSet(anchor, now=now, seen=seen)
    for _ in range(ROOTS_MAX):
        body = files.get(file_name("root", trusted.root.version + 1))
        if body is None:
            break
        trusted.update_root(body)
    trusted.update_timestamp(_file(files, "timestamp", None))
    trusted.update_snapshot(_fetch(files, trusted, "snapshot"))
    trusted.update_targets(_fetch(files, trusted, "targets"))
    delegations = trusted.targets.signed.delegations
    for role in (delegations.roles or {}) if delegations else ():
        if trusted.expected(role) is not None:
            trusted.update_role(role, "targets", _fetch(files, trusted, role))
    return trusted


def _fetch(files: Mapping[str, bytes], trusted: TrustedSet, role: str) -> bytes:
    info = trusted.expected(role)
    return _file(files, role, info.version if info else 0)


def _file(files: Mapping[str, bytes], role: str, version: int | None) -> bytes:
    name = file_name(role, version)
    if name not in files:
        raise PublisherError("sig.mix_and_match", f"{name} is named and not there")
    return files[name]


# --- small rules --------------------------------------------------------------------------------------------------------


def _require_epoch(old: Document[Root], new: Document[Root]) -> None:
    """An epoch that falls would let the director's old documents count again."""
    try:
        before = root_extra(old).authorities.epoch
    except TidegateError:
        return
    if root_extra(new).authorities.epoch < before:
        raise PublisherError("sig.rollback", "the epoch of the authorities falls")


def _require_not_older(role: str, version: int, seen: int) -> None:
    if version < seen:
        raise PublisherError("sig.rollback", f"{role} {version}, after {seen} was seen")


def _require_version(document: Document[S], version: int) -> None:
    if document.version != version:
        raise PublisherError(
            "sig.mix_and_match", f"{document.role} {document.version}, and {version} was named"
        )


def _require_size(body: bytes, limit: int) -> None:
    if len(body) > limit:
        raise PublisherError("sig.oversized", f"{len(body)} bytes; at most {limit} are taken")


def _require_match(meta: MetaFile, body: bytes, role: str) -> None:
    """Hold bytes against length and digests. Every digest named must fit, and one of them must be known."""
    if meta.length is not None and len(body) != meta.length:
        raise PublisherError("sig.mix_and_match", f"{role}: not the length that was named")
    for name, digest in (meta.hashes or {}).items():
        if name not in ("sha256", "sha512"):
            raise PublisherError("sig.malformed", f"{role}: digest of unknown kind {name[:20]!r}")
        if hashlib.new(name, body).hexdigest() != digest:
            raise PublisherError("sig.mix_and_match", f"{role}: not the bytes that were named")


def _online_keys(root: Document[Root]) -> str:
    """Return a digest over the keys that root names for timestamp and snapshot."""
    lines = []
    for role in ("timestamp", "snapshot"):
        for keyid in root.signed.roles[role].keyids:
            key = root.signed.keys.get(keyid)
            lines.append(f"{role} {_identity(key.to_dict()) if key else keyid}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _identity(plain: Mapping[str, Mapping[str, str] | str]) -> str:
    keyval = plain["keyval"]
    public = keyval["public"] if isinstance(keyval, Mapping) else str(keyval)
    return identity(str(plain["keytype"]), public)


def _info(meta: MetaFile) -> MetaInfo:
    return MetaInfo(meta.version, meta.length, (meta.hashes or {}).get("sha256"))


def have(document: Document[S] | None, role: str) -> Document[S]:
    """Return a document that must have been taken before.

    Raises:
        PublisherError: `sig.mix_and_match`.
    """
    if document is None:
        raise PublisherError("sig.mix_and_match", f"{role} has not been taken yet")
    return document
