"""What a gate had before it each time that it wrote down what it did: counts of that moment, and what stood against which bar, ring by ring."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from tidegate.rollout import gates
from tidegate.rollout.gates.failure_rate import FailureRate
from tidegate.rollout.incident.model import DeviceOutcome, Entry, Look
from tidegate.rollout.model import Evidence, Rollout, Tally
from tidegate.rollout.view import View

BAD: Final = frozenset({"reverted", "failed", "lost"})
#: Most looks of the gate before a stop that a report shows: the last of them led to it.
_LOOKS_MAX: Final = 8


def looks(
    entries: Sequence[Entry],
    devices: Sequence[DeviceOutcome],
    rollout: Rollout | None,
    bars: Mapping[int, Sequence[str]],
) -> tuple[Look, ...]:
    """Return what there was to see each time that the gate wrote down what it did.

    Args:
        entries: what it wrote down, in order; what others did is left out.
        devices: that acted on the release, all of them.
        rollout: as it stands now.
        bars: what gates that stop said at these moments, by unix seconds.
    """
    seen = [one for one in entries if one.who == "planner"]
    # Of what was done at one moment the first line says why; that an incident was opened follows from it.
    first = {one.at: one for one in reversed(seen) if one.kind in {"decision", "event"}}
    return tuple(
        Look(
            at=at,
            attempts=sum(began(one) <= at for one in devices),
            harmed=sum(one.state in BAD and one.at <= at for one in devices),
            text=entry.text,
            bars=tuple(dict.fromkeys((*bars.get(at, ()), *_shares_at(at, devices, rollout)))),
            rare=tuple(_rare_at(at, devices, rollout)),
        )
        for at, entry in sorted(first.items())[-_LOOKS_MAX:]
    )


def _shares_at(at: int, devices: Sequence[DeviceOutcome], rollout: Rollout | None) -> Iterator[str]:
    """Yield what `failure_rate` said at a moment of each ring in which devices had acted: the gate writes down a ring only when it stops there.

    Where variants were taken out meanwhile their outcomes counted for a part of the time only, and nothing is said.
    """
    if rollout is None:
        return
    for only, gate in _rates(rollout):
        for ring in rollout.policy.rings:
            tally = _tally_at(at, [one for one in devices if one.ring == ring.name])
            if tally.attempts and only in {"", ring.name}:
                tallies = {(ring.name, ""): tally}
                view = View(Evidence(tallies=tallies), label=f"ring {ring.name}", ring=ring.name)
                yield gate.judge(view, at).text


def _rates(rollout: Rollout) -> Iterator[tuple[str, FailureRate]]:
    """Yield the gates of a rollout that judge shares, each with the one ring that it is of; empty = of all."""
    if rollout.isolated:
        return
    specs = [("", spec) for spec in rollout.policy.guards]
    specs += [(ring.name, spec) for ring in rollout.policy.rings for spec in ring.gates]
    for only, spec in specs:
        gate = gates.of_spec(spec, f"ring {only}" if only else "guards")
        if isinstance(gate, FailureRate):
            yield only, gate


def _rare_at(at: int, devices: Sequence[DeviceOutcome], rollout: Rollout | None) -> Iterator[str]:
    """Yield what the second bar of `failure_rate` asked at a moment, of the whole rollout and of each ring in which devices had acted."""
    if rollout is None:
        return
    for only, gate in _rates(rollout):
        rings = [ring.name for ring in rollout.policy.rings if only in {"", ring.name}]
        for scope in ["", *rings] if not only else rings:
            tally = _tally_at(at, [one for one in devices if scope in {"", one.ring}])
            said = f"ring {scope}" if scope else "whole rollout"
            if tally.attempts:
                yield f"{said}: {_rarity(gate, tally)}"
            elif not scope:
                yield f"{said}: no attempt yet"


def _rarity(gate: FailureRate, tally: Tally) -> str:
    """Say how many failures it would have taken by rarity alone, or why no number of them would have."""
    there = f"{tally.harmed:,} of {tally.attempts:,}"
    if tally.attempts >= gate.sample:
        return f"{there}; does not apply from {gate.sample:,} attempts on, the share does"
    if not gate.odds:
        return f"{there}; switched off"
    fewest, luck = gate.rare(tally.attempts)
    if fewest is None:
        return (
            f"{there}; out of reach: even {tally.attempts:,} of {tally.attempts:,} come by luck once in {1 / luck:,.0f} times, "
            f"and it asks for once in {gate.odds:,}"
            if luck > 0
            else f"{there}; out of reach"
        )
    return (
        f"{there}; it would have taken {fewest:,} of {tally.attempts:,}, which come by luck once in {1 / luck:,.0f} times"
        if luck > 0
        else f"{there}; it would have taken {fewest:,}"
    )


def _tally_at(at: int, devices: Sequence[DeviceOutcome]) -> Tally:
    """Return what was counted of devices at a moment."""
    begun = [one for one in devices if began(one) <= at]
    bad = [one for one in begun if one.state in BAD and one.at <= at]
    reasons: dict[str, int] = {}
    for one in bad:
        reasons[one.reason] = reasons.get(one.reason, 0) + 1
    installs = sum(not one.permitted_at for one in begun)
    return Tally(
        exposed=len(begun) - installs,
        install=installs,
        reverted=sum(bool(one.permitted_at) for one in bad),
        reasons=reasons,
    )


def began(one: DeviceOutcome) -> int:
    """Return when a device began to act: with its permit; one without it failed to install."""
    return one.permitted_at or one.at
