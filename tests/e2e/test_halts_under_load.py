"""A halt is effective when it is acknowledged, also by one of several processes, while hundreds of devices ask. The long form: `make halt-load`."""

from pathlib import Path

import pytest
from tests.e2e import halts

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


def test_after_a_halt_no_process_gives_a_permit_or_makes_an_offer(tmp_path: Path) -> None:
    report = halts.run(tmp_path, devices=200, halts=10, open_s=0.3, quiet_s=0.2)
    assert report.kept, report
    # All of it would hold if nobody had asked.
    assert not report.idle_halts, report
    assert report.permits >= 100, report
    assert report.asked_in_quiet >= 20, report
