"""The boot lab's tier: `make lab`. It is not part of `make test`, which does not look into this folder."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab import kvm, releases, tools
from lab.plant import Plant, Release
from lab.report import Report

_REPORT = Report()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--seed", type=int, default=None, help="of the power cuts; printed by each run"
    )
    parser.addoption("--cuts", type=int, default=30, help="cuts of the whole system (30)")
    parser.addoption("--loader-cuts", type=int, default=200, help="cuts of the boot loader (200)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.qemu)
            item.add_marker(pytest.mark.timeout(1500))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = list(_REPORT.lines())
    if lines:
        terminalreporter.section("THE BOOT LAB")
    for line in lines:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def report() -> Report:
    """What the table at the end is made from."""
    return _REPORT


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
    """One control plane for all devices of the run."""
    made = Plant(
        tmp_path_factory.mktemp("plant"), [releases.product(one) for one in releases.KINDS]
    )
    yield made
    made.stop()


@pytest.fixture(scope="session")
def newest(plant: Plant) -> Callable[[str], Release]:
    """Publishes the release of a kind when it is first asked for."""
    return functools.cache(lambda kind: releases.newest(plant, kind))
