"""The evidence against a rollout, from the last decision that was stored: a lookup, whatever the size of the fleet."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from tidegate.core.amounts import format_share
from tidegate.rollout import cohort, holdback
from tidegate.rollout import tally as sums
from tidegate.rollout.evidence.decide import Needle
from tidegate.rollout.evidence.decide import odds as odds_of_log
from tidegate.rollout.evidence.settings import HOUR_S, MILLION
from tidegate.rollout.evidence.strata import FLEET, OTHER, VARIANT
from tidegate.rollout.model import Evidence, Finding, Rollout, Tally
from tidegate.server.gatekeeper.facts import GateFacts, gate_facts
from tidegate.server.store import Connection
from tidegate.server.web import words
from tidegate.server.web.queries.rollouts import present_ring
from tidegate.server.web.queries.sums import EVIDENCE
from tidegate.server.web.views import (
    EvidenceView,
    LimitRow,
    NeedleGroup,
    NeedleRow,
    NormalRow,
    Odds,
    PermitRow,
    ProofRow,
)

Row = dict[str, Any]
#: Bounds of the policy's flow, by gate: what is printed. Both stop nothing, they only let so many out at once.
_FLOW: Final = {"growing": "1.5 times the confirmed", "at_once": "Most at once"}
#: What a stream is called, and what it is measured against.
_STREAMS: Final = {
    "failure": ("Activation failures", ""),
    "silence": ("Silent at deadline", ""),
    "crash": ("Late crash", "against devices not updated"),
    "dark": ("Going dark", "against devices not updated"),
    "crash_rate": ("Late crash rate", "against the fleet's own"),
    "dark_rate": ("Going dark rate", "against the fleet's own"),
}
#: Said of what the open step of a ring still lets in.
_STEP: Final = "not served yet"
_VARIANT_IS: Final = f"{VARIANT}="
#: A fleet in which less than this share of failures would pass unseen is not called small.
_SMALL_PPM: Final = 100_000


def weighs(model: Rollout) -> bool:
    """Say whether a rollout's policy has the guard that weighs evidence."""
    return any(spec.gate == EVIDENCE for spec in model.policy.guards)


def view(conn: Connection, row: Row, model: Rollout, found: Evidence) -> EvidenceView | None:
    """Return what is known against a rollout; None = nothing is weighed, or not yet.

    Args:
        conn: any connection.
        row: of the rollout.
        model: the same as the planner sees it.
        found: its counted outcomes.
    """
    gate = gate_facts(conn, int(row["id"]))
    if gate is None:
        return None
    because = msgspec.convert(row["because"], type=tuple[Finding, ...])
    index = present_ring(model)
    held = None if index is None else holdback.until(model.policy, index, model.rings[index])
    tally = sums.total(found, variants=_variants_in(found, model))
    return EvidenceView(
        odds=_against(gate, gate.odds),
        verdict=gate.verdict,
        at=gate.at,
        groups=_groups(gate, tally),
        proof=_proof(gate),
        limits=_limits(gate, model, found, because) if row["state"] == "active" else (),
        limit_text=gate.limits,
        permits=_permits(gate, model),
        room=sum(gate.permits.values()),
        at_worst=gate.at_worst,
        exposed=tally.exposed,
        failures=_normal(gate.baseline.failure_ppm, gate.baseline.extra_failure_ppm),
        silences=_normal(gate.baseline.silence_ppm, gate.baseline.extra_silence_ppm),
        assumed=gate.baseline.assumed,
        gaps=_gaps(gate),
        rests_on=f"{words.plural(gate.facts, 'fact')} weighed in {words.plural(gate.strata, 'part')} of the fleet",
        watch=words.duration(gate.watch_s) if gate.watch_s else "",
        held_back=format_share(model.policy.holdback_bp) if held else "",
        held_until=held or 0,
    )


