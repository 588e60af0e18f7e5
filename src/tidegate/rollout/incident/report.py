"""Puts an incident's report together from what is known. Nothing is guessed: what nobody has said or seen yet is listed as missing."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median_low
from typing import Final

import msgspec

from tidegate.core.reasons import REASONS
from tidegate.rollout import tally as sums
from tidegate.rollout.contrast import ContrastTable
from tidegate.rollout.contrast import Counts as Contrasting
from tidegate.rollout.incident.looks import BAD, looks
from tidegate.rollout.incident.model import (
    LISTED_MAX,
    Counts,
    DeviceLog,
    DeviceOutcome,
    Entry,
    Fleet,
    FollowUp,
    Incident,
    IncidentReport,
    Move,
    Passage,
    Reach,
    Reason,
    Rhythm,
    Share,
    Shown,
    Stood,
    Stopped,
    Told,
    WayBack,
    Written,
)
from tidegate.rollout.incident.wording import counted
from tidegate.rollout.model import Evidence, Finding, Rollout, Tally

#: States after the permit and before an outcome: the device may already run it, whatever is decided now.
PAST_RETURN: Final = frozenset({"permitted", "rebooting", "verifying"})
#: What a cause lacks that only counts speak for.
UNSHOWN: Final = (
    "what shows the cause otherwise than the counts: a log, a test on a bench, code that was read"
)
#: Kinds that a gate may open by itself: its looks tell why.
_BY_GATE: Final = frozenset({"halt", "isolation", "held"})
#: Kinds after which somebody has to decide whether the release is recalled: it may go out again as it is.
RECALL_ASKED: Final = frozenset({"halt", "fallback"})
#: Attributes that are compared before a device's own; the hardware variant leads where several say as much.
COMPARED_FIRST: Final = ("variant", "from", "ring", "region", "site", "connectivity")


def build(  # noqa: PLR0913 - the parts of a report
    incident: Incident,
    *,
    now: int = 0,
    rollout: Rollout | None = None,
    version: str = "",
    because: tuple[Finding, ...] = (),
    evidence: Evidence | None = None,
    devices: Sequence[DeviceOutcome] = (),
    partial: bool = False,
    stopped: Stopped = Stopped(),  # noqa: B008 - frozen
    versions: Mapping[int, str] | None = None,
    entries: Sequence[Entry] = (),
    logs: Sequence[DeviceLog] = (),
    hypothesis: Written | None = None,
    actions: Sequence[Written] = (),
    followups: Sequence[FollowUp] = (),
    product: str = "",
    last_bad: DeviceOutcome | None = None,
    running: int = -1,
    ways_back: Sequence[WayBack] = (),
    told: Told | None = None,
    cause: Written | None = None,
    fleet: Fleet | None = None,
    recalled_at: int = 0,
    evidence_of: Sequence[Shown] = (),
    bars: Mapping[int, Sequence[str]] | None = None,
    rhythm: Rhythm | None = None,
    warmup_s: int = 0,
    cancelled: Sequence[DeviceOutcome] = (),
    recalled_by: str = "",
    recall_reason: str = "",
    pages: Sequence[Stood] = (),
    members: Mapping[tuple[str, str], int] | None = None,
) -> IncidentReport:
    """Put an incident's report together.

    Args:
        incident: what it is.
        now: when the report is made, unix seconds.
        rollout: as it stands now; None where the incident belongs to none.
        version: of its release.
        because: the findings that led to it.
        evidence: of the rollout, now.
        devices: that acted on the release, those that ended badly first in order of time; a large fleet passes a part of the others.
        partial: whether `devices` are not all.
        stopped: updates that had not begun to activate.
        versions: release counter → version, of releases that devices came from.
        entries: the timeline in any order; untrusted text.
        logs: scrubbed; untrusted text.
        hypothesis: the newest.
        actions: corrective ones.
        followups: what is left to do.
        product: of the release.
        last_bad: the device that ended badly last, where `devices` are not all.
        running: devices that run the release now; -1 = not counted.
        ways_back: rollouts that bring devices back.
        told: what the status page says.
        cause: proved, and how.
        fleet: whom the rollout was for.
        recalled_at: of the release; 0 = it was not.
        evidence_of: what shows the cause otherwise than by counts.
        bars: what gates that stop said at the moments at which the gate wrote down what it did, by unix seconds.
        rhythm: when the gate looks.
        warmup_s: of the release's health contract; 0 = not known.
        cancelled: the first devices that were cancelled before they began to activate.
        recalled_by: who recalled the release; empty = nobody knows.
        recall_reason: why.
        pages: every text that stood on the status page, in order.
        members: how many devices each (ring, variant) holds now; None = nobody counted.
    """
    subject = incident.subject
    known = evidence or Evidence()
    tally = sums.total(known, variants={subject} if subject else None)
    ordered = _once(sorted(entries, key=lambda entry: entry.at))
    within = [one for one in devices if not subject or one.variant == subject]
    out = [] if partial else _out(incident, within)
    reach = msgspec.structs.replace(
        _reach(rollout, known, tally, within, stopped, versions or {}, subject, members),
        cancelled=tuple(cancelled[:LISTED_MAX]),
        out=tuple(out[:LISTED_MAX]),
        out_count=len(out),
    )
    if last_bad is not None and partial and subject in ("", last_bad.variant):
        reach = msgspec.structs.replace(reach, last=last_bad)
    return IncidentReport(
        at=now,
        incident=incident,
        title=_title(incident),
        figures=_figures(incident, tally, sum(one.back for one in ways_back)),
        state=rollout.state if rollout else "",
        version=version,
        reach=reach,
        because=because,
        # All devices are compared, not those of the subject alone: what sets it apart is the question.
        contrast=_contrast(devices, partial=partial),
        hypothesis=hypothesis,
        decisions=tuple(one for one in ordered if one.kind == "decision"),
        timeline=ordered,
        logs=tuple(logs),
        actions=tuple(actions),
        followups=tuple(followups),
        missing=tuple(
            _missing(
                incident,
                tally,
                because,
                (hypothesis, cause, evidence_of),
                actions,
                followups,
                now,
                recalled_at,
            )
        ),
        product=product,
        started_at=rollout.started_at if rollout else 0,
        first_bad_at=reach.first.at if reach.first else 0,
        last_bad_at=reach.last.at if reach.last else 0,
        running=running,
        ways_back=tuple(ways_back),
        told=told,
        cause=cause,
        fleet=fleet,
        recalled_at=recalled_at,
        evidence=tuple(evidence_of),
        looks=looks(
            [one for one in ordered if one.at <= incident.opened_at], within, rollout, bars or {}
        )
        if incident.kind in _BY_GATE and not partial
        else (),
        rhythm=rhythm if incident.kind in _BY_GATE else None,
        passages=tuple(_passages(within)),
        warmup_s=warmup_s,
        recalled_by=recalled_by,
        recall_reason=recall_reason,
        pages=tuple(pages),
    )


def _once(ordered: Sequence[Entry]) -> tuple[Entry, ...]:
    """Leave out a line that only repeats what a decision of the same moment says in more words."""
    decided = {(one.at, one.text.partition(": ")[2]) for one in ordered if one.kind == "decision"}
    return tuple(one for one in ordered if (one.at, one.text) not in decided)


def _out(incident: Incident, devices: Sequence[DeviceOutcome]) -> list[DeviceOutcome]:
    """Return the devices that had leave to activate and no outcome yet when it was stopped."""
    if incident.kind not in {"halt", "isolation"}:
        return []
    stop = incident.opened_at
    found = [
        one
        for one in devices
        if 0 < one.permitted_at <= stop and (one.state in PAST_RETURN or one.at > stop)
    ]
    return sorted(found, key=lambda one: (one.permitted_at, one.device))


def _passages(devices: Sequence[DeviceOutcome]) -> Iterator[Passage]:
    """Yield how long it took from permit to outcome; what fell into one second of the clock was not measured."""
    for state in ("confirmed", "reverted"):
        took = [
            one.at - one.permitted_at
            for one in devices
            if one.state == state and 0 < one.permitted_at < one.at
        ]
        if took:
            yield Passage(
                state=state,
                count=len(took),
                shortest_s=min(took),
                median_s=median_low(took),
                longest_s=max(took),
            )


def count(tally: Tally) -> Counts:
    """Return the counts of a report."""
    return Counts(
        audience=tally.audience,
        attempts=tally.attempts,
        exposed=tally.exposed,
        confirmed=tally.confirmed,
        harmed=tally.harmed,
        reverted=tally.reverted,
        failed=tally.failed_after + tally.install,
        lost=tally.lost,
        open=tally.pending,
        untouched=max(0, tally.audience - tally.attempts),
    )


def _reach(
    rollout: Rollout | None,
    evidence: Evidence,
    tally: Tally,
    within: Sequence[DeviceOutcome],
    stopped: Stopped,
    versions: Mapping[int, str],
    subject: str,
    members: Mapping[tuple[str, str], int] | None,
) -> Reach:
    bad = sorted((one for one in within if one.state in BAD), key=lambda one: (one.at, one.device))
    isolated = rollout.isolated if rollout else ()
    rings = [ring.name for ring in rollout.policy.rings] if rollout else []
    scope = {subject} if subject else None
    reasons = sorted(tally.reasons.items(), key=lambda item: (-item[1], item[0]))
    return Reach(
        counts=count(tally),
        stopped=stopped,
        reasons=tuple(
            Reason(code=code, text=REASONS.get(code, ""), count=found) for code, found in reasons
        ),
        variants=tuple(
            Share(
                name=one,
                counts=count(sums.total(evidence, variants={one})),
                isolated=one in isolated,
            )
            for one in sums.variants_of(evidence)
        ),
        rings=tuple(
            Share(
                name=one,
                counts=count(sums.total(evidence, rings={one}, variants=scope)),
                variants={
                    variant: tally.attempts
                    for (ring, variant), tally in sorted(evidence.tallies.items())
                    if ring == one and tally.attempts and (scope is None or variant in scope)
                },
                members=None
                if members is None
                else {
                    variant: devices
                    for (ring, variant), devices in sorted(members.items())
                    if ring == one and devices
                },
            )
            for one in rings
        ),
        moves=_moves(within, versions),
        first=bad[0] if bad else None,
        last=bad[-1] if bad else None,
        past_return=tuple(one for one in within if one.state in PAST_RETURN)[:LISTED_MAX],
        affected=tuple(bad[:LISTED_MAX]),
    )


def _moves(devices: Sequence[DeviceOutcome], versions: Mapping[int, str]) -> tuple[Move, ...]:
    counted: dict[int, list[int]] = {}
    for one in devices:
        pair = counted.setdefault(one.from_counter, [0, 0])
        pair[0] += 1
        pair[1] += one.state in BAD
    return tuple(
        Move(
            from_counter=counter,
            from_version=versions.get(counter, ""),
            attempts=attempts,
            harmed=harmed,
        )
        for counter, (attempts, harmed) in sorted(counted.items(), reverse=True)
    )


def _contrast(devices: Sequence[DeviceOutcome], *, partial: bool) -> ContrastTable:
    """Compare only devices whose outcome is known; an open one is neither good nor bad."""
    counts = Contrasting(COMPARED_FIRST)
    for one in devices:
        if one.state == "confirmed" or one.state in BAD:
            known = {"variant": one.variant, "ring": one.ring}
            counts.add({**one.attributes, **known}, bad=one.state in BAD)
    return counts.table(partial=partial)


def _title(incident: Incident) -> str:
    what = incident.release or incident.rollout or incident.name
    return {
        "halt": f"{what} halted",
        "isolation": f"{incident.subject} isolated in {incident.rollout}",
        "held": f"{what} waits for a decision",
        "fallback": f"{what} brought back",
        "manual": incident.summary.partition("\n")[0] or what,
    }[incident.kind]


def _figures(incident: Incident, tally: Tally, back: int) -> str:
    """Say the counts as a sentence."""
    on = f" on {incident.subject}" if incident.subject else ""
    if not tally.attempts:
        return f"No device had acted on {incident.release}{on}." if incident.release else ""
    parts = [
        f"{tally.harmed:,} of {tally.attempts:,} devices that acted on {incident.release}{on} ended badly",
        f"{tally.reverted:,} went back by themselves",
        f"{tally.failed_after + tally.install:,} failed before they booted it, or for good",
        f"{tally.lost:,} were lost",
        f"{tally.confirmed:,} confirmed it then"
        + (f" ({back:,} of them were since brought back)" if 0 < back <= tally.confirmed else ""),
    ]
    if back > tally.confirmed:
        parts.append(f"{back:,} that ran it were since brought back")
    if tally.pending:
        parts.append(f"the outcome of {tally.pending:,} is open")
    return ", ".join(parts) + "."


def _missing(
    incident: Incident,
    tally: Tally,
    because: tuple[Finding, ...],
    causes: tuple[Written | None, Written | None, Sequence[Shown]],
    actions: Sequence[Written],
    followups: Sequence[FollowUp],
    now: int,
    recalled_at: int,
) -> Iterator[str]:
    if not because and not incident.summary:
        yield "what happened, in a sentence"
    if not incident.owner:
        yield "an owner"
    if tally.pending:
        yield f"the outcome of {counted(tally.pending, 'device')} past the point of no return"
    if tally.lost:
        yield f"what became of {counted(tally.lost, 'lost device')}"
    hypothesis, cause, evidence_of = causes
    if cause is None:
        yield "a hypothesis of the cause" if hypothesis is None else "a proof of the supposed cause"
    elif not evidence_of:
        yield UNSHOWN
    if any(not one.kept for one in evidence_of):
        yield "where the evidence of the cause is kept"
    if not actions:
        yield "a corrective action"
    asked = any(one.about == "recall" for one in followups)
    if incident.kind in RECALL_ASKED and incident.release and not recalled_at and not asked:
        yield f"who decides until when whether {incident.release} is recalled"
    late = sum(bool(one.overdue_s(now)) for one in followups)
    if late:
        yield f"{counted(late, 'follow-up')} that {'is' if late == 1 else 'are'} overdue"
    undated = sum(not one.due_at and not one.done_at for one in followups)
    if undated:
        yield f"until when {counted(undated, 'follow-up')} {'is' if undated == 1 else 'are'} done"
