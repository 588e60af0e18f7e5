"""Tidegate's own fields in TUF metadata (`x-tidegate`): who else has a say, and what a product demands. Schema: `docs/reference/metadata.md`."""

from itertools import pairwise
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from tidegate.core.bucket import BUCKETS
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


class TargetsExtra(msgspec.Struct, frozen=True, kw_only=True):
    """`x-tidegate` of targets. `one_signer` names products that one person may release to everybody; see `core.accept`."""

    spec: Literal[1] = 1
    one_signer: Annotated[tuple[str, ...], Meta(max_length=1024)] = ()
    crit: tuple[str, ...] = ()


class ProductFloor(msgspec.Struct, frozen=True, kw_only=True):
    """Lowest `security_version` that devices of a model may keep to, once they confirmed a newer one."""

    model: str
    security_floor: SecurityVersion


class MandateStep(msgspec.Struct, frozen=True, kw_only=True):
    """From `not_before` (unix seconds) on, devices with a bucket below `bucket_max` may have the release; 10000 = everybody."""

    not_before: Seconds
    bucket_max: Annotated[int, Meta(ge=1, le=BUCKETS)]


class Mandate(msgspec.Struct, frozen=True, kw_only=True):
    """An offline-signed staging schedule of one release: who may have it from when on, however many keys of the server are stolen.

    `salt` (16 to 64 random bytes, hex) orders the devices, so that nobody who chooses device ids chooses who comes first. What it allows is decided in
    `core.mandate`.

    Raises:
        ValueError: its steps are not in strict order, of time and of share alike.
    """

    counter: Counter
    salt: Annotated[str, Meta(pattern=r"^(?:[0-9a-f]{2}){16,64}$(?!\n)")]
    steps: Annotated[tuple[MandateStep, ...], Meta(min_length=1, max_length=32)]

    def __post_init__(self) -> None:
        """Hold the order; msgspec makes a validation error of it where it is read."""
        for before, after in pairwise(self.steps):
            if after.not_before <= before.not_before or after.bucket_max <= before.bucket_max:
                raise ValueError(
                    f"mandate for counter {self.counter}: each step must be later and larger than the one before"
                )


#: What `crit` of a product role must name when there is a mandate, so that an agent that knows none refuses instead of ignoring it.
MANDATES: Final = "mandates"


class ProductExtra(msgspec.Struct, frozen=True, kw_only=True):
    """`x-tidegate` of a product role. `mandates` holds at most one for each counter, and then stands in `crit`."""

    spec: Literal[1] = 1
    product_floor: Annotated[tuple[ProductFloor, ...], Meta(max_length=64)] = ()
    support_end: Seconds = 0
    withdrawn: Annotated[tuple[Counter, ...], Meta(max_length=1024)] = ()
    mandates: Annotated[tuple[Mandate, ...], Meta(max_length=256)] = ()
    crit: tuple[str, ...] = ()

    def mandate(self, counter: int) -> Mandate | None:
        """Return the mandate of a release; None = the signers left its staging to the server."""
        return next((one for one in self.mandates if one.counter == counter), None)
