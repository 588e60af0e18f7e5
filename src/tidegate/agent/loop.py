"""The resident process: ticks the runner, listens on the socket, feeds the service manager's watchdog. No timer faster than needed.

While the server is asked (`agent.net.beside`) there is a second thread; else there is none. The process imports neither tuf nor cryptography: what needs them
happens in a worker process (`agent.subprocess_worker`).
"""

# pathlib would cost the resident process a quarter of a MiB.
# ruff: noqa: PTH103

import contextlib
import fcntl
import os
import select
import signal
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from tidegate.agent.board import RealBoard
from tidegate.agent.local import LocalServer
from tidegate.agent.net.beside import Beside
from tidegate.agent.runner import NEVER, Runner
from tidegate.agent.settings import Config, WatchdogSettings
from tidegate.agent.subprocess_worker import SubprocessWorker
from tidegate.core.errors import HINTS, BusyError

if TYPE_CHECKING:
    from tidegate.agent.checkup.watchdog import Watchdog

#: Longest sleep, in seconds: a clock that was set, a window, an inhibitor are noticed by then.
SLEEP_MAX_S: Final = 3600.0
#: A pause longer than this ends the worker process, in seconds: its start costs about as much as this wait saves.
REST_AFTER_S: Final = 5.0
#: What a device is, and how it is known: nothing that changes under a running agent.
FIXED: Final = (
    "device_id", "product", "hardware", "channel", "agent", "anchor", "key", "installed",
)  # fmt: skip
LOCK_NAME: Final = "agent.lock"


class Loop:
    """Runs one agent until it is told to stop or the device is to restart.

    Args:
        config: what it was told.
        runner: the agent.
        worker: ended when there is nothing to do for a while; None = the runner does all in this process.
        reread: reads the configuration again; None where it is wrong, which was told then.
    """

    def __init__(
        self,
        config: Config,
        runner: Runner,
        worker: SubprocessWorker | None = None,
        reread: Callable[[], Config | None] | None = None,
    ) -> None:
        self._reread = reread
        self._rereads = False
        self._worker = worker
        self._config = config
        self._runner = runner
        self._server: LocalServer | None = None
        self._stopped = False
        self._told = ""
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._manager = Manager()
        self._watchdog = None if config.watchdog is None else _watchdog(config.watchdog)

    def run(self, *, once: bool = False) -> int:
        """Run. Returns the exit code: 0, or what a virtual board's supervisor waits for.

        Args:
            once: return as soon as one poll was answered and nothing is left to do at once.

        Raises:
            BusyError: `agent.locked`: another agent runs with this state directory.
        """
        lock = _lock(self._config.state_dir)
        self._runner.aside(Beside(self._meanwhile))
        try:
            config = self._config
            if not once:
                self._runner.lookout.inhibitors.directory = config.inhibit_dir
                with contextlib.suppress(OSError):
                    # So that whoever says "not now" with a file finds where to put it.
                    os.makedirs(config.inhibit_dir, exist_ok=True)
                self._server = LocalServer(
                    config.socket_path, config.socket_mode, config.socket_group, self._runner
                )
            self._watch_signals()
            self._runner.stays = not once
            self._manager.tell("READY=1")
            return self._cycle(once=once)
        finally:
            self._manager.tell("STOPPING=1")
            if self._stopped:
                self._runner.stopped()
            self._runner.close()
            self._rest()
            if self._watchdog is not None:
                self._watchdog.release(self._runner.state)
            if self._server is not None:
                self._server.close()
            os.close(lock)

    def _cycle(self, *, once: bool) -> int:
        while not self._stopped:
            if self._rereads:
                self._reload()
            pause_s = self._runner.tick()
            self._tell_trouble()
            self._alive()
            if self._runner.ended:
                return self._exit_code()
            if once and pause_s > 0 and not self._runner.busy:
                return 0 if self._runner.contact_at is not None else 1
            if pause_s > REST_AFTER_S and not self._runner.busy:
                self._rest()
            self._wait(self._server, pause_s)
        return 0

    def _meanwhile(self, answered: int) -> bool:
        """Do what does not wait for the server, once. Return whether to go on waiting for it."""
        self._alive()
        self._wait(self._server, NEVER, answered)
        self._runner.hurry()
        return not self._stopped

    def _alive(self) -> None:
        """Feed the service manager's watchdog, and the hardware's as the state says."""
        self._manager.alive()
        if self._watchdog is not None:
            self._watchdog.tend(self._runner.state, ending=self._runner.ended)
            if self._watchdog.problem:
                os.write(2, f"warning: {self._watchdog.problem}\n".encode("utf-8", "replace"))
                self._watchdog.problem = ""

    def _reload(self) -> None:
        """Take the configuration as it is now (SIGHUP), as far as a running agent can. One that is wrong changes nothing."""
        self._rereads = False
        found = self._reread() if self._reread is not None else None
        if found is None:
            return
        kept, waits = applied(self._config, found)
        self._config = kept
        self._runner.reload(kept.settings)
        if self._worker is not None:
            self._worker.config = kept
        if not self._runner.busy:
            self._rest()
        if waits:
            os.write(2, f"read again; counts after a restart only: {', '.join(waits)}\n".encode())

    def _rest(self) -> None:
        if self._worker is not None:
            self._worker.rest()

    def _tell_trouble(self) -> None:
        """Say what goes wrong, once, where the service manager's log is fed from."""
        problem = self._runner.problem
        if problem == self._told:
            return
        self._told = problem
        code, _, detail = problem.partition(": ")
        if code:
            hint = HINTS.get(code, "")
            # The server's words may stand in it.
            said = "".join(one if one.isprintable() else "?" for one in detail or code)
            text = f"error[{code}]: {said}\n" + (f"  do    {hint}\n" if hint else "")
            os.write(2, text.encode("utf-8", "replace"))

    def _exit_code(self) -> int:
        board = self._runner.ports.board
        code = board.exit_code if isinstance(board, RealBoard) else None
        if code is not None:
            return code
        # The service manager is about to stop us; until then there is nothing to do.
        while not self._stopped:
            self._wait(None, SLEEP_MAX_S)
        return 0

    def _wait(self, server: LocalServer | None, pause_s: float, *others: int) -> None:
        watched: list[int | socket.socket] = [self._wake_read, *others]
        limit = min(SLEEP_MAX_S if pause_s == NEVER else pause_s, self._manager.interval_s)
        if self._watchdog is not None:
            limit = min(limit, self._watchdog.interval_s)
        if server is not None:
            watched += server.watched
            limit = min(limit, server.patience_s)
        ready, _, _ = select.select(watched, [], [], max(0.0, limit))
        if self._wake_read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, 64)
        if server is not None:
            server.serve({one for one in ready if isinstance(one, socket.socket)})

    def _watch_signals(self) -> None:
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, self._stop)
        signal.signal(signal.SIGHUP, self._poll)

    def _stop(self, number: int, frame: object) -> None:
        self._stopped = True

    def _poll(self, number: int, frame: object) -> None:
        self._rereads = True
        self._runner.check_now()


