"""The demo: sets the stage, plays the story, prints the verdict, and leaves the dashboard up unless told to end."""

import json
import shutil
import signal
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tidegate.core.errors import ConfigError, TidegateError
from tidegate.publisher.image import find_tool
from tidegate.sim.stage import Stage, StageOptions
from tidegate.sim.story import STEPS, Story, needed
from tidegate.sim.teller import Row, Teller, table
from tidegate.sim.venue import Venue

MINUTE_S: Final = 60


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """What can be asked of the demo.

    Attributes:
        exit_when_done: end, with the verdict as exit code; else the dashboard stays up until Ctrl-C.
        devices: simulated devices, beside the real agent.
        speed: how many times faster than the wall clock the simulated devices live.
        kill_server: `kill -9` the server in the middle of the first step.
        data: where everything is kept; None = a temporary directory that is removed.
        as_json: the verdict as one JSON value on stdout.
        steps: which steps of the story are told.
        venue, token: a server that is there already and empty, and who asks there; None = one of the demo's own.
    """

    exit_when_done: bool = False
    devices: int = 304
    speed: float = 100.0
    seed: int = 1
    kill_server: bool = True
    data: Path | None = None
    as_json: bool = False
    steps: tuple[int, ...] = STEPS
    venue: Venue | None = None
    token: str = ""


def run_demo(options: DemoOptions) -> int:
    """Run the demo; talk goes to stderr, the verdict to stdout. Returns the exit code: 0 only when the whole story came true.

    Raises:
        ConfigError: something that the demo needs is missing on this machine.
    """
    find_tool("mke2fs")
    if options.data is not None and options.data.is_dir() and any(options.data.iterdir()):
        raise ConfigError(
            "config.invalid", f"{options.data} is not empty; the demo begins from nothing"
        )
    folder = options.data or Path(tempfile.mkdtemp(prefix="tidegate-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    teller = Teller(sys.stderr)
    stage = Stage(
        StageOptions(
            folder=folder.resolve(),
            devices=options.devices,
            speed=options.speed,
            seed=options.seed,
            venue=options.venue,
            token=options.token,
            releases=needed(options.steps),
        ),
        teller,
    )
    try:
        with _stoppable():
            return _play(stage, teller, options)
    finally:
        stage.close()
        if options.data is None:
            shutil.rmtree(folder, ignore_errors=True)


def _play(stage: Stage, teller: Teller, options: DemoOptions) -> int:
    teller.line("Tidegate demo: a control plane, a fleet, one good release and five bad days")
    try:
        stage.set()
    except TidegateError as error:
        teller.line(f"The stage could not be set: {error}")
        return 1
    teller.line(
        f"{stage.url}  {len(stage.plans)} simulated devices at {options.speed:g} times, "
        f"1 real agent, seed {options.seed}"
    )
    teller.line(f"Look on:  {stage.sign_in_link()}")
    teller.line()
    story = Story(stage, teller, kill_server=options.kill_server, steps=options.steps)
    true = story.play()
    _verdict(story.rows, teller, true=true, as_json=options.as_json)
    for line in stage.report(story.incidents):
        teller.line(line)
    if not options.exit_when_done:
        teller.line(f"The dashboard stays up: {stage.sign_in_link()}")
        teller.line("Ctrl-C ends it.")
        _until_interrupted()
    return 0 if true else 1


def _verdict(rows: list[Row], teller: Teller, *, true: bool, as_json: bool) -> None:
    took = teller.elapsed_s
    said = "Every count agrees with what the simulator knows." if true else "NOT TRUE, see above."
    clock = f"{int(took) // MINUTE_S} min {int(took) % MINUTE_S:02d} s"
    if as_json:
        plain = [
            {
                "step": row.step,
                "figure": row.figure,
                "server": row.server,
                "truth": row.truth,
                "agrees": row.agrees,
            }
            for row in rows
        ]
        body = {"schema": "tidegate.demo/1", "true": true, "took_s": round(took), "rows": plain}
        sys.stdout.write(json.dumps(body) + "\n")
    else:
        teller.line()
        sys.stdout.write("\n".join(table(rows)) + "\n")
    sys.stdout.flush()
    teller.line()
    teller.line(f"{said} {clock}")


class _stoppable:  # noqa: N801 - reads as a word in `with`
    """SIGTERM ends the demo as Ctrl-C does, so that its processes are ended with it."""

    def __enter__(self) -> None:
        self._old = signal.signal(signal.SIGTERM, self._stop)

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._old)

    @staticmethod
    def _stop(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt


def _until_interrupted() -> None:
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        return
