"""The processes of the demo: the control plane, kept alive whatever happens to it, and a crew of simulated devices."""

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from tidegate.core.errors import ConfigError
from tidegate.sim.crew import CrewSpec, CutOrder, Known, LieOrder, Order
from tidegate.sim.report import DeviceTruth

START_S: Final = 30.0


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class Server:
    """`tidegate serve` in a process of its own. Whoever kills it: it is started again on the same port and data.

    Attributes:
        kills: how often it died and was started again.
    """

    def __init__(self, data: Path, port: int, log: Path, extra: Sequence[str] = ()) -> None:
        """Start on `data`; returns when it answers."""
        self.data, self.port, self.kills = data, port, 0
        self._log = log
        self._extra = tuple(extra)
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._process = self._start()
        self._wait_ready()
        self._watcher = threading.Thread(target=self._watch, name="server-watch", daemon=True)
        self._watcher.start()

    @property
    def pid(self) -> int:
        """The process that serves now."""
        return self._process.pid

    def kill(self) -> None:
        """`kill -9`, in the middle of whatever it does; returns when the next one answers."""
        with self._lock:
            self._process.kill()
            self._process.wait()
            self._restart()
        self._wait_ready()

    def stop(self) -> None:
        """End it in an orderly way."""
        self._stopping.set()
        with self._lock:
            end(self._process)

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "tidegate.cli", "serve"]
        command += ["--data", str(self.data), "--listen", f"127.0.0.1:{self.port}", *self._extra]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment()
            )

    def _restart(self) -> None:
        self.kills += 1
        self._process = self._start()

    def _watch(self) -> None:
        while not self._stopping.wait(0.2):
            with self._lock:
                if self._process.poll() is not None and not self._stopping.is_set():
                    self._restart()

    def _wait_ready(self) -> None:
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", "/healthz")
                answer = connection.getresponse()
                connection.close()
                if answer.status < 500:
                    return
            if self._process.poll() is not None and self.kills == 0:
                break
            time.sleep(0.05)
        raise ConfigError("config.invalid", f"the server did not start; its log: {self._tail()}")

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-1500:]


class CrewProcess:
    """A crew in a child process, and the orders to it."""

    def __init__(self, spec: CrewSpec, log: Path) -> None:
        """Start the crew; returns when every device is made."""
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tidegate.sim.crew"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment(),
            )
        self._log = log
        self._lock = threading.Lock()
        self._ask(spec)

    def know(self, known: Iterable[Known]) -> None:
        """Tell the crew which releases will come, and how they behave."""
        self._ask(Order(know=tuple(known)))

    def cut(self, cuts: Iterable[CutOrder]) -> None:
        """Place power cuts."""
        self._ask(Order(cuts=tuple(cuts)))

    def lie(self, lies: Iterable[LieOrder]) -> None:
        """Put lying proxies before devices."""
        self._ask(Order(lies=tuple(lies)))

    def be_honest(self, names: Iterable[str]) -> None:
        """Take the proxies away."""
        self._ask(Order(honest=tuple(names)))

    def operations(self, names: Iterable[str]) -> dict[str, int]:
        """Return how many durable operations each of these devices has done."""
        return msgspec.convert(self._ask(Order(operations=tuple(names))), dict[str, int])

    def truth(self) -> list[DeviceTruth]:
        """Return what is true of every device now."""
        return msgspec.convert(self._ask(Order(truth=True)), list[DeviceTruth])

    def stop(self) -> None:
        """End the crew."""
        if self._process.poll() is None:
            with contextlib.suppress(OSError, ConfigError):
                self._ask(Order(stop=True))
        end(self._process)

    def _ask(self, message: object) -> Any:
        assert self._process.stdin is not None  # noqa: S101 - made with pipes; for the type checker
        assert self._process.stdout is not None  # noqa: S101
        with self._lock:
            try:
                self._process.stdin.write(msgspec.json.encode(message) + b"\n")
                self._process.stdin.flush()
                line = self._process.stdout.readline()
            except OSError:
                line = b""
        if not line:
            tail = self._log.read_text(errors="replace")[-1500:]
            raise ConfigError("config.invalid", f"the simulated devices ended: {tail}")
        return msgspec.json.decode(line)


def environment() -> dict[str, str]:
    """Return the environment of a child: this very Tidegate, wherever it was imported from."""
    import tidegate

    here = str(Path(tidegate.__file__).parent.parent)
    paths = [here, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def end(process: "subprocess.Popen[bytes]", patience_s: float = 10.0) -> None:
    """Ask a process to end, then make it."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
