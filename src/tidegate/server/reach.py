"""Whom a rollout would reach, before anything is written: by ring and hardware variant, and who is left out for which reason.

It asks the same questions that are asked when a device comes (`rollout.cohort`,
`core.release.refusal`), of every device at once. Not decided here: whether that is
too many for one person (`server.approvals`).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from tidegate.core import mandate
from tidegate.core.authority import Mandate
from tidegate.core.hardware import compatible
from tidegate.core.release import ReleaseTarget, Running, refusal
from tidegate.rollout import cohort, keeping
from tidegate.rollout.cohort import Fixed
from tidegate.rollout.lint import Conflict, Lint
from tidegate.rollout.model import Policy, precedence
from tidegate.server import fixed
from tidegate.server.groups import Book, components_of, hardware_of
from tidegate.server.headcount import Sample
from tidegate.server.store import Connection
from tidegate.server.store import admin_devices as device_rows
from tidegate.server.store import admin_rollouts as rows

Row = dict[str, Any]
EVIDENCE: Final = "evidence"


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
    """Whom a rollout would reach. `matched` devices are in a ring; `offered` of them suit the release; `mandate`: its signers' schedule.

    `lints`: what speaks against it; `conflicts`: other rollouts for the same devices; `payload`: bytes of the largest download of one device.
    `asked`: so many devices, chosen by lot, stand for all of them; 0 = every device was asked.
    """

    release: str
    product: str
    matched: int
    offered: int
    rings: tuple[RingReach, ...]
    skipped: tuple[Skipped, ...] = ()
    warnings: tuple[str, ...] = ()
    mandate: tuple[SignedStep, ...] = ()
    lints: tuple[Lint, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    payload: int = 0
    asked: int = 0
    #: Of those offered: how many by connectivity, how many stand at a site; and the preset by which evidence is weighed (empty = it is not).
    connectivity: dict[str, int] = {}
    at_sites: int = 0
    weighed: str = ""

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


def payload_of(found: list[ReleaseTarget]) -> int:
    """Return the bytes of the largest download of one device."""
    return max((payload.length for one in found for payload in one.payloads), default=0)


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


def suited(found: list[ReleaseTarget], device: Row) -> ReleaseTarget | None:
    """Return the artifact that is made for a device's hardware, or None."""
    hardware = hardware_of(device)
    return next((one for one in found if compatible(one.hardware, hardware)), None)


def measure(
    conn: Connection,
    release: Row,
    policy: Policy,
    now: int,
    isolated: tuple[str, ...] = (),
    *,
    retry_refused: bool = False,
    others: Sequence[Row] = (),
    meant: Fixed | None = None,
    sample: Sample | None = None,
) -> Reach:
    """Count whom a policy would bring a release to: device by device, or by a sample of them where there are very many.

    Args:
        conn: any connection; reads every device of the product, or of the sample.
        release: its row.
        policy: with audiences that were checked.
        now: unix seconds.
        isolated: who is kept out (`rollout.keeping`).
        retry_refused: also devices that went back from it try it again.
        others: rollouts that may serve the same devices, as rows.
        meant: whom a snapshot rollout that is made already means; None = its queries say.
        sample: devices that stand for all; None = all are asked. How many match is exact all the same, of each ring.
    """
    book = Book(conn)
    rivals = [
        (row, msgspec.convert(row["policy"], type=Policy), _meant(conn, row)) for row in others
    ]
    shared: dict[str, float] = defaultdict(float)
    known: dict[tuple[Any, ...], tuple[str, str] | None] = {}
    wanted = targets(conn, int(release["id"]))
    matched: dict[str, float] = defaultdict(float)
    offered: dict[str, dict[str, float]] = {ring.name: defaultdict(float) for ring in policy.rings}
    skipped: dict[tuple[str, str], float] = defaultdict(float)
    links: dict[str, float] = defaultdict(float)
    at_sites = 0.0
    weights = sample.weights if sample is not None else {}
    seen: set[tuple[str, str]] = set()
    product = str(release["product"])
    asked = (
        device_rows.devices(conn, states=("accepted",), product=product)
        if sample is None
        else device_rows.devices_at(conn, sample.rows)
    )
    signed = msgspec.json.decode(release["mandate"], type=Mandate) if release["mandate"] else None
    places: list[tuple[int, float]] = []
    for device in asked:
        attrs = book.attributes(device, now)
        index = _ring_of(policy, meant, device, attrs)
        if index is None:
            continue
        ring = policy.rings[index].name
        stands_for = weights.get(index, 1.0)
        seen.add((ring, str(device["variant"])))
        matched[ring] += stands_for
        # Whom it reaches of those that went back from it before is a matter of the rollout.
        told = {**device, "refuses": []} if retry_refused else device
        kept_out = keeping.kept_out(isolated, str(device["variant"]), attrs)
        kind = (*_kind(told), kept_out)
        if kind not in known:
            known[kind] = _left_out(wanted, release, told, kept_out)
        why = known[kind]
        if why is None:
            for row, rival, theirs in rivals:
                if device["running_counter"] < row["release_counter"] and (
                    _ring_of(rival, theirs, device, attrs) is not None
                ):
                    shared[str(row["name"])] += stands_for
            offered[ring][str(device["variant"])] += stands_for
            links[str(device["connectivity"])] += stands_for
            at_sites += stands_for if device["site"] else 0.0
            if signed is not None:
                places.append((mandate.place(signed, str(device["id"])), stands_for))
        else:
            skipped[why] += stands_for
    for (ring, variant), count in (sample.counts if sample is not None else {}).items():
        if (ring, variant) not in seen:
            offered[ring][variant] += (
                count  # too few to be drawn: the rarest hardware is not to be passed over
            )
    rings = tuple(
        RingReach(
            name=ring.name,
            shares_bp=ring.shares,
            matched=round(matched[ring.name]),
            offered=round(sum(offered[ring.name].values())),
            variants={name: round(count) for name, count in sorted(offered[ring.name].items())},
        )
        for ring in policy.rings
    )
    return Reach(
        release=str(release["name"]),
        product=product,
        matched=round(sum(matched.values())),
        offered=sum(ring.offered for ring in rings),
        rings=rings,
        skipped=tuple(
            Skipped(code=code, text=text, count=round(count))
            for (code, text), count in sorted(skipped.items(), key=lambda one: -one[1])
        ),
        conflicts=tuple(
            _conflict(release, policy, row, rival, round(shared[str(row["name"])]))
            for row, rival, _ in rivals
            if shared[str(row["name"])]
        ),
        payload=payload_of(wanted),
        asked=len(sample.rows) if sample is not None else 0,
        connectivity={name: round(count) for name, count in sorted(links.items())},
        at_sites=round(at_sites),
        weighed=_weighed(policy),
        mandate=tuple(
            SignedStep(
                not_before=one.not_before,
                share_bp=one.bucket_max,
                devices=round(sum(by for place, by in places if place < one.bucket_max)),
            )
            for one in (signed.steps if signed is not None else ())
        ),
    )


