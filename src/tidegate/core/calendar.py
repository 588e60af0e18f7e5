"""The expiry calendar: what lapses when, who has to act, and how urgent it is. The same data for people, machines and calendars.

What offline keys sign is renewed by people, and they need time: alarms come 30, 14 and 7 days before. What the server signs it renews by itself when half of
the time is over; when it is later than that, something is wrong with the server, long before anything lapses.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

DAY_S: Final = 86_400
#: Days before the end on which people are reminded.
ALARM_DAYS: Final = (30, 14, 7)
#: A root takes several people in several places: its first alarm comes earlier.
ROOT_ALARM_DAYS: Final = 60
#: How late the server may be with a renewal before that is an alarm, in seconds.
LATE_S: Final = 2 * 3600

Keeper = Literal["people", "server"]
Level = Literal["ok", "soon", "urgent", "late", "expired"]


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that lapses.

    Attributes:
        role: `root`, `targets`, `product/gw1`, `snapshot`, `timestamp`, or `grant/gw1-7` for a fallback grant.
        version: of the document; the serial of a grant.
        expires_at: unix seconds.
        keeper: who renews it. A grant is renewed by nobody.
        renew_at: when the server renews it by itself, unix seconds; 0 for what people keep.
        fix: the command that begins its renewal; empty where nobody need act.
    """

    role: str
    version: int
    expires_at: int
    keeper: Keeper = "people"
    renew_at: int = 0
    fix: str = ""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the calendar: what lapses, and how urgent that is at one moment.

    `level` is `ok`; `soon`: within its first alarm; `urgent`: within seven days; `late`: the server should have renewed it; `expired`.
    """

    role: str
    version: int
    expires_at: int
    expires_in_s: int
    keeper: Keeper
    level: Level
    fix: str = ""


def entries(dues: Iterable[Due], now: int) -> tuple[Entry, ...]:
    """Return the calendar at `now` (unix seconds), the earliest day first; within a day, by name."""
    found = sorted(dues, key=lambda one: (one.expires_at // DAY_S, one.role, one.version))
    return tuple(
        Entry(
            role=one.role,
            version=one.version,
            expires_at=one.expires_at,
            expires_in_s=one.expires_at - now,
            keeper=one.keeper,
            level=level(one, now),
            fix=one.fix,
        )
        for one in found
    )


def level(due: Due, now: int) -> Level:
    """Say how urgent one thing is at `now` (unix seconds)."""
    left = due.expires_at - now
    if left <= 0:
        return "expired"
    if due.keeper == "server":
        return "late" if now > due.renew_at + LATE_S else "ok"
    if not due.fix:
        return "ok"  # a grant ends as it was meant to
    if left <= min(ALARM_DAYS) * DAY_S:
        return "urgent"
    first = ROOT_ALARM_DAYS if due.role == "root" else max(ALARM_DAYS)
    return "soon" if left <= first * DAY_S else "ok"


def days(seconds: int) -> int:
    """Return how many days that is, begun ones counted."""
    return -(-seconds // DAY_S)


def due_of(role: str, version: int, expires_at: int) -> Due:
    """Return what offline keys signed, as a line of the calendar."""
    return Due(role=role, version=version, expires_at=expires_at, fix=fix_of(role))


def fix_of(role: str) -> str:
    """Return the command that begins the renewal of what people keep."""
    if role == "root":
        return "tidegate root begin ceremony.toml --previous root.json"
    if role == "targets":
        return "tidegate targets begin --previous targets.json"
    return f"tidegate product re-sign {role.removeprefix('product/')}"


# --- iCalendar (RFC 5545) -------------------------------------------------------------------------------------------------


def icalendar(found: Iterable[Entry], *, now: int, place: str) -> str:
    """Write what people have to renew as an iCalendar file, with an alarm 30, 14 and 7 days before each end.

    Args:
        found: the calendar. What the server keeps is left out: it would only be noise.
        now: unix seconds; when the file was made.
        place: whose calendar it is (a tenant or host); part of each event's lasting identity.
    """
    lines = [
        "BEGIN:VCALENDAR",
        "VERSION:2.0",
        "PRODID:-//Tidegate//expiry calendar//EN",
        "CALSCALE:GREGORIAN",
        f"X-WR-CALNAME:{_text(f'Tidegate {place}: keys and signatures')}",
    ]
    for one in found:
        if one.keeper == "people":
            lines += _event(one, now, place)
    lines.append("END:VCALENDAR")
    return "".join(f"{_folded(line)}\r\n" for line in lines)


def _event(one: Entry, now: int, place: str) -> list[str]:
    title = f"{one.role} {one.version} expires ({place})"
    said = f"Begin its renewal with: {one.fix}" if one.fix else "It ends as it was meant to."
    lines = [
        "BEGIN:VEVENT",
        f"UID:{_text(f'{one.role}-{one.version}@{place}')}",
        f"DTSTAMP:{_utc(now)}",
        f"DTSTART:{_utc(one.expires_at)}",
        "DURATION:PT1H",
        "TRANSP:TRANSPARENT",
        f"SUMMARY:{_text(title)}",
        f"DESCRIPTION:{_text(said)}",
    ]
    first = (ROOT_ALARM_DAYS,) if one.role == "root" else ()
    for before in (*first, *ALARM_DAYS) if one.fix else ():
        lines += [
            "BEGIN:VALARM",
            "ACTION:DISPLAY",
            f"DESCRIPTION:{_text(f'{one.role} {one.version} expires in {before} days')}",
            f"TRIGGER:-P{before}D",
            "END:VALARM",
        ]
    return [*lines, "END:VEVENT"]


def _utc(at: int) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y%m%dT%H%M%SZ}"


def _text(text: str) -> str:
    """Escape a text value; control characters have no place in one."""
    safe = "".join(char if char.isprintable() else " " for char in text)
    return safe.replace("\\", "\\\\").replace(";", "\\;").replace(",", "\\,")


def _folded(line: str) -> str:
    """Fold a content line at 75 octets, between characters."""
    pieces: list[str] = []
    piece = ""
    for char in line:
        limit = 75 if not pieces else 74
        if len((piece + char).encode()) > limit:
            pieces.append(piece)
            piece = ""
        piece += char
    return "\r\n ".join([*pieces, piece])
