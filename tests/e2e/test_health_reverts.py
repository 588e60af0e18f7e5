"""Each health check failing alone takes a release back, with the reason that it stands for: a real agent process, real slots, a control plane's answers."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.contract import tools
from tests.crash.board_config import BOARD_CONFIG
from tests.crash.http_plane import serving
from tests.crash.lab import Order, Plane
from tests.crash.releases import SLOT_SIZE, make_release

from tidegate.agent.boot import file_record as boot_file
from tidegate.agent.files import StateDirectory
from tidegate.agent.journal import Journal
from tidegate.agent.state import Testing as OnTrial
from tidegate.core.protocol import EventBody
from tidegate.core.release import HealthCheck, HealthContract, Running
from tidegate.sim.clock import AcceleratedTimeline

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
REBOOT = 75
#: Longest wait for something to come true, in seconds: a crowded machine may need it.
LIMIT_S = 180.0
CONFIG = BOARD_CONFIG + '[health]\ndir = ["{folder}/health.d"]\n'


@dataclass
class Case:
    """One trial: what the release asks for, what the device has beside it."""

    checks: list[HealthCheck]
    numbers: dict[str, int] = field(default_factory=dict)
    config: str = ""
    own: str = ""
    files: dict[str, str] = field(default_factory=dict)


class Board:
    """A board whose slots are files, with its power button and its boot loader."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self.boots = 0
        self.slot = ""
        self.process: subprocess.Popen[bytes] | None = None

    def boot(self) -> None:
        """Power on: the loader spends a try, then starts the slot."""
        path = self.folder / "boot.json"
        record = boot_file.BootRecord(slots=("A", "B"), primary="A")
        if path.exists():
            record = boot_file.decode(path.read_bytes())
        self.slot, record = boot_file.decide(record)
        path.write_bytes(boot_file.encode(record))
        self.boots += 1
        self.start()

    def start(self) -> None:
        """Start the agent in the present boot."""
        names = {"TIDEGATE_SLOT": self.slot, "TIDEGATE_BOOT_ID": f"boot-{self.boots}"}
        config = str(self.folder / "agent.toml")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tidegate.agent.main", "--config", config, "run"],
            env={**os.environ, **self.environment, **names},
        )

    def tend(self) -> None:
        """Do what a supervisor does, once."""
        assert self.process is not None
        code = self.process.poll()
        if code is None:
            return
        if code == REBOOT:
            self.boot()
        else:
            self.start()

    def kill(self) -> None:
        """Take the agent away in the middle of whatever it does."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Trial:
    """A plane, a board, and the release that it is to try."""

    def __init__(self, folder: Path, case: Case) -> None:
        self.folder = folder
        folder.mkdir()
        self.bin = folder / "bin"
        self.bin.mkdir()
        tools.program(self.bin, "systemctl", tools.SYSTEMCTL)
        tools.program(self.bin, "docker", tools.ENGINE)
        numbers = {"warmup_s": 1, "timeout_s": 2, "interval_s": 1, **case.numbers}
        contract = HealthContract(checks=tuple(case.checks), **numbers)
        releases = (make_release(1, health=contract), make_release(2, health=contract))
        self.plane = Plane(AcceleratedTimeline(1.0), releases)  # type: ignore[arg-type]
        self.plane.order = Order("install", releases[1], "u-1")
        for name, text in {"systemd.json": SYSTEMD, "containers.json": "{}", **case.files}.items():
            (self.bin / name).write_text(text)
        first = releases[0].target.release
        (folder / "root.json").write_bytes(self.plane.root)
        (folder / "A").write_bytes(releases[0].image.ljust(SLOT_SIZE, b"\0"))
        running = Running(
            release_counter=1, security_version=1, sha256=first.install.sha256, version="1.1"
        )
        (folder / "installed.json").write_bytes(msgspec.json.encode(running))
        (folder / "health.d").mkdir()
        if case.own:
            (folder / "health.d" / "site.toml").write_text(case.own)
        self._config = case.config.replace("{bin}", str(self.bin))
        self.board = Board(folder, dict(tools.on_path(self.bin)))

    def run(self) -> "Trial":
        """Run until the server was told how it ended."""
        with self.running():
            until = time.monotonic() + LIMIT_S
            while time.monotonic() < until and not self.plane.outcomes():
                self.board.tend()
                time.sleep(0.05)
        return self

    def running(self) -> Any:
        """Serve and boot for as long as this context lasts."""
        return _running(self)

    def configure(self, url: str) -> None:
        text = CONFIG.format(folder=self.folder, url=url) + self._config
        (self.folder / "agent.toml").write_text(text)

    def phase(self) -> OnTrial | None:
        """Return what the journal says of the trial."""
        state, _ = Journal(StateDirectory(str(self.folder / "state"))).read()
        found = None if state is None else state.phase
        return found if isinstance(found, OnTrial) else None

    def passing(self) -> float | None:
        """Return since when every check passes; None when they do not, or nothing is on trial."""
        phase = self.phase()
        return None if phase is None else phase.passing_mono

    def trial_begun(self) -> bool:
        """Say whether the candidate is on trial, and every check passed once."""
        return self.passing() is not None

    @property
    def end(self) -> EventBody:
        """The last word on the update."""
        kinds = ("confirmed", "reverted", "failed", "declined")
        return next(one for one in self.plane.events.values() if one.kind in kinds)


class _running:  # noqa: N801 - a context, made by `Trial.running`
    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._serving = serving(trial.plane)

    def __enter__(self) -> Trial:
        self._trial.configure(self._serving.__enter__())
        self._trial.board.boot()
        return self._trial

    def __exit__(self, *error: object) -> None:
        self._trial.board.kill()
        self._serving.__exit__(None, None, None)


def check(kind: str, name: str = "", **settings: Any) -> HealthCheck:
    return HealthCheck(name=name or kind, kind=kind, settings=settings)


FINE = check("command", "fine", run=["true"])
SYSTEMD = json.dumps({"state": "running", "failed": [], "units": {"app.service": ["active", 0]}})


def systemd(
    state: str = "running",
    failed: list[str] | None = None,
    units: dict[str, list[str | int]] | None = None,
) -> str:
    return json.dumps({"state": state, "failed": failed or [], "units": units or {}})


#: Every second answer is no: it never holds for a whole warm-up.
FLAPS = """
    import pathlib, sys
    path = pathlib.Path(__file__).with_suffix(".count")
    count = int(path.read_text()) if path.exists() else 0
    path.write_text(str(count + 1))
    sys.exit(count % 2)
