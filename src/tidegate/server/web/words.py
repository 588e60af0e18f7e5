"""How figures, times and states are written: one place, so that every page says them alike.

Pure: `now` is passed in. All times are UTC.
"""

import datetime as dt
import re
from dataclasses import dataclass
from typing import Final, Literal

from tidegate.core.reasons import REASONS

Tone = Literal["ok", "go", "warn", "bad", "lost", "iso", ""]

DAY_S: Final = 86_400
#: Odds are written up to here: what is beyond differs in nothing that anybody would do.
MOST_ODDS: Final = 1_000_000
MINUS: Final = "\N{MINUS SIGN}"
NBSP: Final = "\N{NO-BREAK SPACE}"
THIN: Final = "\N{NARROW NO-BREAK SPACE}"
#: Bidirectional controls and other invisible characters: shown, because device text is hostile.
_HIDDEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]"
)


@dataclass(frozen=True, slots=True)
class State:
    """A status: word, shape and colour, always together."""

    word: str
    icon: str
    tone: Tone


#: What ended a run of the machine although nobody had asked for it.
RESTARTS: Final = {
    "panic": "the kernel panicked",
    "watchdog": "the watchdog reset it",
    "unknown": "it just ended, as when the power goes",
}

#: Every state of DESIGN section 2 (rollouts, rings, updates, devices, releases, incidents) with its shape.
STATES: Final[dict[str, State]] = {
    # rollouts
    "draft": State("Draft", "wait", ""),
    "awaiting_approval": State("Awaiting approval", "person", ""),
    "scheduled": State("Scheduled", "clock", ""),
    "active": State("Active", "go", "go"),
    "paused": State("Paused", "pause", ""),
    "halted": State("Halted", "halt", "bad"),
    "falling_back": State("Falling back", "revert", "bad"),
    "completed": State("Completed", "ok", "ok"),
    "cancelled": State("Cancelled", "wait", ""),
    "superseded": State("Superseded", "wait", ""),
    # rings
    "waiting": State("Waiting", "wait", ""),
    "open": State("Open", "go", "go"),
    "soaking": State("Soaking", "clock", "go"),
    "passed": State("Passed", "ok", "ok"),
    "failed": State("Failed", "bad", "bad"),
    "skipped": State("Skipped", "wait", ""),
    # updates
    "offered": State("Offered", "wait", ""),
    "downloading": State("Downloading", "down", "go"),
    "staged": State("Staged", "down", "go"),
    "permitted": State("Permitted", "go", "go"),
    "rebooting": State("Rebooting", "go", "go"),
    "verifying": State("Verifying", "go", "go"),
    "confirmed": State("Confirmed", "ok", "ok"),
    "not_activated": State("Failed", "bad", ""),
    "declined": State("Declined", "wait", ""),
    "reverted": State("Reverted", "revert", "bad"),
    "lost": State("Lost", "lost", "lost"),
    "refused": State("Refused", "shield", ""),
    "noticed": State("Noticed", "shield", "warn"),
    # devices
    "accepted": State("Enrolled", "ok", "ok"),
    "pending": State("Asks to enrol", "chip", ""),
    "rejected": State("Rejected", "bad", ""),
    "revoked": State("Revoked", "bad", "bad"),
    "quarantined": State("Quarantined", "shield", "bad"),
    "decommissioned": State("Retired", "bad", ""),
    "held": State("Held", "pause", ""),
    "isolated": State("Isolated", "iso", "iso"),
    "silent": State("Not seen", "lost", "lost"),
    "idle": State("Up to date", "ok", "ok"),
    # messages to channels
    "retrying": State("Retrying", "clock", "warn"),
    "delivered": State("Delivered", "ok", "ok"),
    "dead": State("Given up", "bad", "bad"),
    # slots
    "running": State("Running", "ok", "ok"),
    "empty": State("Empty", "wait", ""),
    "other": State("Resident", "wait", ""),
    # releases and incidents
    "live": State("Published", "ok", "ok"),
    "recalled": State("Recalled", "halt", "bad"),
    # what is known against a part, and what statements make of it
    "affected": State("Affected", "warn", "bad"),
    "under_investigation": State("Looked into", "clock", "warn"),
    "not_affected": State("Not affected", "ok", "ok"),
    "fixed": State("Fixed", "ok", "ok"),
    "incident_open": State("Open", "warn", "warn"),
    "incident_mitigated": State("Mitigated", "clock", "go"),
    "incident_closed": State("Closed", "ok", "ok"),
    "severity_critical": State("Critical", "warn", "bad"),
    "severity_major": State("Major", "warn", "warn"),
    "severity_minor": State("Minor", "wait", ""),
}


