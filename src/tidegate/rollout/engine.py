"""What should happen next to a rollout: `plan(rollout, evidence, now)`. A pure function; the same arguments give the same plan.

The order of one decision:

1. **State.** A rollout that has not begun, is halted, is being brought back or has ended is left as it is. Nobody but a person makes it go on.
2. **Guards**, and the gates of rings that find harm, over everything known (`rollout.isolation`), beside the odds of the evidence gate where somebody weighs
   it: they halt, isolate a variant, or stop permits until it is clear which. This is done for `active`, `paused` and `completed`: late evidence halts a
   rollout that was done.
3. **Held**: evidence stands that can neither stop the rollout nor let it go on (`evidence.held`). Nothing opens or completes; a person decides.
4. **Rings**, only while `active` and nothing is wrong: one step at a time. The first ring that has not passed opens; when every gate of its step
   passes, its next step opens, or it has passed and the next ring opens. A ring without devices is skipped. Never is more than one step opened in one plan.
5. **Completion.** When all rings have passed, no permit's outcome is open, to the counts or to the evidence, and everybody has an outcome or nobody has asked
   for a permit for as long as a device may be silent before it counts as lost (at the latest a month after the last step). Devices that do not show up hold
   nothing up; a completed rollout still serves them when they come back, under the same guards. Who waits for leave while a soak gate of the evidence is
   shut has shown up. Where nobody has activated and somebody still may, nothing is complete, however long that takes: all are offline, wait
   for a window, or fail to fetch it.
6. **Room** for permits (`rollout.admission`).

A plan never opens anything in the decision that halts or isolates. Every plan says `because`: what decided comes first.
"""

import sys
from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from tidegate.core.amounts import format_duration, format_share
from tidegate.core.errors import RequestError
from tidegate.rollout import admission, gates, holdback, isolation
from tidegate.rollout import tally as sums
from tidegate.rollout.admission import Admission
from tidegate.rollout.gates import Gate
from tidegate.rollout.gates.evidence import Weighed, held
from tidegate.rollout.model import (
    Evidence,
    Finding,
    Plan,
    Policy,
    RingProgress,
    RingSpec,
    Rollout,
    RolloutState,
    Tally,
    Verdict,
)
from tidegate.rollout.states import Verb, transition, verbs_of
from tidegate.rollout.view import View

__all__ = [
    "Verb",
    "check",
    "first_rings",
    "passed_by_hand",
    "plan",
    "reopened",
    "transition",
    "verbs_of",
]

_RESTING: Final[Mapping[RolloutState, str]] = {
    "draft": "not started: it is a draft",
    "awaiting_approval": "not started: another person has to approve it",
    "scheduled": "not started: its time has not come",
    "halted": "halted: nothing goes on by itself, a person decides",
    "falling_back": "halted, and its devices are being brought back",
    "cancelled": "cancelled",
    "superseded": "superseded by a newer release",
}
_PAUSED: Final = "paused by a person: nothing opens and no permit is given"
_COMPLETED: Final = "completed: newcomers are served, and late harm would still halt it"
#: How the finding of a step that opens ends.
_OPENS: Final = " opens"
_DONE: Final = frozenset({"passed", "skipped"})
#: The longest a completed audience is waited for: who was not seen for a month is not counted on.
_TAIL_S: Final = 30 * 86_400


