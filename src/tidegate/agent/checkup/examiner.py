"""Does the checks of a health contract beside the loop: in a process that can be ended whatever a check hangs in, or at once where nothing can hang.

A round has one budget. Checks run side by side in that process (`agent.checkup`); what did not answer when the budget is spent failed. Between rounds there is
no such process, and the loop never waits for one: it looks whether an answer has come.
"""

# pathlib would cost the resident process a quarter of a MiB.

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Final

import msgspec

from tidegate.agent.ports import Bases, Checkup, Finding, Findings, HealthProbe
from tidegate.core.release import HealthCheck

#: Checks that run side by side.
SIDE_BY_SIDE: Final = 8
#: Longest time for one check, in seconds, when its contract says nothing, and whatever it says.
CHECK_S: Final = 5
CHECK_MAX_S: Final = 60
#: Longest time for a round, and what its process may take to start, in seconds: a small board that has just come up is busy. Once it runs it ends by itself.
ROUND_MAX_S: Final = 90.0
START_S: Final = 60.0
#: Time that a process has to end what it started, before it is killed, in seconds.
GRACE_S: Final = 1.0
_OUTPUT_MAX: Final = 256 << 10


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is told, as JSON on its standard input: the round, and what checks may know of the device.

    Attributes:
        server: the control plane's URL, for checks that ask for it.
        budget_s: when it must be done.
    """

    checkup: Checkup
    server: str = ""
    budget_s: float = ROUND_MAX_S


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line that it prints: what a check stands for, then its word. `bases` is what the check wants remembered."""

    index: int
    reason: str
    ok: bool | None = None
    detail: str = ""
    bases: Bases = {}


def timeout_of(check: HealthCheck) -> int:
    """Return how long a check may take, in seconds: its `timeout_s`, within bounds."""
    asked = check.settings.get("timeout_s", CHECK_S)
    return max(1, min(asked, CHECK_MAX_S)) if isinstance(asked, int) else CHECK_S


def budget_of(checkup: Checkup) -> float:
    """Return how long a round may take, in seconds: what its checks may, side by side."""
    times = [timeout_of(one) for one in (*checkup.signed, *checkup.own)]
    together = sum(times) / SIDE_BY_SIDE
    return min(ROUND_MAX_S, max([together, *times]) + 1.0)


