"""The moves of the machine from the permit on: arm, try, confirm, go back; and what people may ask for. Pure.

A move that does not fit the present phase returns the state it was given, so that a late or repeated answer changes nothing.
"""

from typing import Final

import msgspec

from tidegate.agent import ahead, places
from tidegate.agent.events import (
    ApplyAsked,
    Armed,
    Checked,
    Committed,
    ConfirmAsked,
    DeferAsked,
    Event,
    HoldAsked,
    Looked,
    PermitRefused,
    Permitted,
    ProbeResult,
    ReleaseAsked,
    RevertAsked,
)
from tidegate.agent.ledger import (
    digest,
    end,
    failed_for_good,
    other_slot,
    record_of,
    refuse,
    report,
    return_ahead,
    spend_grant,
    with_slot,
)
from tidegate.agent.state import (
    Activating,
    Confirming,
    Defer,
    Downloading,
    Hold,
    Idle,
    Installing,
    Reverting,
    SlotRecord,
    Staged,
    State,
    Testing,
    Update,
    Wait,
)
from tidegate.core.protocol import PERMIT_VALID_S, CheckResult
from tidegate.core.release import HealthContract, ReleaseTarget

_replace = msgspec.structs.replace
#: Checks told in one report: the limit of `protocol.EventBody.health`.
RESULTS_MAX: Final = 64


def give_up(state: State, event: Event) -> State:
    """Leave a circle: fail before activation, go back after it."""
    now = getattr(event, "now", 0)
    phase = state.phase
    detail = f"no progress after many steps while {type(phase).__name__.lower()}"
    if isinstance(phase, Testing | Confirming) or (
        isinstance(phase, Activating) and (phase.armed or phase.begun > 0)
    ):
        return revert(state, phase.update, "agent.loop", detail)
    return failed_for_good(state, now, "agent.loop", detail)


# --- activation -------------------------------------------------------------------------------------------------------


def permitted(state: State, event: Permitted) -> State:
    """Take the leave, if it answers the open question and comes in time."""
    phase = state.phase
    if isinstance(phase, Staged) and phase.ahead is not None and phase.ahead.nonce == event.nonce:
        return ahead.granted(state, event)
    if not isinstance(phase, Staged) or phase.nonce != event.nonce:
        return state
    state = return_ahead(state, event.now)
    late = event.mono - phase.nonce_mono > PERMIT_VALID_S or phase.nonce_boot != state.boot_id
    if late or state.hold is not None or phase.halted:
        return give_back(state, event.now, phase.update, phase.nonce)
    after = Activating(
        update=phase.update,
        nonce=phase.nonce,
        nonce_mono=phase.nonce_mono,
        nonce_boot=phase.nonce_boot,
        staged_at=phase.staged_at,
    )
    return _replace(state, phase=after, wait=None)


def permit_refused(state: State, event: PermitRefused) -> State:
    """No leave: the slot stays inert, and the question is asked again later."""
    phase = state.phase
    if not isinstance(phase, Staged):
        return state
    if phase.ahead is not None and phase.ahead.nonce == event.nonce:
        return ahead.refused(state)
    # What the server says now counts, whatever it said before.
    state = return_ahead(state, event.now)
    pause_s = min(max(event.retry_after_s, 1), 86_400)
    wait = Wait(
        until_mono=event.mono + pause_s,
        code="wait.permit",
        detail=event.because[:200],
        answered=True,
    )
    return _replace(state, wait=wait)


def give_back(state: State, now: int, update: Update, nonce: str | None) -> State:
    """Return unused leave, named by its question: a newer one stays good. The slot stays staged."""
    if not update.bundle:
        state = report(state, now, "permit_returned", update, nonce=nonce)
    # How long it has been waiting goes on counting.
    since = getattr(state.phase, "staged_at", 0) or now
    return _replace(state, phase=Staged(update=update, staged_at=since, now=bool(update.bundle)))


