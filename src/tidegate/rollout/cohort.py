"""Who is meant: which ring a device belongs to, how far that ring is open, and whether this device's turn has come.

All of it is computed when a device asks; there is no row per device until it is admitted, so a ring of a million opens in one write. A device's place in the
order is `core.bucket` of the release and the device alone. It knows nothing of variant, site or age, so every variant (and every other stratum) gets its own
share of each step, up to chance: of n devices of a variant a step of share p takes n·p ± √(n·p·(1-p)). An exact count per variant would need the list of all
devices at every poll, and places would move when devices join; a step would then take devices out again. So it is deliberately not done.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from tidegate.core.bucket import bucket
from tidegate.rollout import query
from tidegate.rollout.model import ALL_BP, Policy, Rollout
from tidegate.rollout.query import Attributes, Query, Scalar

__all__ = [
    "Attributes",
    "Fixed",
    "Query",
    "attributes_of",
    "parse",
    "parse_lasting",
    "place",
    "ring_of",
    "share_of",
    "step_admits",
]

parse: Final = query.parse
parse_lasting: Final = query.parse_lasting

_OWN: Final = "attr."


def attributes_of(  # noqa: PLR0913 - the built-in names of the query language, one for one
    *,
    id: str = "",  # noqa: A002 - the name in the language
    product: str = "",
    model: str,
    revision: int,
    variant: str,
    channel: str = "",
    site: str = "",
    region: str = "",
    connectivity: str = "",
    agent: str = "",
    serial: str = "",
    release: str = "",
    counter: int = 0,
    security_floor: int = 0,
    state: str = "",
    reason: str = "",
    rollout: str = "",
    seen: int | None = None,
    groups: Collection[str] = (),
    tags: Collection[str] = (),
    own: Mapping[str, Scalar] | None = None,
) -> dict[str, Scalar | Collection[str] | None]:
    """Put a device's facts together for `Query.matches`.

    `release` is the name of the release that it runs, `gw1-2.4.0`; `state`, `reason` and `rollout` are those of the update that is looked at; `seen` is
    how many seconds ago it was last heard (None = never, so that no comparison holds). `own` are its own attributes, untrusted names and values: they
    never hide a built-in name, and `attr.NAME` reaches them always.
    """
    attrs: dict[str, Scalar | Collection[str] | None] = {}
    for name, value in (own or {}).items():
        attrs[name] = value
        attrs[_OWN + name] = value
    attrs |= {
        "id": id, "product": product, "model": model, "revision": revision, "variant": variant,
        "channel": channel, "site": site or None, "region": region or None,
        "connectivity": connectivity, "agent": agent, "serial": serial or None,
        "release": release or None, "counter": counter, "security_floor": security_floor,
        "state": state or None, "reason": reason or None, "rollout": rollout or None,
        "seen": seen, "group": frozenset(groups), "tag": frozenset(tags),
    }  # fmt: skip
    return attrs


def ring_of(policy: Policy, attrs: Attributes, groups: Collection[str] | None = None) -> int | None:
    """Return the index of the first ring whose audience the device matches, or None: it is in no ring.

    Args:
        policy: of the rollout; its queries were checked when it was made.
        attrs: of the device (`attributes_of`).
        groups: replaces `attrs["group"]` when given.
    """
    seen = attrs if groups is None else {**attrs, "group": frozenset(groups)}
    for index, ring in enumerate(policy.rings):
        if parse(ring.audience).matches(seen):
            return index
    return None


@dataclass(frozen=True, slots=True)
class Fixed:
    """Whom a rollout means, fixed when it was made: a byte for each device by its number, 0 = not meant, else its ring's index and one.

    What a device's attributes, groups and tags become afterwards changes nothing about it.
    """

    rings: bytes

    @property
    def devices(self) -> int:
        """How many devices it means."""
        return len(self.rings) - self.rings.count(0)

    def ring_of(self, number: int) -> int | None:
        """Return the index of a device's ring, or None: it is not meant."""
        return self.rings[number] - 1 if self.holds(number) else None

    def holds(self, number: int) -> bool:
        """Say whether a device is meant."""
        return self.knew(number) and self.rings[number] > 0

    def knew(self, number: int) -> bool:
        """Say whether there was such a device at all when the audience was fixed."""
        return 0 < number < len(self.rings)


def share_of(rollout: Rollout, ring: int) -> int:
    """Return how far a ring is open, in basis points: 0 while it waits or after it failed.

    A ring that passed stays open at its last step; one that was skipped for want of devices takes newcomers, when the policy is dynamic.
    """
    spec, progress = rollout.policy.rings[ring], rollout.rings[ring]
    match progress.state:
        case "open" | "soaking":
            return spec.shares[min(max(progress.step, 0), len(spec.shares) - 1)]
        case "passed":
            return spec.shares[-1]
        case "skipped":
            return spec.shares[-1] if rollout.policy.dynamic else 0
        case _:
            return 0


def place(release_sha256: str, device_id: str) -> int:
    """Return the device's place in this release's order, 0..9999 (`core.bucket`)."""
    return bucket(release_sha256, device_id)


def step_admits(share_bp: int, release_sha256: str, device_id: str) -> bool:
    """Say whether a step of this share holds the device. Raising a share only ever adds devices.

    Args:
        share_bp: 0 (nobody) to 10,000 (everybody).
        release_sha256: digest of the release.
        device_id: any text.
    """
    return share_bp >= ALL_BP or place(release_sha256, device_id) < share_bp
