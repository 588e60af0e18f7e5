"""From the machine's reports to the wire: what is the same in all events of a device is added here."""

from tidegate.agent.settings import Settings
from tidegate.agent.state import (
    Report,
    State,
)
from tidegate.core.protocol import SIGNED_KINDS, EventBody

#: Events sent in one request.
BATCH: int = 64
#: Characters of logs in one request, unless a single one has more: signed and encoded they are five times as many bytes at worst, below the limit of a message.
LOGS_MAX: int = 64 << 10
#: What a message has room for: the last second of 32 bits, and characters of a short text. A clock may say anything, and a model's name may be long.
_AT_MAX: int = 0xFFFFFFFF
_SHORT: int = 64


def owed(state: State) -> tuple[Report, ...]:
    """Return what to send now, in order of seq: the outbox, and the heartbeat after it."""
    reports = _fitting(state.outbox[:BATCH])
    if state.beat is not None and len(reports) == len(state.outbox):
        reports = tuple(sorted((*reports, state.beat), key=lambda one: one.seq))
    return reports


def _fitting(reports: tuple[Report, ...]) -> tuple[Report, ...]:
    room = LOGS_MAX
    for index, one in enumerate(reports):
        room -= len(one.log)
        if room < 0 and index:
            return reports[:index]
    return reports


def needs_signature(reports: tuple[Report, ...]) -> bool:
    """Say whether the worker must sign something in it."""
    return any(one.kind in SIGNED_KINDS for one in reports)


def complete(report: Report, settings: Settings, boot_id: str) -> EventBody:
    """Make the whole event of a report, within the bounds of a message: one that no server reads would stand before all that follow it, for ever."""
    return EventBody(
        device_id=settings.device_id,
        seq=report.seq,
        at=min(max(report.at, 0), _AT_MAX),
        kind=report.kind,
        boot_id=boot_id,
        update=report.update,
        attempt=report.attempt,
        release_counter=report.release_counter,
        from_counter=report.from_counter,
        variant=settings.hardware.variant[:_SHORT],
        region=settings.region[:_SHORT],
        site=settings.site[:_SHORT],
        connectivity=settings.connectivity,
        reason=report.reason,
        detail=report.detail,
        running_counter=report.running_counter,
        running_sha256=report.running_sha256,
        running_version=report.running_version,
        bytes=report.bytes,
        resumes=report.resumes,
        nonce=report.nonce,
        metrics=report.metrics,
        restart=report.restart,
        health=report.health,
        log=report.log,
    )
