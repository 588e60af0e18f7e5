"""Leave to activate that was given ahead, for a device that may be out of reach when its window opens. Pure; ADR 0018.

Both sides must want it: this device's own configuration, and the signed order of a rollout whose operator accepted that a halt cannot call such leave back.
It is bound like any other leave, to device, update, attempt, slot and question, and good for hours instead of minutes, by the clock of the boot in which it
was asked for: a restart voids it. It is used only when the server cannot be reached at the moment; as long as it can, it is asked, and what it says counts.
"""

from typing import Final

import msgspec

from tidegate.agent.events import (
    AskPermit,
    Effect,
    Looked,
    Permitted,
)
from tidegate.agent.ledger import return_ahead
from tidegate.agent.state import Activating, Ahead, Staged, State
from tidegate.agent.waiting import Because

#: Leave is not used in its last seconds: arming takes time.
MARGIN_S: Final = 30
#: Leave that was refused is asked for again after this, in seconds.
AGAIN_S: Final = 3600
#: What may be waited for with leave in hand: things of this device, which pass by themselves.
_PASSING: Final = frozenset({"wait.window", "wait.deferred", "wait.inhibitor"})

_replace = msgspec.structs.replace


def valid_s(phase: Staged, looked: Looked) -> int:
    """Return for how long leave may be asked for ahead; 0 = not at all."""
    if phase.update.bundle:
        return 0
    return min(phase.update.policy.offline_permit_s, looked.rules.offline_permit_s)


def kept(state: State, looked: Looked) -> State:
    """Give back what has run out, was of another boot, or is not wanted any more."""
    phase = state.phase
    if not isinstance(phase, Staged) or phase.ahead is None:
        return state
    if is_alive(phase.ahead, state, looked.mono) and valid_s(phase, looked) and not phase.halted:
        return state
    return return_ahead(state, looked.now)


def is_alive(ahead: Ahead, state: State, mono: float) -> bool:
    """Say whether leave, or the question for it, is of this boot and not too old."""
    return ahead.boot == state.boot_id and 0 <= mono - ahead.mono <= ahead.valid_s - MARGIN_S


def asked(
    state: State, phase: Staged, looked: Looked, found: tuple[Because, ...]
) -> tuple[State, tuple[Effect, ...]]:
    """Ask for leave ahead while there is a server to ask, if all that is waited for passes by itself."""
    seconds, ahead = valid_s(phase, looked), phase.ahead
    waits = {one.code for one in found}
    if not seconds or not looked.online or not waits or not waits <= _PASSING:
        return state, ()
    if ahead is not None and (
        ahead.granted or (ahead.answered and looked.mono - ahead.mono < AGAIN_S)
    ):
        return state, ()
    if ahead is None or ahead.answered:
        ahead = Ahead(nonce=looked.nonce, mono=looked.mono, boot=state.boot_id, valid_s=seconds)
        state = _replace(state, phase=_replace(phase, ahead=ahead))
    return state, (AskPermit(update=phase.update, nonce=ahead.nonce, ahead_s=seconds),)


def granted(state: State, event: Permitted) -> State:
    """Keep leave that answers the question asked ahead."""
    phase = state.phase
    if not isinstance(phase, Staged) or phase.ahead is None:
        return state
    good_s = min(phase.ahead.valid_s, event.valid_s)
    ahead = _replace(phase.ahead, granted=True, answered=True, valid_s=good_s)
    state = _replace(state, phase=_replace(phase, ahead=ahead))
    if state.hold is not None or phase.halted or not is_alive(ahead, state, event.mono):
        return return_ahead(state, event.now)
    return state


def refused(state: State) -> State:
    """Note that there is no leave ahead; nothing waits for it."""
    phase = state.phase
    if not isinstance(phase, Staged) or phase.ahead is None:
        return state
    return _replace(state, phase=_replace(phase, ahead=_replace(phase.ahead, answered=True)))


def used(state: State, mono: float) -> State | None:
    """Go on with leave that was given ahead; None = there is none that is good now."""
    phase = state.phase
    if not isinstance(phase, Staged) or phase.ahead is None or not phase.ahead.granted:
        return None
    ahead = phase.ahead
    if not is_alive(ahead, state, mono) or phase.halted or state.hold is not None:
        return None
    leave = Activating(
        update=phase.update,
        nonce=ahead.nonce,
        nonce_mono=ahead.mono,
        nonce_boot=ahead.boot,
        staged_at=phase.staged_at,
        valid_s=ahead.valid_s,
    )
    return _replace(state, phase=leave, wait=None)
