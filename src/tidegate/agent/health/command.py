"""Check `command`: a program of the product ends with 0.

`run` is the program and its arguments, a list; no shell is involved. `timeout_s` bounds it (default 5). The last line that it prints is the detail.
"""

import subprocess

from tidegate.agent.health import CheckSettings, number, texts
from tidegate.agent.ports import HealthProbe
from tidegate.core.errors import ConfigError

REASON = "health.command"


def create(settings: CheckSettings) -> HealthProbe:
    """Make the probe."""
    run = texts(settings, "run")
    if not run:
        raise ConfigError("config.missing", "run: which program?")
    return Command(run, number(settings, "timeout_s", 5))


class Command:
    """One program."""

    def __init__(self, run: list[str], timeout_s: int) -> None:
        self._run = run
        self._timeout_s = timeout_s

    def check(self, now: float) -> tuple[bool, str]:
        """Run it."""
        try:
            done = subprocess.run(  # noqa: PLW1510 - the exit code is the answer
                self._run,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=self._timeout_s,
            )
        except (OSError, subprocess.SubprocessError) as error:
            return False, f"{self._run[0]}: {error}"[:200]
        lines = done.stdout[-400:].decode("utf-8", "replace").strip().splitlines()
        detail = lines[-1] if lines else f"exit code {done.returncode}"
        return done.returncode == 0, detail[:200]
