"""Check `process`: processes run, found by name or command line, for software that nobody supervises.

`names`: of programs, as the kernel knows them (`/proc/PID/comm`, at most 15 characters; longer ones are compared with the program's file name). `command`:
texts, each of which a command line must hold, its arguments separated by blanks. At least `count` processes (default 1) for each. Zombies do not count.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tidegate.agent.health import CheckSettings, Place, number, texts
from tidegate.agent.ports import HealthProbe
from tidegate.core.errors import ConfigError

REASON = "health.service"
KNOWN = frozenset({"names", "command", "count"})
_PROC = Path("/proc")
#: Length of `comm` in the kernel (TASK_COMM_LEN less its end).
_COMM_MAX = 15


class Found(NamedTuple):
    """One living process."""

    name: str
    line: str


def create(settings: CheckSettings, _place: Place) -> HealthProbe:
    """Make the probe."""
    names, commands = texts(settings, "names"), texts(settings, "command")
    if not (names or commands) or not all((*names, *commands)):
        raise ConfigError("config.missing", "names or command: which processes?")
    return Processes(names, commands, number(settings, "count", 1))


class Processes:
    """Everything that runs."""

    def __init__(self, names: list[str], commands: list[str], count: int) -> None:
        self._names = names
        self._commands = commands
        self._count = count

    def check(self, now: float) -> tuple[bool, str]:
        """Look through them once; the first that is missing is the detail."""
        running = list(_running())
        for name in self._names:
            if sum(_is(one, name) for one in running) < self._count:
                return False, f"{name} does not run"[:200]
        for words in self._commands:
            if sum(words in one.line for one in running) < self._count:
                return False, f"nothing runs {words}"[:200]
        return True, "all run"


def _is(found: Found, name: str) -> bool:
    if len(name) <= _COMM_MAX:
        return found.name == name
    program = found.line.partition(" ")[0].rpartition("/")[2]
    return found.name == name[:_COMM_MAX] and program == name


def _running() -> Iterator[Found]:
    me = str(os.getpid())
    for one in _PROC.iterdir():
        if not one.name.isdigit() or one.name == me:
            continue
        try:
            stat = (one / "stat").read_bytes()
            line = (one / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ")
        except OSError:
            # It ended meanwhile.
            continue
        # The name stands in brackets and may hold anything, brackets too; the state follows the last one.
        name, _, rest = stat.partition(b"(")[2].rpartition(b")")
        if rest.split()[:1] not in ([b"Z"], [b"X"]):
            yield Found(name.decode("utf-8", "replace"), line.decode("utf-8", "replace"))