def plan(
    rollout: Rollout,
    evidence: Evidence,
    now: int,
    admissions: tuple[Admission, ...] | None = None,
) -> Plan:
    """Decide what happens next.

    Args:
        rollout: as it stands, at its generation.
        evidence: all that is known, isolated variants included.
        now: unix seconds.
        admissions: bounds on permits; None = those of the policy.

    Returns:
        The whole next state, to be applied onto `rollout.generation` only. `room` and `because` are to be stored even when `changed` is false.

    Raises:
        RequestError: `request.invalid`: the policy names a gate or setting that does not exist (it is checked when a rollout is made).
    """
    rings = _all_rings(rollout)
    if rollout.state in _RESTING:
        return _rest(rollout, rings)
    weighing = _weighing(rollout.policy, evidence)
    stoppers = _stoppers(rollout.policy, weighing.replaces if weighing else frozenset())
    judgement = isolation.judge(stoppers, evidence, rollout.isolated, now)
    if weighing is not None and evidence.weighed is not None:
        weighed = weighing.findings(evidence.weighed)
        judgement = isolation.joined(judgement, evidence.weighed, weighed, rollout.isolated)
    if judgement.verdict == "halt":
        return _halt(rollout, rings, judgement.findings)
    kept = _kept(rollout, evidence)
    if judgement.verdict == "isolate":
        return _isolate(rollout, rings, judgement)
    if judgement.verdict == "pending":
        return _made(rollout, "hold", rings, judgement.findings, room=0)
    bounds = admission.of_policy(rollout.policy) if admissions is None else admissions
    room, bound = admission.least(bounds, rollout, evidence, now)
    rooms = None
    if weighing is not None and evidence.weighed is not None:
        rooms = evidence.weighed.permits
        room = min(sum(rooms.values()), sys.maxsize if room is None else room)
    if rollout.state == "paused":
        said: tuple[Finding, ...] = (_state(_PAUSED), *judgement.findings)
        return _made(rollout, "hold", rings, said, room=0)
    if evidence.weighed is not None and (stands := held(evidence.weighed)) is not None:
        said = (stands, *judgement.findings, *bound)
        plan = _made(rollout, "hold", rings, said, room=room, rooms=rooms)
        return msgspec.structs.replace(plan, held=evidence.weighed.held)
    if rollout.state == "completed":
        said = (_state(_COMPLETED), *judgement.findings, *bound)
        return _made(rollout, "hold", rings, said, room=room, rooms=rooms)
    verdict, rings, findings = _advance(rollout, rings, kept, now)
    because = (*findings, *judgement.findings, *bound)
    return _made(rollout, verdict, rings, because, room=room, rooms=rooms)


def first_rings(policy: Policy) -> tuple[RingProgress, ...]:
    """Return the progress of a rollout that has not begun: every ring waits."""
    return tuple(RingProgress() for _ in policy.rings)


def reopened(rings: tuple[RingProgress, ...], now: int) -> tuple[RingProgress, ...]:
    """Return the rings for a rollout that resumes after a halt: what failed is open again at its step, and soaks anew."""
    return tuple(
        msgspec.structs.replace(one, state="open", step=max(0, one.step), opened_at=now)
        if one.state == "failed"
        else one
        for one in rings
    )


def passed_by_hand(rollout: Rollout, evidence: Evidence, now: int) -> tuple[RingProgress, ...]:
    """Return the rings after a person let the present step pass without its gates (`rollout advance`); guards stay in force.

    Raises:
        RequestError: `request.conflict`: the rollout is not active, or no ring is open.
    """
    rings = _all_rings(rollout)
    index = _present(rings)
    if rollout.state != "active" or index is None or rings[index].state == "waiting":
        raise RequestError("request.conflict", "no ring is open")
    return _stepped(rings, index, rollout.policy.rings[index], _kept(rollout, evidence), now)


def check(policy: Policy) -> None:
    """Check that every gate of a policy can be loaded, that steps rise, and that something is waited for before more opens.

    Raises:
        RequestError: `request.invalid`, naming ring, gate and setting.
    """
    for spec in policy.guards:
        if not gates.of_spec(spec, "guards").stops:
            detail = f"guards, gate {spec.gate}: it only waits; guards must find harm"
            raise RequestError("request.invalid", detail)
    seen: set[str] = set()
    for ring in policy.rings:
        if ring.name in seen:
            raise RequestError("request.invalid", f'ring "{ring.name}" stands there twice')
        seen.add(ring.name)
        rising = all(one < two for one, two in zip(ring.shares, ring.shares[1:], strict=False))
        if not rising or ring.shares[0] == 0:
            raise RequestError(
                "request.invalid", f"ring {ring.name}: steps must rise, from over 0%"
            )
        loaded = [gates.of_spec(spec, f"ring {ring.name}") for spec in ring.gates]
        last = ring is policy.rings[-1]
        # What is held back has its own step, and waits by itself.
        more = len(ring.shares) > (2 if last and policy.holdback_bp else 1) or not last
        if more and all(gate.stops for gate in loaded):
            detail = f"ring {ring.name}: nothing holds its next step back; give it a soak, a minimum_sample or an approval"
            raise RequestError("request.invalid", detail)


def _weighing(policy: Policy, evidence: Evidence) -> Weighed | None:
    """Return the guard that weighs evidence, where the policy has one and somebody does."""
    if evidence.weighed is None:
        return None
    loaded = (gates.of_spec(spec, "guards") for spec in policy.guards if spec.gate == "evidence")
    return next((gate for gate in loaded if isinstance(gate, Weighed)), None)


