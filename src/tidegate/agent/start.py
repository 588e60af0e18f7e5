"""Start the resident process from what the command line's child read. Light: nothing here loads tuf, cryptography, or what reads TOML."""

import os
import signal

import msgspec

from tidegate.agent import assemble
from tidegate.agent.loop import Loop
from tidegate.agent.runner import Runner
from tidegate.agent.settings import Config
from tidegate.agent.subprocess_worker import SubprocessWorker


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What the loop needs: the configuration, and where it came from.

    Attributes:
        path: the configuration file, to be read again on SIGHUP; None = the usual places.
        once: one poll, and what follows at once.
        inline: verify and sign in this process.
    """

    config: Config
    path: str | None = None
    once: bool = False
    inline: bool = False


def reread(path: str | None) -> Config | None:
    """Read the configuration again, in a child that ends with all that it loads. None: it is wrong; what is wrong with it was told."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            code = _write_config(path, writing)
        finally:
            os._exit(code)
    os.close(writing)
    body = b""
    while piece := os.read(reading, 1 << 16):
        body += piece
    os.close(reading)
    os.waitpid(child, 0)
    return msgspec.json.decode(body, type=Config) if body else None


def _write_config(path: str | None, writing: int) -> int:
    # The child's own: nothing of the loop's may be woken by its signals.
    signal.set_wakeup_fd(-1)
    from pathlib import Path

    from tidegate.agent import config
    from tidegate.core.errors import TidegateError

    try:
        found = config.read(None if path is None else Path(path), config.environment())
    except TidegateError as error:
        for line in error.detail.splitlines():
            os.write(2, f"error[{error.code}]: {line}\n".encode("utf-8", "replace"))
        return 2
    body = msgspec.json.encode(found)
    while body:
        body = body[os.write(writing, body) :]
    return 0


def run(start: Start) -> int:
    """Run the loop. Returns the exit code.

    Raises:
        TidegateError: what keeps it from starting.
    """
    ports = assemble.ports(start.config)
    settings = start.config.settings

    def again() -> Config | None:
        return reread(start.path)

    if start.inline:
        return Loop(start.config, Runner(ports, settings), reread=again).run(once=start.once)
    worker = SubprocessWorker(start.config, ports.clock)
    runner = Runner(ports, settings, worker.perform, worker.tell)
    return Loop(start.config, runner, worker, again).run(once=start.once)