def _against(gate: GateFacts, odds: float) -> Odds:
    return Odds(odds, gate.halts_at, gate.permits_end_pct)


def _variants_in(found: Evidence, model: Rollout) -> set[str]:
    return set(sums.variants_of(found)) - set(model.isolated)


# ---------------------------------------------------------------------- the meter


def _groups(gate: GateFacts, tally: Tally) -> tuple[NeedleGroup, ...]:
    strongest = tuple(_needle(gate, one) for one in gate.needles)
    streams = tuple(
        NeedleRow(stream(name), _against(gate, odds_of_log(log)), _seen(gate, name, tally))
        for name, log in gate.streams.items()
    )
    groups = (
        NeedleGroup("Strongest, each at its weight: all halt at the same mark", strongest),
        NeedleGroup("The whole fleet, stream by stream, before weights", streams),
    )
    return tuple(one for one in groups if one.rows)


def _needle(gate: GateFacts, one: Needle) -> NeedleRow:
    name = "The release" if one.stratum == FLEET else part(one.name)
    return NeedleRow(
        name, _against(gate, one.odds), f"by {stream(one.stream).lower()}" if one.stream else ""
    )


def part(name: str) -> str:
    """Return a part of the fleet as a page calls it: a variant by its name alone."""
    return name.removeprefix(_VARIANT_IS) if "," not in name else name


def stream(name: str) -> str:
    """Return what a stream is called: a metric with the time that it is counted over."""
    if name.startswith("metric "):
        metric, _, window = name.removeprefix("metric ").partition(" ")
        return f"{metric.lstrip('-').replace('_', ' ').capitalize()}, {window}"
    return _STREAMS[name][0] if name in _STREAMS else name.replace("_", " ").capitalize()


def _seen(gate: GateFacts, name: str, tally: Tally) -> str:
    """Say what was counted in a stream against what is let pass, where a page has the counts."""
    base = gate.baseline
    match name:
        case "failure":
            bad, of = tally.reverted + tally.failed_after + tally.install, tally.attempts
            least, most = _span(base.failure_ppm, base.extra_failure_ppm)
        case "silence":
            bad, of = tally.lost, tally.exposed
            least, most = _span(base.silence_ppm, base.extra_silence_ppm)
        case _:
            return _STREAMS[name][1] if name in _STREAMS else "against devices not updated"
    allowed = _pct(least) if least == most else f"{_pct(least)} to {_pct(most)}"
    return f"{words.number(bad)} of {words.number(of)}; {allowed} allowed"


def _span(normal: Mapping[str, int], extra_ppm: int) -> tuple[int, int]:
    values = list(normal.values()) or [0]
    return min(values) + extra_ppm, max(values) + extra_ppm


def _pct(ppm: int) -> str:
    return f"{ppm * 100 / MILLION:.3g}{words.THIN}%"


# ---------------------------------------------------------------------- what is proved


def _proof(gate: GateFacts) -> tuple[ProofRow, ...]:
    rows = []
    for age, soak in zip(gate.ages, gate.soaks, strict=False):
        limit = soak.open_ppm / MILLION
        waits = ""
        if not age.open:
            waits = f"{words.number(age.younger)} on their way there"
        elif age.worst > limit:
            waits = "as many as a fleet of this size can spare"
        rows.append(
            ProofRow(
                age=_hours(age.age_s),
                devices=age.matured,
                lost=age.dead,
                worst=max(0.0, min(1.0, age.worst)),
                limit=limit,
                state="open"
                if age.open
                else "soaking"
                if age.younger or age.matured
                else "waiting",
                note=waits,
            )
        )
    return tuple(rows)


def _hours(seconds: int) -> str:
    return f"{seconds // HOUR_S}{words.NBSP}h"


