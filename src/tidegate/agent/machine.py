"""The device's decisions: `step(state, event) → (state, effects)`. Pure; an update's life is here and in `homecoming`, `moves`, `trial`, `parts` and `ledger`.

How to read it. The runner feeds events; after each one it writes the new state to the journal and only then performs the effects. Nothing is remembered
outside the state, so a power cut anywhere leaves a state from which `Started` and the next `Looked` find the same effects again; every effect may be repeated.
`Looked` is the one event on which work starts: it carries what the world allows right now.

What follows from that:

* a report is part of the state (`outbox`) from the same write that made it true, and leaves it only when the server holds it;
* the candidate slot is marked bad, durably, before its first byte is overwritten, and armed only after it was read back;
* leave to activate is asked once, immediately before the boot flag; unused leave is returned;
* components beside the slots are made live after leave was given and before the boot flag is set, in the order that was signed; a device that comes up
  in the old slot takes them back, the last one first;
* the boot loader is told first, then the components, the journal last (`Confirming`), and only the boot loader decides what boots;
* the security floor rises on confirmation alone, to min(image, product floor).

What it does not decide: whether a signature holds (`core.verify`, in the worker), when a window is open (`core.schedule`, in the runner).
"""

from typing import Any, Final, assert_never

import msgspec

from tidegate.agent import ahead, homecoming, ledger, moves, parts, places, trial
from tidegate.agent.events import (
    Acked,
    ApplyAsked,
    Arm,
    Armed,
    AskPermit,
    Assigned,
    Beat,
    Change,
    Changed,
    Checked,
    CheckHealth,
    Commit,
    Committed,
    ConfirmAsked,
    DeferAsked,
    Deferred,
    Download,
    Downloaded,
    Effect,
    Event,
    Failed,
    HoldAsked,
    Installed,
    Looked,
    MarkBad,
    Marked,
    Noticed,
    Offered,
    Ordered,
    PermitRefused,
    Permitted,
    Progressed,
    ReadBack,
    Reboot,
    Refresh,
    Refused,
    ReleaseAsked,
    RevertAsked,
    Started,
    Witnessed,
)
from tidegate.agent.state import (
    Activating,
    Confirming,
    Downloading,
    Idle,
    Installing,
    Phase,
    Reverting,
    Staged,
    State,
    Testing,
    durable,
)
from tidegate.agent.waiting import Because, missed, overruled, reasons
from tidegate.core.protocol import PERMIT_VALID_S

#: No server that keeps to its own bounds has heard so many reports of one device.
_NUMBERS_MAX: Final = 1 << 51
#: Durable steps without progress after which an update is given up (`agent.loop`).
STALL_LIMIT: Final = 40
#: A permit question older than this is asked anew, so that an answer still has most of its life, in seconds.
NONCE_AGE_S: Final = 300
#: Leave is not used in its last seconds: arming takes time.
PERMIT_MARGIN_S: Final = 30

#: More segments than this, as a power of two, no payload has.
_PART_BITS: Final = 32

Step = tuple[State, tuple[Effect, ...]]
_replace = msgspec.structs.replace
_RANK: Final = (
    Idle, Downloading, Installing, Staged, Activating, Testing, Confirming, Reverting,
)  # fmt: skip
#: Events that may come for weeks while an update waits for good reason; they say nothing about going in circles.
_PATIENT: Final = (
    Looked, Acked, Beat, PermitRefused, HoldAsked, DeferAsked, ReleaseAsked, Ordered, Assigned, Deferred, Refused,
    Noticed, Witnessed,
)  # fmt: skip


def step(state: State, event: Event) -> Step:
    """Return what the device knows after `event`, and what it must do. The caller makes the state durable before it does any of it."""
    after, effects = _react(state, event)
    guarded = _guard(state, after, event)
    kept = parts.with_leftovers(state, guarded)
    return kept, effects if guarded.phase is after.phase else ()


