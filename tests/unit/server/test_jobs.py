"""Acts on many devices: counted, confirmed by the count, done once each, cancelled, and gone on with after a restart."""

import json
from typing import Any
from urllib.parse import quote

import pytest
from tests.unit.server.test_api_routes import POLICY, Api, api

from tidegate.server import devices, jobs
from tidegate.server.store import admin_log

__all__ = ["api"]


@pytest.fixture
def fleet(api: Api) -> Api:
    for number in range(7):
        api.rig.device(f"d{number}", rev=1 + number % 2)
    return api


def _start(api: Api, **order: Any) -> Any:
    told = api.call("POST", "/jobs?dry_run=true", order)
    assert told.status == 201, told.body
    return api.post("/jobs", {**order, "confirm": json.loads(told.body)["devices"]})


def _outcomes(api: Api, number: int, query: str = "") -> dict[str, str]:
    found = api.get(f"/jobs/{number}/items?limit=500{query}")["items"]
    return {one["device"]: one["state"] for one in found}


def _run(api: Api) -> None:
    api.rig.app.tick()


def test_a_query_is_counted_confirmed_and_carried_out(fleet: Api) -> None:
    order = {"act": "tag", "query": "revision = 2", "tags": ["lab"]}
    told = json.loads(fleet.call("POST", "/jobs?dry_run=true", order).body)
    assert (told["devices"], told["named"]) == (3, ["d1", "d3", "d5"])
    assert fleet.get("/jobs")["items"] == []
    made = fleet.post("/jobs", {**order, "confirm": 3})
    assert (made["state"], made["devices"], made["left"]) == ("running", 3, 3)
    _run(fleet)
    done = fleet.get(f"/jobs/{made['number']}")
    assert (done["state"], done["done"], done["left"], done["ended_by"]) == ("done", 3, 0, "token:t-admin")  # fmt: skip
    assert [one["id"] for one in fleet.get("/devices?query=tag%20%3D%20lab")["items"]] == ["d1", "d3", "d5"]  # fmt: skip


@pytest.mark.parametrize(("query", "meant"), [("state = confirmed", 1), ("state != confirmed", 7)])
def test_a_query_about_updates_means_those_whom_the_list_shows(
    fleet: Api, query: str, meant: int
) -> None:
    done = fleet.rig.device("done")
    fleet.post("/rollouts", {**POLICY, "release": "gw1-1.1.0"})
    done.run(done.assignment())
    listed = fleet.get(f"/devices?query={quote(query)}")["items"]
    order = {"act": "tag", "query": query, "tags": ["lab"]}
    told = json.loads(fleet.call("POST", "/jobs?dry_run=true", order).body)
    assert told["devices"] == len(listed) == meant
    assert told["named"] == [one["id"] for one in listed]


@pytest.mark.parametrize("confirm", [None, 2, 4])
def test_a_number_that_is_not_what_would_be_met_is_refused(fleet: Api, confirm: int | None) -> None:
    order = {"act": "revoke", "query": "revision = 2", "reason": "stolen", "confirm": confirm}
    refused = fleet.call("POST", "/jobs", order)
    assert (refused.status, refused.code) == (409, "request.confirmation_needed")
    assert "3 devices" in json.loads(refused.body)["detail"]
    assert fleet.get("/jobs")["items"] == []


def test_whom_a_job_is_about_is_fixed_when_it_is_confirmed(fleet: Api) -> None:
    made = _start(fleet, act="tag", query="revision = 2", tags=["lab"])
    fleet.rig.device("late", rev=2)
    _run(fleet)
    assert set(_outcomes(fleet, made["number"])) == {"d1", "d3", "d5"}


def test_what_is_refused_for_one_device_is_noted_and_the_others_are_done(fleet: Api) -> None:
    fleet.post("/devices/d1/revoke", {"reason": "stolen"})
    fleet.post("/devices/d2/decommission", {"reason": "scrapped"})
    made = _start(fleet, act="revoke", devices=["d1", "d2", "d3"], reason="stolen van")
    _run(fleet)
    assert _outcomes(fleet, made["number"]) == {"d1": "already", "d2": "failed", "d3": "done"}
    (failed,) = fleet.get(f"/jobs/{made['number']}/items?state=failed")["items"]
    assert failed["code"] == "request.conflict"
    assert "decommissioned" in failed["detail"]
    done = fleet.get(f"/jobs/{made['number']}")
    assert (done["done"], done["already"], done["failed"]) == (1, 1, 1)
    acts = [one["action"] for one in fleet.get("/audit?limit=500")["items"] if one["object"] in {"d3", "1"}]  # fmt: skip
    assert acts[:3] == ["job.done", "device.revoke", "job.start"]


