"""What may be published: the same checks as a device's, run by whoever publishes, with the same codes.

A server that published what devices refuse would only learn it from the field. So the ceremony tool, `tidegate release check` and the server ask here
first, and each answer is made by `core.verify`, the code on the device. Beyond that, publishing has rules that one device alone cannot see: a release
never changes, and counters rise.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from tidegate.core import caps
from tidegate.core.authority import ProductExtra
from tidegate.core.errors import PublisherError
from tidegate.core.keys import PublicKey
from tidegate.core.mandate import check_mandates
from tidegate.core.metadata import (
    RoleKeys,
    RootDocument,
    SignedTarget,
    TargetsDocument,
    keys_of,
    parse_root,
    parse_targets,
    product_extra,
    product_role,
    products_of,
    root_extra,
    signed_targets,
    targets_extra,
)
from tidegate.core.payload import Index
from tidegate.core.release import Part, ReleaseTarget, contradiction
from tidegate.core.verify import TrustedSet, require_signed

#: Roles and authorities that share a level of trust; a key may stand in one level only.
LEVELS: Mapping[str, tuple[str, ...]] = {
    "root": ("root",),
    "targets": ("targets",),
    "incident": ("incident",),
    "online": ("snapshot", "timestamp", "director", "audit"),
}
#: The channel of devices at customers: what is signed for it takes two people.
PRODUCTION: Final = "stable"


_FEWER: Final = (
    "withdraw what no device should install any more: `tidegate release build --withdraw VERSION`"
)


@dataclass(frozen=True)
class AcceptedProduct:
    """A product role that may be published.

    Attributes:
        document: the role's document.
        new: targets that were not published before.
        kept: targets that were, unchanged.
        gone: paths that were, and are not named any more: withdrawn.
        signers: key ids of the keys that signed and are trusted for it.
    """

    document: TargetsDocument
    new: tuple[SignedTarget, ...]
    kept: tuple[SignedTarget, ...]
    gone: tuple[str, ...]
    signers: tuple[str, ...]


def role_keys(root: RootDocument) -> dict[str, RoleKeys]:
    """Return who speaks for each role and authority of a root, by name.

    Raises:
        PublisherError: `sig.malformed`.
    """
    extra = root_extra(root)
    found = {name: keys_of(root, name) for name in ("root", "targets", "snapshot", "timestamp")}
    for name in ("director", "incident", "audit"):
        ring = getattr(extra.authorities, name)
        found[name] = RoleKeys(tuple(extra.keys(name).values()), ring.threshold)
    return found


def check_roles(roles: Mapping[str, RoleKeys]) -> None:
    """Refuse roles that cannot be met, or whose keys are not apart.

    Raises:
        PublisherError: `sig.threshold`: fewer distinct keys than needed; `key.duplicate`: one public key under two ids; `key.trust_levels`: one key in two
            levels.
    """
    for name, role in roles.items():
        _check_apart(name, role)
    where: dict[str, str] = {}
    for level, names in LEVELS.items():
        for key in (key for name in names if name in roles for key in roles[name].keys):
            if where.setdefault(key.identity, level) != level:
                raise PublisherError(
                    "key.trust_levels",
                    f"key {key.keyid[:12]} stands in {where[key.identity]} and in {level}",
                )


def _check_apart(name: str, role: RoleKeys) -> None:
    identities = [key.identity for key in role.keys]
    if len(set(identities)) != len(identities):
        raise PublisherError("key.duplicate", f"{name}: one public key stands under two key ids")
    if not 1 <= role.threshold <= len(identities):
        raise PublisherError(
            "sig.threshold", f"{name}: {role.threshold} needed of {len(identities)} keys"
        )


def accept_root(body: bytes, *, previous: bytes | None, now: int) -> RootDocument:
    """Return a root that may be published after `previous` (None: the first one).

    Raises:
        PublisherError: `sig.*`, `key.*`; `release.exists`: a root of this version is there with other content.
    """
    document = parse_root(body)
    check_roles(role_keys(document))
    if previous is None:
        if document.version != 1:
            raise PublisherError("sig.rollback", f"the first root is 1, not {document.version}")
        trusted = TrustedSet(body, now=now)
    else:
        before = parse_root(previous)
        _refuse_other_content(document.version, body, before.version, previous, "root")
        if root_extra(before).lab != root_extra(document).lab:
            raise PublisherError("key.trust_levels", "a lab root cannot be extended, only replaced")
        trusted = TrustedSet(previous, now=now)
        if document.version != before.version:
            trusted.update_root(body)
    if now >= document.expires_at:
        raise PublisherError("sig.expired", f"root {document.version} has expired")
    return trusted.root


def accept_targets(
    body: bytes, *, root: RootDocument, previous: bytes | None, now: int
) -> TargetsDocument:
    """Return a targets role that may be published: delegations only, each product's paths its own.

    Raises:
        PublisherError: `sig.*`, `key.*`, `release.exists`.
    """
    document = _accept_role(body, "targets", root, previous, now)
    if document.signed.targets:
        raise PublisherError("sig.malformed", "targets delegates; it signs no images")
    offline = {
        key.identity for name in ("root", "targets", "incident") for key in _keys(root, name)
    }
    online = {key.identity for name in LEVELS["online"] for key in _keys(root, name)}
    for product in products_of(document):
        role = keys_of(document, product_role(product))
        _check_apart(product_role(product), role)
        if any(key.identity in offline | online for key in role.keys):
            raise PublisherError("key.trust_levels", f"{product}: a key of another level signs it")
    _check_delegations(document)
    unknown = set(targets_extra(document).one_signer) - set(products_of(document))
    if unknown:
        raise PublisherError(
            "sig.malformed", f"targets: one_signer names no product {min(unknown)}"
        )
    return document


def _check_delegations(document: TargetsDocument) -> None:
    delegations = document.signed.delegations
    count = len(delegations.roles or {}) if delegations else 0
    if count > caps.DELEGATIONS_MAX:
        raise PublisherError(
            "sig.oversized",
            f"targets: {count} products, at most {caps.DELEGATIONS_MAX} may be",
            hint="put more products into a repository (a server) of their own",
        )
    for name, role in ((delegations.roles or {}) if delegations else {}).items():
        product = name.removeprefix("product/")
        if not name.startswith("product/") or role.paths != [f"{product}/*/*"]:
            raise PublisherError("sig.malformed", f"{name}: a delegation of {role.paths}")
        if not role.terminating:
            raise PublisherError("sig.malformed", f"{name}: the delegation does not end the search")


def accept_release(
    body: bytes, *, product: str, targets: TargetsDocument, previous: bytes | None, now: int
) -> AcceptedProduct:
    """Return a product role that may be published, told apart into new, kept and withdrawn targets.

    Args:
        body: the product role's next document (untrusted).
        product: the product's name.
        targets: the believed targets role.
        previous: the document that is published now; None for none.
        now: unix seconds.

    Raises:
        PublisherError: `sig.*` as a device would; `compat.counter`: a new release does not come after all earlier ones; `release.exists`: a published
            target changed; `sig.malformed`; `sig.threshold` also where one key could release to `stable` and targets do not allow that.
    """
    role = product_role(product)
    document = _accept_role(body, role, targets, previous, now)
    if document.signed.delegations is not None:
        raise PublisherError("sig.malformed", f"{role} may not delegate further")
    if len(document.signed.targets) > caps.LIVE_TARGETS_MAX:
        raise PublisherError(
            "sig.oversized",
            f"{role}: {len(document.signed.targets)} artifacts are live, at most {caps.LIVE_TARGETS_MAX} may be",
            hint=_FEWER,
        )
    after = signed_targets(document)
    before = signed_targets(parse_targets(previous, role)) if previous is not None else {}
    for path, found in after.items():
        if found.release.product != product:
            raise PublisherError("sig.malformed", f"{path}: of product {found.release.product}")
        wrong = contradiction(found.release) if path not in before else ""
        if wrong:
            raise PublisherError("release.malformed", f"{path}: {wrong}")
        if path in before and before[path] != found:
            raise PublisherError("release.exists", f"{path} is published with other content")
    require_two_for_stable(product, targets, after.values())
    new = tuple(found for path, found in sorted(after.items()) if path not in before)
    _check_counters(new, before, after)
    check_mandates(
        product_extra(document),
        _counters(after),
        product_extra(parse_targets(previous, role)) if previous is not None else ProductExtra(),
        _counters(before),
    )
    signers = _signers(targets, role, document)
    kept = tuple(found for path, found in sorted(after.items()) if path in before)
    gone = tuple(sorted(set(before) - set(after)))
    return AcceptedProduct(document, new, kept, gone, signers)


def alone(targets: TargetsDocument) -> tuple[str, ...]:
    """Return the products that one person can release to `stable`, by leave of the targets holders; to be shown loudly."""
    return tuple(
        product
        for product in products_of(targets)
        if product in targets_extra(targets).one_signer
        and keys_of(targets, product_role(product)).threshold < 2
    )


def require_two_for_stable(
    product: str, targets: TargetsDocument, named: Iterable[SignedTarget]
) -> None:
    """Hold the rule of two people: a role whose threshold is one may not name a target for `stable`.

    Whoever steals one laptop and the server would otherwise reach every device. The holders of the targets keys may excuse a product
    (`one_signer`): a shop of one person works, and says so.

    Raises:
        PublisherError: `sig.threshold`.
    """
    if keys_of(targets, product_role(product)).threshold > 1:
        return
    if product in targets_extra(targets).one_signer:
        return
    for one in named:
        if PRODUCTION in one.release.channels:
            raise PublisherError(
                "sig.threshold",
                f"{one.path} is for {PRODUCTION}, and one key alone signs for {product}",
                hint=f"let two of its keys sign: `tidegate product keys {product} --needs 2`;"
                f" or release to other channels; a shop of one person: `--one-signer`",
            )


def _counters(targets: Mapping[str, SignedTarget]) -> frozenset[int]:
    return frozenset(one.release.release_counter for one in targets.values())


def _check_counters(
    new: tuple[SignedTarget, ...],
    before: Mapping[str, SignedTarget],
    after: Mapping[str, SignedTarget],
) -> None:
    """New counters come after all that were published; one counter is one version, and back."""
    highest = max((one.release.release_counter for one in before.values()), default=0)
    for one in new:
        if one.release.release_counter <= highest:
            raise PublisherError(
                "compat.counter",
                f"{one.path}: counter {one.release.release_counter}, and {highest} is published",
            )
    versions: dict[int, str] = {}
    counters: dict[str, int] = {}
    for one in after.values():
        release = one.release
        if (
            versions.setdefault(release.release_counter, release.version) != release.version
            or counters.setdefault(release.version, release.release_counter)
            != release.release_counter
        ):
            raise PublisherError("release.malformed", f"{one.path}: one counter, one version")


def check_index(index: Index, part: Part | ReleaseTarget) -> None:
    """Hold a payload's index against what the product role signed about its content.

    Raises:
        PublisherError: `release.malformed`, or `compat.agent` where devices cannot unpack it yet.
    """
    index.require_supported()
    wanted = part.unpacked
    if (index.image_size, index.target_sha256) != (wanted.size, wanted.sha256):
        raise PublisherError("release.malformed", "the payload is not the image that was signed")


def _accept_role(
    body: bytes,
    role: str,
    delegator: RootDocument | TargetsDocument,
    previous: bytes | None,
    now: int,
) -> TargetsDocument:
    if len(body) > caps.ROLE_MAX:
        raise PublisherError(
            "sig.oversized",
            f"{role}: {len(body)} bytes, and devices read at most {caps.ROLE_MAX}",
            hint=_FEWER,
        )
    document = parse_targets(body, role)
    require_signed(delegator, role, document)
    if previous is not None:
        before = parse_targets(previous, role)
        _refuse_other_content(document.version, body, before.version, previous, role)
    if now >= document.expires_at:
        raise PublisherError("sig.expired", f"{role} {document.version} has expired")
    return document


def _refuse_other_content(
    version: int, body: bytes, before: int, previous: bytes, role: str
) -> None:
    if version < before:
        raise PublisherError("sig.rollback", f"{role} {version}, and {before} is published")
    if version == before and body != previous:
        raise PublisherError("release.exists", f"{role} {version} is published with other content")


def _keys(root: RootDocument, name: str) -> tuple[PublicKey, ...]:
    return role_keys(root)[name].keys


def _signers(targets: TargetsDocument, role: str, document: TargetsDocument) -> tuple[str, ...]:
    good = require_signed(targets, role, document)
    return tuple(sorted(key.keyid for key in keys_of(targets, role).keys if key.identity in good))
