"""What the pages say of the evidence is what was decided and stored, and nothing is drawn where nothing is weighed."""

import re
from typing import Any

from tests.unit.server.light import LightFleet
from tests.unit.server.rig import Rig
from tests.unit.server.test_gatekeeper import NAME, Fleet
from tests.unit.server.web.test_store_pages import OLGA, opened

from tidegate.rollout.model import Rollout
from tidegate.server.gatekeeper.facts import GateFacts, gate_facts
from tidegate.server.planning import model_of
from tidegate.server.reports import export
from tidegate.server.store import Connection, web_queries
from tidegate.server.web import words
from tidegate.server.web.queries import evidence
from tidegate.server.web.queries.rollouts import evidence_of
from tidegate.server.web.queries.sums import Audience
from tidegate.server.web.views import EvidenceView

PLAIN: dict[str, Any] = {
    "preset": "lab",
    "guards": [{"type": "failure_rate", "max": "20%", "sample": 3}],
    "ring": [{"name": "all"}],
}


def facts_of(rig: Rig, rollout_id: int) -> GateFacts:
    found: GateFacts | None = rig.read(lambda conn: gate_facts(conn, rollout_id))
    assert found is not None
    return found


def said(page: str) -> str:
    return page.replace(words.NBSP, " ")


def test_a_rollout_says_what_is_weighed_and_by_what_it_is_measured(rig: Rig) -> None:
    fleet = Fleet(rig, 12, lambda n: 1 + n % 2)
    fleet.start()
    fleet.poll()
    with opened(rig) as office:
        page = said(office.page(f"/rollouts/{NAME}"))
        assert "Evidence of harm" in page
        assert "assumed, no history" in page
        assert re.search(r"In 12 devices fewer than [\d.]+ ?% failures would pass unseen", page), (
            page[page.find("What cannot") :][:200]
        )
        assert "Only gross failures" in page
        assert "below 1 : 1 against it" in page.lower()
        gate = facts_of(rig, fleet.id)
        room = sum(gate.permits.values())
        assert room > 0
        assert f"{room} in all" in page
        assert re.search(rf"What limits speed now\? {room} permits? more now", page), page
        assert said(office.page("/rollouts")).count("against it") == 1
        out = fleet.granted()
        fleet.look()
        later = said(office.page(f"/rollouts/{NAME}"))
        worst = facts_of(rig, fleet.id).at_worst
        assert worst > 0
        assert f"≈ {worst} device" in later
        assert f"At most, of {len(out)} exposed" in later


def test_a_halt_by_odds_is_told_with_all_its_needles_and_the_report_keeps_them(rig: Rig) -> None:
    fleet = Fleet(rig, 40)
    fleet.start()
    fleet.poll()
    for _ in range(12):
        fleet.fail(*fleet.granted())
        fleet.look(900)
        if fleet.row["state"] == "halted":
            break
    assert fleet.row["state"] == "halted"
    with opened(rig) as office:
        page = said(office.page(f"/rollouts/{NAME}"))
        assert "Yes." in page
        assert re.search(r"Is it bad\? (over )?[\d,]+ : 1 against it", page), page
        assert "0 in all" in page
        assert "no permit an hour" not in page
        name = re.findall(r"INC-\d{4}-\d{3}", page)[0]
        report = said(office.page(f"/incidents/{name}"))
        assert "Evidence when it was stopped" in report
        assert "halts at 1,000 : 1" in report
        _, body = rig.read(lambda conn: export(conn, name, "md", fleet.now))
        assert "the whole fleet, stream by stream: failure " in body.decode()


def test_nothing_is_drawn_where_nothing_is_weighed(rig: Rig) -> None:
    fleet = Fleet(rig, 3)
    fleet.operations.create({**PLAIN, "release": NAME}, OLGA, "because", fleet.now)
    fleet.look()
    with opened(rig) as office:
        page = office.page(f"/rollouts/{NAME}")
        assert "Evidence of harm" not in page
        assert "Proof of health" not in page
        assert "against it" not in office.page("/rollouts")


def test_a_rollout_that_has_not_begun_says_that_nothing_is_weighed_yet(rig: Rig) -> None:
    fleet = Fleet(rig, 3)
    data = {"preset": "normal", "release": NAME, "draft": True}
    fleet.operations.create(data, OLGA, "because", fleet.now)
    with opened(rig) as office:
        page = office.page(f"/rollouts/{NAME}")
        assert "Nothing is weighed before it starts" in page
        assert "Proof of health" not in page


def test_limits_stand_in_order_lowest_first(rig: Rig) -> None:
    fleet = Fleet(rig, 12)
    fleet.start()
    fleet.poll()
    view = view_of(fleet)
    rooms = [one.room for one in view.limits]
    assert rooms == sorted(rooms)
    assert {"Devices that ask", "Permits of all variants"} <= {one.name for one in view.limits}
    assert all(0 <= one.portion <= 1 for one in view.limits)


def view_of(fleet: Fleet) -> EvidenceView:
    count = fleet.operations.audiences.count

    def audiences(conn: Connection, model: Rollout, product: str) -> Audience:
        return count(conn, model, product, fleet.now)

    def read(conn: Connection) -> EvidenceView | None:
        row = web_queries.rollout(conn, NAME)
        assert row is not None
        model = model_of(row)
        found = evidence_of(conn, row, model, audiences)
        return evidence.view(conn, row, model, found)

    view: EvidenceView | None = fleet.rig.read(read)
    assert view is not None
    return view


def test_a_rollout_that_is_held_says_so_first_and_leads_to_its_incident(rig: Rig) -> None:
    fleet = LightFleet(rig, 12)
    fleet.start({"guards": [{"type": "evidence"}], "ring": [{"name": "all"}]})
    fleet.look()
    fleet.live(3, lambda _: "")
    with opened(rig) as office:
        page = said(office.page(f"/rollouts/{NAME}"))
        assert "held: 1 of 1 devices that were let go failed" in page
        assert "the odds begin anew and the next few devices try" in page
        assert "INC-" in page
        assert "held: 1 of 1 devices" in said(office.page("/rollouts"))
