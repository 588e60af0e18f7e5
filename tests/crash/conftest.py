"""Prints what the crash tests of this run tried."""

import pytest
from tests.crash.tally import TALLY


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = TALLY.lines()
    if lines:
        terminalreporter.section("POWER CUTS")
    for line in lines:
        terminalreporter.write_line(line)
