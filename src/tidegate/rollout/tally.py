"""Counts folded from outcomes, and the sums that gates look at.

The server keeps the same counters in its database, in the transaction that books the event (`server.telemetry`); `fold` says in pure code what each outcome
does to them, and tests and scenarios use it. A device has one outcome at a time: who was lost and confirms later is confirmed and no longer lost; who confirmed
and goes back, or falls silent, later is reverted or lost and no longer confirmed.
"""

from collections.abc import Collection, Iterable
from typing import Final, Literal

import msgspec

from tidegate.core.reasons import family
from tidegate.rollout.model import Evidence, Exposure, Tally

What = Literal[
    "matched",
    "offered",
    "permitted",
    "refunded",
    "confirmed",
    "reverted",
    "failed_after",
    "failed_before",
    "declined",
    "lost",
    "returned",
    "reverted_late",
    "lost_late",
]

#: Counters that are summed; the other two fields are the latest times, and the reasons are summed by code.
_SUMMED: Final = tuple(
    name
    for name in Tally.__struct_fields__
    if name not in {"last_permit_at", "last_confirmed_at", "reasons"}
)
#: What each outcome adds to which counter.
_STEPS: Final[dict[What, dict[str, int]]] = {
    "matched": {"audience": 1},
    "offered": {"offered": 1},
    "permitted": {"exposed": 1},
    "refunded": {"exposed": -1},
    "confirmed": {"confirmed": 1},
    "reverted": {"reverted": 1},
    "failed_after": {"failed_after": 1},
    "failed_before": {"failed_before": 1},
    "declined": {"declined": 1},
    "lost": {"lost": 1},
    "returned": {"lost": -1, "confirmed": 1},
    "reverted_late": {"confirmed": -1, "reverted": 1},
    "lost_late": {"confirmed": -1, "lost": 1},
}


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to `count` devices of one ring and variant at `at` (unix seconds).

    `returned` = lost, then heard again and confirmed; `reverted_late`, `lost_late` = after it had confirmed.
    """

    ring: str
    variant: str
    what: What
    count: int = 1
    reason: str = ""
    at: int = 0


def fold(evidence: Evidence, outcome: Outcome) -> Evidence:
    """Return the evidence with one more outcome; its position rises by one."""
    key = (outcome.ring, outcome.variant)
    tally = evidence.tallies.get(key, Tally())
    changes: dict[str, int | dict[str, int]] = {
        name: getattr(tally, name) + step * outcome.count for name, step in _steps(outcome).items()
    }
    if outcome.reason:
        counted = tally.reasons.get(outcome.reason, 0) + outcome.count
        changes["reasons"] = {**tally.reasons, outcome.reason: counted}
    if outcome.what == "permitted":
        changes["last_permit_at"] = max(tally.last_permit_at, outcome.at)
    if outcome.what in {"confirmed", "returned"}:
        changes["last_confirmed_at"] = max(tally.last_confirmed_at, outcome.at)
    tallies = {**evidence.tallies, key: msgspec.structs.replace(tally, **changes)}
    position = evidence.position + 1
    return msgspec.structs.replace(evidence, tallies=tallies, position=position)


def _steps(outcome: Outcome) -> dict[str, int]:
    steps = _STEPS[outcome.what]
    if outcome.what != "failed_before":
        return steps
    side = {"download": "transfer", "install": "install"}.get(family(outcome.reason))
    return {**steps, side: 1} if side else steps


def merge(tallies: Iterable[Tally]) -> Tally:
    """Return the sum of tallies; times are the latest."""
    counts = dict.fromkeys(_SUMMED, 0)
    reasons: dict[str, int] = {}
    permit_at = confirmed_at = 0
    for tally in tallies:
        for name in _SUMMED:
            counts[name] += getattr(tally, name)
        for code, count in tally.reasons.items():
            reasons[code] = reasons.get(code, 0) + count
        permit_at = max(permit_at, tally.last_permit_at)
        confirmed_at = max(confirmed_at, tally.last_confirmed_at)
    return Tally(
        **counts, last_permit_at=permit_at, last_confirmed_at=confirmed_at, reasons=reasons
    )


def total(
    evidence: Evidence,
    *,
    rings: Collection[str] | None = None,
    variants: Collection[str] | None = None,
) -> Tally:
    """Return the sum over the named rings and variants; None = all."""
    return merge(
        tally
        for (ring, variant), tally in evidence.tallies.items()
        if (rings is None or ring in rings) and (variants is None or variant in variants)
    )


def exposure(arm: dict[str, Exposure], variants: Collection[str] | None = None) -> Exposure:
    """Return the sum of one arm (`evidence.updated` or `.control`) over the named variants; None = all."""
    chosen = [one for variant, one in arm.items() if variants is None or variant in variants]
    return Exposure(
        errors=sum(one.errors for one in chosen),
        device_s=sum(one.device_s for one in chosen),
        devices=sum(one.devices for one in chosen),
        top=sum(one.top for one in chosen),
    )


def variants_of(evidence: Evidence) -> tuple[str, ...]:
    """Return every variant that the evidence names, in a fixed order."""
    named = {variant for _, variant in evidence.tallies} | set(evidence.updated)
    return tuple(sorted(named))


def only(
    evidence: Evidence,
    *,
    rings: Collection[str] | None = None,
    variants: Collection[str] | None = None,
) -> Evidence:
    """Return the part of the evidence that concerns the named rings and variants; None = all. Metrics know no rings."""

    def kept(arm: dict[str, Exposure]) -> dict[str, Exposure]:
        return {v: one for v, one in arm.items() if variants is None or v in variants}

    return Evidence(
        position=evidence.position,
        tallies={
            (ring, variant): tally
            for (ring, variant), tally in evidence.tallies.items()
            if (rings is None or ring in rings) and (variants is None or variant in variants)
        },
        updated=kept(evidence.updated),
        control=kept(evidence.control),
    )
