"""Ask the server in a thread, while the loop goes on listening to people, the service manager and the watchdog. Light.

The loop is synchronous (ADR 0005), and this keeps it so: whoever asks gets the answer as if the call had been made in place, and nothing but the call happens
in the other thread. What is new is that requests of people may be served in the middle of it. A silent server, a name service that hangs, a handshake that
never ends: none of them keeps `tidegate-agent status` waiting, or an order to stop.
"""

import _thread
import os
from collections.abc import Callable
from typing import Any, Final

from tidegate.core.errors import TransferError

#: Waits until this file descriptor is readable, or something else is to be done, and does that; False: the agent was told to stop.
Meanwhile = Callable[[int], bool]
#: Calls something that waits for the link, and gives what it gives.
Way = Callable[[Callable[[], Any]], Any]

_STACK_BYTES: Final = 512 << 10


def in_place(work: Callable[[], Any]) -> Any:
    """Call it here and now: the way of simulators and of tests."""
    return work()


class Beside:
    """A `Way`: one call at a time, each in a thread of its own.

    Args:
        meanwhile: what this thread does in the meantime.
    """

    def __init__(self, meanwhile: Meanwhile) -> None:
        self._meanwhile = meanwhile
        self._stopped = False
        _thread.stack_size(_STACK_BYTES)

    def __call__(self, work: Callable[[], Any]) -> Any:
        """Call `work`, and return or raise what it does.

        Raises:
            TransferError: `download.timeout`: the agent was told to stop, and did not wait for the end. The link is not used any more then.
        """
        found: list[tuple[Any, BaseException | None]] = []
        reading, writing = os.pipe2(os.O_CLOEXEC)

        def do() -> None:
            try:
                found.append((work(), None))
            except BaseException as error:  # noqa: BLE001 - raised where it was asked for
                found.append((None, error))
            finally:
                os.close(writing)

        try:
            if not self._stopped:
                # Nobody waits for its end or asks for its name: what `threading` adds would cost a poll a tenth of its processor time.
                _thread.start_new_thread(do, ())
            while not found and not self._stopped:
                self._stopped = not self._meanwhile(reading)
        finally:
            os.close(reading)
        if not found:
            raise TransferError("download.timeout", "told to stop while the server was asked")
        made, error = found[0]
        if error is not None:
            raise error
        return made