def _stoppers(policy: Policy, replaced: Collection[str]) -> list[tuple[str, Gate]]:
    """Return every gate that finds harm, with the ring whose outcomes it judges (empty = all). Guards that evidence replaces are left out."""
    out = {"evidence", *replaced}
    found = [("", gates.of_spec(spec, "guards")) for spec in policy.guards if spec.gate not in out]
    for ring in policy.rings:
        found += [(ring.name, gates.of_spec(spec, f"ring {ring.name}")) for spec in ring.gates]
    return [(ring, gate) for ring, gate in found if gate.stops]


def _kept(rollout: Rollout, evidence: Evidence) -> Evidence:
    """Return the evidence of the variants that are still in."""
    variants = {variant for _, variant in evidence.tallies} - set(rollout.isolated)
    kept = sums.only(evidence, variants=variants)
    return msgspec.structs.replace(kept, weighed=evidence.weighed)


def _rest(rollout: Rollout, rings: tuple[RingProgress, ...]) -> Plan:
    return _made(rollout, "hold", rings, (_state(_RESTING[rollout.state]),), room=0)


def _halt(rollout: Rollout, rings: tuple[RingProgress, ...], findings: tuple[Finding, ...]) -> Plan:
    failed = tuple(
        msgspec.structs.replace(one, state="failed") if one.state in {"open", "soaking"} else one
        for one in rings
    )
    return _made(rollout, "halt", failed, findings, state="halted", room=0)


def _isolate(
    rollout: Rollout, rings: tuple[RingProgress, ...], judgement: isolation.Judgement
) -> Plan:
    """Let the variants leave. Nothing opens in this decision, and no permit is given until the next one has looked at those who stay."""
    return _made(rollout, "isolate", rings, judgement.findings, isolate=judgement.isolate, room=0)


def _advance(
    rollout: Rollout, rings: tuple[RingProgress, ...], kept: Evidence, now: int
) -> tuple[Verdict, tuple[RingProgress, ...], tuple[Finding, ...]]:
    """Move the first ring that has not passed by at most one step."""
    rings, notes = _skip_empty(rollout, rings, kept, now)
    index = _present(rings)
    if index is None:
        return _complete(rollout, rings, kept, now, notes)
    spec, progress = rollout.policy.rings[index], rings[index]
    if progress.state == "waiting":
        opened = _replaced(rings, index, _progress(spec, 0, kept, now))
        return "advance", opened, (_opened(spec, 0), *notes)
    findings = _judge_step(rollout, rings, index, kept, now)
    missing = tuple(finding for finding in findings if not finding.passed)
    if missing:
        soaking = all(finding.opens_at is not None for finding in missing)
        state = "soaking" if soaking or progress.state == "soaking" else "open"
        marked = _replaced(rings, index, msgspec.structs.replace(progress, state=state))
        return "hold", marked, (_waits(spec, progress, missing), *missing, *notes)
    stepped = _stepped(rings, index, spec, kept, now)
    said = _passed(spec, progress, kept)
    if stepped[index].state != "passed":
        return "advance", stepped, (said, _opened(spec, stepped[index].step), *findings, *notes)
    return _open_next(rollout, stepped, kept, now, (said, *findings, *notes))


def _open_next(
    rollout: Rollout,
    rings: tuple[RingProgress, ...],
    kept: Evidence,
    now: int,
    notes: tuple[Finding, ...],
) -> tuple[Verdict, tuple[RingProgress, ...], tuple[Finding, ...]]:
    """Open the ring behind one that has just passed, if there is one with devices."""
    rings, skipped = _skip_empty(rollout, rings, kept, now)
    index = _present(rings)
    if index is None:
        verdict, rings, findings = _complete(rollout, rings, kept, now, (*notes, *skipped))
        return ("advance" if verdict == "hold" else verdict), rings, findings
    spec = rollout.policy.rings[index]
    opened = _replaced(rings, index, _progress(spec, 0, kept, now))
    return "advance", opened, (_opened(spec, 0), *notes, *skipped)


