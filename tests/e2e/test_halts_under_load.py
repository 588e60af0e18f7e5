"""A halt is effective when it is acknowledged, also by one of several processes, while hundreds of devices ask. The long form: `make halt-load`."""

from pathlib import Path

import pytest
from tests import stores
from tests.e2e import halts

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


@pytest.mark.parametrize("back_end", stores.BACK_ENDS)
def test_after_a_halt_no_process_gives_a_permit_or_makes_an_offer(
    tmp_path: Path, back_end: str
) -> None:
    with stores.place(back_end, tmp_path) as made:
        report = halts.run(tmp_path, devices=200, halts=10, open_s=0.3, quiet_s=0.2, url=made.url)
    assert report.kept, report
    # All of it would hold if nobody had asked.
    assert not report.idle_halts, report
    assert report.permits >= 100, report
    assert report.asked_in_quiet >= 20, report
