"""The loop's end of a worker process: JSON lines on its pipes, one task at a time; ended when there has been nothing to do for a while.

The worker loads tuf and cryptography, the loop never does; when the worker is gone, so is their memory. When it dies, the loop sees the end of the pipe and
the job has failed (`agent.internal`, to be tried again); when the loop dies, the worker's input ends, and so does the worker.
"""

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

import msgspec

from tidegate.agent.events import (
    Failed,
)
from tidegate.agent.jobs import TAP_MARK, Quiet, Reply, Task
from tidegate.agent.net.pacer import Tap
from tidegate.agent.ports import Clock
from tidegate.agent.settings import Config

#: How long one look for an answer waits, in seconds: the loop stays awake to people and the watchdog.
LOOK_S: Final = 0.2
_LINE_MAX: Final = 4 << 20


class SubprocessWorker:
    """Performs tasks in a process of their own.

    Args:
        config: what the next worker is told. It never reads the files: what stands there now may be half written, or wrong.
        clock: for the time of a failure.
    """

    def __init__(self, config: Config, clock: Clock) -> None:
        self.config = config
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._narrow = False

    def perform(self, task: Task) -> Iterator[Reply]:
        """Hand a worker the task and yield what it answers; `Quiet` while it says nothing. Closing the iterator early ends the worker."""
        process = self._process
        if process is None or process.poll() is not None:
            process = self._process = self._start()
        finished = False
        try:
            yield from self._talk(process, task)
            finished = True
        finally:
            if not finished:
                self.rest()

    def tell(self, tap: Tap) -> None:
        """Open or close the tap of the transfer under way. A worker that is gone does not hear it; the next task says it again."""
        process = self._process
        if process is None or process.stdin is None:
            return
        with contextlib.suppress(OSError):
            process.stdin.write(TAP_MARK + msgspec.json.encode(tap) + b"\n")
            process.stdin.flush()

    def rest(self) -> None:
        """End the worker, if there is one."""
        process, self._process = self._process, None
        if process is not None:
            _end(process)

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "tidegate.agent.worker"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None  # noqa: S101 - opened above; for the type checker
        with contextlib.suppress(BrokenPipeError):
            told = msgspec.structs.replace(self.config, narrow=self._narrow)
            process.stdin.write(msgspec.json.encode(told) + b"\n")
        return process

    def _talk(self, process: "subprocess.Popen[bytes]", task: Task) -> Iterator[Reply]:
        assert process.stdin is not None  # noqa: S101 - opened above; for the type checker
        assert process.stdout is not None  # noqa: S101 - the same
        decoder = msgspec.json.Decoder(Reply)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(msgspec.json.encode(task) + b"\n")
            process.stdin.flush()
        output = process.stdout.fileno()
        buffer = b""
        while True:
            ready, _, _ = select.select([output], [], [], LOOK_S)
            if not ready:
                yield Quiet()
                continue
            piece = os.read(output, 1 << 16)
            buffer += piece
            *lines, buffer = buffer.split(b"\n")
            for line in lines:
                if line == b"done":
                    return
                reply: Reply = decoder.decode(line)
                if isinstance(reply, Failed) and reply.reason == "download.timeout":
                    # As its transport does by itself (`agent.net.link`): the next worker begins where this one ends.
                    self._narrow = not self._narrow
                yield reply
            if not piece or len(buffer) > _LINE_MAX:
                self.rest()
                yield self._died()
                return

    def _died(self) -> Failed:
        return Failed(
            now=max(0, int(self._clock.now())),
            mono=self._clock.monotonic(),
            reason="agent.internal",
            detail="the update worker ended before its job did",
            retryable=True,
        )


def _end(process: "subprocess.Popen[bytes]") -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    if process.poll() is None:
        try:
            process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
