"""Tidegate's own fields in TUF metadata (`x-tidegate`): who else has a say, and what a product demands. Schema: `docs/reference/metadata.md`."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tidegate.core.errors import PublisherError
from tidegate.core.keys import PublicKey, public_key_from
from tidegate.core.release import Counter, Seconds, SecurityVersion


class Ring(msgspec.Struct, frozen=True, kw_only=True):
    """Which keys, and how many distinct ones of them, speak for an authority. `max_validity_s` bounds its documents."""

    keyids: Annotated[tuple[str, ...], Meta(max_length=32)]
    threshold: Annotated[int, Meta(ge=1, le=32)]
    max_validity_s: Seconds = 604_800


class Authorities(msgspec.Struct, frozen=True, kw_only=True):
    """Authorities that are no TUF roles. Raising `epoch` restarts the director's numbering after a theft."""

    epoch: Annotated[int, Meta(ge=1)]
    director: Ring
    incident: Ring
    audit: Ring
    keys: Annotated[dict[str, dict[str, Any]], Meta(max_length=64)]


class RootExtra(msgspec.Struct, frozen=True, kw_only=True):
    """`x-tidegate` of root. `lab` marks throw-away keys: such a root can only be replaced, never extended."""

    spec: Literal[1] = 1
    tenant: Annotated[str, Meta(min_length=1, max_length=64)] = "default"
    lab: bool = False
    strict_fallback: bool = False
    authorities: Authorities
    crit: tuple[str, ...] = ()

    def keys(self, authority: str) -> dict[str, PublicKey]:
        """Return the keys of `director`, `incident` or `audit`, by key id.

        Raises:
            PublisherError: `sig.malformed`: a key is named and not there, or cannot be read.
        """
        ring: Ring = getattr(self.authorities, authority)
        missing = set(ring.keyids) - set(self.authorities.keys)
        if missing:
            raise PublisherError("sig.malformed", f"{authority} names a key that is not there")
        plain = self.authorities.keys
        return {one: public_key_from(plain[one], one) for one in ring.keyids}


class ProductFloor(msgspec.Struct, frozen=True, kw_only=True):
    """Lowest `security_version` that devices of a model may keep to, once they confirmed a newer one."""

    model: str
    security_floor: SecurityVersion


class ProductExtra(msgspec.Struct, frozen=True, kw_only=True):
    """`x-tidegate` of a product role."""

    spec: Literal[1] = 1
    product_floor: Annotated[tuple[ProductFloor, ...], Meta(max_length=64)] = ()
    support_end: Seconds = 0
    withdrawn: Annotated[tuple[Counter, ...], Meta(max_length=1024)] = ()
    crit: tuple[str, ...] = ()
