"""Replicas of the version before are replaced one by one under load, and the schema changes beneath them. The long form: `make rolling-load`."""

from pathlib import Path

import pytest
from tests import stores
from tests.e2e import rolling

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(400)]


@pytest.mark.parametrize("back_end", stores.BACK_ENDS)
def test_nothing_is_lost_and_each_version_heeds_the_halts_of_the_other(
    tmp_path: Path, back_end: str
) -> None:
    report = rolling.run(tmp_path, back_end=back_end, devices=30)
    assert report.kept, report
    assert not report.strange, report
    # All of it would hold if nothing had happened.
    assert set(report.halts) == {"old", "new", "old beside new", "new beside old"}, report
    assert report.events > 100, report
    assert report.permits > 50, report
    assert report.asked_in_quiet > 20, report
