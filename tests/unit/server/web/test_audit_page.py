"""The page of the operators' log over a real server."""

from collections.abc import Iterator

import pytest
from sqlalchemy import update
from tests.unit.server.rig import Rig
from tests.unit.server.web.test_store_pages import OLGA, PASSWORD, Office, opened

from tidegate.server import audit
from tidegate.server.operations import auth_of
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


def test_who_reads_the_log_of_a_part_sees_what_was_done_there_and_nothing_else(
    rig: Rig,
) -> None:
    now = int(rig.now)
    rig.publish_trust(("gw1", "obscure"))
    for product in ("gw1", "obscure"):
        rig.rollout(rig.release(1, product=product), name=f"{product}-go")

    def work(conn: Connection) -> None:
        for number in range(120):
            who, thing = ("mei", "gw1-go") if number % 40 == 0 else ("otto", "obscure-go")
            audit.record(conn, now, who, "rollout.halt", thing, {"reason": f"{thing} {number}"})
        audit.record(conn, now, "otto", "rollout.halt", "gone", {})
        audit.record(conn, now, "otto", "token.create", "gw1-go", {})
        audit.record(conn, now, "mei", "release.publish", "gw1-1.1.0", {})

    rig.write(work)
    with opened(rig) as office:
        accounts = auth_of(rig.app.services)
        grants = (["auditor@product:gw1", "viewer@product:obscure"], ["auditor@product:none"])
        for name, held in zip(("gina", "nora"), grants, strict=True):
            accounts.create_account(name, "", PASSWORD, OLGA, now, grants=held)
        office.sign_in("gina")
        text = office.page("/audit?check=1")
        assert text.count("gw1-go 0") + text.count("gw1-go 40") + text.count("gw1-go 80") == 3
        assert "release.publish" in text
        for other in ("obscure-go", "otto", "gone", "token.create", "Verified", "Signed up to"):
            assert other not in text, other
        assert "Nothing like that was done" in office.page("/audit?actor=otto")
        office.sign_in("nora")
        assert "Nothing like that was done" in office.page("/audit")