def armed(state: State, event: Armed) -> State:
    """The boot flag is set: from here the next boot tries the candidate."""
    phase = state.phase
    if not isinstance(phase, Activating) or phase.armed or not phase.update.slot:
        return state
    state = with_slot(state, phase.update.slot, "trying")
    state = _replace(state, phase=_replace(phase, armed=True, tries=event.tries), wait=None)
    return report(state, event.now, "rebooting", phase.update)


# --- trial ------------------------------------------------------------------------------------------------------------


def checked(state: State, event: Checked) -> State:
    """Judge one round of health checks."""
    phase = state.phase
    if not isinstance(phase, Testing):
        return state
    contract = event.contract or phase.update.release.health
    if phase.errors_base < 0:
        phase = _replace(phase, errors_base=event.errors)
    wrong = next((one for one in event.results if not one.ok), None)
    passing, flaps, flapped = None, phase.flaps, phase.flapped
    if wrong is None:
        passing = event.mono if phase.passing_mono is None else phase.passing_mono
    elif phase.passing_mono is not None:
        flaps, flapped = flaps + 1, wrong.name
    after = _replace(
        phase,
        passing_mono=passing,
        failing=None if wrong is None else wrong.reason,
        last=_words(event.results),
        errors=event.errors,
        errors_mark=event.errors_mark,
        flaps=flaps,
        flapped=flapped,
        bases=event.bases or phase.bases,
    )
    state = _replace(state, phase=after)
    ruling = _ruling(after, contract, event)
    if ruling is not None:
        reason, detail = ruling
        return revert(state, after.update, reason, detail)
    done = passing is not None and event.mono - passing >= contract.warmup_s
    if done and (phase.accepted or not event.manual_confirm):
        return _replace(state, phase=Confirming(update=after.update, last=after.last), wait=None)
    pause = Wait(
        until_mono=event.mono + contract.interval_s,
        code="wait.health",
        detail="the warm-up goes on" if wrong is None else f"{wrong.name}: {wrong.detail}"[:200],
    )
    return _replace(state, wait=pause)


def _ruling(phase: Testing, contract: HealthContract, event: Checked) -> tuple[str, str] | None:
    errors = max(0, event.errors - phase.errors_base)
    limit = contract.error_rate_per_hour
    # Judged on the whole warm-up: as soon as the rest of it could not bring the rate down again, it is over.
    if limit is not None and errors * 3600 > limit * max(contract.warmup_s, 1):
        return "health.error_rate", f"{errors} errors in the warm-up; {limit}/h are allowed"
    if event.mono - phase.began_mono > contract.timeout_s:
        wrong = next((one for one in phase.last if not one.ok), None)
        if wrong is not None:
            return phase.failing or "health.timeout", f"{wrong.name}: {wrong.detail}"
        left_s = contract.timeout_s - contract.warmup_s
        came = f"{phase.flapped} came and went {phase.flaps} times" if phase.flaps else ""
        return "health.timeout", came or f"not everything passed within {max(left_s, 0)} s"
    return None


def _words(results: tuple[ProbeResult, ...]) -> tuple[CheckResult, ...]:
    """Return what is kept of a round. A report has room for so many; what failed goes first into it."""
    told = results
    if len(told) > RESULTS_MAX:
        told = tuple(sorted(told, key=lambda one: one.ok))[:RESULTS_MAX]
    return tuple(_word(one) for one in told)


def _word(one: ProbeResult) -> CheckResult:
    return CheckResult(
        name=one.name,
        ok=one.ok,
        detail=one.detail[:200],
        reason=msgspec.UNSET if one.ok else one.reason,
        by="device" if one.own else msgspec.UNSET,
    )


def revert(state: State, update: Update, reason: str, detail: str) -> State:
    """Begin to go back to the other slot, and to what was beside the slots before."""
    phase = state.phase
    last = phase.last if isinstance(phase, Testing | Confirming) else ()
    undo = phase.begun if isinstance(phase, Activating) and not phase.armed else None
    if isinstance(phase, Idle):
        undo = 0
    back = Reverting(
        slot=update.slot,
        reason=reason,
        update=update,
        detail=detail,
        last=last,
        boots=phase.boots if isinstance(phase, Testing) else 0,
        undo=len(places.places(update)) if undo is None else undo,
    )
    return _replace(state, phase=back, wait=None)