"""
CASES: dict[str, tuple[str, Case]] = {
    "boot": (
        "health.boot",
        Case([FINE, check("boot")], files={"systemd.json": systemd("degraded", ["x.service"])}),
    ),
    "network": (
        "health.network",
        Case([FINE, check("network", needs=["tcp:127.0.0.1:1"])]),
    ),
    "services": (
        "health.service",
        Case(
            [FINE, check("services", units=["app.service"])],
            files={"systemd.json": systemd(units={"app.service": ["failed", 0]})},
        ),
    ),
    "restarts": (
        "health.service",
        Case(
            [FINE, check("services", units=["app.service"])],
            files={"systemd.json": systemd(units={"app.service": ["active", 3]})},
        ),
    ),
    "failed_units": (
        "health.service",
        Case([FINE, check("failed_units")], files={"systemd.json": systemd(failed=["x.service"])}),
    ),
    "containers": (
        "health.service",
        Case(
            [FINE, check("containers", names=["app"])],
            files={
                "containers.json": json.dumps(
                    {"app": [{"Status": "running", "Health": {"Status": "unhealthy"}}, 0]}
                )
            },
        ),
    ),
    "process": ("health.service", Case([FINE, check("process", names=["no-such-daemon"])])),
    "tcp": ("health.service", Case([FINE, check("tcp", address="127.0.0.1:1")])),
    "http": ("health.service", Case([FINE, check("http", url="http://127.0.0.1:1/")])),
    "metric": (
        "health.error_rate",
        Case(
            [FINE, check("metric", source="{bin}/app.prom", metric="app_lag", max=5)],
            files={"app.prom": 'app_lag{queue="a"} 7\n'},
        ),
    ),
    "error_rate": (
        "health.error_rate",
        Case([FINE, check("error_rate", file="{bin}/missing", max_per_hour=1)]),
    ),
    "errors": (
        "health.error_rate",
        # A rate was asked for, and nothing counts errors here.
        Case([FINE], numbers={"error_rate_per_hour": 10}),
    ),
    "resource": ("health.resource", Case([FINE, check("resource", disk=["/:100%"])])),
    "command": ("health.command", Case([FINE, check("command", run=["false"])])),
    "hanging": (
        "health.command",
        Case([FINE, check("command", run=["sh", "-c", "sleep 600 & sleep 600"], timeout_s=1)]),
    ),
    "unknown": ("health.command", Case([FINE, check("telepathy")])),
    # Everything passes, and not for long enough.
    "timeout": ("health.timeout", Case([FINE], numbers={"warmup_s": 60})),
    "own": (
        "health.command",
        Case([FINE], own='[[check]]\ntype = "command"\nname = "site"\nrun = ["false"]\n'),
    ),
    "kept": (
        # The release does not call it optional: the device cannot leave it out.
        "health.command",
        Case([check("command", "core", run=["false"])], own='drop = ["core"]\n'),
    ),
}


def _filled(case: Case, folder: Path) -> Case:
    """Put the folder's name where a contract needs it."""
    plain = msgspec.to_builtins(tuple(case.checks))
    text = msgspec.json.encode(plain).decode().replace("{bin}", str(folder / "bin"))
    case.checks = msgspec.json.decode(text, type=list[HealthCheck])
    return case