def _react(state: State, event: Event) -> Step:  # noqa: C901, PLR0911, PLR0912 - one line an event
    match event:
        case Looked():
            return _look(state, event)
        case Started():
            return homecoming.started(state, event), ()
        case Offered():
            open_to_orders = isinstance(state.phase, Idle | Downloading | Installing | Staged)
            return state, (Refresh(),) if open_to_orders else ()
        case Assigned():
            return moves.assigned(state, event), ()
        case Ordered():
            return moves.ordered(state, event), ()
        case Deferred():
            return moves.deferred(state, event), ()
        case Refused():
            return moves.refused(state, event), ()
        case Marked():
            return moves.marked(state, event), ()
        case Progressed() | Downloaded() | Installed():
            return moves.went_on(state, event), ()
        case Failed():
            return moves.failed(state, event), ()
        case Permitted():
            return trial.permitted(state, event), ()
        case PermitRefused():
            return trial.permit_refused(state, event), ()
        case Changed():
            return parts.changed(state, event), ()
        case Armed():
            return _armed(state, event)
        case Checked():
            return trial.checked(state, event), ()
        case Committed():
            return trial.committed(state, event), ()
        case Acked():
            return _acked(state, event), ()
        case Beat():
            return ledger.beat(state, event), ()
        case (
            HoldAsked()
            | DeferAsked()
            | ReleaseAsked()
            | ApplyAsked()
            | ConfirmAsked()
            | RevertAsked()
        ):
            return trial.asked(state, event), ()
        case Noticed():
            about: dict[str, Any] = {"log": event.log} if event.log else {}
            return ledger.notice(state, event.now, event.reason, event.detail, **about), ()
        case Witnessed():
            return _replace(state, witness=event.witness), ()
        case _ as never:
            assert_never(never)


def _acked(state: State, event: Acked) -> State:
    if event.seq >= max(state.next_seq, _NUMBERS_MAX):
        return state  # no server has heard so much: behind it there would soon be no number left, for any server
    if event.seq >= state.next_seq:
        # The server knows numbers that we never gave, so far as we remember: the journal was lost. What is owed gets new ones.
        ahead = event.seq + 1
        outbox = tuple(_replace(one, seq=one.seq + event.seq) for one in state.outbox)
        following = ahead + state.next_seq
        reserved = max(state.reserved_seq, following)
        return _replace(state, outbox=outbox, beat=None, next_seq=following, reserved_seq=reserved)
    kept = tuple(one for one in state.outbox if one.seq > event.seq)
    late = state.beat is not None and state.beat.seq > event.seq
    return _replace(state, outbox=kept, beat=state.beat if late else None)


def _armed(state: State, event: Armed) -> Step:
    after = trial.armed(state, event)
    return after, (Reboot(),) if after is not state else ()


def _look(state: State, event: Looked) -> Step:
    state = ahead.kept(trial.waited(state, event), event)
    found = reasons(state, event)
    if found:
        return _wait(state, event, found)
    return _go_on(state, event)


def _wait(state: State, event: Looked, found: tuple[Because, ...]) -> Step:
    """Wait, if that was not long enough; use leave that was given ahead where only the server is missing, or see to it that there is some."""
    phase = state.phase
    if not isinstance(phase, Staged):
        return state, ()
    over = missed(phase, event, found)
    if over is not None:
        return trial.decline(state, event.now, *over), ()
    if event.unreachable and {one.code for one in found} == {"wait.server"}:
        return ahead.used(state, event.mono) or state, ()
    return ahead.asked(state, phase, event, found)


def _go_on(state: State, event: Looked) -> Step:
    """Return the next thing to do, where nothing keeps it waiting."""
    phase = state.phase
    if state.leftovers and isinstance(phase, Idle | Downloading):
        return state, (Change(update=state.leftovers[0], act="discard"),)
    match phase:
        case Idle():
            return state, ()
        case Downloading():
            if not phase.prepared:
                return state, (MarkBad(slot=phase.update.slot),)
            return state, (Download(update=phase.update, progress=phase.progress, part=phase.part),)
        case Installing():
            return state, (ReadBack(update=phase.update, part=phase.part),)
        case Staged():
            return _ask(state, phase, event)
        case _:
            return _use(state, phase, event)


def _use(state: State, phase: Activating | Testing | Confirming | Reverting, event: Looked) -> Step:
    """Go on with what leave was given for."""
    match phase:
        case Activating():
            return _activate(state, phase, event)
        case Testing():
            return state, (_try(phase),)
        case Confirming():
            return state, (_tell(phase),)
        case Reverting():
            return _return(state, phase)
        case _ as never:
            assert_never(never)


def _ask(state: State, phase: Staged, event: Looked) -> Step:
    """Ask for leave with the question that is open, or with a new one when that has grown old. What a person brought has his."""
    if phase.update.bundle:
        leave = Activating(
            update=phase.update,
            nonce_mono=event.mono,
            nonce_boot=state.boot_id,
            staged_at=phase.staged_at,
        )
        return _replace(state, phase=leave, wait=None), ()
    young = (
        phase.nonce is not None
        and phase.nonce_boot == state.boot_id
        and event.mono - phase.nonce_mono <= NONCE_AGE_S
    )
    if young and phase.nonce is not None:
        return state, (AskPermit(update=phase.update, nonce=phase.nonce),)
    if phase.nonce is not None and not (state.wait is not None and state.wait.answered):
        # The old question may have been granted and the answer lost: give that leave back before asking again.
        state = ledger.report(state, event.now, "permit_returned", phase.update, nonce=phase.nonce)
    fresh = _replace(phase, nonce=event.nonce, nonce_mono=event.mono, nonce_boot=state.boot_id)
    return _replace(state, phase=fresh, wait=None), (
        AskPermit(update=phase.update, nonce=event.nonce),
    )


