"""Whether the boot before this one ended as it should have, and what is told of it when not. Pure; a part of the machine.

The journal knows the name of every boot in which the agent ran. A boot that is over ended in order if the agent was told to stop in it and did not start again
(`agent.arrival`); every restart that belongs to an update is the update's own story, and is told with its outcome. What is left was asked for by nobody: a
panic, the watchdog, the power.

A device says so only from the boot after the first one that an agent watched: of those before it knows nothing. That it keeps a record it says with the
first heartbeat of each start (`ledger.beat`), so that its silence means something.
"""

from typing import Final

import msgspec

from tidegate.agent.events import Started
from tidegate.agent.ledger import report
from tidegate.agent.state import ALWAYS, LATER, State
from tidegate.core.protocol import Restart

#: Reports of this kind that wait to be sent; a board that crashes again and again away from its server adds to the last one.
WAITING_MAX: Final = 4

_replace = msgspec.structs.replace


def noted(before: State, state: State, event: Started, *, tried: bool) -> State:
    """Note how the boot before ended, and report it if nobody had asked for that.

    Args:
        before: the state as the journal has it.
        state: the same, with the present boot in it.
        event: what is known of both boots.
        tried: an update was being tried; the restart is a part of that.
    """
    if not event.attended:
        return _replace(state, attended="")
    if not before.attended:
        new = not before.boot_id and not before.damaged
        return _replace(state, attended=ALWAYS if new else LATER)
    if tried or event.orderly or before.boot_id == event.boot_id:
        return state
    ended = Restart(
        boot_id=before.boot_id[:64],
        cause=_cause(before, event),
        always=before.attended == ALWAYS,
    )
    return _told(state, event.now, ended)


def _cause(before: State, event: Started) -> str:
    if event.cause:
        return event.cause
    # Some hardware never takes its word back.
    return "watchdog" if event.watchdog and not before.watchdog_before else "unknown"


def _told(state: State, now: int, ended: Restart) -> State:
    waiting = [at for at, one in enumerate(state.outbox) if one.restart is not None]
    if len(waiting) < WAITING_MAX:
        return report(state, now, "heartbeat", None, restart=ended)
    at = waiting[-1]
    last = state.outbox[at]
    known = last.restart
    assert known is not None  # noqa: S101 - chosen so; for the type checker
    more = _replace(last, at=now, restart=_replace(ended, count=known.count + ended.count))
    return _replace(state, outbox=(*state.outbox[:at], more, *state.outbox[at + 1 :]))