class Trials:
    """Trials by name, run when they are first asked for, a few at a time: each is mostly waiting."""

    def __init__(self, folder: Path, pool: ThreadPoolExecutor) -> None:
        self._folder = folder
        self._pool = pool
        self._begun: dict[str, Future[Trial]] = {}

    def begin(self, name: str) -> "Future[Trial]":
        """Begin one, unless it was."""
        if name not in self._begun:
            self._begun[name] = self._pool.submit(self._one, name)
        return self._begun[name]

    def __getitem__(self, name: str) -> Trial:
        return self.begin(name).result()

    def _one(self, name: str) -> Trial:
        return Trial(self._folder / name, _filled(CASES[name][1], self._folder / name)).run()


@pytest.fixture(scope="module")
def trials(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Trials]:
    """Begin all trials that this run asks for, side by side."""
    with ThreadPoolExecutor(4) as pool:
        made = Trials(tmp_path_factory.mktemp("trials"), pool)
        for item in request.session.items:
            callspec = getattr(item, "callspec", None)
            if item.path == request.path and callspec is not None and "name" in callspec.params:
                made.begin(callspec.params["name"])
        yield made


@pytest.mark.parametrize("name", CASES)
def test_a_check_that_fails_alone_takes_the_release_back_with_its_reason(
    trials: Trials, name: str
) -> None:
    trial = trials[name]
    assert trial.plane.outcomes() == [("reverted", CASES[name][0])]
    assert (trial.board.slot, trial.board.boots) == ("A", 3)
    told = {one.name: one for one in trial.end.health}
    failed = [one for one in told.values() if not one.ok]
    if name != "timeout":
        assert [one.reason for one in failed] == [CASES[name][0]]
        assert failed[0].detail
    if "fine" in told:
        assert told["fine"].ok


def test_a_report_says_which_side_asked_for_a_check(trials: Trials) -> None:
    told = {one.name: one.by for one in trials["own"].end.health}
    assert told == {"fine": msgspec.UNSET, "site": "device"}


