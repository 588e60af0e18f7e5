"""What the machine writes down: reports owed, slots, refusals, ends. Pure.

Every function takes a state and returns one.
"""

from typing import Any, Final

import msgspec

from tidegate.agent.events import (
    Beat,
)
from tidegate.agent.state import (
    ALWAYS,
    OUTBOX_MAX,
    REFUSED_MAX,
    Idle,
    Refusal,
    Report,
    Reverting,
    SlotRecord,
    Staged,
    State,
    Update,
)
from tidegate.core.protocol import EventKind, GrantUse, Restart
from tidegate.core.reasons import is_reason
from tidegate.core.release import ReleaseTarget

#: Sequence numbers reserved in one journal write, so that heartbeats need none of their own.
SEQ_BLOCK: Final = 256
#: A security reason is reported again after this, in seconds.
NOTICE_AGAIN_S: Final = 3600
ENDED_MAX: Final = 16
#: Least important reports first: they make room when the outbox is full.
_EXPENDABLE: Final = ("downloading", "heartbeat", "security", "staged", "verifying", "rebooting")

_replace = msgspec.structs.replace


# --- reports ----------------------------------------------------------------------------------------------------------


def report(
    state: State, now: int, kind: EventKind, about: Update | None, /, **fields: Any
) -> State:
    """Put one event into the outbox, under the next sequence number."""
    made = _report(state, now, kind, about, fields)
    outbox = (*state.outbox, made)
    if len(outbox) > OUTBOX_MAX:
        outbox = _without_one(outbox)
    following = state.next_seq + 1
    return _replace(
        state,
        outbox=outbox,
        next_seq=following,
        reserved_seq=max(state.reserved_seq, following),
    )


def _report(
    state: State, now: int, kind: EventKind, update: Update | None, fields: dict[str, Any]
) -> Report:
    running = newest(state)
    if update is not None:
        fields.setdefault("release_counter", update.release.release_counter)
        fields = {
            "update": update.update,
            "attempt": update.attempt,
            "from_counter": update.from_counter,
            **fields,
        }
    reason = fields.get("reason")
    if reason is not None and not is_reason(reason):
        # An error that is no reason for an update's end: the code goes into the detail, the list stays closed.
        fields = {
            **fields,
            "reason": "agent.internal",
            "detail": f"{reason}: {fields.get('detail', '')}",
        }
    fields["detail"] = fields.get("detail", "")[:512]
    return Report(
        seq=state.next_seq,
        at=now,
        kind=kind,
        running_counter=running.release_counter,
        running_sha256=running.sha256,
        running_version=running.version,
        **fields,
    )


def _without_one(outbox: tuple[Report, ...]) -> tuple[Report, ...]:
    for kind in _EXPENDABLE:
        for index, one in enumerate(outbox[:-1]):
            if one.kind == kind:
                return outbox[:index] + outbox[index + 1 :]
    return outbox[1:]


def beat(state: State, event: Beat) -> State:
    """Make the heartbeat that is sent next. It is not journalled; its number comes from a reserved block."""
    keeps = Restart(count=0, always=state.attended == ALWAYS)
    fields = {"metrics": event.metrics}
    said = {"restart": keeps} if event.first and state.attended else {}
    made = _report(state, event.now, "heartbeat", None, {**fields, **said})
    following = state.next_seq + 1
    reserved = state.reserved_seq
    if following > reserved:
        reserved = following + SEQ_BLOCK
    return _replace(state, beat=made, next_seq=following, reserved_seq=reserved)


def notice(
    state: State, now: int, reason: str, detail: str, *, always: bool = False, **about: Any
) -> State:
    """Report a security event, once in a while for each reason, or `always`. `about` names the update that it came with, if any."""
    last = state.noticed.get(reason)
    if not always and last is not None and 0 <= now - last < NOTICE_AGAIN_S:
        return state
    noticed = {**state.noticed, reason: now}
    return report(
        _replace(state, noticed=noticed),
        now,
        "security",
        None,
        reason=reason,
        detail=detail,
        **about,
    )


