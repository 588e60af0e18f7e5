"""Replicas, their database, its disk and the network break while a crowd of devices reports: nothing acknowledged is lost. The long form: `make fault-load`."""

import os
import shutil
from pathlib import Path

import pytest
from tests.e2e import faults

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(500)]


@pytest.mark.skipif(os.getuid() != 0, reason="tier: a disk that is full: only root may mount one")
def test_nothing_acknowledged_is_lost_and_nobody_goes_past_a_halt(tmp_path: Path) -> None:
    assert shutil.which("mount")
    report = faults.run(tmp_path, devices=30, seconds=60, fault_s=5, halt_s=3, pause_s=0.5)
    assert report.kept, report
    # All of it would hold if nothing had happened.
    assert len(report.faults) >= 5, report
    assert report.events > 300, report
    assert report.permits > 50, report
    assert report.asked_in_quiet > 5, report
