"""The process that does one round of health checks: `python -m tidegate.agent.checkup`, an order on its standard input, a line for each check on its output.

Checks run side by side in threads. One that hangs in the kernel cannot be stopped, but the process can: it ends when the round's budget is spent, when it is
told to, and when its parent is gone, and takes with it every program that a check started.
"""

import os
import queue
import signal
import sys
import threading
import time
from typing import Final

import msgspec

from tidegate.agent import health, programs
from tidegate.agent.checkup.examiner import SIDE_BY_SIDE, Line, Order, timeout_of
from tidegate.agent.ports import HealthProbe
from tidegate.core.release import HealthCheck

#: How often it is looked whether the parent still lives, in seconds.
_LOOK_S: Final = 0.25
_print = threading.Lock()


def main() -> int:
    """Do the round that standard input asks for."""
    parent = os.getppid()
    signal.signal(signal.SIGTERM, _stop)
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    until = time.monotonic() + order.budget_s
    asked = (*order.checkup.signed, *order.checkup.own)
    waiting: queue.SimpleQueue[tuple[int, str, HealthProbe, health.Place]] = queue.SimpleQueue()
    left = threading.Semaphore(0)
    for index, check in enumerate(asked):
        place = _place(check, order)
        reason, probe = health.load(check, place)
        # What it stands for is said first: it holds also for a check that never answers.
        _say(Line(index=index, reason=reason))
        waiting.put((index, reason, probe, place))
    for _ in range(min(SIDE_BY_SIDE, len(asked))):
        threading.Thread(target=_work, args=(waiting, left), daemon=True).start()
    done = 0
    while done < len(asked) and time.monotonic() < until and os.getppid() == parent:
        done += left.acquire(timeout=_LOOK_S)
    programs.end_all()
    # Threads that hang are not waited for.
    os._exit(0)


def _place(check: HealthCheck, order: Order) -> health.Place:
    prefix = f"{check.name}/"
    known = {
        name.removeprefix(prefix): value
        for name, value in order.checkup.bases.items()
        if name.startswith(prefix)
    }
    allowed = check.settings.get("fails_max", 0)
    return health.Place(
        server=order.server,
        timeout_s=timeout_of(check),
        bases=known,
        name=prefix,
        fails_max=allowed if isinstance(allowed, int) else 0,
    )


def _work(
    waiting: "queue.SimpleQueue[tuple[int, str, HealthProbe, health.Place]]",
    left: threading.Semaphore,
) -> None:
    while True:
        try:
            index, reason, probe, place = waiting.get_nowait()
        except queue.Empty:
            return
        ok, detail = place.tolerate(*_ask(probe))
        bases = {f"{place.name}{name}": value for name, value in place.bases.items()}
        _say(Line(index=index, reason=reason, ok=ok, detail=detail[:200], bases=bases))
        left.release()


def _ask(probe: HealthProbe) -> tuple[bool, str]:
    try:
        return probe.check(time.monotonic())
    except Exception as error:  # noqa: BLE001 - a fault in one check is that check's failure, and nobody else's
        return False, f"a fault in the check: {type(error).__name__}: {error}"


def _say(line: Line) -> None:
    with _print:
        # A parent that does not read any more ends this process.
        os.write(1, msgspec.json.encode(line) + b"\n")


def _stop(number: int, _frame: object) -> None:
    programs.end_all()
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
