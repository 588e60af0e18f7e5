"""`tidegate sim run` and `sim compare` on the batched simulator, which needs the extra `[sim]`."""

from pathlib import Path

from tidegate.cli.output import Output
from tidegate.core.errors import ConfigError
from tidegate.sim.fleet.reader import read_scenario

#: As in `cli.sim`: `--expect` and it did not come true.
UNMET = 10


def need_numpy() -> None:
    """Look whether the extra is there.

    Raises:
        ConfigError: `config.missing`.
    """
    try:
        import numpy as np  # noqa: F401 - looked for, not used
    except ImportError as error:
        raise ConfigError(
            "config.missing",
            "the batched simulator needs numpy, which is not installed",
            hint="pip install 'tidegate[sim]'",
        ) from error


def run(file: Path, out: Output, *, seed: int | None, policy: str | None, expect: bool) -> int:
    """Play one scenario and print what came of it. Returns the exit code."""
    scenario = read_scenario(file)
    need_numpy()
    from tidegate.sim.fleet.catalog import make_policy
    from tidegate.sim.fleet.outcome import unmet
    from tidegate.sim.fleet.play import Play

    name = policy or scenario.policy
    out.note(f"{scenario.name}   {scenario.fleet.devices} devices   {scenario.about}")
    played = Play(scenario, make_policy(name), name, scenario.seed if seed is None else seed)
    found = played.run()
    missed = unmet(scenario, found)
    kind = "affected devices" if found.bad else "devices"
    when = "" if found.stopped_h is None else f" after {found.stopped_h:g} h: {found.why}"
    lines = [
        f"{found.policy}, seed {found.seed}: {found.state}{when}",
        *(f"  isolated  {one}" for one in found.isolated),
        f"  exposed   {found.exposed_end} of {found.affected} {kind} ({found.exposed} at the stop)",
        f"  harmed    {found.harmed_end} if nobody recalls it ({found.harmed} at the stop)",
    ]
    if found.t95_h is not None:
        t99 = "not" if found.t99_h is None else f"{found.t99_h:g} h"
        lines.append(f"  95 % had an outcome after {found.t95_h:g} h, 99 % {t99}")
    lines += [f"NOT MET  {one}" for one in missed]
    if scenario.expectations and not missed:
        lines.append("Everything that was expected came true.")
    plain = {"outcome": found, "unmet": missed, "digest": found.digest()}
    out.data("sim-fleet-run/1", plain, "\n".join(lines))
    return UNMET if expect and missed else 0
