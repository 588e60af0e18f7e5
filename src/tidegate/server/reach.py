"""Whom a rollout would reach, before anything is written: by ring and hardware variant, and who is left out for which reason.

It asks the same questions that are asked when a device comes (`rollout.cohort`,
`core.release.refusal`), of every device at once. Not decided here: whether that is
too many for one person (`server.approvals`).
"""

from collections import Counter
from typing import Any

import msgspec

from tidegate.core import mandate
from tidegate.core.authority import Mandate
from tidegate.core.release import ReleaseTarget, Running, refusal
from tidegate.rollout import cohort
from tidegate.rollout.model import Policy
from tidegate.server.groups import Book, components_of, hardware_of
from tidegate.server.store import Connection
from tidegate.server.store import admin_devices as device_rows
from tidegate.server.store import admin_rollouts as rows

Row = dict[str, Any]


class RingReach(msgspec.Struct, frozen=True, kw_only=True):
    """How many devices a ring matches, and to how many of them the release would be offered, by variant."""

    name: str
    shares_bp: tuple[int, ...]
    matched: int
    offered: int
    variants: dict[str, int]


class Skipped(msgspec.Struct, frozen=True, kw_only=True):
    """How many matching devices are left out, and why."""

    code: str
    text: str
    count: int


class SignedStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the schedule that the release's signers set: `devices` of those offered may have it from `not_before` (unix seconds) on."""

    not_before: int
    share_bp: int
    devices: int


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a rollout would reach. `matched` devices are in a ring; `offered` of them suit the release; `mandate`: its signers' schedule."""

    release: str
    product: str
    matched: int
    offered: int
    rings: tuple[RingReach, ...]
    skipped: tuple[Skipped, ...] = ()
    warnings: tuple[str, ...] = ()
    mandate: tuple[SignedStep, ...] = ()

    def of_variant(self, variant: str) -> int:
        """Return how many devices of a variant are reached."""
        return sum(ring.variants.get(variant, 0) for ring in self.rings)

    def of_ring(self, name: str) -> int:
        """Return how many devices of a ring are reached."""
        return sum(ring.offered for ring in self.rings if ring.name == name)


def targets(conn: Connection, release_id: int) -> list[ReleaseTarget]:
    """Return what is signed about each artifact of a release."""
    found = rows.artifacts(conn, release_id)
    return [msgspec.convert(one["target"], type=ReleaseTarget) for one in found]


def unsuited(found: list[ReleaseTarget], device: Row, *, fallback: bool = False) -> str | None:
    """Return the `compat.*` reason for which a device would refuse every artifact, or None when it takes one; `fallback`: as a way back."""
    running = Running(
        release_counter=device["running_counter"],
        sha256=device["running_sha256"],
        version=device["running_version"],
    )
    reasons = [
        refusal(
            target,
            hardware=hardware_of(device),
            channel=device["channel"],
            running=running,
            floor=device["security_floor"],
            agent=device["agent"],
            components=components_of(device),
            fallback=fallback,
        )
        for target in found
    ]
    if None in reasons or not reasons:
        return None if reasons else "compat.hardware"
    other = [one for one in reasons if one not in {None, "compat.hardware"}]
    return other[0] if other else "compat.hardware"


def measure(
    conn: Connection,
    release: Row,
    policy: Policy,
    now: int,
    isolated: tuple[str, ...] = (),
    *,
    retry_refused: bool = False,
) -> Reach:
    """Count whom a policy would bring a release to.

    Args:
        conn: any connection; reads every device of the product.
        release: its row.
        policy: with audiences that were checked.
        now: unix seconds.
        isolated: variants that are kept out.
        retry_refused: also devices that went back from it try it again.
    """
    book = Book(conn)
    wanted = targets(conn, int(release["id"]))
    matched: Counter[str] = Counter()
    offered: dict[str, Counter[str]] = {ring.name: Counter() for ring in policy.rings}
    skipped: Counter[tuple[str, str]] = Counter()
    signed = msgspec.json.decode(release["mandate"], type=Mandate) if release["mandate"] else None
    places: list[int] = []
    for device in device_rows.devices(conn, states=("accepted",), product=str(release["product"])):
        index = cohort.ring_of(policy, book.attributes(device, now))
        if index is None:
            continue
        ring = policy.rings[index].name
        matched[ring] += 1
        # Whom it reaches of those that went back from it before is a matter of the rollout.
        known = {**device, "refuses": []} if retry_refused else device
        why = _left_out(wanted, release, known, isolated)
        if why is None:
            offered[ring][str(device["variant"])] += 1
            if signed is not None:
                places.append(mandate.place(signed, str(device["id"])))
        else:
            skipped[why] += 1
    rings = tuple(
        RingReach(
            name=ring.name,
            shares_bp=ring.shares,
            matched=matched[ring.name],
            offered=offered[ring.name].total(),
            variants=dict(sorted(offered[ring.name].items())),
        )
        for ring in policy.rings
    )
    return Reach(
        release=str(release["name"]),
        product=str(release["product"]),
        matched=matched.total(),
        offered=sum(ring.offered for ring in rings),
        rings=rings,
        skipped=tuple(
            Skipped(code=code, text=text, count=count)
            for (code, text), count in skipped.most_common()
        ),
        warnings=_warnings(rings),
        mandate=tuple(
            SignedStep(
                not_before=one.not_before,
                share_bp=one.bucket_max,
                devices=sum(place < one.bucket_max for place in places),
            )
            for one in (signed.steps if signed is not None else ())
        ),
    )


def _left_out(
    wanted: list[ReleaseTarget], release: Row, device: Row, isolated: tuple[str, ...]
) -> tuple[str, str] | None:
    if device["variant"] in isolated:
        return "isolated", f"{device['variant']} is isolated"
    if device["held"]:
        return "user.held", "held on the device or by an operator"
    code = unsuited(wanted, device)
    if code == "compat.hardware":
        return code, f"{device['variant']}: the release is not made for it"
    if code == "compat.counter":
        return code, "runs this release or a newer one already"
    if code is not None:
        return (
            code,
            f"runs {device['running_version'] or 'a factory image'}, channel {device['channel']}",
        )
    refused = {target.digest for target in wanted} & set(device["refuses"])
    if refused:
        return "operator.recalled" if release["state"] == "recalled" else "user.declined", (
            "the device went back from it before and refuses it"
        )
    return None


def _warnings(rings: tuple[RingReach, ...]) -> tuple[str, ...]:
    found: list[str] = []
    seen: set[str] = set()
    for index, ring in enumerate(rings):
        new = sorted(set(ring.variants) - seen)
        if index and new and seen:
            found.append(f"{', '.join(new)}: ring {ring.name} is their first")
        seen |= set(ring.variants)
    if not any(ring.offered for ring in rings):
        found.append("no device would be offered this release")
    return tuple(found)