def committed(state: State, event: Committed) -> State:
    """The new slot is the primary: components beside the slots are told next."""
    phase = state.phase
    if not isinstance(phase, Confirming):
        return state
    if places.beside(phase.update, phase.part) is not None:
        return _replace(state, phase=_replace(phase, loader=True), wait=None)
    return confirmed(state, event.now, phase)


def confirmed(state: State, now: int, phase: Confirming) -> State:
    """Everything is told that it is for good: the update is confirmed, and only now the floor may rise."""
    update = phase.update
    release = update.release
    sha = digest(update)
    refused_now = tuple(one for one in state.refused if one.sha256 != sha)
    left = state.slots.get(other_slot(state, update.slot), SlotRecord())
    if update.action == "fallback" and left.sha256 is not None:
        gone = left.sha256 if left.release is None else left.release.digest
        refused_now = refuse(refused_now, gone, "operator.fallback", now)
    floor = max(state.floor, min(release.security_version, update.product_floor))
    if update.slot:
        state = with_slot(state, update.slot, "confirmed")
    record = _replace(record_of(release), state="confirmed")
    there = {
        name: _replace(record, sha256=one.install.sha256, release=None)
        for name, one in zip(_names(update), release.pieces, strict=True)
        if name
    }
    state = _replace(
        spend_grant(state, update),
        floor=floor,
        refused=refused_now,
        damaged=False,
        components={**state.components, **there},
    )
    state = report(state, now, "confirmed", update, health=phase.last)
    return _replace(end(state, update), phase=Idle(), wait=None)


def _names(update: Update) -> tuple[str, ...]:
    """Name the component of each piece that does not go into a slot; "" for the one that does."""
    return tuple("" if one.kind == "slot" else one.component for one in places.places(update))


def gone_back(state: State, now: int, phase: Reverting) -> State:
    """We run the old slot, if one was touched at all: components beside the slots are taken back from here, and then it is over."""
    update = phase.update
    left = update is not None and places.beside_before(update, phase.undo) is not None
    if left or phase.restart:
        return _replace(state, phase=phase, wait=None)
    return _reverted(state, now, phase)


def _reverted(state: State, now: int, phase: Reverting) -> State:
    """Everything is as it was before, but for what is broken; the other slot is marked bad."""
    if phase.slot:
        state = with_slot(state, phase.slot, "bad")
    update = phase.update
    if update is None:
        return _replace(state, phase=Idle(), wait=None)
    lost = {name: SlotRecord(state="bad") for name in phase.broken}
    state = _replace(
        spend_grant(state, update),
        refused=refuse(state.refused, digest(update), phase.reason, now),
        components={**state.components, **lost},
    )
    state = report(
        state,
        now,
        # Whoever is not back on what he had has not reverted.
        "failed" if phase.broken else "reverted",
        update,
        reason=phase.reason,
        detail=phase.detail,
        health=phase.last,
        log=phase.log,
    )
    return _replace(end(state, update), phase=Idle(), wait=None)


# --- people -----------------------------------------------------------------------------------------------------------

Asked = HoldAsked | DeferAsked | ReleaseAsked | ApplyAsked | ConfirmAsked | RevertAsked


def asked(state: State, event: Asked) -> State:
    """Do what a person on the device asked for, where the phase allows it."""
    phase = state.phase
    match event:
        case HoldAsked():
            return _replace(state, hold=Hold(reason=event.reason, until_at=event.until_at))
        case DeferAsked():
            return _deferred(state, event)
        case ReleaseAsked():
            return _replace(state, hold=None)
        case ApplyAsked() if isinstance(phase, Staged):
            return _replace(state, phase=_replace(phase, now=True), wait=None)
        case ConfirmAsked() if isinstance(phase, Testing):
            return _replace(state, phase=_replace(phase, accepted=True), wait=None)
        case RevertAsked():
            return _person_reverts(state, event)
        case _:
            return state


