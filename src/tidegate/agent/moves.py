"""The moves of the machine up to the permit: what each event makes of the state. Pure; `agent.machine` says which one is called when.

Every function takes a state and returns one; a move that does not fit the present phase returns the state it was given, so that a late or repeated answer
changes nothing.
"""

from typing import Any, Final

import msgspec

from tidegate.agent import ahead, parts, places
from tidegate.agent.events import (
    Assigned,
    Deferred,
    Downloaded,
    Failed,
    Installed,
    Marked,
    Ordered,
    Progressed,
    Refused,
)
from tidegate.agent.homecoming import LOG_MAX
from tidegate.agent.ledger import (
    digest,
    end,
    failed_for_good,
    notice,
    record_of,
    remember,
    report,
    return_ahead,
    same,
    take_grant,
)
from tidegate.agent.state import (
    Activating,
    Downloading,
    Idle,
    Installing,
    Phase,
    Reverting,
    SlotRecord,
    Staged,
    State,
    Update,
    Wait,
)
from tidegate.agent.trial import gone_back
from tidegate.core.reasons import family, is_reason

#: Failures in a row without progress after which a download is given up, by reason. A server that cannot be reached is waited for without end: the
#: server's own deadline counts that as silence.
FAILURE_LIMITS: Final = {
    "agent.internal": 5,
    "download.hash": 3,
    "download.range": 6,
    "download.slow": 20,
    "download.truncated": 20,
}
#: Images kept in mind that the server held back.
HALTED_MAX: Final = 16
BACKOFF_FIRST_S: Final = 5
BACKOFF_MAX_S: Final = 900
#: Sequence numbers reserved in one journal write, so that heartbeats need none of their own.
SEQ_BLOCK: Final = 256
#: A security reason is reported again after this, in seconds.
NOTICE_AGAIN_S: Final = 3600
#: A turn that comes later than this, or never, is looked at again after it, in seconds.
MANDATE_WAIT_S: Final = 86_400
#: Wait after a failure of the boot loader, in seconds.
BOOTLOADER_WAIT_S: Final = 5
ENDED_MAX: Final = 16
#: Least important reports first: they make room when the outbox is full.
_EXPENDABLE: Final = ("downloading", "security", "staged", "verifying", "rebooting")
#: An order refused for one of these was forged, held back, or given by somebody who does not know what may be ordered: an honest server asks the same rules.
_ATTACKS: Final = frozenset({"sig", "compat", "clock", "security"})

_replace = msgspec.structs.replace


# --- orders -----------------------------------------------------------------------------------------------------------


def _obey(state: State, epoch: int, seq: int) -> State:
    order = max((state.order.epoch, state.order.seq), (epoch, seq))
    return _replace(state, order=type(state.order)(epoch=order[0], seq=order[1]))


def assigned(state: State, event: Assigned) -> State:
    """Begin what was ordered, go on with it, or say why not."""
    update = event.update
    state = _obey(state, event.order.epoch, event.order.seq)
    phase = state.phase
    if not isinstance(phase, Idle | Downloading | Installing | Staged):
        return state
    if update.bundle:
        return _by_hand(state, event.now, update)
    state = _replace(state, halted=tuple(one for one in state.halted if one != digest(update)))
    if not isinstance(phase, Idle) and same(phase.update, update):
        return _renewed(state, phase, update)
    if update.update is not None and (update.update, update.attempt) in state.ended:
        return state
    known = next((one for one in state.refused if one.sha256 == digest(update)), None)
    if known is not None and not update.allow_refused:
        detail = f"refused here before: {known.reason}"
        state = report(state, event.now, "declined", update, reason=known.reason, detail=detail)
        return end(state, update)
    return _begin(_replace(state, stalls=0, best=(0, 0), wait=None), event.now, update)


def bundle_bar(state: State, update: Update) -> tuple[str, str] | None:
    """Return (code, words) for why what a person brought is not begun; None = it is. What the server held back, or this device refused, stays so."""
    if not isinstance(state.phase, Idle | Downloading | Installing | Staged):
        return "request.conflict", "another image is on trial"
    if digest(update) in state.halted:
        return "operator.halted", "the server held this image back, and did not let it go since"
    known = next((one for one in state.refused if one.sha256 == digest(update)), None)
    return None if known is None else (known.reason, "refused here before")


def _by_hand(state: State, now: int, update: Update) -> State:
    """Begin what a person brought, or say why not."""
    barred = bundle_bar(state, update)
    if barred is not None:
        return report(state, now, "declined", update, reason=barred[0], detail=barred[1])
    phase = state.phase
    if isinstance(phase, Downloading | Installing | Staged) and same(phase.update, update):
        # The stick may be somewhere else now.
        return _replace(state, phase=_replace(phase, update=update), wait=None)
    return _begin(_replace(state, stalls=0, best=(0, 0), wait=None), now, update)


