"""Rules for every tier, and nothing that a single tier could hold itself.

A tier that cannot run on this machine skips with a reason that begins with `tier:` and names the Debian package that it
wants. The summary repeats those loudly; with `TIDEGATE_STRICT_TIERS=1` (continuous integration) they are failures.
A reason that begins with `foreign:` names a check-out of somebody else's tests: it is repeated as loudly, and is never a failure.
"""

import os
import signal
from collections.abc import Generator
from types import FrameType

import pytest

_TIER = "tier:"
_FOREIGN = "foreign:"
_skipped: list[str] = []


def _strict() -> bool:
    return os.environ.get("TIDEGATE_STRICT_TIERS") == "1"


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return the reason of a skip without pytest's own prefix, also once it was made a failure."""
    if isinstance(report.longrepr, str):
        return report.longrepr.partition("\n")[0]
    if not report.skipped or not isinstance(report.longrepr, tuple | list):
        return ""
    return str(report.longrepr[2]).removeprefix("Skipped: ")


def _judge(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = _reason(report)
    if _strict() and reason.startswith(_TIER):
        report.outcome = "failed"
        report.longrepr = f"{reason}\nNo tier may be skipped here (TIDEGATE_STRICT_TIERS=1)."


def _note(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = _reason(report)
    if reason.startswith((_TIER, _FOREIGN)):
        _skipped.append(reason)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--store",
        choices=("sqlite", "postgres", "both"),
        help="run the suites of the server over this store, in place of what each chooses",
    )


def _end(number: int, _: FrameType | None) -> None:
    pytest.exit("ended from outside", 128 + number)


def pytest_configure() -> None:
    """End in order when told to (`timeout`, a supervisor): servers that tests began would go on without anybody else."""
    signal.signal(signal.SIGTERM, _end)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _judge(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _judge(report)
    return report


# Heard where the summary is written: with several workers (`-n`), not where the test ran.
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _note(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _note(report)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _skipped:
        terminalreporter.section("TIERS NOT RUN", red=True, bold=True)
    for reason in sorted(set(_skipped)):
        terminalreporter.write_line(f"{_skipped.count(reason):4} x {reason}", red=True)
