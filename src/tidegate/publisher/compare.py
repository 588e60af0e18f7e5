"""What a draft changes: who comes, who goes, how many must sign, until when. Made of the documents themselves, for people who are about to sign.

It says what is; whether a document may be published is decided in `core.accept`. Sentences that begin with a warning name what is allowed and unwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tidegate.core.accept import PRODUCTION, alone, role_keys
from tidegate.core.keys import PublicKey
from tidegate.core.metadata import (
    RoleKeys,
    RootDocument,
    TargetsDocument,
    keys_of,
    product_extra,
    product_role,
    products_of,
    root_extra,
    signed_targets,
)

_NOBODY: Final = RoleKeys((), 0)


@dataclass(frozen=True)
class RingChange:
    """What becomes of one role.

    Attributes:
        role: its name.
        before: who spoke for it; no keys where it is new.
        after: who shall; no keys where it goes.
    """

    role: str
    before: RoleKeys
    after: RoleKeys

    @property
    def comes(self) -> tuple[PublicKey, ...]:
        """Return the keys that are new in it. Keys are told apart by what they are, not by their names."""
        return _without(self.after, self.before)

    @property
    def goes(self) -> tuple[PublicKey, ...]:
        """Return the keys that it loses."""
        return _without(self.before, self.after)

    @property
    def needs_changed(self) -> bool:
        """Say whether another number of signatures is needed."""
        return self.before.threshold != self.after.threshold

    @property
    def changed(self) -> bool:
        """Say whether anything is different."""
        return bool(self.comes or self.goes or self.needs_changed)


@dataclass(frozen=True)
class Difference:
    """A document beside the one before it.

    Attributes:
        before: version of the one before; 0 where there is none.
        after: version of this one.
        rings: every role of either, changed or not.
        expires: unix seconds before and after; before is 0 where there is none.
        facts: other things that changed: (what, before, after).
        warnings: what is allowed and unwise, in sentences.
    """

    before: int
    after: int
    rings: tuple[RingChange, ...]
    expires: tuple[int, int]
    facts: tuple[tuple[str, str, str], ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def changes(self) -> tuple[RingChange, ...]:
        """Return the roles in which something is different."""
        return tuple(one for one in self.rings if one.changed)


def compare_roots(after: RootDocument, before: RootDocument | None) -> Difference:
    """Compare a root with the one before it.

    Raises:
        PublisherError: `sig.malformed`.
    """
    new, old = role_keys(after), role_keys(before) if before is not None else {}
    return Difference(
        before=before.version if before is not None else 0,
        after=after.version,
        rings=_rings(new, old),
        expires=(before.expires_at if before is not None else 0, after.expires_at),
        facts=_root_facts(after, before) if before is not None else (),
        warnings=_root_warnings(new),
    )


def compare_targets(after: TargetsDocument, before: TargetsDocument | None) -> Difference:
    """Compare a targets role with the one before it: products in the place of roles.

    Raises:
        PublisherError: `sig.malformed`.
    """
    new, old = _products(after), _products(before) if before is not None else {}
    facts: tuple[tuple[str, str, str], ...] = ()
    if before is not None and alone(before) != alone(after):
        facts = (("one signer", _listed(alone(before)), _listed(alone(after))),)
    return Difference(
        before=before.version if before is not None else 0,
        after=after.version,
        rings=_rings(new, old),
        expires=(before.expires_at if before is not None else 0, after.expires_at),
        facts=facts,
        warnings=_product_warnings(after, new),
    )


def compare_products(after: TargetsDocument, before: TargetsDocument | None) -> Difference:
    """Compare a product role with the one before it: releases and floors in the place of keys.

    Raises:
        PublisherError: `sig.malformed`.
    """
    new, old = signed_targets(after), signed_targets(before) if before is not None else {}
    facts = [("release", "-", path) for path in sorted(set(new) - set(old))]
    facts += [("release", path, "withdrawn") for path in sorted(set(old) - set(new))]
    was = _floors(before) if before is not None else {}
    for model, floor in _floors(after).items():
        if was.get(model, 0) != floor:
            facts.append((f"floor {model}", str(was.get(model, 0)), str(floor)))
    return Difference(
        before=before.version if before is not None else 0,
        after=after.version,
        rings=(),
        expires=(before.expires_at if before is not None else 0, after.expires_at),
        facts=tuple(facts),
    )


def _floors(document: TargetsDocument) -> dict[str, int]:
    return {one.model: one.security_floor for one in product_extra(document).product_floor}


def _root_facts(after: RootDocument, before: RootDocument) -> tuple[tuple[str, str, str], ...]:
    new, old = root_extra(after), root_extra(before)
    pairs = (
        ("tenant", old.tenant, new.tenant),
        ("epoch", old.authorities.epoch, new.authorities.epoch),
        ("strict fallback", old.strict_fallback, new.strict_fallback),
        (
            "grant at most",
            f"{old.authorities.incident.max_validity_s // 86_400} d",
            f"{new.authorities.incident.max_validity_s // 86_400} d",
        ),
    )
    return tuple((name, str(was), str(now)) for name, was, now in pairs if was != now)


def _root_warnings(roles: Mapping[str, RoleKeys]) -> tuple[str, ...]:
    found = []
    for name in ("root", "targets", "incident"):
        ring = roles[name]
        if ring.threshold == 1:
            found.append(f"{name}: one key alone is enough; whoever steals it speaks for {name}")
        elif ring.threshold == len(ring.keys):
            found.append(f"{name}: every key is needed; when one is lost, nothing can be signed")
    return tuple(found)


def _product_warnings(
    document: TargetsDocument, products: Mapping[str, RoleKeys]
) -> tuple[str, ...]:
    excused = set(alone(document))
    found = []
    for name, ring in products.items():
        if name in excused:
            found.append(
                f"{name}: ONE person can release to {PRODUCTION}; a stolen laptop reaches every device"
            )
        elif ring.threshold == 1:
            found.append(f"{name}: one key alone signs, so nothing may go to {PRODUCTION}")
        elif ring.threshold == len(ring.keys):
            found.append(
                f"{name}: every key is needed; when one is lost, targets must name another"
            )
    return tuple(found)


def _products(document: TargetsDocument) -> dict[str, RoleKeys]:
    return {name: keys_of(document, product_role(name)) for name in products_of(document)}


def _rings(new: Mapping[str, RoleKeys], old: Mapping[str, RoleKeys]) -> tuple[RingChange, ...]:
    names = [*new, *(name for name in old if name not in new)]
    return tuple(RingChange(name, old.get(name, _NOBODY), new.get(name, _NOBODY)) for name in names)


def _without(ring: RoleKeys, other: RoleKeys) -> tuple[PublicKey, ...]:
    known = {key.identity for key in other.keys}
    return tuple(key for key in ring.keys if key.identity not in known)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "none"