def _renewed(state: State, phase: Downloading | Installing | Staged, update: Update) -> State:
    kept = _replace(phase.update, policy=update.policy, allow_refused=update.allow_refused)
    after: Phase = _replace(phase, update=kept)
    if isinstance(after, Staged):
        after = _replace(after, halted=False)
    return _replace(state, phase=after)


def _begin(state: State, now: int, update: Update) -> State:
    state = return_ahead(state, now)
    state = report(_put_aside(take_grant(state, update)), now, "downloading", update)
    return _begin_part(state, now, update, 0)


def _begin_part(
    state: State, now: int, update: Update, part: int, bytes_: int = 0, resumes: int = 0
) -> State:
    """Begin with a piece: fetch it, unless the slot holds it already."""
    if not places.in_slot(update, part):
        phase = Downloading(update=update, prepared=True, part=part, bytes=bytes_, resumes=resumes)
        return _replace(state, phase=phase, wait=None)
    record = state.slots.get(update.slot, SlotRecord())
    wanted = update.release.install.sha256
    if record.state in ("staged", "confirmed") and record.sha256 == wanted:
        return _replace(state, phase=Installing(update=update))
    if update.action == "fallback" and update.grant is None:
        state = _replace(state, phase=Downloading(update=update))
        return failed_for_good(state, now, "install.slot", "the image is not in the other slot")
    partial = state.partial
    fits = (
        partial is not None
        and record.state == "writing"
        and (partial.slot, partial.payload_sha256) == (update.slot, update.release.full.sha256)
    )
    return _replace(
        state,
        phase=Downloading(update=update, prepared=fits, progress=partial if fits else None),
        partial=None,
    )


def ordered(state: State, event: Ordered) -> State:
    """Keep still, or drop what is not wanted any more."""
    state = _obey(state, event.order.epoch, event.order.seq)
    phase = state.phase
    if event.action == "hold":
        if isinstance(phase, Downloading | Installing | Staged):
            held = (
                *(one for one in state.halted if one != digest(phase.update)),
                digest(phase.update),
            )
            state = _replace(state, halted=held[-HALTED_MAX:])
        if isinstance(phase, Staged):
            state = return_ahead(state, event.now)
            return _replace(state, phase=_replace(phase, halted=True, ahead=None))
        return state
    if isinstance(phase, Downloading | Installing | Staged):
        if phase.update.bundle:
            # The server knows nothing of it, so its having nothing to say means nothing.
            return state
        # Not an end: a rollout that is paused and resumed offers the same attempt again, and the bytes are still there.
        return _replace(_put_aside(return_ahead(state, event.now)), phase=Idle(), wait=None)
    return state


def _put_aside(state: State) -> State:
    phase = state.phase
    if isinstance(phase, Downloading) and phase.progress is not None and phase.progress.slot:
        return _replace(state, partial=phase.progress)
    return state


def deferred(state: State, event: Deferred) -> State:
    """Wait for this device's turn. Nothing is held against the image, and what is under way is left alone: it was this device's turn when that began."""
    state = _obey(state, event.order.epoch, event.order.seq)
    phase = state.phase
    if not isinstance(phase, Idle) and phase.update is not None:
        if digest(phase.update) == event.sha256:
            return state
    elif isinstance(phase, Idle):
        wait_s = MANDATE_WAIT_S if event.left_s is None else min(MANDATE_WAIT_S, event.left_s)
        until = event.mono + wait_s
        state = _replace(
            state, wait=Wait(until_mono=until, code="wait.mandate", detail=event.detail)
        )
    # An honest server asks nobody before his turn: it is worth a report that one did.
    return notice(state, event.now, event.reason, event.detail)


def refused(state: State, event: Refused) -> State:
    """Report what the worker would not take: as a security event, and against the update where one could be named."""
    if event.order is not None:
        state = _obey(state, event.order.epoch, event.order.seq)
    update, reason = event.update, event.reason
    if update is None or (update, event.attempt) in state.ended:
        return notice(state, event.now, reason, event.detail)
    phase = state.phase
    if not isinstance(phase, Idle | Downloading | Installing | Staged):
        return notice(state, event.now, reason, event.detail)
    under_way = not isinstance(phase, Idle) and phase.update.update == update
    about: dict[str, Any] = {"update": update, "attempt": event.attempt}
    # What a device noticed is no end of an update: that has the reason that says what it means for one.
    end = "sig.replayed" if family(reason) == "security" else reason
    if under_way and family(end) == "sig" and end != "sig.director_mismatch":
        # Forged metadata say nothing about what was verified before: somebody on the way must not be able to end it.
        return notice(state, event.now, reason, event.detail, **about)
    if family(reason) in _ATTACKS:
        # Told each time, since each of these ends an update, and no other will be ended by the same.
        state = notice(state, event.now, reason, event.detail, always=True, **about)
    if under_way:
        return failed_for_good(state, event.now, end, event.detail)
    state = report(
        state,
        event.now,
        "failed",
        None,
        update=update,
        attempt=event.attempt,
        release_counter=event.release_counter,
        reason=end,
        detail=event.detail,
    )
    return _replace(state, ended=remember(state.ended, (update, event.attempt)))


