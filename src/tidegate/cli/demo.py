"""`tidegate demo`: a whole fleet on this machine, a good release, and bad ones that stop themselves."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidegate.cli.client import find_client
from tidegate.core.errors import ConfigError

if TYPE_CHECKING:
    from tidegate.sim.venue import Venue


@click.command("demo")
@click.option(
    "--exit",
    "exit_when_done",
    is_flag=True,
    help="End when the story has been told; exit 0 only if all of it came true.",
)
@click.option(
    "--devices",
    default=304,
    show_default=True,
    type=click.IntRange(100, 5000),
    help="Simulated devices; one real agent comes on top.",
)
@click.option(
    "--speed",
    default=100.0,
    show_default=True,
    type=click.FloatRange(1, 600),
    help="How much faster than the wall clock the simulated devices live.",
)
@click.option("--seed", default=1, show_default=True, help="The same seed makes the same fleet.")
@click.option(
    "--kill-server/--no-kill-server",
    default=True,
    show_default=True,
    help="kill -9 the server in the middle of the first rollout.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep everything in this directory; default: a temporary one.",
)
@click.option(
    "--steps", metavar="LIST", help="Tell these steps alone, 1 among them, as 1,3.  [default: all]"
)
@click.option(
    "--server",
    metavar="URL",
    help="Play on this server, which must be empty, in place of one of its own.",
)
@click.option("--json", "as_json", is_flag=True, help="The verdict as one JSON value on stdout.")
def command(
    *,
    exit_when_done: bool,
    devices: int,
    speed: float,
    seed: int,
    kill_server: bool,
    data: Path | None,
    steps: str | None,
    server: str | None,
    as_json: bool,
) -> int:
    """Show a good release reach a fleet ring by ring, and five bad days stop themselves.

    With --server it plays on a server that is there, to see all of it work before the first device comes: it has to be empty, TIDEGATE_TOKEN is of an
    owner, TIDEGATE_CA names its authority. What is left there is a root of trust made of throw-away keys; begin with an empty database afterwards.

    \b
    tidegate demo
    tidegate demo --exit --seed 7
    tidegate demo --exit --server https://ota.example.com --steps 1,3
    """
    from tidegate.sim.demo import DemoOptions, run_demo
    from tidegate.sim.story import STEPS

    venue, token = _venue(server) if server else (None, "")
    return run_demo(
        DemoOptions(
            exit_when_done=exit_when_done,
            devices=devices,
            speed=speed,
            seed=seed,
            kill_server=kill_server,
            data=data,
            as_json=as_json,
            steps=_steps(steps) if steps else STEPS,
            venue=venue,
            token=token,
        )
    )


def _steps(text: str) -> tuple[int, ...]:
    from tidegate.sim.story import STEPS

    found = tuple(int(one) for one in text.split(",") if one.strip().isdigit())
    if 1 not in found or not set(found) <= set(STEPS) or len(found) != len(text.split(",")):
        raise ConfigError("config.invalid", f"--steps {text[:40]}: 1, and others up to 6, as 1,3")
    return found


def _venue(server: str) -> "tuple[Venue, str]":
    """Return the server that was named, and the token that is used there."""
    from tidegate.sim.venue import Venue

    client = find_client(server, None)
    if client.token is None:
        raise ConfigError("config.missing", "TIDEGATE_TOKEN: the demo asks --server as an owner")
    return Venue(url=client.server, ca=str(client.ca or "")), client.token
