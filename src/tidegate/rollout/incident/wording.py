"""How a report writes moments, durations and who it was."""

import datetime as dt
from typing import Final

NONE: Final = "\N{EN DASH}"


def when(at: int) -> str:
    """Write unix seconds for people, in UTC; a dash where there is none."""
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d %H:%M:%S") if at else NONE


def day(at: int) -> str:
    """Write the day of unix seconds, in UTC; a dash where there is none."""
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d") if at else NONE


def exactly(seconds: int) -> str:
    """Write a duration to the second: of two moments in one minute one is the later."""
    hours, rest = divmod(max(0, seconds), 3_600)
    minutes, left = divmod(rest, 60)
    parts = ((hours, "h"), (minutes, "min"), (left, "s"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "0 s"


def who(name: str) -> str:
    """Say who it was: the planner is the gate."""
    return "the gate" if name == "planner" else name


def counted(count: int, word: str) -> str:
    """Write a count with its word: `1 device`, `2 devices`."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"
