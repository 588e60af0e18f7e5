"""Start the resident process from what the command line's child read. Light: nothing here loads tuf, cryptography, or what reads TOML."""

import msgspec

from tidegate.agent import assemble
from tidegate.agent.loop import Loop
from tidegate.agent.runner import Runner
from tidegate.agent.settings import Config
from tidegate.agent.subprocess_worker import SubprocessWorker


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What the loop needs: the configuration, and where workers read it from.

    Attributes:
        path: the configuration file that workers read; None = the usual places.
        once: one poll, and what follows at once.
        inline: verify and sign in this process.
    """

    config: Config
    path: str | None = None
    once: bool = False
    inline: bool = False


def run(start: Start) -> int:
    """Run the loop. Returns the exit code.

    Raises:
        TidegateError: what keeps it from starting.
    """
    ports = assemble.ports(start.config)
    if start.inline:
        return Loop(start.config, Runner(ports, start.config.settings)).run(once=start.once)
    worker = SubprocessWorker(start.path, ports.clock)
    runner = Runner(ports, start.config.settings, worker.perform, worker.tell)
    return Loop(start.config, runner, worker.rest).run(once=start.once)
