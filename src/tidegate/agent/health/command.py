"""Check `command`: a program of the product ends with 0.

`run` is the program and its arguments, a list; no shell is involved. When its time is up (`timeout_s`) it is killed, with every process that it started; what
it leaves running when it ends is killed too. The last line that it prints is the detail.
"""

from tidegate.agent import programs
from tidegate.agent.health import CheckSettings, Place, texts
from tidegate.agent.ports import HealthProbe
from tidegate.core.errors import ConfigError

REASON = "health.command"
KNOWN = frozenset({"run"})


def create(settings: CheckSettings, place: Place) -> HealthProbe:
    """Make the probe."""
    run = texts(settings, "run")
    if not run or not run[0]:
        raise ConfigError("config.missing", "run: which program?")
    return Command(run, place.timeout_s)


class Command:
    """One program."""

    def __init__(self, run: list[str], timeout_s: float) -> None:
        self._run = run
        self._timeout_s = timeout_s

    def check(self, now: float) -> tuple[bool, str]:
        """Run it."""
        ran = programs.run(self._run, self._timeout_s, errors=True, environment={"TERM": "dumb"})
        if ran.code is None:
            return False, ran.problem
        lines = ran.output[-400:].decode("utf-8", "replace").strip().splitlines()
        detail = lines[-1] if lines else f"exit code {ran.code}"
        return ran.code == 0, detail[:200]
