"""Check `containers`: containers run, and are healthy where their image says how to tell.

`names`: of the containers, all of which must be running, not restarting, and `healthy` if they have a health check (`starting` does not pass yet). `engine`:
`"docker"` (default) or `"podman"`. `restarts_max`: how often the engine may have restarted each (default 2), counted from the first look in this warm-up.
"""

from typing import Any

import msgspec

from tidegate.agent import programs
from tidegate.agent.health import CheckSettings, Place, number, one_of, texts
from tidegate.agent.ports import HealthProbe
from tidegate.core.errors import ConfigError

REASON = "health.service"
KNOWN = frozenset({"names", "engine", "restarts_max"})
#: Names that neither engine takes for an option or several words.
_NAME_MAX = 128
#: Go templates, which both engines take.
_FORMAT = "[{{json .State}},{{json .RestartCount}}]"


def create(settings: CheckSettings, place: Place) -> HealthProbe:
    """Make the probe."""
    names = texts(settings, "names")
    if not names:
        raise ConfigError("config.missing", "names: which containers?")
    for one in names:
        if not one or one.startswith("-") or len(one) > _NAME_MAX:
            raise ConfigError("config.invalid", f"names: {one[:64]!r} is no container's name")
    engine = one_of(settings, "engine", ("docker", "podman"))
    return Containers(engine, names, number(settings, "restarts_max", 2), place)


class Containers:
    """Every container in turn."""

    def __init__(self, engine: str, names: list[str], restarts_max: int, place: Place) -> None:
        self._engine = engine
        self._names = names
        self._restarts_max = restarts_max
        self._place = place

    def check(self, now: float) -> tuple[bool, str]:
        """Ask the engine for each, all within one time."""
        for name in self._names:
            wrong = self._wrong(name, self._place.timeout_s / len(self._names))
            if wrong:
                return False, wrong
        return True, "all run"

    def _wrong(self, name: str, timeout_s: float) -> str:
        # One container a call: a missing one makes the engines answer nothing useful for the others.
        command = [self._engine, "container", "inspect", f"--format={_FORMAT}", name]
        ran = programs.run(command, timeout_s, errors=True)
        lines = ran.output.decode("utf-8", "replace").strip().splitlines()
        told = next((one for one in lines if one.startswith("[{")), "")
        if ran.code is None:
            return ran.problem
        if ran.code != 0 or not told:
            return f"{name}: {lines[-1] if lines else f'exit code {ran.code}'}"
        try:
            state, restarts = msgspec.json.decode(told)
        except (msgspec.DecodeError, TypeError, ValueError):
            return f"{name}: {self._engine} answers in a way that is not understood"
        return self._judge(name, state, restarts)

    def _judge(self, name: str, state: Any, count: Any) -> str:
        if not isinstance(state, dict):
            return f"{name}: {self._engine} answers in a way that is not understood"
        status = str(state.get("Status", "unknown"))
        if state.get("Restarting") is True or status != "running":
            return f"{name} is {'restarting' if state.get('Restarting') is True else status}"
        # Docker and newer Podman say Health, older Podman said Healthcheck.
        health = state.get("Health") or state.get("Healthcheck") or {}
        word = str(health.get("Status", "")) if isinstance(health, dict) else ""
        if word not in ("", "none", "healthy"):
            return f"{name} is {word}"
        restarts = count if isinstance(count, int) else 0
        base = self._place.base(name, restarts)
        again = restarts - base if restarts >= base else restarts
        if again > self._restarts_max:
            return f"{name} was restarted {again} times"
        return ""