def _deferred(state: State, event: DeferAsked) -> State:
    """Put off what is under way; all words on one image together no longer than the limit."""
    phase = state.phase
    if not isinstance(phase, Downloading | Installing | Staged):
        return state
    sha, old = digest(phase.update), state.defer
    first = event.now
    if old is not None and old.sha256 == sha:
        first = min(old.first_at, event.now)
    until = min(event.until_at, first + event.limit_s)
    if isinstance(phase, Staged):
        phase = _replace(phase, now=bool(phase.update.bundle))
    return _replace(state, phase=phase, defer=Defer(sha256=sha, until_at=until, first_at=first))


def waited(state: State, event: Looked) -> State:
    """End what people asked to wait for when its time is over. A clock that was set back must not stretch it."""
    latest = event.now + event.rules.defer_max_s
    hold, defer = state.hold, state.defer
    if hold is not None and event.now >= hold.until_at:
        state = _replace(state, hold=None)
    elif hold is not None and hold.until_at > latest:
        state = _replace(state, hold=_replace(hold, until_at=latest))
    if defer is not None and isinstance(state.phase, Idle):
        state = _replace(state, defer=None)
    elif defer is not None and defer.until_at > latest:
        state = _replace(state, defer=_replace(defer, until_at=latest))
    return state


def decline(state: State, now: int, reason: str, detail: str) -> State:
    """End what is staged, unused: this device did not get to it in time. It says nothing about the image, which may be offered again."""
    phase = state.phase
    if not isinstance(phase, Staged):
        return state
    if phase.nonce is not None:
        state = report(state, now, "permit_returned", phase.update, nonce=phase.nonce)
    state = report(
        return_ahead(state, now), now, "declined", phase.update, reason=reason, detail=detail
    )
    return _replace(end(state, phase.update), phase=Idle(), wait=None)


def _person_reverts(state: State, event: RevertAsked) -> State:
    phase = state.phase
    match phase:
        case Downloading() | Installing() | Staged():
            update = phase.update
            state = report(
                state, event.now, "declined", update, reason="user.declined", detail=event.reason
            )
            refused_now = refuse(state.refused, digest(update), "user.declined", event.now)
            state = _replace(state, refused=refused_now)
            return _replace(end(state, update), phase=Idle(), wait=None)
        case Testing():
            return revert(state, phase.update, "user.declined", event.reason)
        case Idle() if can_go_back(state):
            return _leave_running(state, event)
        case _:
            return state


def can_go_back(state: State) -> bool:
    """Say whether the other slot holds a confirmed image that the floor allows and no grant led away from, and the running one is a known release."""
    other = state.slots.get(other_slot(state, state.current), SlotRecord())
    running = state.slots.get(state.current, SlotRecord())
    if running.release is None:
        return False
    least = state.resume_min.get(running.release.product, 0)
    barred = running.release_counter < other.release_counter < least
    if other.state != "confirmed" or other.security_version < state.floor or barred:
        return False
    return _needs_no_change(state, running.release, other.release)


def _needs_no_change(state: State, running: ReleaseTarget, other: ReleaseTarget | None) -> bool:
    """Say whether the components beside the slots are what belongs to the other slot's release as well."""
    belong = {} if other is None else {one.component: one.install.sha256 for one in other.parts}
    came = {one.component for one in running.parts}
    there = {name: record.sha256 for name, record in state.components.items()}
    return came <= set(belong) and all(there.get(name) == sha for name, sha in belong.items())


def _leave_running(state: State, event: RevertAsked) -> State:
    running = state.slots[state.current]
    assert running.release is not None  # noqa: S101 - can_go_back; for the type checker
    update_id, attempt = state.last or (None, 1)
    update = Update(
        update=update_id,
        attempt=attempt,
        release=running.release,
        slot=state.current,
        from_counter=state.slots[other_slot(state, state.current)].release_counter,
    )
    return revert(state, update, "user.declined", event.reason)
