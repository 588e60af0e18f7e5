"""An incident's page tells what its export tells, and its forms take what shows a cause, who decides on a recall, and another owner or date."""

import re
from collections.abc import Iterator

import pytest
from tests.unit.server.rig import Rig
from tests.unit.server.web.test_store_pages import Office, begin, opened, revert


@pytest.fixture
def office(rig: Rig) -> Iterator[Office]:
    rig.publish_trust()
    with opened(rig) as it:
        yield it


def _halted(office: Office) -> str:
    devices, _ = begin(office)
    for device in devices[::2]:
        revert(device)
    office.tick()
    return f"/incidents/{re.findall(r'INC-[0-9]+-[0-9]+', office.page('/incidents'))[0]}"


def test_the_page_tells_why_it_was_not_stopped_before_and_whom_it_would_meet(
    office: Office,
) -> None:
    page = office.page(_halted(office))
    assert "Why it was not stopped before" in page
    assert "and at once when a device reports that it ended badly" in page
    assert "gw1-r2 (tried by none)" in page
    assert "would meet it again" in page
    assert "Nobody is named yet who decides on the recall" in page
    assert "who decides until when whether gw1-1.2.0 is recalled" in page
    assert "What was shown otherwise: nothing is written down." in page
    assert "Not known, and nobody has said yet what it may be" in page


def test_counts_and_evidence_stand_apart_in_the_form_and_on_the_page(office: Office) -> None:
    at = _halted(office)
    assert office.post(f"{at}/note", kind="cause", text="the modem hangs") == 303
    said = office.page(at)
    assert "Said to be proved, and nothing is written down here that shows it" in said
    assert "What was shown otherwise: nothing is written down." in said
    shown = {"text": "3 of 3 hang, seen by gus", "means": "bench", "kept": "ticket HW-311"}
    assert office.post(f"{at}/note", kind="evidence", **shown) == 303
    assert office.post(f"{at}/note", kind="evidence", text="x", means="counts") == 400
    proved = office.page(at)
    assert "Proved: the modem hangs" in proved
    assert "test on a bench 3 of 3 hang, seen by gus ticket HW-311" in proved
    html = office.client.get(at).text
    assert all(f'<option value="{one}">' in html for one in ("log", "bench", "code", "supplier"))


def test_follow_ups_take_owner_and_date_and_show_when_they_are_overdue(office: Office) -> None:
    at = _halted(office)
    assert office.post(f"{at}/followup", about="recall", owner="gus", due="2030-01-02") == 303
    page = office.page(at)
    assert "gus decides on the recall, by 2030-01-02." in page
    assert "decide whether gw1-1.2.0 is recalled" in page
    assert office.post(f"{at}/followup-edit", number="1", owner="olga", due="2031-02-03") == 303
    assert "olga decides on the recall, by 2031-02-03." in office.page(at)
    assert office.post(f"{at}/followup-edit", number="7", owner="olga") == 404
    assert office.post(f"{at}/followup-edit", number="1", due="soon") == 400
    assert office.post(f"{at}/followup-edit", number="1", due="2021-02-03") == 303
    late = office.page(at)
    assert "olga decides on the recall, by 2021-02-03 (OVERDUE)." in late
    assert "overdue since" in late
    assert "1 follow-up that is overdue" in late
    assert "overdue" in office.page("/incidents")
