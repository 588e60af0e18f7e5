"""The page of the operators' log over a real server."""

from collections.abc import Iterator

import pytest
from sqlalchemy import update
from tests.unit.server.rig import Rig
from tests.unit.server.web.test_store_pages import Office, opened

from tidegate.server import audit
from tidegate.server.store import Connection, tables


@pytest.fixture
def office(rig: Rig) -> Iterator[Office]:
    rig.publish_trust()
    with opened(rig) as it:
        yield it


def fill(rig: Rig, count: int) -> None:
    def work(conn: Connection) -> None:
        for number in range(count):
            detail = {"reason": f"because {number} <b>"}
            audit.record(conn, int(rig.now), "mei", "rollout.halt", f"r{number}", detail)

    rig.write(work)


def test_acts_are_listed_filtered_and_paged(office: Office) -> None:
    fill(office.rig, 60)
    office.tick()
    text = office.page("/audit")
    assert "Signed up to" in text
    assert "because 59 &lt;b&gt;" in text
    assert "because 2 &lt;b&gt;" in office.page("/audit?action=rollout.&cursor=9")
    assert "Nothing like that was done" in office.page("/audit?actor=nobody")
    assert "r7" in office.page("/audit?thing=r7")
    assert office.client.get("/audit?cursor=x&action=%00").status_code < 500


def test_the_page_says_how_far_the_log_holds_and_where_it_does_not(office: Office) -> None:
    fill(office.rig, 5)
    office.tick()
    assert "Verified up to row" in office.page("/audit?check=1")
    assert "does not hold" not in office.page("/audit?check=1")
    where = tables.audit.c.object == "r3"
    office.rig.write(
        lambda conn: conn.execute(update(tables.audit).where(where).values(actor="eve"))
    )
    assert "The log does not hold at row" in office.page("/audit?check=1")


def test_every_page_names_the_newest_checkpoint(office: Office) -> None:
    assert "Audit checkpoint" not in office.page("/releases")
    fill(office.rig, 2)
    office.tick()
    assert "Audit checkpoint" in office.page("/releases")