def _weighed(policy: Policy) -> str:
    """Return the preset of a policy's evidence guard, or an empty text."""
    named = [one.settings.get("preset", "normal") for one in policy.guards if one.gate == EVIDENCE]
    return str(named[0]) if named else ""


def _meant(conn: Connection, row: Row) -> Fixed | None:
    return fixed.load(conn, row["fixed"]) if row["fixed"] else None


def _ring_of(
    policy: Policy, meant: Fixed | None, device: Row, attrs: cohort.Attributes
) -> int | None:
    return meant.ring_of(int(device["row"])) if meant is not None else cohort.ring_of(policy, attrs)


def _left_out(
    wanted: list[ReleaseTarget], release: Row, device: Row, kept_out: str
) -> tuple[str, str] | None:
    if kept_out:
        return "isolated", f"{kept_out} is isolated"
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


def at_most(
    release: Row, policy: Policy, counts: Mapping[tuple[str, str], int], payload: int
) -> Reach:
    """Return an upper bound of whom a policy reaches, from its audience by (ring, variant): whom the release does not suit is not taken out.

    For fleets so large that asking every device would keep a person waiting (`rollouts.create`); the dry run asks.
    """
    rings = tuple(
        RingReach(
            name=ring.name,
            shares_bp=ring.shares,
            matched=sum(n for (name, _), n in counts.items() if name == ring.name),
            offered=sum(n for (name, _), n in counts.items() if name == ring.name),
            variants={v: n for (name, v), n in sorted(counts.items()) if name == ring.name},
        )
        for ring in policy.rings
    )
    total = sum(counts.values())
    return Reach(
        release=str(release["name"]), product=str(release["product"]), matched=total,
        offered=total, rings=rings, payload=payload,
    )  # fmt: skip


def _kind(device: Row) -> tuple[Any, ...]:
    """Return all of a device that says whether a release suits it: many devices are alike, and are asked about once."""
    alike = (
        "model", "rev", "variant", "channel", "running_counter", "running_sha256",
        "running_version", "security_floor", "agent", "held",
    )  # fmt: skip
    return (
        *(device[name] for name in alike),
        tuple(device["refuses"]),
        repr(device["components"]) if device["components"] else "",
    )


def _conflict(release: Row, policy: Policy, other: Row, rival: Policy, devices: int) -> Conflict:
    newest = 1 << 62  # what is not made yet is the newest
    mine = precedence(policy, int(release["counter"]), newest)
    theirs = precedence(rival, int(other["release_counter"]), int(other["id"]))
    same = {ring.audience for ring in policy.rings} == {ring.audience for ring in rival.rings}
    older = int(other["release_counter"]) < int(release["counter"])
    return Conflict(
        rollout=str(other["name"]),
        release=str(other["release"]),
        devices=devices,
        first=theirs > mine,
        ends=same and older and rival.priority <= policy.priority and other["state"] != "completed",
    )
