"""What a command does that stays: wait for the poll that it asked for, or show how the agent fares until it is interrupted. Runs in the command's process."""

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from tidegate.agent.local import Request, ask
from tidegate.core.errors import TransferError

#: How often the agent is asked, in seconds.
LOOK_S: Final = 0.2
WATCH_S: Final = 1.0
#: Longer than this nobody waits for a poll, in seconds: the agent's own time-outs have long passed.
PATIENCE_S: Final = 180.0
#: What of a status is worth a new line where there is no screen; instants and rates change all the time.
_STEADY: Final = ("running", "update", "because", "enrolled", "holds", "problem")


def status(path: str) -> dict[str, Any]:
    """Return the agent's status. Raises TransferError: `link.unreachable`."""
    found: dict[str, Any] = ask(path, Request(verb="status"))["status"]
    return found


def polled(
    path: str,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Wait until a poll that was asked for has been answered or has failed; return the status then. `problem` says what failed.

    Raises:
        TransferError: `link.unreachable`: there is no agent; `download.timeout`: it did not poll.
    """
    until = monotonic() + PATIENCE_S
    while monotonic() < until:
        found = status(path)
        # Nothing is due at once any more: the next poll lies ahead, after this one or after its failure.
        if found["next_poll_s"] >= 1:
            return found
        sleep(LOOK_S)
    raise TransferError("download.timeout", f"the agent has not polled within {PATIENCE_S:.0f} s")


def changes(path: str, sleep: Callable[[float], None] = time.sleep) -> Iterator[dict[str, Any]]:
    """Yield the status each time that something of it changed, for ever. An agent that restarts is waited for."""
    before: object = None
    while True:
        try:
            found = status(path)
        except TransferError:
            sleep(WATCH_S)
            continue
        steady = [found[name] for name in _STEADY]
        if steady != before:
            before = steady
            yield found
        sleep(WATCH_S)


def screen(path: str, lines: Callable[[dict[str, Any]], list[str]]) -> None:
    """Show the status on a terminal, anew each second, until interrupted."""
    while True:
        try:
            text = "\n".join(lines(status(path)))
        except TransferError as error:
            text = error.detail
        sys.stdout.write(f"\x1b[H\x1b[2J{text}\n")
        sys.stdout.flush()
        time.sleep(WATCH_S)