def _activate(state: State, phase: Activating, event: Looked) -> Step:
    """Make what is beside the slots live, then arm; reboot once armed. All within the life of the leave, or give it back while nothing was begun."""
    if phase.armed:
        return state, (Reboot(),)
    update = phase.update
    age_s = event.mono - phase.nonce_mono
    good_s = phase.valid_s or PERMIT_VALID_S
    alive = phase.nonce_boot == state.boot_id and age_s <= good_s - PERMIT_MARGIN_S
    if not alive and not phase.begun:
        return trial.give_back(state, event.now, update, phase.nonce), ()
    refused = state.hold is not None or (event.inhibitors and not overruled(phase, event))
    if refused and not phase.begun:
        # Somebody said "not now" after leave was asked for, and before it was used.
        return trial.give_back(state, event.now, update, phase.nonce), ()
    part = places.beside(update, phase.part)
    if part is not None:
        begun = _replace(phase, begun=part + 1)
        return _replace(state, phase=begun), (Change(update=update, act="activate", part=part),)
    if update.slot:
        return state, (Arm(slot=update.slot, tries=update.policy.tries),)
    return parts.live(state, phase, event), ()


def _try(phase: Testing) -> Effect:
    """After a restart each component says first whether it came up; then the contract is judged."""
    part = places.beside(phase.update, phase.part) if phase.restarted else None
    if part is not None:
        return Change(update=phase.update, act="verify", part=part)
    return CheckHealth(contract=phase.update.release.health, bases=phase.bases)


def _tell(phase: Confirming) -> Effect:
    """The boot loader first: from then on no lack of tries can bring the old slot back under new components."""
    if phase.update.slot and not phase.loader:
        return Commit(slot=phase.update.slot)
    part = places.beside(phase.update, phase.part)
    # Without one left the phase would be over: a repeated commit of the boot loader changes nothing.
    if part is None:
        return Commit(slot=phase.update.slot)
    return Change(update=phase.update, act="commit", part=part)


def _return(state: State, phase: Reverting) -> Step:
    """The slot first: components are taken back by the system that was there before, not by one that failed."""
    if phase.slot and not phase.marked:
        return state, (MarkBad(slot=phase.slot),)
    if phase.slot and state.current == phase.slot:
        return state, (Reboot(),)
    update = phase.update
    if update is None:
        return state, ()
    part = places.beside_before(update, phase.undo)
    if part is not None:
        return state, (Change(update=update, act="roll_back", part=part),)
    if phase.boot_id in ("", state.boot_id):
        return _replace(state, phase=_replace(phase, boot_id=state.boot_id)), (Reboot(),)
    return state, (Change(update=update, act="verify_back"),)


def _guard(before: State, after: State, event: Event) -> State:
    """Count durable steps without progress; give up when there are too many of them."""
    if durable(before) == durable(after):
        return after
    if isinstance(after.phase, Idle):
        return _replace(after, stalls=0, best=(0, 0)) if after.best != (0, 0) else after
    mark = _mark(after)
    if mark > after.best:
        return _replace(after, stalls=0, best=mark)
    if isinstance(event, _PATIENT) or isinstance(after.phase, Reverting):
        return after
    if _grew(before.phase, after.phase):
        return _replace(after, stalls=0)
    if isinstance(after.phase, Downloading) and isinstance(event, Failed) and event.retryable:
        # The link's failures have limits of their own (`moves.FAILURE_LIMITS`); a server that is away is waited for.
        return after
    if after.stalls < STALL_LIMIT:
        return _replace(after, stalls=after.stalls + 1)
    return trial.give_up(after, event)


def _grew(before: Phase, after: Phase) -> bool:
    """Say whether more was kept of one segment. A link that never holds long enough for a whole one goes on all the same, and a segment has an end."""
    if not (isinstance(before, Downloading) and isinstance(after, Downloading)):
        return False
    old, new = before.progress, after.progress
    if old is None or new is None:
        return old is None and new is not None and new.begun_bytes > 0
    return new.segments == old.segments and new.begun_bytes > old.begun_bytes


def _mark(state: State) -> tuple[int, int]:
    """Return how far an update came: its phase, and within that the piece and the segment. Pieces are fetched and read back one after the other."""
    phase = state.phase
    part = getattr(phase, "part", 0) << _PART_BITS
    if isinstance(phase, Downloading):
        part += 0 if phase.progress is None else phase.progress.segments
    if isinstance(phase, Installing):
        return _RANK.index(Downloading), part + (1 << _PART_BITS) - 1
    return _RANK.index(type(phase)), part
