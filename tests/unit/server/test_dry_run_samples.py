"""A dry run of a very large fleet asks some devices in place of all: what it says is near the truth, and exact where it counts."""

import pytest
from tests.unit.server.rig import Rig
from tests.unit.server.test_audiences import populate
from tests.unit.server.test_rollouts_admin import OLGA, Desk

from tidegate.server import audiences, drafts, headcount

DATA = {
    "preset": "lab",
    "release": "gw1-1.1.0",
    "ring": [
        {"name": "few", "audience": "group:internal", "soak": "1h"},
        {"name": "north", "audience": "site = nord", "soak": "1h"},
        {"name": "all"},
    ],
}


def test_a_sample_tells_what_asking_everybody_tells(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.publish_trust()
    rig.release(1, rev_max=2)
    populate(rig, 900, 5)
    desk = Desk(rig)
    truth = desk.operations.preview(DATA, OLGA, desk.now)
    monkeypatch.setattr(audiences, "ASKED_ALL", 100)
    monkeypatch.setattr(audiences, "SAMPLED", 450)
    told = desk.operations.preview(DATA, OLGA, desk.now)
    assert (truth.asked, 0 < told.asked <= 450) == (0, True)
    assert [one.matched for one in told.rings] == [one.matched for one in truth.rings]
    assert told.rings[0].variants == truth.rings[0].variants  # a small ring is asked whole
    assert told.offered == pytest.approx(truth.offered, rel=0.15)
    assert sum(one.count for one in told.skipped) + told.offered == pytest.approx(
        told.matched, abs=3
    )
    again = desk.operations.preview(DATA, OLGA, desk.now)
    assert again == told


def test_hardware_that_was_not_drawn_is_told_all_the_same(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.publish_trust()
    rig.release(1)
    populate(rig, 300, 6)
    rig.device("rare", rev=9)
    desk = Desk(rig)
    monkeypatch.setattr(audiences, "ASKED_ALL", 100)
    monkeypatch.setattr(audiences, "SAMPLED", 30)
    data = {**DATA, "ring": [{"name": "all"}]}
    assert desk.operations.preview(data, OLGA, desk.now).of_variant("gw1-r9") >= 1


def test_everybody_of_a_ring_stands_for_somebody(rig: Rig) -> None:
    populate(rig, 400, 7)
    fleet = rig.app.services.fleet
    from tests.unit.server.test_audiences import rollout_of

    model = rollout_of("site = nord", "rest")
    meant = headcount.fix(fleet, model, "gw1", 0)
    counts = headcount.count(fleet, model, "gw1")
    found = headcount.sample(fleet, meant, counts, 60)
    stands = [found.weights[meant.rings[row] - 1] for row in found.rows]
    assert sum(stands) == pytest.approx(meant.devices)
    assert len(found.rows) == 60


def test_a_window_by_each_devices_own_clock_opens_where_the_day_begins_first() -> None:
    monday = 1_764_547_200
    windows = {"activate": ["Sat 02:00-05:00"]}
    delivery = drafts.delivery_of({"windows": windows})
    assert drafts.opens_at(delivery, monday) == monday + 4 * 86_400 + 12 * 3600
    assert drafts.opens_at(drafts.delivery_of({}), monday) == 0
    by_utc = drafts.delivery_of({"windows": {**windows, "zone": "UTC"}})
    assert drafts.opens_at(by_utc, monday) == monday + 5 * 86_400 + 2 * 3600
