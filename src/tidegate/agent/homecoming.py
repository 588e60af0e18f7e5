"""Where the boot loader brought us, and what that means for the update under way. Pure; a part of the machine.

What a trial that did not come back leaves for the report is put together here too: how the boot counter went, and the end of the log.
"""

from typing import Final

import msgspec

from tidegate.agent import places, restarts
from tidegate.agent.events import Started
from tidegate.agent.ledger import failed_for_good, report, with_slot
from tidegate.agent.state import (
    Activating,
    Confirming,
    Downloading,
    Idle,
    Installing,
    Reverting,
    Staged,
    State,
    Testing,
    Update,
    Wait,
)
from tidegate.agent.trial import give_back, gone_back

#: Pause before a restart that did not come is asked for again, in seconds.
REBOOT_AGAIN_S: Final = 30
#: Most of a log in a report, in characters: the limit of `protocol.EventBody.log`.
LOG_MAX: Final = 16 << 10
#: Most of what an image said of itself: there is room for what its last boot left behind.
SAID_MAX: Final = 10 << 10

_replace = msgspec.structs.replace


def started(state: State, event: Started) -> State:
    """Find out where the boot loader brought us, and what that means for the update under way."""
    seq = max(state.next_seq, state.reserved_seq)
    phase, before = state.phase, state
    tried = isinstance(phase, Activating | Testing | Confirming | Reverting)
    state = _replace(
        state,
        boot_id=event.boot_id,
        current=event.current,
        next_seq=seq,
        reserved_seq=seq,
        beat=None,
        wait=None,
        watchdog_before=state.watchdog_before if tried else event.watchdog,
    )
    state = restarts.noted(before, state, event, tried=tried)
    match phase:
        case Idle():
            return _started_idle(state, event)
        case Downloading() | Installing():
            lost = phase.update.slot == event.current
            return failed_for_good(state, event.now, "install.slot", "") if lost else state
        case Staged() | Activating() | Testing() | Confirming():
            update = phase.update
            if not update.slot:
                return _still_here(state, event, update)
            if update.slot == event.current:
                return _tried(state, event, update)
            return _not_there(state, event, update)
        case Reverting():
            return _going_back(state, event, phase)


def _started_idle(state: State, event: Started) -> State:
    if event.marks.get(event.current) != "trial":
        return state
    # On trial, and nothing is known of a trial: nobody could say when it is healthy, so it is not kept.
    return _replace(state, phase=Reverting(slot=event.current, reason="agent.state_damaged"))


def _tried(state: State, event: Started, update: Update) -> State:
    """We run the candidate."""
    phase = state.phase
    if isinstance(phase, Confirming):
        return state
    if isinstance(phase, Testing):
        if phase.boot_id == event.boot_id:
            return state
        if _bitten(state, event):
            # It hung in the middle of its warm-up. The loader's tries are for what power cuts take, not for this.
            return _taken_back(state, event, update, "boot.watchdog", _hung(phase))
        return _replace(state, phase=_again(phase, event))
    return _trial_begins(with_slot(state, update.slot, "trying"), event, update)


def _trial_begins(state: State, event: Started, update: Update) -> State:
    trial = _warm_up(event, update, restarted=places.beside(update) is not None)
    return report(_replace(state, phase=trial), event.now, "verifying", update)


def _warm_up(event: Started, update: Update, *, restarted: bool) -> Testing:
    return Testing(
        update=update,
        boot_id=event.boot_id,
        began_mono=event.mono,
        errors_base=event.errors,
        errors=event.errors,
        errors_mark=event.errors_mark,
        restarted=restarted,
    )


def _again(phase: Testing, event: Started) -> Testing:
    """Begin the warm-up anew after another boot; what a person said and what components said stays."""
    return _replace(
        _warm_up(event, phase.update, restarted=phase.restarted),
        boots=phase.boots + 1,
        accepted=phase.accepted,
        part=phase.part,
    )


def _bitten(state: State, event: Started) -> bool:
    """Say whether the watchdog made this boot, as far as the hardware's word can be trusted: some of it never takes it back."""
    return event.watchdog and not state.watchdog_before


def _hung(phase: Testing) -> str:
    return f"the watchdog ended boot {phase.boots} of the trial in its warm-up"


