"""Runs somebody else's program for the worker: bounded in time, in what it prints, and never outliving the worker.

The program gets a process group of its own. It is killed with all its children when its time is over or when the worker gives the job up; and by the
kernel when the worker itself is killed. No shell is involved.
"""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from tidegate.agent.jobs import Quiet
from tidegate.core.errors import DeviceError

#: Bytes kept of what a program prints: its end, where errors stand.
KEPT: Final = 8 << 10
#: Seconds between two signs of life.
LOOK_S: Final = 2.0
_PR_SET_PDEATHSIG: Final = 1


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
        self._environment = {**os.environ, "LC_ALL": "C", **(environment or {})}
        self.status: int | None = None
        self.output = ""

    def run(self) -> Iterator[Quiet]:
        """Run it to its end; yield a sign of life now and then. Closing the iterator kills it.

        Raises:
            DeviceError: it is not there, or took too long.
        """
        process = self._start()
        kept = bytearray()
        end = time.monotonic() + self._timeout_s
        try:
            assert process.stdout is not None  # noqa: S101 - opened by us; for the type checker
            output = process.stdout.fileno()
            said = time.monotonic()
            while True:
                now = time.monotonic()
                if now >= end:
                    detail = f"{self._name} took longer than {self._timeout_s:.0f} s: {_last(kept)}"
                    raise DeviceError(self._code, detail)
                ready, _, _ = select.select([output], [], [], min(LOOK_S, end - now))
                if ready:
                    piece = os.read(output, 1 << 16)
                    if not piece:
                        break
                    kept += piece
                    del kept[:-KEPT]
                if time.monotonic() - said >= LOOK_S:
                    said = time.monotonic()
                    yield Quiet()
            self.status = _wait(process, max(0.0, end - time.monotonic()))
        finally:
            _kill(process)
            self.output = kept.decode("utf-8", "replace")
        if self.status is None:
            detail = f"{self._name} closed its output and went on for {self._timeout_s:.0f} s"
            raise DeviceError(self._code, detail)

    def last(self) -> str:
        """Return the last lines it printed, in one, for an error's detail."""
        return _last(self.output.encode())

    @property
    def _name(self) -> str:
        return os.path.basename(self._command[0])  # noqa: PTH119 - a name, not a file

    def _start(self) -> "subprocess.Popen[bytes]":
        try:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=None if self._apart else subprocess.STDOUT,
                cwd=self._cwd,
                env=self._environment,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one system call, no lock
            )
        except OSError as error:
            raise DeviceError(
                self._code,
                f"{self._command[0]}: {error.strerror}",
                hint="install the program, or take it out of [installer] allow",
            ) from error


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


def _wait(process: "subprocess.Popen[bytes]", seconds: float) -> int | None:
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return None


def _kill(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _die_with_parent() -> None:
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
