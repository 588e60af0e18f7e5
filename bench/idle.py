"""The resident loop of a real agent between two polls: its own memory, its start, and what a poll costs."""

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from bench import mender
from bench.device import add_claim, write_config
from bench.figure import Figure
from bench.servers import POLLS_PATH, control_plane, stopping
from tools.device_alone import environment, tree

from tidegate.agent.local import Request, ask
from tidegate.sim.load.process import cpu_s, private_mib, settle

ALLOWANCE_MIB = 5.0
START_MS = 300.0
POLLS = 25
_BARE = "import http.client, ssl, time; ssl.create_default_context(); print(flush=True); time.sleep(600)"


def _bare_mib(python: Path) -> float:
    """Return the memory of an interpreter that could poll and does not."""
    process = subprocess.Popen([str(python), "-c", _BARE], stdout=subprocess.PIPE)
    with stopping(process):
        assert process.stdout is not None
        process.stdout.readline()
        settle(process.pid)
        return private_mib(process.pid)


@contextmanager
def _agent(config: Path, python: Path, path: Path) -> Iterator[tuple[int, float]]:
    """Run an agent; gives (process id, milliseconds until it told the service manager that it is ready)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = str(config.parent / "notify.sock")
        Path(address).unlink(missing_ok=True)
        manager.bind(address)
        manager.settimeout(30)
        command = [str(python), "-m", "tidegate.agent.main", "--config", str(config), "run"]
        begin = time.monotonic()
        process = subprocess.Popen(
            command, env={**os.environ, "NOTIFY_SOCKET": address, "PYTHONPATH": str(path)}
        )
        with stopping(process):
            while b"READY=1" not in manager.recv(256):
                pass
            yield process.pid, (time.monotonic() - begin) * 1000


def _until_polled(folder: Path, limit_s: float = 60.0) -> None:
    """Wait until the agent has enrolled, signed in and polled."""
    end = time.monotonic() + limit_s
    status: dict[str, Any] = {}
    while time.monotonic() < end:
        try:
            status = ask(folder / "agent.sock", Request(verb="status"))["status"]
        except OSError:  # the socket is not there yet
            status = {}
        if status.get("last_contact_at"):
            return
        time.sleep(0.1)
    raise RuntimeError(f"the agent has not reached its server: {status}")


def _polls(port: int) -> int:
    """Return how many polls a server has answered."""
    with urlopen(f"http://127.0.0.1:{port}{POLLS_PATH}", timeout=30) as answer:
        return int(answer.read())


def _poll_ms(folder: Path, data: Path, python: Path, path: Path, limit_s: float = 300.0) -> float:
    """Return the processor time of one poll, in milliseconds, of an agent that polls as its server says; the server counts them.

    Not by `SIGHUP`, which has the configuration read anew as well, nor by `check`, which is a request of its own: and both make one poll of two that come too
    close to each other.
    """
    with (
        control_plane(data, poll_interval_s=1) as (_, port),
        _agent(write_config(folder, port), python, path) as (pid, _),
    ):
        _until_polled(folder)
        end = time.monotonic() + limit_s
        before, begun = cpu_s(pid), _polls(port)
        while _polls(port) < begun + POLLS:
            if time.monotonic() > end:
                raise RuntimeError("the agent does not poll")
            time.sleep(0.2)
        return (cpu_s(pid) - before) * 1000 / (_polls(port) - begun)


def measure() -> list[Figure]:
    """Measure an agent that has nothing to do, after it was started a second time, with what a device carries and nothing else."""
    mender.require()
    python, path = environment(), tree()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "device"
        data = Path(scratch) / "data"
        add_claim(data)
        with control_plane(data) as (_, port):
            config = write_config(folder, port)
            with _agent(config, python, path):
                _until_polled(folder)
            with _agent(config, python, path) as (pid, first_ms):
                _until_polled(folder)
                settle(pid)
                memory = private_mib(pid)
            with _agent(config, python, path) as (_, second_ms):
                pass
        poll_ms = _poll_ms(folder, data, python, path)
        rival = mender.idle_mib(Path(scratch) / "mender")
    bare = _bare_mib(python)
    return [
        Figure(
            name="agent's idle loop, private memory",
            value=memory, unit="MiB", reference=bare,
            against="an interpreter with ssl and http.client", bar=bare + ALLOWANCE_MIB, at_most=True,
        ),
        Figure(
            name="agent's idle loop, private memory",
            value=memory, unit="MiB", reference=rival,
            against="Debian's mender-client", bar=rival, at_most=True,
        ),
        Figure(
            name="agent's start until it is ready",
            value=min(first_ms, second_ms), unit="ms", bar=START_MS, at_most=True,
        ),
        Figure(name="agent's processor time for a poll", value=poll_ms, unit="ms", bar=2.0, at_most=True),
    ]  # fmt: skip
