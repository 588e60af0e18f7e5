"""The moves of components beside the slots: made live, told that it is for good, taken back, cleaned up. Pure.

They come between those of the slot (`agent.machine` says when): live before the boot flag is set, told after the boot loader, taken back once the old slot
runs again. A move that does not fit the present phase returns the state it was given.
"""

from typing import Final

import msgspec

from tidegate.agent import places
from tidegate.agent.events import Changed, Failed, Looked
from tidegate.agent.ledger import notice, report, same
from tidegate.agent.state import (
    Activating,
    Confirming,
    Reverting,
    State,
    Testing,
    Update,
    Wait,
)
from tidegate.agent.trial import confirmed, gone_back, revert

#: Tries of what may work later, before it counts as failed.
TRIES_MAX: Final = 5
#: Pause between them, in seconds.
AGAIN_S: Final = 5
#: Updates kept in mind whose components have to clean up.
LEFTOVERS_MAX: Final = 8

_replace = msgspec.structs.replace


def changed(state: State, event: Changed) -> State:
    """A component did what it was told."""
    phase = state.phase
    match event.act:
        case "discard":
            return _replace(state, leftovers=state.leftovers[1:], wait=None)
        case "activate" if isinstance(phase, Activating):
            return _activated(state, event, phase)
        case "verify" if isinstance(phase, Testing):
            after = _replace(phase, part=event.part + 1, failures=0)
            return _replace(state, phase=after, wait=None)
        case "commit" if isinstance(phase, Confirming):
            final = phase.final or event.final
            return _told(state, event.now, _replace(phase, part=event.part + 1, final=final))
        case "roll_back" if isinstance(phase, Reverting):
            restart = phase.restart or event.restart
            after_it = _replace(phase, undo=event.part, restart=restart, failures=0)
            return gone_back(state, event.now, after_it)
        case "verify_back" if isinstance(phase, Reverting):
            return gone_back(state, event.now, _replace(phase, restart=False))
        case _:
            return state


def _activated(state: State, event: Changed, phase: Activating) -> State:
    after = _replace(
        phase,
        part=event.part + 1,
        begun=max(phase.begun, event.part + 1),
        restart=phase.restart or event.restart,
        failures=0,
    )
    state = _replace(state, phase=after, wait=None)
    more = places.beside(phase.update, after.part) is not None
    if more or phase.update.slot or not after.restart:
        return state
    state = _replace(state, phase=_replace(after, armed=True))
    return report(state, event.now, "rebooting", phase.update)


def live(state: State, phase: Activating, event: Looked) -> State:
    """Everything is live and nothing wants a restart: the trial begins in this boot."""
    testing = Testing(
        update=phase.update,
        boot_id=state.boot_id,
        began_mono=event.mono,
        # Known at the first round of checks.
        errors_base=-1,
    )
    state = _replace(state, phase=testing, wait=None)
    return report(state, event.now, "verifying", phase.update)


def _told(state: State, now: int, phase: Confirming) -> State:
    phase = _replace(phase, failures=0)
    if places.beside(phase.update, phase.part) is None:
        return confirmed(state, now, phase)
    return _replace(state, phase=phase, wait=None)


# --- failures -----------------------------------------------------------------------------------------------------------


def acting(state: State) -> bool:
    """Say whether what is under way now, in a phase after the permit, is done by components and not by the boot loader."""
    phase = state.phase
    match phase:
        case Activating():
            return not phase.armed and places.beside(phase.update, phase.part) is not None
        case Testing():
            return True
        case Confirming():
            return phase.loader or not phase.update.slot
        case Reverting():
            done = not phase.slot or (phase.marked and state.current != phase.slot)
            return done and phase.update is not None
        case _:
            return False


def failed(state: State, event: Failed) -> State:
    """A component did not do what it was told: try again where that may help, else go back, or on where there is no way back."""
    phase = state.phase
    if not isinstance(phase, Activating | Testing | Confirming | Reverting):
        return state
    failures = phase.failures + 1
    if event.retryable and failures < TRIES_MAX:
        pause = Wait(
            until_mono=event.mono + AGAIN_S,
            code="wait.retry",
            detail=f"{event.reason}: {event.detail}"[:200],
        )
        return _replace(state, phase=_replace(phase, failures=failures), wait=pause)
    if isinstance(phase, Reverting):
        return _not_back(state, event, phase)
    if isinstance(phase, Confirming) and phase.final:
        # Another one cannot be taken back any more, and what is live is what was tried: the release stands, and the failure is told.
        part = places.beside(phase.update, phase.part)
        state = notice(state, event.now, event.reason, event.detail, always=True)
        return _told(state, event.now, _replace(phase, part=0 if part is None else part + 1))
    return revert(state, phase.update, event.reason, event.detail)


def _not_back(state: State, event: Failed, phase: Reverting) -> State:
    update = phase.update
    if update is None:
        return state
    part = places.beside_before(update, phase.undo)
    if part is None:
        lost: tuple[str, ...] = places.names(update, "component")
        after = _replace(phase, restart=False)
    else:
        lost = (places.places(update)[part].component,)
        after = _replace(phase, undo=part)
    broken = phase.broken + tuple(one for one in lost if one not in phase.broken)
    detail = f"{phase.detail}; {', '.join(lost)} could not be taken back: {event.detail}"
    return gone_back(
        state, event.now, _replace(after, broken=broken, failures=0, detail=detail[:512])
    )


# --- what is left -------------------------------------------------------------------------------------------------------


def with_leftovers(before: State, after: State) -> State:
    """Note an update that is not under way any more: its components clean up, whatever became of it."""
    was: Update | None = getattr(before.phase, "update", None)
    now: Update | None = getattr(after.phase, "update", None)
    if was is None or places.beside(was) is None or (now is not None and same(was, now)):
        return after
    others = tuple(one for one in after.leftovers if not same(one, was))
    return _replace(after, leftovers=(*others, was)[-LEFTOVERS_MAX:])
