"""`tidegate sim`: fleets and boards without hardware, under the real agent and the real server."""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from tidegate.cli.output import Output, with_output
from tidegate.core.errors import BusyError, ConfigError

#: `--expect` and it did not come true.
UNMET = 10
#: A factory image that is made on the spot; no slot is smaller.
_FACTORY_SIZE = 8 << 20


@click.group("sim")
def command() -> None:
    """Play a fleet's story beforehand, or run a board without hardware."""


@command.command("run")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--seed", type=click.IntRange(min=0), help="Another seed than the scenario's own.")
@click.option("--policy", help="Another policy than the scenario's own (batched scenarios).")
@click.option("--expect", is_flag=True, help="Exit with 10 when an expectation is not met.")
@click.option("--exact", is_flag=True, help="Play a batched scenario with real agents and server.")
@click.option(
    "--devices", type=click.IntRange(1), help="Another size of fleet (batched scenarios)."
)
@click.option("--days", type=click.IntRange(1, 120), help="Another horizon (batched scenarios).")
@with_output
def run(file: Path, *, expect: bool, out: Output, **asked: Any) -> int:
    """Play a scenario: with real agents and the real server on a virtual clock, or a large fleet as arrays.

    The file says which by its `mode`, "exact" or "batched"; docs/reference/scenarios.md describes both. With --exact
    the fleet of a batched scenario, with the same fates, is real agents under the real server, whose gate decides.

    \b
    tidegate sim run examples/scenarios/never-boots.scenario.toml
    tidegate sim run examples/scenarios/modes/boot10.scenario.toml --policy hawk80
    tidegate sim run examples/scenarios/modes/brick5.scenario.toml --exact --devices 300 --days 3
    tidegate sim run story.scenario.toml --expect --seed 7
    """
    from tidegate.sim.fleet.reader import read_mode

    if read_mode(file) == "batched":
        from tidegate.cli import _sim_fleet

        return _sim_fleet.run(file, out, expect=expect, **asked)
    policy, seed = asked["policy"], asked["seed"]
    given = [f"--{name}" for name in ("exact", "devices", "days") if asked[name]]
    if given:
        raise ConfigError(
            "config.invalid", f"{', '.join(given)}: {file.name} is no batched scenario"
        )
    if policy is not None:
        raise ConfigError("config.invalid", f'{file.name} is played with its own [policy]: "exact"')
    return _run_exact(file, out, seed=seed, expect=expect)


@command.command("compare")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--draw", type=click.IntRange(1, 100_000), help="Random bad releases, and as many good ones."
)
@click.option(
    "--null",
    type=click.Choice(["clean", "limit"]),
    help="With --draw N: instead, N releases that no gate may stop, clean or exactly at every limit.",
)
@click.option("--seed", default=1, show_default=True, type=click.IntRange(min=0))
@click.option(
    "--half",
    default="tune",
    show_default=True,
    type=click.Choice(["tune", "report"]),
    help="Which of two disjoint streams of draws: one to change rules by, one to be judged by.",
)
@click.option(
    "--policies",
    help="Comma-separated; default: Tidegate's and the peers'; \"grid\" = peers' settings to tune.",
)
@click.option("--seeds", default=10, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1, 64))
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder that keeps results; default: tidegate/sim in the user's cache.",
)
@click.option(
    "--page", type=click.Path(path_type=Path, dir_okay=False), help="Write a report as HTML."
)
@with_output
def compare(files: tuple[Path, ...], *, out: Output, **options: Any) -> int:
    """Play scenarios under several policies and many seeds, and compare what came of them.

    FILES are batched scenarios; without any, --draw N draws N bad and N good releases at random, or those of --null. What was
    played before is not played again.

    \b
    tidegate sim compare examples/scenarios/modes/*.toml --seeds 60 --jobs 2 --page modes.html
    tidegate sim compare --draw 400 --half report --jobs 2 --page draws.html
    tidegate sim compare --draw 300 --null limit --policies normal
    """
    from tidegate.cli import _sim_fleet

    if bool(files) == (options["draw"] is not None):
        raise click.UsageError("give scenario files, or --draw N")
    if files and options["null"]:
        raise click.UsageError("--null goes with --draw N, not with scenario files")
    half, null = options.pop("half"), options.pop("null")
    options["which"] = null or half
    return _sim_fleet.compare(files, out, **options)


@command.command("agree")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--policy", help="A preset of the gate; default: each scenario's own.")
@click.option("--seeds", default=10, show_default=True, type=click.IntRange(2, 1_000))
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1, 64))
@with_output
def agree(files: tuple[Path, ...], *, out: Output, **options: Any) -> int:
    """Play batched scenarios both ways, as arrays and with real agents under the real server, and say whether they agree.

    FILES are batched scenarios of some hundred devices. Of one seed both modes have the same devices with the same fates;
    --seeds is how many are played with real agents, and ten times as many as arrays. Exits with 10 when a figure differs by
    more than two standard errors of its difference.

    \b
    tidegate sim agree examples/scenarios/agree/*.toml --seeds 10 --jobs 2
    """
    from tidegate.cli import _sim_fleet

    return _sim_fleet.agree(files, out, **options)


