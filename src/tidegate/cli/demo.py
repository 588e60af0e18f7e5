"""`tidegate demo`: a whole fleet on this machine, a good release, and bad ones that stop themselves."""

from pathlib import Path

import click


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
@click.option("--json", "as_json", is_flag=True, help="The verdict as one JSON value on stdout.")
def command(
    *,
    exit_when_done: bool,
    devices: int,
    speed: float,
    seed: int,
    kill_server: bool,
    data: Path | None,
    as_json: bool,
) -> int:
    """Show a good release reach a fleet ring by ring, and five bad days stop themselves.

    \b
    tidegate demo
    tidegate demo --exit --seed 7
    """
    from tidegate.sim.demo import DemoOptions, run_demo

    return run_demo(
        DemoOptions(
            exit_when_done=exit_when_done,
            devices=devices,
            speed=speed,
            seed=seed,
            kill_server=kill_server,
            data=data,
            as_json=as_json,
        )
    )
