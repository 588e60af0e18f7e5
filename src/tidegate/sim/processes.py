"""The processes of the demo: the control plane, kept alive whatever happens to it, and a crew of simulated devices."""

import contextlib
import http.client
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from tidegate.core.errors import ConfigError
from tidegate.sim.crew import CrewSpec, CutOrder, Known, LieOrder, Order
from tidegate.sim.report import DeviceTruth

START_S: Final = 30.0
#: What a server's first start says once; errors are shown, copied and kept.
_PASSWORD: Final = re.compile(r"(password:[ \t]*)\S.*")
T = TypeVar("T", CutOrder, LieOrder)


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

    def __init__(
        self,
        data: Path,
        port: int,
        log: Path,
        extra: Sequence[str] = (),
        *,
        start_s: float = START_S,
    ) -> None:
        """Start on `data`; returns when it answers, which it has to within `start_s` seconds."""
        self._start_s = start_s
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
        until = time.monotonic() + self._start_s
        while time.monotonic() < until:
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = self._connection()
                connection.request("GET", "/healthz")
                answer = connection.getresponse()
                connection.close()
                if answer.status < 500:
                    return
            if self._process.poll() is not None and self.kills == 0:
                break
            time.sleep(0.05)
        raise ConfigError("config.invalid", f"the server did not start; its log: {self._tail()}")

    def _connection(self) -> http.client.HTTPConnection:
        if "--tls" not in self._extra:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        context = ssl.create_default_context(cafile=str(self.data / "tls" / "ca.pem"))
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=5, context=context)

    def _tail(self) -> str:
        text = self._log.read_text(errors="replace")
        # before it is cut: half a line would not be known as one that holds a secret
        return _PASSWORD.sub(r"\1(kept back)", text)[-1500:]


class CrewProcess:
    """A crew in a child process, and the orders to it."""

    def __init__(self, spec: CrewSpec, log: Path) -> None:
        """Start the crew; returns at once, the first answer shows that every device is made."""
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
        self.tell(spec)

    def tell(self, message: object) -> None:
        """Send an order; `answer` waits for what it says."""
        assert self._process.stdin is not None  # noqa: S101 - made with pipes; for the type checker
        with self._lock, contextlib.suppress(OSError):
            self._process.stdin.write(msgspec.json.encode(message) + b"\n")
            self._process.stdin.flush()

    def answer(self) -> Any:
        """Return the answer to the oldest order that has none yet.

        Raises:
            ConfigError: the crew has ended.
        """
        assert self._process.stdout is not None  # noqa: S101 - made with pipes; for the type checker
        line = self._process.stdout.readline()
        if not line:
            tail = self._log.read_text(errors="replace")[-1500:]
            raise ConfigError("config.invalid", f"the simulated devices ended: {tail}")
        return msgspec.json.decode(line)

    def stop(self) -> None:
        """End the crew."""
        self.tell(Order(stop=True))
        end(self._process)


class Crews:
    """A population in several processes, so that more than one device talks to the server at a time; told as one."""

    def __init__(self, spec: CrewSpec, log: Path, names: Sequence[str], parts: int = 3) -> None:
        """Start them; returns when every device is made. `names` are the population's device ids, in order."""
        self._home = {name: number % parts for number, name in enumerate(names)}
        self._names = tuple(names)
        self._crews = [
            CrewProcess(msgspec.structs.replace(spec, part=part, parts=parts), log)
            for part in range(parts)
        ]
        for crew in self._crews:
            crew.answer()

    def know(self, known: Iterable[Known]) -> None:
        """Tell the crews which releases will come, and how they behave."""
        self._ask([Order(know=tuple(known))] * len(self._crews))

    def cut(self, cuts: Iterable[CutOrder]) -> None:
        """Place power cuts."""
        found = tuple(cuts)
        self._ask([Order(cuts=self._of(part, found)) for part in range(len(self._crews))])

    def lie(self, lies: Iterable[LieOrder]) -> None:
        """Put lying proxies before devices."""
        found = tuple(lies)
        self._ask([Order(lies=self._of(part, found)) for part in range(len(self._crews))])

    def be_honest(self, names: Iterable[str]) -> None:
        """Take the proxies away."""
        self._ask([Order(honest=one) for one in self._by_home(names)])

    def operations(self, names: Iterable[str]) -> dict[str, int]:
        """Return how many durable operations each of these devices has done."""
        answers = self._ask([Order(operations=one) for one in self._by_home(names)])
        return {
            name: count
            for answer in answers
            for name, count in msgspec.convert(answer, dict[str, int]).items()
        }

    def truth(self) -> list[DeviceTruth]:
        """Return what is true of every device now."""
        answers = self._ask([Order(truth=True)] * len(self._crews))
        found = {
            one.device_id: one
            for answer in answers
            for one in msgspec.convert(answer, list[DeviceTruth])
        }
        return [found[name] for name in self._names]

    def stop(self) -> None:
        """End all of them."""
        for crew in self._crews:
            crew.stop()

    def _ask(self, orders: Sequence[Order]) -> list[Any]:
        for crew, order in zip(self._crews, orders, strict=True):
            crew.tell(order)
        return [crew.answer() for crew in self._crews]

    def _of(self, part: int, orders: tuple[T, ...]) -> tuple[T, ...]:
        return tuple(one for one in orders if self._home[one.device_id] == part)

    def _by_home(self, names: Iterable[str]) -> list[tuple[str, ...]]:
        wanted = tuple(names)
        return [
            tuple(name for name in wanted if self._home[name] == part)
            for part in range(len(self._crews))
        ]


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