def _still_here(state: State, event: Started, update: Update) -> State:
    """No slot is touched by this update: the same system runs, before a restart or after it."""
    phase = state.phase
    if isinstance(phase, Activating) and phase.armed:
        if phase.nonce_boot == event.boot_id:
            return _replace(state, wait=_restart_again(event, "a restart is due"))
        return _trial_begins(state, event, update)
    if not isinstance(phase, Testing) or phase.boot_id == event.boot_id:
        return state
    if _bitten(state, event):
        return _taken_back(state, event, update, "boot.watchdog", _hung(phase))
    if phase.boots >= update.policy.tries:
        # No boot loader counts these boots.
        detail = f"{phase.boots} boots without a whole warm-up"
        return _taken_back(state, event, update, "boot.counter_exhausted", detail)
    return _replace(state, phase=_again(phase, event))


def _restart_again(event: Started, what: str) -> Wait:
    # Asking again at once would go round for ever without a word.
    return Wait(
        until_mono=event.mono + REBOOT_AGAIN_S,
        code="wait.reboot",
        detail=f"{what} and this is still the same boot: does [agent] reboot restart the board?",
    )


def _not_there(state: State, event: Started, update: Update) -> State:
    """We run the old slot."""
    phase = state.phase
    mark = event.marks.get(update.slot)
    on_trial = mark == "trial"
    if isinstance(phase, Staged):
        return state
    if isinstance(phase, Activating):
        same_boot = phase.nonce_boot == event.boot_id
        if same_boot and phase.armed:
            # The restart that was asked for did not come.
            return _replace(state, wait=_restart_again(event, f"slot {update.slot} is armed"))
        if same_boot:
            return state
        if not phase.armed and not on_trial:
            if phase.begun:
                # Components are live already: on from there.
                return state
            return give_back(state, event.now, update, phase.nonce)
    granted, left = _tries(state, event, update)
    if mark == "bad" or (on_trial and left == 0):
        reason = "boot.counter_exhausted"
    elif on_trial and isinstance(phase, Activating) and left >= granted:
        # No try was spent: the loader never went there.
        reason = "boot.wrong_slot"
    else:
        reason = "boot.no_return"
    detail = f"slot {update.slot} was {mark} and slot {event.current} came up"
    if _bitten(state, event) and reason != "boot.wrong_slot":
        reason, detail = "boot.watchdog", f"{detail} after a reset by the watchdog"
    return _taken_back(state, event, update, reason, detail)


def _taken_back(state: State, event: Started, update: Update, reason: str, detail: str) -> State:
    """Begin to go back after a boot that says why, and keep what is known of it."""
    phase = state.phase
    last = phase.last if isinstance(phase, Testing | Confirming) else ()
    after = Reverting(
        slot=update.slot,
        reason=reason,
        update=update,
        detail=detail,
        last=last,
        log=_with_log(_boots(state, event, update), event.log),
        undo=len(places.places(update)),
        told=True,
    )
    return _replace(state, phase=after)


def _brought_home(state: State, event: Started, phase: Reverting) -> Reverting:
    """Put what the trial left behind together, once: what the image said of itself is kept, and what its last boot left comes after it."""
    if phase.told or phase.update is None:
        return phase
    said = phase.log[-SAID_MAX:]
    head = _with_log(_boots(state, event, phase.update), said)
    return _replace(phase, log=_with_log(head, event.log), told=True)


def _tries(state: State, event: Started, update: Update) -> tuple[int, int]:
    """Return how many boots the loader granted, and how many of them are left."""
    phase = state.phase
    granted = phase.tries if isinstance(phase, Activating) else 0
    return granted or update.policy.tries, event.tries.get(update.slot, 0)


def _boots(state: State, event: Started, update: Update) -> str:
    """Tell the history of the boot counter, for people."""
    phase, slot = state.phase, update.slot
    seen = phase.boots if isinstance(phase, Testing | Reverting) else 0
    told = f"the agent saw {seen} boots of the trial"
    if slot:
        granted, left = _tries(state, event, update)
        mark = event.marks.get(slot, "unknown")
        told += (
            f"; slot {slot} was armed with {granted} tries, {left} are left, it is marked {mark}; "
            f"slot {event.current} runs, slot {event.primary} is the primary"
        )
    loader = f"loader: {event.loader}\n" if event.loader else ""
    return f"--- boot counter ---\n{told}\n{loader}"


def _with_log(head: str, log: str) -> str:
    """Put two parts of a log together; where there is no room, the beginning of the later one is cut away."""
    head = head[:LOG_MAX]
    room = LOG_MAX - len(head)
    return head + log[-room:] if room else head


def _going_back(state: State, event: Started, phase: Reverting) -> State:
    if not phase.slot:
        return state
    if phase.marked and event.current != phase.slot:
        return gone_back(state, event.now, _brought_home(state, event, phase))
    return _replace(state, phase=_replace(phase, marked=False))