def _limits(
    gate: GateFacts, model: Rollout, found: Evidence, because: Iterable[Finding]
) -> tuple[LimitRow, ...]:
    """Return everything that bounds how many more may go now, lowest first."""
    rooms: list[tuple[str, float, str]] = []
    kept = _variants_in(found, model)
    index = present_ring(model)
    if index is not None:
        spec = model.policy.rings[index]
        ring = sums.total(found, rings={spec.name}, variants=kept)
        share = cohort.share_of(model, index)
        left = ring.audience * share // 10_000 - ring.attempts
        rooms.append((f"Ring {spec.name}, open to {format_share(share)}", left, _STEP))
    staged = sums.total(found, variants=kept).staged
    rooms.append(("Devices that ask", staged, "hold it staged"))
    rooms.append(("Outcomes of the first hours", gate.room_fleet, ""))
    rooms += [
        (f"Soak of {_hours(age.age_s)}", age.room, f"{words.number(age.younger)} younger")
        for age in gate.ages
        if age.room is not None
    ]
    rooms.append(("Permits of all variants", sum(gate.permits.values()), _amber(gate)))
    for one in because:
        if one.gate in _FLOW and isinstance(one.observed, int):
            bound = one.observed
            if one.gate == "at_once" and isinstance(one.limit, int):
                bound = one.limit - one.observed
            rooms.append((_FLOW[one.gate], bound, ""))
    most = max((room for _, room, _ in rooms), default=0)
    return tuple(
        LimitRow(name, max(0, math.floor(room)), _log_share(room, most), note, note == _STEP)
        for name, room, note in sorted(rooms, key=lambda one: (one[1], one[0]))
    )


def _amber(gate: GateFacts) -> str:
    return f"amber leaves {gate.amber * 100:.0f}{words.THIN}%" if gate.amber < 1 else ""


def _log_share(room: float, most: float) -> float:
    return math.log1p(max(0.0, room)) / math.log1p(most) if most > 0 else 0.0


# ---------------------------------------------------------------------- who may go


def _permits(gate: GateFacts, model: Rollout) -> tuple[PermitRow, ...]:
    odds = {one.name: _against(gate, one.odds) for one in gate.needles}
    out = set(model.isolated)
    rows = [
        PermitRow(
            name=part(one.name),
            room=one.room,
            odds=odds.get(one.name),
            because="" if one.room else one.because.removeprefix(f"{one.name}: "),
            capped="," in one.name or not one.name.startswith(_VARIANT_IS),
            isolated=one.name in out or part(one.name) in out,
        )
        for one in gate.parts
    ]
    known = {one.name for one in rows}
    rows += [
        PermitRow(name=name, room=0, because="kept out", isolated=True)
        for name in sorted(out - known)
    ]
    shown = [one for one in rows if one.name != OTHER or one.room or one.odds]
    return tuple(sorted(shown, key=lambda one: (one.capped, one.isolated, one.name)))


# ---------------------------------------------------------------------- what it is measured by


def _normal(normal: Mapping[str, int], extra_ppm: int) -> tuple[NormalRow, ...]:
    ordered = sorted(normal.items(), key=lambda one: (one[0] == OTHER, one[0]))
    return tuple(
        NormalRow(
            "all others"
            if name == OTHER and len(ordered) > 1
            else "every device"
            if name == OTHER
            else name,
            ppm / MILLION,
            (ppm + extra_ppm) / MILLION,
        )
        for name, ppm in ordered
    )


def _gaps(gate: GateFacts) -> tuple[str, ...]:
    """Say what cannot be proved in a fleet of this size."""
    fleet = words.plural(gate.devices, "device")
    if gate.least_visible_ppm is None:
        return (
            f"{fleet}: too few for any odds to stop it before everybody has it, even if every one of them failed. A person decides.",
        )
    small = gate.least_visible_ppm >= _SMALL_PPM
    said = f"In {fleet} fewer than {_pct(gate.least_visible_ppm)} failures would pass unseen."
    return (f"{said} Only gross failures can be proved in so few.",) if small else (said,)
