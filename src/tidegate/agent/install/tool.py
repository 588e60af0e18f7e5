"""Runs somebody else's program for the worker: bounded in time, in what it prints, and never outliving the worker.

`agent.programs` with signs of life and errors for the worker: the program is killed with all its children when its time is over or when the worker gives the
job up, and by the kernel when the worker itself is killed.
"""

import shutil
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Final

from tidegate.agent import programs
from tidegate.agent.jobs import Quiet
from tidegate.core.errors import DeviceError

#: Bytes kept of what a program prints: its end, where errors stand.
KEPT: Final = 8 << 10


class Tool:
    """One run of one program.

    Args:
        command: the program and its arguments.
        timeout_s: after so many seconds it is killed, and `run` raises.
        code: error code for a program that cannot be started or hangs.
        cwd: its working directory.
        environment: added to this process' own.
        apart: keep what it prints on standard output alone; its errors go where this process' own go.

    Attributes:
        status: its exit status; negative = ended by that signal. None until it ended.
        output: the end of what it printed, both streams together unless `apart`.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        timeout_s: float,
        code: str = "install.installer",
        cwd: str | None = None,
        environment: Mapping[str, str] | None = None,
        apart: bool = False,
    ) -> None:
        self._apart = apart
        self._command = list(command)
        self._timeout_s = timeout_s
        self._code = code
        self._cwd = cwd
        self._environment = environment or {}
        self.status: int | None = None
        self.output = ""

    def run(self) -> Iterator[Quiet]:
        """Run it to its end; yield a sign of life now and then. Closing the iterator kills it.

        Raises:
            DeviceError: it is not there, or took too long.
        """
        kept = bytearray()

        def take(piece: bytes) -> None:
            kept.extend(piece)
            del kept[:-KEPT]

        steps = programs.running(
            self._command,
            self._timeout_s,
            errors=sys.stderr.buffer if self._apart else True,
            environment={"LC_ALL": "C", **self._environment},
            take=take,
            cwd=self._cwd,
            with_parent=True,
        )
        try:
            ran = yield from _quietly(steps)
        finally:
            self.output = kept.decode("utf-8", "replace")
        if ran.code is None:
            words = f"{ran.problem}: {self.last()}" if kept else ran.problem
            raise DeviceError(
                self._code,
                words,
                hint="see that the program is there and answers, or take it out of [installer] allow",
            )
        self.status = ran.code

    def last(self) -> str:
        """Return the last lines it printed, in one, for an error's detail."""
        return _last(self.output.encode())


def _quietly(
    steps: "Generator[None, None, programs.Ran]",
) -> "Generator[Quiet, None, programs.Ran]":
    try:
        while True:
            try:
                next(steps)
            except StopIteration as end:
                ran: programs.Ran = end.value
                return ran
            yield Quiet()
    finally:
        steps.close()


def require(program: str, what: str) -> None:
    """Raise unless a program can be found.

    Raises:
        DeviceError: `install.installer`.
    """
    if shutil.which(program) is None:
        raise DeviceError(
            "install.installer",
            f"no program {program}",
            hint=f"install {what}, or take it out of [installer] allow",
        )


def _last(kept: bytes | bytearray) -> str:
    lines = [one.strip() for one in kept.decode("utf-8", "replace").splitlines() if one.strip()]
    return " / ".join(lines[-3:])[-300:]
