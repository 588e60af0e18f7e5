"""Which verb of a person takes a rollout from which state to which: one table, and nothing else.

What the planner does by itself (halt, complete) is in `engine`.
"""

from collections.abc import Mapping
from typing import Final, Literal

from tidegate.core.errors import RequestError
from tidegate.core.nearest import did_you_mean
from tidegate.rollout.model import RolloutState

Verb = Literal[
    "submit",
    "approve",
    "start",
    "pause",
    "resume",
    "halt",
    "cancel",
    "fallback",
    "complete",
    "supersede",
]

#: Every allowed change of state by a person (or by the server on a person's behalf): verb → from → to.
_TRANSITIONS: Final[Mapping[Verb, Mapping[RolloutState, RolloutState]]] = {
    "submit": {"draft": "awaiting_approval"},
    "approve": {"awaiting_approval": "scheduled"},
    "start": {"draft": "active", "scheduled": "active"},
    "pause": {"active": "paused"},
    "resume": {"paused": "active", "halted": "active"},
    "halt": {
        "active": "halted",
        "paused": "halted",
        "completed": "halted",
        "falling_back": "halted",
    },
    "cancel": {
        "draft": "cancelled",
        "awaiting_approval": "cancelled",
        "scheduled": "cancelled",
        "paused": "cancelled",
        "halted": "cancelled",
    },
    "fallback": {"halted": "falling_back"},
    "complete": {"active": "completed", "falling_back": "completed"},
    "supersede": {
        "draft": "superseded",
        "awaiting_approval": "superseded",
        "scheduled": "superseded",
        "active": "superseded",
        "paused": "superseded",
        "completed": "superseded",
    },
}
#: Stopping what is stopped is no error.
_REPEATABLE: Final[Mapping[Verb, RolloutState]] = {
    "halt": "halted",
    "pause": "paused",
    "cancel": "cancelled",
}


def transition(state: RolloutState, verb: str) -> RolloutState:
    """Return the state after a person's verb; halting, pausing and cancelling again change nothing.

    Args:
        state: of the rollout.
        verb: one of `Verb`; untrusted.

    Raises:
        RequestError: `request.conflict`: not possible in this state; `request.invalid`: no such verb.
    """
    known = next((one for one in _TRANSITIONS if one == verb), None)
    if known is None:
        near = did_you_mean(verb, _TRANSITIONS)
        raise RequestError(
            "request.invalid", f'"{verb[:40]}" is nothing to do with a rollout{near}'
        )
    if _REPEATABLE.get(known) == state:
        return state
    after = _TRANSITIONS[known].get(state)
    if after is None:
        possible = ", ".join(verbs_of(state)) or "nothing"
        detail = f"cannot {verb} a rollout that is {state}; possible: {possible}"
        raise RequestError("request.conflict", detail)
    return after


def verbs_of(state: RolloutState) -> tuple[Verb, ...]:
    """Return what a person can do in this state, in the order of the table."""
    return tuple(verb for verb, table in _TRANSITIONS.items() if state in table)
