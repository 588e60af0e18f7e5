"""`tidegate-agent inhibit`: hold an inhibitor while a command runs, or until told to end. The command line's side, never loaded by the loop.

An agent that restarts meanwhile has forgotten the connection; it is told again as soon as it is back.
"""

import contextlib
import select
import signal
import socket
import subprocess
import sys
from typing import Final

from tidegate.agent.local import connect
from tidegate.agent.verbs import Request
from tidegate.core.errors import HINTS, TransferError

_LOOK_S: Final = 0.5
#: As a shell says it.
_NOT_FOUND: Final = 127
_KILLED: Final = 128


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


class Holder:
    """Holds one inhibitor.

    Args:
        path: of the agent's socket.
        request: the inhibitor.
    """

    def __init__(self, path: str, request: Request) -> None:
        self._path = path
        self._request = request
        self._connection: socket.socket | None = None
        self._ended = False
        self._told = False

    def run(self, command: list[str]) -> int:
        """Hold it while `command` runs, or without one until a signal. Return the command's exit code, 1 when the agent refuses.

        Raises:
            TransferError: `link.unreachable`: no agent answers; the command was not started.
        """
        if not self._take(first=True):
            return 1
        try:
            return self._during(command) if command else self._until_told()
        finally:
            self._let_go()

    def _take(self, *, first: bool = False) -> bool:
        try:
            found, connection = connect(self._path, self._request)
        except TransferError:
            if first:
                raise
            return False
        if found["ok"]:
            self._connection = connection
            self._told = False
            return True
        connection.close()
        if not self._told:
            self._told = True
            code = str(found["code"])
            _say(f"error[{code}]: {found['detail']}")
            _say(f"  do    {HINTS.get(code, 'look at tidegate-agent status')}")
        return False

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _keep(self, pause_s: float) -> None:
        """Wait a moment; take it again if the agent went away."""
        connection = self._connection
        ready = select.select([connection] if connection else [], [], [], pause_s)[0]
        if connection is not None and not ready:
            return
        if connection is not None:
            with contextlib.suppress(OSError):
                if connection.recv(4096):
                    return
            self._let_go()
            _say("the agent has let go; asking it again")
        self._take()

    def _until_told(self) -> int:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._end)
        while not self._ended:
            self._keep(_LOOK_S)
        return 0

    def _end(self, number: int, frame: object) -> None:
        self._ended = True

    def _during(self, command: list[str]) -> int:
        waiting: list[int] = []
        child: subprocess.Popen[bytes] | None = None

        def pass_on(number: int, _frame: object) -> None:
            if child is None:
                waiting.append(number)
            else:
                child.send_signal(number)

        # The terminal's Ctrl-C reaches the command by itself; what is sent to us alone is passed on.
        signal.signal(signal.SIGINT, lambda _number, _frame: None)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, pass_on)
        try:
            child = subprocess.Popen(command)
        except OSError as error:
            _say(f"error[config.unreadable]: {command[0]}: {error.strerror}")
            _say("  do    check its name and that it may be run")
            return _NOT_FOUND
        for early in waiting:
            child.send_signal(early)
        while child.poll() is None:
            self._keep(0.05 if self._connection else _LOOK_S)
        code = child.returncode
        return code if code >= 0 else _KILLED - code
