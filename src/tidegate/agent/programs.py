"""Runs a program for whoever needs its answer: bounded in time and in what is kept of its output, and nothing of it is left running.

A program gets a session of its own. When its time is up, or it has ended and left children behind, the whole process group is killed: a health check that
hangs must not pile up processes round after round.
"""

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import BinaryIO, Final, NamedTuple

#: Most of an output that is kept, in bytes.
KEEP_BYTES: Final = 64 << 10
#: Wait for the rest of an output after its program has ended, in seconds: a child that it left may hold the pipe open for ever.
_REST_S: Final = 0.2
_PIECE: Final = 1 << 16
#: Seconds between two signs of life of a program that is waited for.
LOOK_S: Final = 2.0
_PR_SET_PDEATHSIG: Final = 1
#: Process groups that run now, for whoever must end in a hurry.
_groups: set[int] = set()
_lock = threading.Lock()


class Ran(NamedTuple):
    """What became of a program.

    Attributes:
        code: its exit code; negative = killed by that signal; None = it could not be started, or its time was up.
        output: the end of its standard output, and of its errors where they were asked for.
        problem: why there is no code, in words; "" otherwise.
    """

    code: int | None
    output: bytes = b""
    problem: str = ""


def run(
    command: Sequence[str],
    timeout_s: float,
    *,
    errors: "bool | BinaryIO" = False,
    environment: Mapping[str, str] | None = None,
    take: Callable[[bytes], None] | None = None,
) -> Ran:
    """Run a program to its end, at most `timeout_s` seconds; `running` without a break."""
    steps = running(command, timeout_s, errors=errors, environment=environment, take=take)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            ran: Ran = end.value
            return ran


def running(
    command: Sequence[str],
    timeout_s: float,
    *,
    errors: "bool | BinaryIO" = False,
    environment: Mapping[str, str] | None = None,
    take: Callable[[bytes], None] | None = None,
    cwd: str | None = None,
    with_parent: bool = False,
) -> Generator[None, None, Ran]:
    """Run a program to its end, at most `timeout_s` seconds. Yields every two seconds, so that whoever waits can show that he lives.

    Closing the generator kills the program with all that it started.

    Args:
        command: the program and its arguments; no shell is involved.
        timeout_s: after this it is killed with all that it started.
        errors: its standard error belongs to the output; or it goes to this file; else it is thrown away.
        environment: added to this process' own. Programs that are read get `LC_ALL=C`.
        take: gets the output piece by piece instead of its end being kept.
        cwd: its working directory.
        with_parent: the kernel kills it when the thread that started it ends, however that happens.
    """
    env = {**os.environ, **(environment or {"LC_ALL": "C"})}
    sink = (
        (subprocess.STDOUT if errors else subprocess.DEVNULL)
        if isinstance(errors, bool)
        else errors
    )
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=sink,
            env=env,
            cwd=cwd,
            start_new_session=True,
            preexec_fn=_die_with_parent if with_parent else None,  # noqa: PLW1509 - one system call, no lock
        )
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or str(error)
        return Ran(None, problem=f"{command[0]}: {words}"[:200])
    with _lock:
        _groups.add(process.pid)
    kept = _Tail()
    try:
        whole = yield from _read(process, time.monotonic() + timeout_s, take or kept.take)
    finally:
        _end(process)
    if not whole:
        return Ran(None, kept.tail, f"{command[0]}: no answer in {timeout_s:g} s"[:200])
    return Ran(process.returncode, kept.tail)


def end_all() -> None:
    """Kill every program that runs for this process. For its last moment."""
    for group in tuple(_groups):
        _kill(group)


class _Tail:
    """The last bytes of an output."""

    def __init__(self) -> None:
        self.tail = b""

    def take(self, piece: bytes) -> None:
        self.tail = (self.tail + piece)[-KEEP_BYTES:]


def _read(
    process: "subprocess.Popen[bytes]", until: float, take: Callable[[bytes], None]
) -> Generator[None, None, bool]:
    """Read the output until the program has ended. Return whether it did in time."""
    assert process.stdout is not None  # noqa: S101 - opened by the caller; for the type checker
    output = process.stdout.fileno()
    told = time.monotonic()
    while True:
        now = time.monotonic()
        if now - told >= LOOK_S:
            told = now
            yield
        ended = process.poll() is not None
        if ended:
            until = min(until, now + _REST_S)
        left_s = until - now
        if left_s <= 0:
            return ended
        ready, _, _ = select.select([output], [], [], min(left_s, 0.05))
        if not ready:
            if ended:
                return True
            continue
        piece = os.read(output, _PIECE)
        if not piece:
            # It may close its output and go on.
            return (yield from _ends(process, until))
        take(piece)


def _ends(process: "subprocess.Popen[bytes]", until: float) -> Generator[None, None, bool]:
    while (left_s := until - time.monotonic()) > 0:
        try:
            process.wait(min(left_s, LOOK_S))
        except subprocess.TimeoutExpired:
            yield
        else:
            return True
    return process.poll() is not None


def _end(process: "subprocess.Popen[bytes]") -> None:
    _kill(process.pid)
    assert process.stdout is not None  # noqa: S101 - opened by the caller; for the type checker
    process.stdout.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        # What the kernel holds on to cannot be killed: it is left behind.
        process.wait(1.0)
    with _lock:
        _groups.discard(process.pid)


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _die_with_parent() -> None:
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
