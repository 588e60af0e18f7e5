"""The boot lab's tier: `make lab`. It is not part of `make test`, which does not look into this folder.

The tests are spread over lanes, a process each with a control plane of its own (pytest-xdist): a machine in emulation keeps one processor busy. What has to
stay together is a group; long ones go first, so that the lanes end at about the same time. Each lane counts for itself, and the table is of all of them.
"""

import contextlib
import functools
import random
import re
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import artifacts, kvm, releases, tools, uboot
from lab.device import MARKER, Device, make_uboot_device
from lab.plant import Plant, Release
from lab.report import LOADER_ALONE, WHOLE_SYSTEM, Report
from tests.qemu import loader, moments
from tests.qemu.lanes import SYSTEMD_PRODUCTS, Lanes

HERE = Path(__file__).parent
_REPORT = Report()
#: Tests in the order in which they begin, by file: long ones first.
_ORDER = (
    *("test_systemd", "test_power_cuts", "test_port_a_board_guide", "test_updates"),
    *("test_loader_cuts", "test_crash_logs", "test_machine"),
)


class Session:
    """What this process knows of the run.

    Attributes:
        whole: whether all that the lab has was asked for; only then are its figures demanded.
        lacking: what it should have tried, and did not.
        cpu_s: what this process and its children had used when the lab's own time began, in CPU seconds.
    """

    whole = False
    lacking: tuple[str, ...] = ()
    cpu_s = 0.0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--seed", type=int, default=None, help="of the power cuts; printed by each run"
    )
    parser.addoption("--cuts", type=int, default=30, help="cuts of the whole system (30)")
    parser.addoption("--loader-cuts", type=int, default=200, help="cuts of the boot loader (200)")


def pytest_configure(config: pytest.Config) -> None:
    # Before there are lanes, which get a copy of the options.
    if config.option.seed is None:
        config.option.seed = random.SystemRandom().randrange(1 << 31)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Make everything that is made once, in the process that starts the lanes."""
    options = session.config.option
    names = [one for one in session.config.args if "::" in one or one.endswith(".py")]
    if not (_is_lane(session.config) or options.collectonly or options.keyword or names):
        began = time.monotonic()
        # Where a tool is missing, every test says so.
        with contextlib.suppress(tools.MissingError):
            artifacts.make_all()
            _REPORT.made(time.monotonic() - began)
    Session.cpu_s = _cpu_s()


def _cpu_s() -> float:
    """Return the CPU seconds of this process, and of those that it started and that are over."""
    used = (resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    mine = [one for one in items if HERE in one.path.parents]
    for item in mine:
        item.add_marker(pytest.mark.qemu)
        item.add_marker(pytest.mark.timeout(1500))
    files = {one.path for one in mine}
    Session.whole = not config.option.collectonly and files == set(HERE.glob("test_*.py"))
    items.sort(key=lambda one: _place(one.path.stem))


def _place(name: str) -> int:
    return _ORDER.index(name) if name in _ORDER else len(_ORDER)


def pytest_deselected(items: list[pytest.Item]) -> None:
    if any(HERE in one.path.parents for one in items):
        Session.whole = False


# --- lanes ------------------------------------------------------------------------------------------------------------


def _is_lane(config: pytest.Config) -> bool:
    return hasattr(config, "workeroutput")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Lanes:
    """Spread the tests over lanes, whatever `--dist` says."""
    return Lanes(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """A lane has ended: add what it counted."""
    told = getattr(node, "workeroutput", {}).get("lab")
    if told is not None:
        _REPORT.add(told["counts"])
        Session.whole = told["whole"]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    # The lanes count for themselves; where there are none, all of it is here.
    if _is_lane(session.config) or not session.config.getoption("numprocesses", None):
        _REPORT.spent(_cpu_s() - Session.cpu_s)
    if _is_lane(session.config):
        output: dict[str, Any] = session.config.workeroutput  # type: ignore[attr-defined]
        output["lab"] = {"counts": _REPORT.packed(), "whole": Session.whole}
        return
    if Session.whole and exitstatus == pytest.ExitCode.OK:
        Session.lacking = (
            *_REPORT.lacking(LOADER_ALONE, session.config.option.loader_cuts, loader.MOMENTS),
            *_REPORT.lacking(WHOLE_SYSTEM, session.config.option.cuts, moments.DEMANDED),
        )
        if Session.lacking:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = list(_REPORT.lines())
    if lines:
        terminalreporter.section("THE BOOT LAB")
    for line in lines:
        terminalreporter.write_line(line)
    for line in Session.lacking:
        terminalreporter.write_line(f"FAILED: {line}", red=True)


# --- what tests work with ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def report() -> Report:
    """What the table at the end is made from."""
    return _REPORT


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest, report: Report) -> int:
    """The run's seed."""
    found: int = request.config.option.seed
    report.seed(f"to make the same cuts again: --seed {found}")
    return found


@pytest.fixture(scope="session")
def accelerator() -> str:
    """What QEMU runs with; skips the tier where a package is missing."""
    try:
        tools.require()
        return kvm.accelerator()
    except tools.MissingError as missing:
        pytest.skip(f"tier: the boot lab: {missing}")


@pytest.fixture(scope="session")
def plant(accelerator: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """One control plane for all devices of the lane."""
    products = [*(releases.product(one) for one in releases.KINDS), *SYSTEMD_PRODUCTS]
    made = Plant(tmp_path_factory.mktemp("plant"), products)
    yield made
    made.stop()


@pytest.fixture(scope="session")
def newest(plant: Plant) -> Callable[[str], Release]:
    """Publishes the release of a kind when it is first asked for."""
    return functools.cache(lambda kind: releases.newest(plant, kind))


@pytest.fixture
def make_device(
    plant: Plant, accelerator: str, tmp_path_factory: pytest.TempPathFactory, report: Report
) -> Iterator[Callable[..., Device]]:
    """Makes a device with U-Boot, `make_device(mode, name, style, installed)`, and counts what it did when the test is over."""
    made: list[tuple[str, Device]] = []

    def make(mode: str, name: str, style: uboot.Style, installed: Release) -> Device:
        # A short path: a socket is in there.
        folder = tmp_path_factory.mktemp(name)
        device = make_uboot_device(
            folder, plant, name, style=style, accelerator=accelerator, installed=installed
        )
        made.append((mode, device))
        return device

    yield make
    for mode, device in made:
        device.close()
        report.used(device.machine.cpu_s)
        report.boots(mode, len(re.findall(MARKER, device.machine.text, re.MULTILINE)))