class InPlace:
    """`agent.ports.Examiner` in this process, for checks that cannot hang: those of a simulated board.

    Args:
        probe: makes a check from a contract's entry; the text is the reason that its failure stands for.
        now: seconds, handed to each check.
    """

    def __init__(
        self,
        probe: Callable[[HealthCheck], tuple[str, HealthProbe]],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._probe = probe
        self._now = now
        self._findings: Findings | None = None

    def begin(self, checkup: Checkup) -> None:
        """Do the whole round."""
        asked = [(one, False) for one in checkup.signed] + [(one, True) for one in checkup.own]
        results = []
        for check, own in asked:
            reason, probe = self._probe(check)
            ok, detail = probe.check(self._now())
            results.append(
                Finding(name=check.name, reason=reason, ok=ok, detail=detail[:200], own=own)
            )
        self._findings = Findings(results=tuple(results), bases=checkup.bases)

    def answer(self) -> Findings | None:
        """Return what was found, once."""
        found, self._findings = self._findings, None
        return found

    def close(self) -> None:
        """Forget the round."""
        self._findings = None


class Apart:
    """`agent.ports.Examiner` in a process of its own.

    Args:
        server: the control plane's URL.
        monotonic: seconds that stand still while the device sleeps: a round is not late because of that.
    """

    def __init__(self, server: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._server = server
        self._monotonic = monotonic
        self._checkup: Checkup | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ending: list[tuple[subprocess.Popen[bytes], float]] = []
        self._buffer = b""
        self._lines: dict[int, Line] = {}
        self._until = 0.0
        self._trouble = ""

    def begin(self, checkup: Checkup) -> None:
        """Start the process. That it cannot be started is an answer too."""
        self._drop()
        self._checkup = checkup
        self._buffer, self._lines, self._trouble = b"", {}, ""
        budget_s = budget_of(checkup)
        self._until = self._monotonic() + budget_s + START_S
        order = Order(checkup=checkup, server=self._server, budget_s=budget_s)
        try:
            self._process = _start(msgspec.json.encode(order))
        except OSError as error:
            self._trouble = f"the checks could not be started: {error.strerror}"

    def answer(self) -> Findings | None:
        """Return what was found once all is there, the process ended, or the time is up."""
        self._reap()
        checkup = self._checkup
        if checkup is None:
            return None
        if self._process is not None and not self._heard(checkup):
            if self._monotonic() < self._until:
                return None
            self._trouble = "did not answer in time"
        self._drop()
        return self._findings(checkup)

    def close(self) -> None:
        """End the process, if there is one."""
        self._drop()
        until = self._monotonic() + GRACE_S
        while self._ending and self._monotonic() < until:
            self._reap()
            if self._ending:
                time.sleep(0.01)
        for process, _ in self._ending:
            _kill(process)
        self._reap()

    def _heard(self, checkup: Checkup) -> bool:
        """Take in what was printed. Return whether that is all there will be."""
        process = self._process
        assert process is not None  # noqa: S101 - asked by the caller; for the type checker
        assert process.stdout is not None  # noqa: S101 - opened at its start; the same
        output = process.stdout.fileno()
        ended = False
        while len(self._buffer) < _OUTPUT_MAX:
            try:
                piece = os.read(output, 1 << 16)
            except BlockingIOError:
                break
            if not piece:
                ended = True
                break
            self._buffer += piece
            *whole, self._buffer = self._buffer.split(b"\n")
            for line in whole:
                self._take(line)
        else:
            ended = True
        count = len(checkup.signed) + len(checkup.own)
        if sum(one.ok is not None for one in self._lines.values()) >= count:
            return True
        if ended:
            code = process.poll()
            self._trouble = "the process that does the checks ended" + (
                f" by signal {-code}" if code is not None and code < 0 else " before its time"
            )
        return ended

    def _take(self, line: bytes) -> None:
        with contextlib.suppress(msgspec.DecodeError):
            found = msgspec.json.decode(line, type=Line)
            self._lines[found.index] = found

    def _findings(self, checkup: Checkup) -> Findings:
        asked = [(one, False) for one in checkup.signed] + [(one, True) for one in checkup.own]
        bases = dict(checkup.bases)
        results = []
        for index, (check, own) in enumerate(asked):
            said = self._lines.get(index, Line(index=index, reason="health.timeout"))
            bases |= said.bases
            detail = said.detail if said.ok is not None else self._trouble
            results.append(
                Finding(
                    name=check.name,
                    reason=said.reason,
                    ok=said.ok is True,
                    detail=detail[:200],
                    own=own,
                )
            )
        return Findings(results=tuple(results), bases=bases)

    def _drop(self) -> None:
        """Let the process end. It is asked first, so that it can end what it started; nobody waits for that here."""
        process, self._process, self._checkup = self._process, None, None
        if process is None:
            return
        if process.stdout is not None:
            process.stdout.close()
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            self._ending.append((process, self._monotonic() + GRACE_S))

    def _reap(self) -> None:
        for one in tuple(self._ending):
            process, until = one
            if process.poll() is not None:
                self._ending.remove(one)
            elif self._monotonic() >= until:
                # What the kernel holds on to cannot be killed; it is looked after again at the next round.
                _kill(process)


def _start(order: bytes) -> "subprocess.Popen[bytes]":
    # A file in memory, not a pipe: nothing here waits for somebody to read it.
    told = os.memfd_create("tidegate-checkup")
    try:
        os.write(told, order)
        os.lseek(told, 0, os.SEEK_SET)
        command = [sys.executable, "-m", "tidegate.agent.checkup"]
        process = subprocess.Popen(
            command, stdin=told, stdout=subprocess.PIPE, start_new_session=True
        )
    finally:
        os.close(told)
    assert process.stdout is not None  # noqa: S101 - opened above; for the type checker
    os.set_blocking(process.stdout.fileno(), False)
    return process


def _kill(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