def _complete(
    rollout: Rollout,
    rings: tuple[RingProgress, ...],
    kept: Evidence,
    now: int,
    notes: tuple[Finding, ...],
) -> tuple[Verdict, tuple[RingProgress, ...], tuple[Finding, ...]]:
    """Say whether a rollout whose rings have all passed is complete."""
    tally = sums.total(kept)
    opened = max((ring.opened_at for ring in rings), default=0)
    silent_s = rollout.policy.deadlines.return_s + rollout.policy.deadlines.confirm_s
    ages = kept.weighed.ages if kept.weighed is not None and tally.staged else ()
    soak_s = max((one.age_s for one in ages), default=0)
    quiet_at = min(max(opened, tally.last_permit_at + soak_s) + silent_s, opened + _TAIL_S)
    left = max(0, tally.audience - tally.ended)
    pending = tally.pending
    if kept.weighed is not None and tally.lost and now < quiet_at:
        # Who counts as lost may still be waited for: silence is judged at a deadline of the evidence's own.
        pending = max(pending, kept.weighed.pending)
    if pending:
        what = "permit" if pending == 1 else "permits"
        text = f"all rings have passed; the outcome of {pending:,} {what} is open"
        return "hold", rings, (Finding(gate="completion", passed=False, text=text), *notes)
    if left and now < quiet_at and any(one.room is not None for one in ages):
        text = (
            f"all rings have passed; {tally.staged:,} devices wait for leave until more is proved"
        )
        return "hold", rings, (Finding(gate="completion", passed=False, text=text), *notes)
    if not tally.attempts and left + tally.unstarted + tally.transfer:
        text = (
            f"all rings are open, and nobody has activated yet: {_missing(tally, left, tried=True)}"
        )
        return "hold", rings, (Finding(gate="completion", passed=False, text=text), *notes)
    if left and now < quiet_at:
        text = (
            f"all rings are open; {_missing(tally, left)}: complete when all have, "
            f"or when nobody has activated for {format_duration(silent_s)}"
        )
        waits = Finding(
            gate="completion", passed=False, text=text, observed=left, opens_at=quiet_at
        )
        return "hold", rings, (waits, *notes)
    text = f"complete: {tally.confirmed:,} devices confirmed"
    if left:
        text += f"; {_missing(tally, left)} and are served when they do"
    return "complete", rings, (Finding(gate="completion", passed=True, text=text), *notes)


def _missing(tally: Tally, left: int, *, tried: bool = False) -> str:
    """Say where those stand that have not activated; `tried`: and those that ended for a fault of the way, who may be offered it again."""
    staged = min(left, tally.staged)
    downloading = min(left - staged, tally.downloading)
    parts = (
        (left - staged - downloading, "have not come yet"),
        (tally.unstarted if tried else 0, "never began or never finished"),
        (tally.transfer if tried else 0, "failed to download it"),
        (downloading, "are downloading"),
        (staged, "have it staged and wait"),
    )
    first, *more = (f"{count:,} {what}" for count, what in parts if count)
    return ", ".join((first.replace(" ", " devices ", 1), *more))


def _skip_empty(
    rollout: Rollout, rings: tuple[RingProgress, ...], kept: Evidence, now: int
) -> tuple[tuple[RingProgress, ...], tuple[Finding, ...]]:
    """Skip waiting rings without devices, up to the first that has some. Nothing is skipped before audiences were counted."""
    notes: list[Finding] = []
    if not _counted(kept):
        return rings, ()
    for index, spec in enumerate(rollout.policy.rings):
        if rings[index].state in _DONE:
            continue
        tally = sums.total(kept, rings={spec.name})
        if rings[index].state != "waiting" or tally.audience or tally.attempts:
            break
        rings = _replaced(rings, index, RingProgress(state="skipped", opened_at=now))
        text = f"ring {spec.name} is skipped: no device of the rollout is in it"
        notes.append(Finding(gate="ring", passed=True, text=text, ring=spec.name))
    return rings, tuple(notes)


def _judge_step(
    rollout: Rollout, rings: tuple[RingProgress, ...], index: int, kept: Evidence, now: int
) -> tuple[Finding, ...]:
    """Ask every gate of the ring about its present step."""
    spec, progress = rollout.policy.rings[index], rings[index]
    view = View(
        evidence=sums.only(kept, rings={spec.name}),
        ring=spec.name,
        progress=progress,
        added_bp=_added_bp(spec, progress.step),
        approved_by=frozenset(
            one.by
            for one in rollout.approvals
            if (one.ring, one.step) == (spec.name, progress.step)
        ),
        last_step=progress.step + 1 >= len(spec.shares) and index + 1 == len(rings),
        audience_known=_counted(kept),
    )
    judged = (gates.of_spec(gate, f"ring {spec.name}").judge(view, now) for gate in spec.gates)
    return (*judged, *holdback.judge(rollout.policy, index, progress, now))