def applied(running: Config, found: Config) -> tuple[Config, list[str]]:
    """Return what a running agent takes of a configuration that was read anew, and the names of what it does not."""
    replace = msgspec.structs.replace
    same = {name: getattr(running.settings, name) for name in FIXED}
    settings = replace(found.settings, **same)
    waits = [name for name in FIXED if getattr(found.settings, name) != same[name]]
    others = [one for one in Config.__struct_fields__ if one != "settings"]
    waits += [one for one in others if getattr(found, one) != getattr(running, one)]
    return replace(running, settings=settings), waits


class Manager:
    """Speaks to the service manager (sd_notify), where there is one."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET")
        microseconds = os.environ.get("WATCHDOG_USEC", "")
        half_s = int(microseconds) / 2_000_000 if microseconds.isdigit() else SLEEP_MAX_S
        self.interval_s = half_s if self._address else SLEEP_MAX_S

    def tell(self, line: str) -> None:
        """Send one notification."""
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
        ):
            sender.sendto(line.encode(), address)

    def alive(self) -> None:
        """Feed the watchdog."""
        if self.interval_s < SLEEP_MAX_S:
            self.tell("WATCHDOG=1")


def _watchdog(settings: WatchdogSettings) -> "Watchdog":
    # Loaded where there is one.
    from tidegate.agent.checkup.watchdog import Watchdog

    return Watchdog(settings)


def _lock(directory: str) -> int:
    os.makedirs(directory, mode=0o700, exist_ok=True)
    handle = os.open(f"{directory}/{LOCK_NAME}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise BusyError("agent.locked", f"another agent runs with {directory}") from error
    return handle