# --- download and install ---------------------------------------------------------------------------------------------


def marked(state: State, event: Marked) -> State:
    """The boot loader will not boot that slot: it may be overwritten, or left."""
    phase = state.phase
    if isinstance(phase, Downloading) and phase.update.slot == event.slot:
        slots = {**state.slots, event.slot: SlotRecord(state="writing")}
        return _replace(state, slots=slots, phase=_replace(phase, prepared=True), wait=None)
    if isinstance(phase, Reverting) and phase.slot == event.slot:
        after = _replace(phase, marked=True, log=phase.log or event.log[-LOG_MAX:])
        if state.current != phase.slot:
            return gone_back(state, event.now, after)
        return _replace(state, phase=after, wait=None)
    return state


def went_on(state: State, event: Progressed | Downloaded | Installed) -> State:
    """Bytes are durable, all of them are, or they were read back right."""
    phase = state.phase
    if isinstance(phase, Downloading) and isinstance(event, Progressed):
        return _replace(
            state, phase=_replace(phase, progress=event.progress, failures=0), wait=None
        )
    if isinstance(phase, Downloading) and isinstance(event, Downloaded):
        done = event.progress
        after = Installing(
            update=phase.update,
            bytes=phase.bytes + done.stored_bytes,
            resumes=phase.resumes + done.resumes,
            again=phase.again,
            part=phase.part,
        )
        return _replace(state, phase=after, wait=None, partial=None)
    if isinstance(phase, Installing) and isinstance(event, Installed):
        following = places.wanted(phase.update, phase.part + 1)
        if following is None:
            return _staged(state, event.now, phase)
        return _begin_part(state, event.now, phase.update, following, phase.bytes, phase.resumes)
    return state


def _staged(state: State, now: int, phase: Installing) -> State:
    update = phase.update
    if update.slot:
        before = state.slots.get(update.slot, SlotRecord())
        # A resident image that was confirmed once stays so until it is armed again.
        word = "confirmed" if before.state == "confirmed" else "staged"
        record = _replace(record_of(update.release), state=word)
        state = _replace(state, slots={**state.slots, update.slot: record})
    state = _replace(
        state,
        # Who brought it said "now" when he did.
        phase=Staged(update=update, staged_at=now, now=bool(update.bundle)),
        wait=None,
    )
    return report(state, now, "staged", update, bytes=phase.bytes, resumes=phase.resumes)


# --- failures ---------------------------------------------------------------------------------------------------------


def failed(state: State, event: Failed) -> State:
    """Try again later, or end the update with its reason."""
    phase = state.phase
    match phase:
        case Idle():
            return _aside(state, event)
        case Downloading():
            return _download_failed(state, event, phase)
        case Installing():
            return _install_failed(state, event, phase)
        case Staged():
            state = _aside(state, event)
            leave = ahead.used(state, event.mono) if family(event.reason) == "download" else None
            return leave or _wait(state, event, "wait.permit", 60)
        case Activating() if not phase.armed and not phase.begun:
            state = report(state, event.now, "permit_returned", phase.update, nonce=phase.nonce)
            return failed_for_good(state, event.now, event.reason, event.detail)
        case _ if parts.acting(state):
            return parts.failed(state, event)
        case _:
            return _wait(state, event, "wait.bootloader", BOOTLOADER_WAIT_S)


def _aside(state: State, event: Failed) -> State:
    """A failure that ends nothing: the link's are no news, what was forged is."""
    if event.reason.startswith("download.") or not is_reason(event.reason):
        return state
    return notice(state, event.now, event.reason, event.detail)


def _download_failed(state: State, event: Failed, phase: Downloading) -> State:
    failures = phase.failures + 1
    limit = FAILURE_LIMITS.get(event.reason)
    if not event.retryable or (limit is not None and failures >= limit):
        return failed_for_good(state, event.now, event.reason, event.detail)
    state = _replace(state, phase=_replace(phase, failures=failures))
    backoff_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S << min(failures - 1, 10))
    return _wait(state, event, "wait.retry", backoff_s)


def _install_failed(state: State, event: Failed, phase: Installing) -> State:
    # A medium may lie once; what differs twice is not going to be right the third time.
    brought = phase.update.action == "install" or phase.update.grant is not None
    if brought and event.reason == "install.readback" and not phase.again:
        again = Downloading(
            update=phase.update,
            prepared=not places.in_slot(phase.update, phase.part),
            again=True,
            part=phase.part,
            bytes=phase.bytes,
            resumes=phase.resumes,
        )
        # What comes again is progress once more.
        return _replace(state, phase=again, partial=None, best=(0, 0))
    return failed_for_good(state, event.now, event.reason, event.detail)


def _wait(state: State, event: Failed, code: str, seconds: int) -> State:
    detail = f"{event.reason}: {event.detail}"[:200]
    until = event.mono + max(seconds, event.retry_after_s)
    return _replace(state, wait=Wait(until_mono=until, code=code, detail=detail))