def test_tags_go_and_devices_move_between_groups(fleet: Api) -> None:
    for name, there in (("a", ["d0", "d1"]), ("b", ["d1"])):
        fleet.post("/groups", {"name": name, "devices": there})
    made = _start(fleet, act="move", devices=["d0", "d1", "d2"], group="b", out_of="a")
    _run(fleet)
    assert _outcomes(fleet, made["number"]) == {"d0": "done", "d1": "done", "d2": "done"}
    assert [one["id"] for one in fleet.get("/devices?group=b")["items"]] == ["d0", "d1", "d2"]
    assert fleet.get("/devices?group=a")["items"] == []
    fleet.call("PUT", "/devices/d0/tags", {"tags": ["x", "y"]})
    again = _start(fleet, act="untag", devices=["d0", "d1"], tags=["x"])
    _run(fleet)
    assert _outcomes(fleet, again["number"]) == {"d0": "done", "d1": "already"}
    assert fleet.get("/devices/d0")["tags"] == ["y"]


def test_a_server_that_starts_again_goes_on_behind_what_was_done(
    fleet: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "BATCH", 2)
    monkeypatch.setattr(jobs, "TURN", 1)
    real, done = devices.set_tags, []

    def set_tags(conn: Any, row: int, tags: list[str], now: int) -> None:
        done.append(row)
        real(conn, row, tags, now)

    monkeypatch.setattr(devices, "set_tags", set_tags)
    made = _start(fleet, act="tag", query="", devices=[f"d{n}" for n in range(7)], tags=["lab"])
    _run(fleet)
    assert (fleet.get("/jobs/1")["done"], fleet.get("/jobs/1")["left"]) == (2, 5)
    fleet.rig.restart()
    fleet.rig.now += 120  # the lease of the process that died lapses
    for _ in range(6):
        _run(fleet)
    assert fleet.get(f"/jobs/{made['number']}")["state"] == "done"
    assert sorted(done) == sorted(set(done))
    assert len(done) == 7


def test_a_job_that_is_cancelled_stops_where_it_is(
    fleet: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "BATCH", 2)
    monkeypatch.setattr(jobs, "TURN", 1)
    made = _start(fleet, act="tag", query="product = gw1", tags=["lab"])
    _run(fleet)
    ended = fleet.post(f"/jobs/{made['number']}/cancel", {"reason": "wrong tag"})
    assert (ended["state"], ended["done"], ended["left"]) == ("cancelled", 2, 5)
    for _ in range(4):
        _run(fleet)
    assert fleet.get(f"/jobs/{made['number']}") == ended
    assert fleet.post(f"/jobs/{made['number']}/cancel", {"reason": "again"}) == ended
    done = _start(fleet, act="tag", devices=["d0"], tags=["x"])
    _run(fleet)
    late = fleet.call("POST", f"/jobs/{done['number']}/cancel", {})
    assert (late.status, late.code) == (409, "request.conflict")


def test_nothing_is_done_while_another_process_has_the_lease(fleet: Api) -> None:
    made = _start(fleet, act="tag", devices=["d0"], tags=["x"])
    now = int(fleet.rig.now)
    fleet.rig.write(lambda conn: admin_log.take_lease(conn, jobs.LEASE, "other", now, jobs.LEASE_S))
    _run(fleet)
    assert fleet.get(f"/jobs/{made['number']}")["left"] == 1
    fleet.rig.now += jobs.LEASE_S + 1
    _run(fleet)
    assert fleet.get(f"/jobs/{made['number']}")["state"] == "done"


@pytest.mark.parametrize(
    ("order", "status"),
    [
        ({"act": "tag", "tags": ["x"]}, 400),
        ({"act": "tag", "tags": ["x"], "query": "a = b", "devices": ["d0"]}, 400),
        ({"act": "tag", "query": "product = gw1"}, 400),
        ({"act": "tag", "query": "modle = x", "tags": ["x"]}, 400),
        ({"act": "burn", "query": "product = gw1"}, 400),
        ({"act": "revoke", "query": "product = gw1"}, 400),
        ({"act": "move", "query": "product = gw1"}, 400),
        ({"act": "move", "query": "product = gw1", "group": "none"}, 404),
        ({"act": "tag", "devices": ["d0", "nobody"], "tags": ["x"], "confirm": 2}, 404),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(fleet: Api, order: Any, status: int) -> None:
    refused = fleet.call("POST", "/jobs", order)
    assert refused.status == status, refused.body
    assert fleet.get("/jobs")["items"] == []


def test_a_group_by_query_takes_nobody_in_and_a_viewer_orders_nothing(fleet: Api) -> None:
    fleet.post("/groups", {"name": "q", "query": "revision = 1"})
    order = {"act": "move", "devices": ["d0"], "group": "q", "confirm": 1}
    assert fleet.call("POST", "/jobs", order).status == 400
    order = {"act": "tag", "devices": ["d0"], "tags": ["x"], "confirm": 1}
    assert fleet.call("POST", "/jobs", order, "viewer").status == 403


def test_the_same_order_sent_again_under_its_key_is_one_job(fleet: Api) -> None:
    order = {"act": "tag", "devices": ["d0"], "tags": ["x"], "confirm": 1}
    first = fleet.call("POST", "/jobs", order, idempotency_key="k")
    again = fleet.call("POST", "/jobs", order, idempotency_key="k")
    assert first.body == again.body
    assert len(fleet.get("/jobs")["items"]) == 1
