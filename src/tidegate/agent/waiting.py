"""Say what an agent waits for: one list that decides and that people read.

`agent.machine` does nothing while this list is not empty, and `tidegate-agent status` prints it, so that the two cannot differ. Pure.
"""

import msgspec

from tidegate.agent.events import (
    Looked,
)
from tidegate.agent.state import (
    Downloading,
    Staged,
    State,
)


class Because(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is waited for. `code` is stable (`wait.window`); `detail` is for people."""

    code: str
    detail: str = ""


def reasons(state: State, looked: Looked) -> tuple[Because, ...]:
    """Return what keeps the present phase from going on, in the order in which a person would ask; empty = nothing does."""
    phase = state.phase
    found: list[Because] = []
    if isinstance(phase, Downloading):
        found = _download(phase, looked)
    elif isinstance(phase, Staged):
        found = _activate(state, phase, looked)
    if isinstance(phase, Downloading | Staged) and not phase.update.bundle and not looked.online:
        found.append(Because(code="wait.server", detail="no session with the server yet"))
    if state.wait is not None and looked.mono < state.wait.until_mono:
        found.append(Because(code=state.wait.code, detail=state.wait.detail))
    return tuple(found)


def _download(phase: Downloading, looked: Looked) -> list[Because]:
    found = []
    if looked.now < phase.update.policy.not_before:
        found.append(_until("wait.not_before", phase.update.policy.not_before))
    if not looked.download_open and not phase.update.bundle:
        found.append(Because(code="wait.download_window", detail="outside the download window"))
    if looked.metered:
        found.append(Because(code="wait.metered", detail="the link is metered"))
    return found


def _activate(state: State, phase: Staged, looked: Looked) -> list[Because]:
    policy = phase.update.policy
    found = []
    if phase.halted:
        found.append(Because(code="wait.halted", detail="the server said hold"))
    if state.hold is not None:
        found.append(Because(code="wait.hold", detail=state.hold.reason))
    found += [Because(code="wait.inhibitor", detail=one) for one in looked.inhibitors]
    if looked.now < policy.not_before:
        found.append(_until("wait.not_before", policy.not_before))
    if phase.now or _overdue(phase, looked.now):
        return found
    if policy.activate == "manual":
        found.append(Because(code="wait.manual", detail="tidegate-agent apply-now"))
    elif not looked.activate_open:
        found.append(Because(code="wait.window", detail="outside the activation window"))
    return found


def _overdue(phase: Staged, now: int) -> bool:
    """A deadline binds a security release only; for others it is advice to the device's own schedule."""
    policy = phase.update.policy
    return phase.update.release.kind == "security" and 0 < policy.deadline <= now


def _until(code: str, at: int) -> Because:
    return Because(code=code, detail=f"not before {at}")