def return_ahead(state: State, now: int) -> State:
    """Give leave back that was given ahead, or may have been; the server's room is free again."""
    phase = state.phase
    if not isinstance(phase, Staged) or phase.ahead is None:
        return state
    ahead = phase.ahead
    if ahead.granted or not ahead.answered:
        state = report(state, now, "permit_returned", phase.update, nonce=ahead.nonce)
    return _replace(state, phase=_replace(phase, ahead=None))


def failed_for_good(state: State, now: int, reason: str, detail: str) -> State:
    """End the update under way, before activation, as failed."""
    state = return_ahead(state, now)
    phase = state.phase
    if isinstance(phase, Idle) or (isinstance(phase, Reverting) and phase.update is None):
        return _replace(state, phase=Idle(), wait=None)
    update = phase.update
    assert update is not None  # noqa: S101 - narrowed above; for the type checker
    state = report(state, now, "failed", update, reason=reason, detail=detail)
    return _replace(end(state, update), phase=Idle(), wait=None)


# --- small things -----------------------------------------------------------------------------------------------------


def digest(update: Update) -> str:
    """Return the digest of everything that an update installs."""
    return update.release.digest


def record_of(release: ReleaseTarget) -> SlotRecord:
    """Return what is written down of a slot that holds this release."""
    return SlotRecord(
        release_counter=release.release_counter,
        security_version=release.security_version,
        version=release.version,
        sha256=release.install.sha256,
        release=release,
    )


def newest(state: State) -> SlotRecord:
    """Return what was confirmed last on this device: the running slot's release, or one of components alone that came after it."""
    running = state.slots.get(state.current, SlotRecord())
    return max((running, *state.components.values()), key=lambda one: one.release_counter)


def same(one: Update, two: Update) -> bool:
    """Say whether two orders are the same attempt at the same image."""
    return (one.update, one.attempt, digest(one)) == (two.update, two.attempt, digest(two))


def other_slot(state: State, slot: str) -> str:
    """Name the slot beside `slot`."""
    return next((name for name in state.slots if name != slot), "")


def with_slot(state: State, slot: str, word: Any) -> State:
    """Write down what a slot is now."""
    record = state.slots.get(slot, SlotRecord())
    return _replace(state, slots={**state.slots, slot: _replace(record, state=word)})


def remember(
    ended: tuple[tuple[str, int], ...], key: tuple[str, int]
) -> tuple[tuple[str, int], ...]:
    """Add one (update, attempt) to those that came to an end."""
    return (*(one for one in ended if one != key), key)[-ENDED_MAX:]


def end(state: State, update: Update) -> State:
    """Note that this attempt came to an end here."""
    if update.update is None:
        return state
    key = (update.update, update.attempt)
    return _replace(state, ended=remember(state.ended, key), last=key)


def take_grant(state: State, update: Update) -> State:
    """Use up the grant that an update needs, if any, and bar the build that it leads away from; in the same write that starts the update."""
    if update.grant is None:
        return state
    product = update.release.product
    least = max(state.resume_min.get(product, 0), update.resume_min)
    return _replace(
        _used(state, product, update.grant), resume_min={**state.resume_min, product: least}
    )


def spend_grant(state: State, update: Update) -> State:
    """Note that an update came to a trial: its grant opens nothing more, whatever became of it."""
    if update.grant is None:
        return state
    return _used(state, update.release.product, _replace(update.grant, done=True))


def _used(state: State, product: str, use: GrantUse) -> State:
    """Write down the use of a grant; what was used later, or was spent already, stays so."""
    last = state.fallback_last.get(product, GrantUse())
    if (use.epoch, use.serial, use.done) < (last.epoch, last.serial, last.done):
        return state
    return _replace(state, fallback_last={**state.fallback_last, product: use})


def refuse(
    refused_now: tuple[Refusal, ...], sha256: str, reason: str, now: int
) -> tuple[Refusal, ...]:
    """Add one image to those that are not tried again."""
    kept = tuple(one for one in refused_now if one.sha256 != sha256)
    return (*kept, Refusal(sha256=sha256, reason=reason, at=now))[-REFUSED_MAX:]
