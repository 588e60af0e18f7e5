"""Say what an agent waits for: one list that decides and that people read.

`agent.machine` does nothing while this list is not empty, and `tidegate-agent status` prints it, so that the two cannot differ. Pure.
"""

from typing import Final

import msgspec

from tidegate.agent.events import (
    LocalRules,
    Looked,
)
from tidegate.agent.ledger import digest
from tidegate.agent.state import (
    Activating,
    Downloading,
    Staged,
    State,
)
from tidegate.core.protocol import HELD_UNTIL


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
        found.append(
            Because(
                code="wait.download_window",
                detail=looked.window_trouble or "outside the download window",
            )
        )
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
    if not overruled(phase, looked):
        found += [Because(code="wait.inhibitor", detail=one) for one in looked.inhibitors]
    if looked.now < policy.not_before:
        found.append(_until("wait.not_before", policy.not_before))
    if phase.now or overdue(phase, looked.now, looked.rules):
        return found
    defer = state.defer
    if defer is not None and defer.sha256 == digest(phase.update) and looked.now < defer.until_at:
        found.append(_until("wait.deferred", defer.until_at))
    if policy.activate == "manual":
        found.append(Because(code="wait.manual", detail="tidegate-agent apply-now"))
    elif not looked.activate_open:
        found.append(
            Because(
                code="wait.window", detail=looked.window_trouble or "outside the activation window"
            )
        )
    return found


def due_at(phase: Staged | Activating, rules: LocalRules) -> int:
    """Return when a security release goes ahead whatever window, deferral or manual start say (unix seconds); 0 = never.

    The order's deadline and this device's own rule bind a security release only; for others a deadline is advice to the device's own schedule. What it never
    gets round: the server's hold, a person's hold, `not_before`, and leave to activate.
    """
    if phase.update.release.kind != "security":
        return 0
    own = rules.security_deadline_s
    found = (phase.update.policy.deadline, phase.staged_at + own if own and phase.staged_at else 0)
    return min((one for one in found if one > 0), default=0)


def overdue(phase: Staged | Activating, now: int, rules: LocalRules) -> bool:
    """Say whether a security release's time has come."""
    return 0 < due_at(phase, rules) <= now


def overruled(phase: Staged | Activating, looked: Looked) -> bool:
    """Say whether inhibitors do not count any more. The grace is measured by a clock that nobody sets: a wall clock that jumps must not cut it short."""
    after = looked.rules.inhibitors_after_s
    if after is None or not overdue(phase, looked.now, looked.rules):
        return False
    return looked.overdue_s >= after


#: Which reason an update ends with when it waited too long, by what it waited for; the first that is there counts.
_MISSED: Final = {
    "wait.hold": "user.held",
    "wait.inhibitor": "activate.inhibited",
    "wait.deferred": "activate.window_missed",
    "wait.manual": "activate.window_missed",
    "wait.window": "activate.window_missed",
}
#: A wall clock that jumps must not end an update that was staged a minute ago, in seconds.
_SEEN_S: Final = 3600


def missed(phase: Staged, looked: Looked, found: tuple[Because, ...]) -> tuple[str, str] | None:
    """Return (reason, words) when the device's own rule says that this was waited for long enough; None = it goes on waiting."""
    limit_s = looked.rules.give_up_s
    if not limit_s or not phase.staged_at or phase.halted or phase.update.bundle:
        return None
    if looked.now - phase.staged_at < limit_s or looked.staged_s < min(limit_s, _SEEN_S):
        return None
    for code, reason in _MISSED.items():
        for one in found:
            if one.code == code:
                return reason, one.detail
    return None


def _until(code: str, at: int) -> Because:
    if at >= HELD_UNTIL:
        return Because(code=code, detail="the server holds activation until it lets it go")
    return Because(code=code, detail=f"not before {at}")