def test_a_check_that_comes_and_goes_never_makes_a_warm_up(tmp_path: Path) -> None:
    made = tmp_path / "x"
    flaps = check("command", run=[str(made / "bin" / "flaps")])
    trial = Trial(made, Case([flaps], numbers={"warmup_s": 2, "timeout_s": 6}))
    tools.program(trial.bin, "flaps", FLAPS)
    trial.run()
    ((kind, reason),) = trial.plane.outcomes()
    assert kind == "reverted"
    # By what the last answer was.
    assert (reason, "came and went" in trial.end.detail) in (
        ("health.command", False),
        ("health.timeout", True),
    )


def test_a_report_brings_home_the_history_of_the_boot_counter(
    trials: Trials,
) -> None:
    log = trials["command"].end.log
    assert log.startswith("--- boot counter ---\nthe agent saw 1 boots of the trial; slot B was")
    assert "loader: primary=A no trial bad=B" in log


def test_a_warm_up_goes_on_over_a_restart_of_the_agent_and_begins_anew_after_a_reboot(
    tmp_path: Path,
) -> None:
    looks = tmp_path / "looks"
    noted = check("command", run=["sh", "-c", f"echo >> {looks}"])
    trial = Trial(tmp_path / "x", Case([noted], numbers={"warmup_s": 8, "timeout_s": 120}))
    with trial.running():
        assert wait_for(trial, lambda: trial.passing() is not None)
        first = trial.passing()
        trial.board.kill()
        looks.unlink()
        # Another process, the same boot: what it finds is reckoned from the same instant.
        assert wait_for(trial, looks.exists)
        assert trial.passing() == first
        trial.board.kill()
        trial.board.boot()
        assert wait_for(trial, lambda: trial.passing() not in (None, first))
        assert wait_for(trial, lambda: bool(trial.plane.outcomes()))
    assert trial.plane.outcomes() == [("confirmed", None)]
    assert trial.board.boots == 3


def wait_for(trial: Trial, what: Any) -> bool:
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        trial.board.tend()
        if what():
            return True
        time.sleep(0.03)
    return False


def test_errors_before_a_restart_of_the_agent_count_after_it(tmp_path: Path) -> None:
    with tools.journald(tmp_path / "journald") as journal:
        case = Case(
            [FINE],
            numbers={"warmup_s": 20, "timeout_s": 60, "error_rate_per_hour": 500},
            config='[errors]\njournal = "err"\n',
        )
        trial = Trial(tmp_path / "x", case)
        (trial.bin / "journalctl").symlink_to(journal.bin / "journalctl")
        journal.log("noise of the boot", count=50)
        with trial.running():
            assert wait_for(trial, trial.trial_begun)
            # 500 an hour are 2 in 20 s: two before the agent is taken away, one after it.
            journal.log("boom", count=2)
            time.sleep(1.5)
            assert not trial.plane.outcomes()
            trial.board.kill()
            journal.log("fine", priority=6, count=5)
            journal.log("boom")
            assert wait_for(trial, lambda: bool(trial.plane.outcomes()))
    assert trial.plane.outcomes() == [("reverted", "health.error_rate")]
    assert trial.end.detail.startswith("3 errors")
    # What the image said of itself came home with the report.
    assert "boom" in trial.end.log


def test_a_round_that_hangs_costs_neither_the_link_nor_the_agents_life(tmp_path: Path) -> None:
    hang = check("command", "hangs", run=["sleep", "600"], timeout_s=45)
    trial = Trial(tmp_path / "x", Case([FINE, hang], numbers={"timeout_s": 3}))
    with trial.running():
        # The report of the new boot goes out while the round waits for its check.
        assert wait_for(trial, lambda: "verifying" in _kinds(trial))
        command = [sys.executable, "-m", "tidegate.agent.main", "status", "--json"]
        command += ["--config", str(trial.folder / "agent.toml")]
        done = subprocess.run(command, capture_output=True, timeout=30, check=True)
        assert json.loads(done.stdout)["update"]["state"] == "testing"
        assert not trial.plane.outcomes()


def _kinds(trial: Trial) -> list[str]:
    return [one.kind for one in trial.plane.events.values()]
