"""A real `tidegate serve` process on the loopback interface, and what may be asked of it."""

import contextlib
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

START_S = 90


class Served:
    """One server process; it can be killed and started again on the same data and port, with other code if need be."""

    def __init__(
        self, data: Path, *options: str, port: int | None = None, code: Path | None = None
    ) -> None:
        self.data = data
        self.code = code
        self.port = port or free_port()
        self.options = options
        self.log = data.with_name(f"{data.name}.log")
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "tidegate.cli", "serve", "--data", str(self.data)]
        command += ["--listen", f"127.0.0.1:{self.port}", *self.options]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment(self.code)
            )
        until = time.monotonic() + START_S
        while time.monotonic() < until and self.process.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                if self.said("Listening on", since_start=True):
                    return
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def said(self, text: str, *, since_start: bool = False) -> bool:
        return text in self.log.read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(20)

    def connection(self, context: ssl.SSLContext | None = None) -> http.client.HTTPConnection:
        if context is not None:
            return http.client.HTTPSConnection("localhost", self.port, timeout=10, context=context)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, bytes]:
        with contextlib.closing(self.connection()) as connection:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def post(self, path: str, value: Any, token: str = "") -> Any:
        headers = {"content-type": "application/json"}
        if token:
            headers["authorization"] = f"Bearer {token}"
        status, body = self.ask("POST", path, json.dumps(value).encode(), headers)
        assert status == 200, body
        return json.loads(body)


def environment(code: Path | None = None) -> dict[str, str]:
    """Return the surroundings of a process with the code that runs here, or with that in the tree `code`."""
    paths = [] if code is None else [str(code / "src"), str(code)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths + [one for one in sys.path if one])}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(*arguments: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tidegate.cli", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment(), timeout=timeout, check=False
    )


@contextlib.contextmanager
def serving(data: Path, *options: str) -> Iterator[Served]:
    served = Served(data, *options)
    try:
        yield served
    finally:
        if served.process.poll() is None:
            served.kill()


def first_password(data: Path) -> str:
    """Return the password that a first start without a terminal leaves in a file."""
    return (data / "admin.password").read_text().strip()