def state(code: str) -> State:
    """Return the status of a code; an unknown one is shown as it is, in grey."""
    return STATES.get(code) or State(code.replace("_", " ").capitalize(), "wait", "")


def number(value: int) -> str:
    """Write an integer with thousands commas and a real minus."""
    return f"{value:,}".replace("-", MINUS)


def signed(value: int) -> str:
    """Write a change: `+1,204`, a real minus, or `0`."""
    return f"+{value:,}" if value > 0 else number(value)


def percent(part: float, whole: float, digits: int = 1) -> str:
    """Write a share in percent. Something is never rounded to nothing, and not all is never rounded to all."""
    if whole <= 0:
        return "\N{EN DASH}"
    share = 100 * part / whole
    least = 10**-digits
    if 0 < share < least:
        return f"< {least:.{digits}f}{THIN}%"
    if 100 - least < share < 100:
        share = 100 - least
    return f"{share:.{digits}f}{THIN}%"


def size(octets: int) -> str:
    """Write a size in decimal units: `84.2 MB`."""
    value = float(octets)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def duration(seconds: int) -> str:
    """Write a span in its two largest units: `6 h 08 min`, `38 s`."""
    seconds = max(0, seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // DAY_S
    if hours < 1:
        return f"{minutes} min"
    if days < 1:
        rest = minutes % 60
        return f"{hours} h {rest:02d} min" if rest else f"{hours} h"
    rest = hours % 24
    return f"{days} d {rest} h" if rest else f"{days} d"


def when(at: int, now: int) -> str:
    """Write a moment as people say it: `today 13:52`, `Sun 18:04`, `18 Nov 20:05`, `2 Mar 2025`."""
    moment = dt.datetime.fromtimestamp(at, dt.UTC)
    clock = moment.strftime("%H:%M")
    days = now // DAY_S - at // DAY_S
    if days == 0:
        return f"today {clock}"
    if 0 < days < 7:
        return f"{moment:%a} {clock}"
    today = dt.datetime.fromtimestamp(now, dt.UTC)
    if moment.year == today.year:
        return f"{moment.day} {moment:%b} {clock}"
    return f"{moment.day} {moment:%b %Y}"


def stamp(at: int) -> str:
    """Write a moment for a document, which is read on other days: `18 Nov 20:05`."""
    moment = dt.datetime.fromtimestamp(at, dt.UTC)
    return f"{moment.day} {moment:%b %H:%M}"


def date(at: int) -> str:
    """Write a moment in full for the head of a document: `18 Nov 2026 20:05 UTC`."""
    moment = dt.datetime.fromtimestamp(at, dt.UTC)
    return f"{moment.day} {moment:%b %Y %H:%M} UTC"


def rfc3339(at: int) -> str:
    """Write a moment for `datetime` attributes."""
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def short_hash(digest: str) -> str:
    """Write a digest by its ends: `51d7…e2c9`."""
    return digest if len(digest) <= 12 else f"{digest[:4]}…{digest[-4:]}"


def plain(text: str, limit: int = 300) -> str:
    """Make untrusted text fit to be shown: hidden and bidirectional characters become visible, and it is cut at `limit`.

    The result is still text: the template escapes it.
    """
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return _HIDDEN.sub(lambda found: f"[U+{ord(found.group()):04X}]", cut)


def reason(code: str) -> str:
    """Say a reason in plain words; an unknown code is shown as it is."""
    return REASONS.get(code) or plain(code, 60)


def sentence(text: str) -> str:
    """End a text as a sentence; nothing stays nothing."""
    text = text.strip()
    return text if not text or text.endswith((".", "?")) else f"{text}."


def odds(value: float) -> str:
    """Write odds to 1: `1,240 : 1`, `2.1 : 1`, and what is not against it as `below 1 : 1`; no line breaks inside."""
    to_one = f"{NBSP}:{NBSP}1"
    if value <= 1:
        return f"below{NBSP}1{to_one}"
    if value >= MOST_ODDS:
        return f"over{NBSP}{MOST_ODDS:,}{to_one}"
    return f"{value:,.0f}{to_one}" if value >= 10 else f"{value:.1f}{to_one}"


def points(share: float) -> str:
    """Write a difference of two shares in percentage points: `0.21 pp`; something is never rounded to nothing."""
    value = 100 * share
    if 0 < value < 0.01:
        return f"< 0.01{THIN}pp"
    return f"{value:.3g}{THIN}pp" if value < 100 else f"100{THIN}pp"


def plural(count: int, one: str, many: str = "") -> str:
    """Write a count with its noun: `1 device`, `1,204 devices`."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"
