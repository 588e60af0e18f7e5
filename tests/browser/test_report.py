"""An incident's report as one file: on paper no table is wider than the sheet, on a screen a wide one scrolls by itself."""

import shutil
from pathlib import Path

import msgspec
import pytest
from playwright.sync_api import sync_playwright
from tests.browser.test_pages import ARGS
from tests.unit.rollout.incidents import about, report

from tidegate.rollout import incident
from tidegate.rollout.incident.model import Look

CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("tier: browser: install the Debian package chromium", allow_module_level=True)
pytestmark = pytest.mark.browser

#: A4 less its margins, at 96 pixels an inch.
SHEET = 673
WIDER = """
[...document.querySelectorAll('table')].filter(one => one.scrollWidth > document.body.clientWidth).map(one => one.rows[0].innerText)
"""


def _page() -> str:
    said = "ring pilot: 3 of 4 attempts ended badly (75 %), limit 30 %; most often boot.counter_exhausted (3)"
    rare = "ring pilot: 2 of 2; out of reach: even 2 of 2 come by luck once in 11 times, and it asks for once in 1,000"
    look = Look(
        at=1_764_821_000, attempts=4, harmed=3, text=f"halt: {said}", bars=(said,), rare=(rare,)
    )
    held = {("pilot", f"gw1-r{n}"): 9_000 + n for n in range(5)}
    told = report(incident=about(owner="olga"), members=held)
    told = msgspec.structs.replace(told, looks=(look, look))
    return incident.to_html(incident.lay_out(told))


def test_no_table_of_a_report_is_wider_than_a_sheet_of_paper(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(_page(), encoding="utf-8")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        page = browser.new_page(viewport={"width": SHEET, "height": 950})
        page.goto(file.as_uri())
        page.emulate_media(media="print")
        assert page.evaluate(WIDER) == []
        page.emulate_media(media="screen")
        page.set_viewport_size({"width": 390, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        browser.close()