def _run_exact(file: Path, out: Output, *, seed: int | None, expect: bool) -> int:
    from tidegate.sim.scenario import Told, play, read_scenario

    scenario = read_scenario(file)
    out.note(f"{scenario.name}   {scenario.population.size} devices   {scenario.about}")
    with tempfile.TemporaryDirectory(prefix="tidegate-sim-") as folder:
        told: Told = play(scenario, Path(folder), seed=seed)
    lines = [*told.story, ""]
    for version, found in told.outcomes.items():
        lines.append(
            f"{version}  {told.states[version]}: {found.tried} activated, {found.confirmed} "
            f"confirmed, {found.reverted} reverted, {found.open} open"
        )
    lines += [f"NOT MET  {one}" for one in told.unmet]
    if scenario.expectations and not told.unmet:
        lines.append("Everything that was expected came true.")
    plain = {
        "name": scenario.name,
        "states": told.states,
        "outcomes": told.outcomes,
        "unmet": told.unmet,
        "story": told.story,
        "digest": told.digest,
    }
    out.data("sim-run/1", plain, "\n".join(lines))
    return UNMET if expect and told.unmet else 0


@command.command("board")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--server",
    default="http://127.0.0.1:8440",
    show_default=True,
    envvar="TIDEGATE_SERVER",
    show_envvar=True,
    help="The control plane (new boards).",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path, exists=True),
    help="Root metadata, the board's anchor (new boards).",
)
@click.option(
    "--claim-file", type=click.Path(path_type=Path, exists=True), help="Claim token (new boards)."
)
@click.option(
    "--image",
    type=click.Path(path_type=Path, exists=True),
    help="Factory image for slot A, or a folder to make it of (new boards); default: a small one.",
)
@click.option("--product", default="gateway", show_default=True)
@click.option("--model", help="Hardware model; default: the product.")
@click.option("--revision", default=1, show_default=True)
@click.option("--size", default="64MiB", show_default=True, help="Size of each slot file.")
@click.option(
    "--version", default="0.0.0", show_default=True, help="What the factory image is called."
)
@click.pass_context
def board(ctx: click.Context, /, folder: Path, **options: object) -> None:
    """Run a virtual board: the real agent as a process, two slot files, a boot loader that counts down.

    The first time, the board is made in FOLDER. Ctrl-C switches it off; the same command switches it on again.

    \b
    tidegate sim board board1 --claim-file claim.txt --root lab/root.1.json
    tidegate sim board board1
    """
    import signal
    import sys

    from tidegate.sim.virtual_board import VirtualBoard

    if not (folder / "agent.toml").exists():
        _make(folder, options)
    else:
        _refuse_changes(ctx, folder)
    power = _only_one(folder)
    # A service manager says TERM: the board's agent has to go with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    run_board = VirtualBoard(folder.resolve(), tell=lambda text: click.echo(text, err=True))
    try:
        run_board.run()
    finally:
        run_board.stop()
        os.close(power)


def _refuse_changes(ctx: click.Context, folder: Path) -> None:
    """Refuse options that a board that is there would not follow."""
    given = click.core.ParameterSource.COMMANDLINE
    asked = [
        f"--{name.replace('_', '-')}"
        for name in ctx.params
        if name != "folder" and ctx.get_parameter_source(name) is given
    ]
    if asked:
        raise ConfigError(
            "config.invalid",
            f"{folder} is a board already, and {', '.join(asked)} would change nothing",
            hint=f"edit {folder}/agent.toml, or name another folder for a new board",
        )


def _only_one(folder: Path) -> int:
    """Take the board's power: two supervisors on one folder would boot two agents of one identity.

    Raises:
        BusyError: `agent.locked`.
    """
    import fcntl

    handle = os.open(folder / "power.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise BusyError(
            "agent.locked",
            f"the board in {folder} is switched on already",
            hint="stop the other `tidegate sim board`, or name another folder",
        ) from error
    return handle


def _factory_image(folder: Path, tree: Path | None, version: str) -> Path:
    """Make an ext4 image of `tree` for slot A; without one, of a system that knows nothing but its version."""
    from tidegate.publisher.image import make_ext4

    folder.mkdir(parents=True, exist_ok=True)
    if tree is None:
        tree = folder / "factory"
        (tree / "etc").mkdir(parents=True, exist_ok=True)
        (tree / "etc" / "version").write_text(f"{version}\n")
    path = folder / "factory.img"
    make_ext4(tree, path, _FACTORY_SIZE, int(time.time()))
    return path


def _make(folder: Path, options: dict[str, object]) -> None:
    import hashlib

    from tidegate.core.amounts import parse_size
    from tidegate.core.release import Running
    from tidegate.sim.virtual_board import BoardSpec, make_board

    missing = [name for name in ("root", "claim_file") if not options[name]]
    if missing:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
        raise ConfigError("config.missing", f"{folder} is a new board and needs {named}")
    root, claim = (Path(str(options[name])) for name in ("root", "claim_file"))
    image = Path(str(options["image"])) if options["image"] else None
    if image is None or image.is_dir():
        image = _factory_image(folder, image, str(options["version"]))
    with image.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    product = str(options["product"])
    make_board(
        folder.resolve(),
        BoardSpec(
            device_id=folder.resolve().name,
            product=product,
            model=str(options["model"] or product),
            rev=int(str(options["revision"])),
            server=str(options["server"]),
            anchor=root.read_bytes(),
            claim=claim.read_text().strip(),
            image=image,
            installed=Running(sha256=digest, version=str(options["version"])),
            slot_size=parse_size(options["size"], "--size"),
            attributes={},
        ),
    )
