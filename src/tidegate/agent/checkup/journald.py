"""Reads systemd's journal with `journalctl`: counts entries from a place on, and shows the end of a boot. Nothing is loaded whole.

Format: `journalctl -o json` prints one JSON object a line, whatever a message holds, each with `__CURSOR`, the place of the entry (systemd.journal-fields(7)).
"""

import contextlib
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from tidegate.agent import programs

#: Longest time for one question, in seconds. What was counted by then counts, and the next question goes on there.
ASK_S: Final = 3.0
#: Names of priorities, most urgent first (syslog(3)); also their numbers.
PRIORITIES: Final = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
#: An entry longer than this is counted, and its cursor passed over.
_LINE_MAX: Final = 1 << 20


class Counted(NamedTuple):
    """How many entries there were, and behind which to go on. `problem`: why the journal could not be read to its end."""

    entries: int
    cursor: str
    problem: str = ""


class _Entry(msgspec.Struct):
    cursor: str = msgspec.field(name="__CURSOR", default="")
    boot: str = msgspec.field(name="_BOOT_ID", default="")


class _Lines:
    """Counts lines and keeps the last one."""

    def __init__(self) -> None:
        self.count = 0
        self.last = b""
        self._rest = b""

    def take(self, piece: bytes) -> None:
        *whole, rest = (self._rest + piece).split(b"\n")
        self._rest = rest if len(rest) <= _LINE_MAX else rest[:_LINE_MAX]
        self.count += len(whole)
        if whole:
            self.last = whole[-1]

    def entry(self) -> _Entry:
        with contextlib.suppress(msgspec.DecodeError):
            return msgspec.json.decode(self.last, type=_Entry)
        return _Entry()


def is_priority(word: str) -> bool:
    """Say whether this names a priority."""
    return word in PRIORITIES or (word.isdigit() and int(word) < len(PRIORITIES))


def end() -> Counted:
    """Return the place behind the newest entry of this boot. That there is none is a problem: every system that keeps a journal writes into it."""
    lines = _Lines()
    problem = _ask(["--boot", "--lines=1", "--output=json", "--output-fields=_BOOT_ID"], lines)
    cursor = lines.entry().cursor
    return Counted(
        0, cursor, problem or ("" if cursor else "the journal holds nothing of this boot")
    )


def count(cursor: str, priority: str, units: Sequence[str] = ()) -> Counted:
    """Count this boot's entries behind a place ("" = from the boot on) that are at least as urgent as `priority`.

    Args:
        cursor: from an earlier answer. One whose entry was thrown away since means the next one that is there.
        priority: a name or a number of `PRIORITIES`.
        units: only entries of these; none = of all.
    """
    words = ["--boot", f"--priority={priority}", "--output=json", "--output-fields=_BOOT_ID"]
    words += [f"--unit={one}" for one in units]
    if cursor:
        words.append(f"--after-cursor={cursor}")
    lines = _Lines()
    problem = _ask(words, lines)
    return Counted(lines.count, lines.entry().cursor or cursor, problem)


def boot_before() -> str:
    """Return the id of the boot before this one, 32 hex digits; "" where the journal knows none (it is not kept, or this is the first)."""
    lines = _Lines()
    _ask(["--boot=-1", "--lines=1", "--output=json", "--output-fields=_BOOT_ID"], lines)
    return lines.entry().boot


def tail(boot: str, lines: int = 300) -> str:
    """Return the last lines of a boot, `0` for this one; "" where there is nothing."""
    ran = programs.run(
        [
            "journalctl",
            f"--boot={boot}",
            f"--lines={lines}",
            "--output=short-monotonic",
            "--no-hostname",
            "--no-pager",
            "--quiet",
        ],
        ASK_S,
    )
    return ran.output.decode("utf-8", "replace") if ran.code == 0 else ""


def _ask(words: Sequence[str], lines: _Lines) -> str:
    """Ask, and return why there is no whole answer; "" when there is."""
    command = ["journalctl", *words, "--no-pager", "--quiet"]
    ran = programs.run(command, ASK_S, take=lines.take)
    if ran.code is None:
        return ran.problem
    return "" if ran.code == 0 else f"journalctl: exit code {ran.code}"
