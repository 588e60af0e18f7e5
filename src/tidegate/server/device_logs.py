"""Logs of devices that failed: of whom one is wanted, what is taken, what is kept.

A failure says its reason and the end of a boot. A whole log helps whoever looks for the cause, and a hundred thousand of them help nobody: so the server asks.
It asks the first `per_reason` devices of each rollout and reason, in the answer to the outcome; the device sends when it has nothing else to do, once, and
a place that stayed empty for a day is given to somebody else.

What comes is untrusted: it is unpacked up to a bound, freed of what is no text and of what looks like a secret, and shown as text only. Nothing is decided by
it.
"""

import zlib
from typing import Final

import msgspec

from tidegate.core.errors import RequestError
from tidegate.core.protocol import LogRequest, LogWish
from tidegate.core.scrub import scrub
from tidegate.server.store import Connection, log_rows
from tidegate.server.store.hot import UpdateRow

#: Logs that are asked for, of each rollout and reason, where the settings say nothing.
PER_REASON: Final = 20
#: Logs of one device that are kept, the newest.
PER_DEVICE: Final = 5
#: Logs that are asked for within a day, of a tenant.
PER_DAY: Final = 500
#: Bytes of a log, unpacked.
TEXT_MAX: Final = 512 << 10
#: A wish is good for so long.
WISH_S: Final = 86_400
_OUTCOMES: Final = frozenset({"failed", "reverted"})
#: Of the whole of a log, what a page shows.
SHOWN_CHARS: Final = 6_000


class LogFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A device's log after a failure. `received_at`: None as long as it is only wanted. `chars`: of its text, 0 as long."""

    id: int
    update: str
    attempt: int
    rollout: str
    reason: str
    wanted_at: int
    received_at: int | None
    chars: int


class LogText(msgspec.Struct, frozen=True, kw_only=True):
    """A log as text: scrubbed, without control characters; what a device says."""

    log: LogFacts
    text: str


def note(conn: Connection, update: UpdateRow, per_reason: int, now: int) -> None:
    """Want the log of an update that just ended, if it is one that helps."""
    if update.state not in _OUTCOMES or not update.reason:
        return
    since = now - WISH_S
    if log_rows.taken(conn, update.rollout_id, update.reason, since) >= per_reason:
        return
    if log_rows.wanted_since(conn, update.tenant, since) >= PER_DAY:
        return
    row = {
        "tenant": update.tenant, "device_row": update.device_row, "rollout_id": update.rollout_id,
        "update_id": update.id, "attempt": update.attempt, "reason": update.reason, "wanted_at": now,
    }  # fmt: skip
    log_rows.want(conn, row)


def wish(conn: Connection, device_row: int, now: int) -> LogWish | msgspec.UnsetType:
    """Return which log is wanted of a device."""
    found = log_rows.wish(conn, device_row, now - WISH_S)
    return msgspec.UNSET if found is None else LogWish(update=found[0], attempt=found[1])


def require_wanted(conn: Connection, device_row: int, request: LogRequest, now: int) -> int | None:
    """Return the number of the log that this is; None = it came before.

    Raises:
        RequestError: `request.conflict`: nobody asked for it, or too long ago.
    """
    found = log_rows.find(conn, device_row, request.update, request.attempt)
    if found is None or (found["received_at"] is None and found["wanted_at"] < now - WISH_S):
        raise RequestError("request.conflict", "this log is not wanted")
    return None if found["received_at"] is not None else int(found["id"])


def read(data: bytes) -> str:
    """Return the text of a log (untrusted bytes) as it may be shown.

    Raises:
        RequestError: `request.invalid`: not packed as agreed; `request.too_large`: more than `TEXT_MAX` bytes.
    """
    unpacker = zlib.decompressobj()
    try:
        plain = unpacker.decompress(data, TEXT_MAX)
    except zlib.error as error:
        raise RequestError("request.invalid", "the log is not in zlib's format") from error
    if unpacker.unconsumed_tail:
        raise RequestError("request.too_large", f"the log has more than {TEXT_MAX} bytes")
    if not unpacker.eof:
        raise RequestError("request.invalid", "the log is cut off")
    return scrub(plain.decode("utf-8", "replace"))


def keep(conn: Connection, device_row: int, request: LogRequest, text: str, now: int) -> None:
    """Keep a log that was asked for; doing it again changes nothing.

    Raises:
        RequestError: as `require_wanted`.
    """
    number = require_wanted(conn, device_row, request, now)
    if number is None:
        return
    body = zlib.compress(text.encode("utf-8", "replace"))
    log_rows.put(conn, number, body=body, chars=len(text), now=now)
    log_rows.keep_newest(conn, device_row, PER_DEVICE)


def of_device(conn: Connection, device_row: int) -> list[LogFacts]:
    """Return what is known of a device's logs, newest first."""
    return [LogFacts(**one) for one in log_rows.of_device(conn, device_row)]


def show(conn: Connection, device_row: int, number: int) -> LogText:
    """Return a log of a device.

    Raises:
        RequestError: `request.not_found`: there is none of this number, or it did not come.
    """
    text = text_of(conn, device_row, number)
    facts = [one for one in of_device(conn, device_row) if one.id == number]
    if not text or not facts:
        raise RequestError("request.not_found", f"no log {number} of this device")
    return LogText(log=facts[0], text=text)


def text_of(conn: Connection, device_row: int, number: int) -> str:
    """Return the text of a log, or ""."""
    body = log_rows.body(conn, device_row, number)
    return "" if body is None else unpacked(body)


def unpacked(body: bytes) -> str:
    """Return the text of a log that was kept here."""
    return zlib.decompress(body).decode("utf-8", "replace")