def _added_bp(spec: RingSpec, step: int) -> int:
    """Return the share that a step adds to the one before it."""
    at = min(max(step, 0), len(spec.shares) - 1)
    return spec.shares[at] - (spec.shares[at - 1] if at else 0)


def _counted(evidence: Evidence) -> bool:
    return any(tally.audience for tally in evidence.tallies.values())


def _progress(spec: RingSpec, step: int, evidence: Evidence, now: int) -> RingProgress:
    """Return the progress of a step that opens now, with what the ring has had before."""
    before = {
        variant: (tally.attempts, tally.ended, tally.confirmed)
        for (ring, variant), tally in sorted(evidence.tallies.items())
        if ring == spec.name and (tally.attempts or tally.ended)
    }
    return RingProgress(state="open", step=step, opened_at=now, before=before)


def _stepped(
    rings: tuple[RingProgress, ...], index: int, spec: RingSpec, evidence: Evidence, now: int
) -> tuple[RingProgress, ...]:
    """Return the rings with the present one a step further, or passed after its last step."""
    progress = rings[index]
    if progress.step + 1 < len(spec.shares):
        return _replaced(rings, index, _progress(spec, progress.step + 1, evidence, now))
    return _replaced(rings, index, msgspec.structs.replace(progress, state="passed"))


def _present(rings: tuple[RingProgress, ...]) -> int | None:
    return next((index for index, one in enumerate(rings) if one.state not in _DONE), None)


def _all_rings(rollout: Rollout) -> tuple[RingProgress, ...]:
    """Return one progress a ring, also for a rollout that was stored without any."""
    missing = len(rollout.policy.rings) - len(rollout.rings)
    return (*rollout.rings, *(RingProgress() for _ in range(missing)))


def _replaced(
    rings: tuple[RingProgress, ...], index: int, progress: RingProgress
) -> tuple[RingProgress, ...]:
    return (*rings[:index], progress, *rings[index + 1 :])


def _state(text: str) -> Finding:
    return Finding(gate="state", passed=False, text=text)


def _step_name(spec: RingSpec, step: int) -> str:
    return (
        f"ring {spec.name}"
        if len(spec.shares) == 1
        else (
            f"ring {spec.name} at {format_share(spec.shares[min(max(step, 0), len(spec.shares) - 1)])}"
        )
    )


def opens(finding: Finding) -> bool:
    """Say whether a finding says that a ring's next step opens."""
    return finding.gate == "ring" and finding.passed and finding.text.endswith(_OPENS)


def _opened(spec: RingSpec, step: int) -> Finding:
    text = f"{_step_name(spec, step)}{_OPENS}"
    return Finding(gate="ring", passed=True, text=text, ring=spec.name)


def _passed(spec: RingSpec, progress: RingProgress, kept: Evidence) -> Finding:
    text = f"{_step_name(spec, progress.step)} has passed"
    if not sums.total(kept, rings={spec.name}).attempts:
        # It asks for no proof, or for a person's word alone: nothing has been tried in it, so nothing was passed.
        text = f"{_step_name(spec, progress.step)} holds nothing back any more, though nothing was tried in it yet"
    return Finding(gate="ring", passed=True, text=text, ring=spec.name)


def _waits(spec: RingSpec, progress: RingProgress, missing: tuple[Finding, ...]) -> Finding:
    names = ", ".join(dict.fromkeys(finding.gate for finding in missing))
    times = [finding.opens_at for finding in missing]
    known = [when for when in times if when is not None]
    return Finding(
        gate="ring",
        passed=False,
        text=f"{_step_name(spec, progress.step)} waits for {names}",
        ring=spec.name,
        opens_at=max(known) if len(known) == len(times) else None,
    )


def _made(
    rollout: Rollout,
    verdict: Verdict,
    rings: tuple[RingProgress, ...],
    because: tuple[Finding, ...],
    *,
    room: int | None,
    state: RolloutState | None = None,
    isolate: tuple[str, ...] = (),
    rooms: dict[str, int] | None = None,
) -> Plan:
    after = state or ("completed" if verdict == "complete" else rollout.state)
    differs = after != rollout.state or rings != rollout.rings or bool(isolate)
    return Plan(
        parent_generation=rollout.generation,
        verdict=verdict,
        state=after,
        rings=rings,
        isolate=isolate,
        room=room,
        because=because,
        changed=differs,
        rooms=rooms,
    )
