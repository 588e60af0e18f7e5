"""Asks systemd's service manager with `systemctl`: its state, failed units, and one unit's."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from tidegate.agent import programs


class Unit(NamedTuple):
    """A unit's state. `restarts`: by the manager itself, since it was loaded, that is since the boot unless somebody reset it."""

    active: str
    restarts: int
    loaded: bool


def state(timeout_s: float) -> tuple[str, str]:
    """Return (running, degraded, starting, …, "") or ("", why nobody answers)."""
    # Its exit code says no more than its answer.
    ran = programs.run(["systemctl", "is-system-running"], timeout_s)
    said = ran.output.decode("ascii", "replace").strip()
    if said:
        return said, ""
    return "", ran.problem or "no service manager answers"


def failed(allowed: Iterable[str], timeout_s: float) -> tuple[list[str], str]:
    """Return (the failed units that no pattern allows, "") or ([], why nobody answers)."""
    command = [
        "systemctl",
        "list-units",
        "--state=failed",
        "--all",
        "--plain",
        "--no-legend",
        "--no-pager",
    ]
    ran = programs.run(command, timeout_s)
    if ran.code != 0:
        return [], ran.problem or f"systemctl: exit code {ran.code}"
    patterns = list(allowed)
    found = [
        line.split()[0]
        for line in ran.output.decode("utf-8", "replace").splitlines()
        if line.split()
    ]
    return sorted(
        one for one in found if not any(fnmatchcase(one, pattern) for pattern in patterns)
    ), ""


def units(names: Sequence[str], timeout_s: float) -> tuple[dict[str, Unit], str]:
    """Return (each unit's state by the name that was asked for, "") or ({}, why nobody answers)."""
    command = [
        "systemctl",
        "show",
        "--property=ActiveState,NRestarts,LoadState",
        "--no-pager",
        "--",
        *names,
    ]
    ran = programs.run(command, timeout_s)
    if ran.code != 0:
        return {}, ran.problem or f"systemctl: exit code {ran.code}"
    # One block a unit, in the order asked for, an empty line between.
    blocks = ran.output.decode("utf-8", "replace").strip("\n").split("\n\n")
    if len(blocks) != len(names):
        return {}, f"systemctl spoke of {len(blocks)} units instead of {len(names)}"
    return {name: _unit(block) for name, block in zip(names, blocks, strict=True)}, ""


def _unit(block: str) -> Unit:
    found = dict(line.partition("=")[::2] for line in block.splitlines())
    restarts = found.get("NRestarts", "0")
    return Unit(
        active=found.get("ActiveState", "unknown"),
        restarts=int(restarts) if restarts.isdigit() else 0,
        loaded=found.get("LoadState") == "loaded",
    )
