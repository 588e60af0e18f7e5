"""Lists in the order that was asked for: whole through their cursors, by an index alone, and refused with what would do."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event
from tests.unit.server.test_api_conventions import full
from tests.unit.server.test_api_routes import Api, api

from tidegate.server.api.sorting import SORT
from tidegate.server.store import Connection

__all__ = ["api", "full"]

#: List → the fields of its orders, each with what tells its place in the items.
ORDERS = {
    "/rollouts": {"created_at": "created_at", "name": "name"},
    "/releases": {"published_at": "published_at", "name": "name"},
    "/releases?product=gw1": {"counter": "counter"},
    "/devices": {"enrolled_at": "enrolled_at", "id": "id"},
    "/groups": {"name": "name", "created_at": "created_at"},
    "/claims": {"name": "name", "created_at": "created_at"},
    "/incidents": {"opened_at": "opened_at"},
    "/audit/entries": {"at": "seq"},
    "/rollouts/gw1-1.1.0/log": {"at": "at"},
    "/devices/e1/log": {"received_at": "position"},
}
CASES = [(path, field, told) for path, fields in ORDERS.items() for field, told in fields.items()]
#: Lists in pages that have one order, and why.
ONE_ORDER = {
    "/api/v1/events": "is followed, from a place on",
    "/api/v1/audit/checkpoints": "is read whole, beside the export",
    "/api/v1/rollouts/{name}/updates": "by device: an index by state would be written with every report",
    "/api/v1/rollouts/{name}/stragglers": "is found by looking through devices",
    "/api/v1/incidents/{name}/cohort": "a timeline",
    "/api/v1/components": "the worst first",
    "/api/v1/components/devices": "is found by looking through devices",
    "/api/v1/advisories": "the newest, or of a release the worst, first",
    "/api/v1/advisories/{number}/findings": "the worst first",
    "/api/v1/jobs/{number}/items": "the order in which the job goes",
    "/api/v1/preauthorized": "the order in which they came",
}


def _joined(path: str, more: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}{more}"


def _walk(api: Api, path: str, limit: int = 1) -> Iterator[dict[str, Any]]:
    cursor: str | None = ""
    while cursor is not None:
        page = api.get(_joined(path, f"limit={limit}&cursor={cursor}"))
        yield from page["items"]
        cursor = page["next"]


def test_a_list_in_an_order_is_whole_through_its_cursors_and_backwards_the_other_way(
    full: Api,
) -> None:
    for path, field, told in CASES:
        up = list(_walk(full, _joined(path, f"sort={field}")))
        down = list(_walk(full, _joined(path, f"sort=-{field}")))
        assert len(up) >= 2, path
        assert up == down[::-1], path
        places = [one[told] for one in up]
        assert places == sorted(places), path
        usual = full.get(_joined(path, "limit=500"))["items"]
        assert sorted(map(json.dumps, usual)) == sorted(map(json.dumps, up)), path


@pytest.mark.parametrize("sign", ["", "-"])
def test_what_is_added_while_somebody_pages_by_name_hides_and_repeats_nothing(
    full: Api, sign: str
) -> None:
    before = {one["id"] for one in full.get("/devices?limit=500")["items"]}
    walk = _walk(full, f"/devices?sort={sign}id")
    found = [next(walk)["id"]]
    for name in ("a0", "d1x", "zz"):
        full.rig.device(name)
    found += [one["id"] for one in walk]
    assert len(found) == len(set(found))
    assert before <= set(found)


def test_no_order_of_a_list_that_grows_has_the_database_sort(full: Api) -> None:
    for path, field, _ in CASES:
        if path in {"/groups", "/claims", "/devices/e1/log"}:
            continue  # short: told whole, or of one device
        for sign in ("", "-"):
            for cursor in ("", full.get(_joined(path, f"limit=1&sort={sign}{field}"))["next"]):
                asked = _joined(path, f"limit=1&sort={sign}{field}&cursor={cursor}")
                plans = _plans(full, asked)
                assert plans, asked
                assert not [one for one in plans if "TEMP B-TREE FOR ORDER BY" in one], plans


def _plans(api: Api, path: str) -> list[str]:
    """Return how the database goes about the statements with a LIMIT behind a call."""
    told: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if "LIMIT" in statement and "ORDER BY" in statement:
            told.append((statement, parameters))

    def engine_of(conn: Connection) -> Any:
        return conn.engine

    engine = api.rig.read(engine_of)
    event.listen(engine, "before_cursor_execute", note)
    try:
        api.get(path)
    finally:
        event.remove(engine, "before_cursor_execute", note)

    def work(conn: Connection) -> list[str]:
        found: list[str] = []
        for statement, parameters in told:
            rows = conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            found += [str(row[3]) for row in rows]
        return found

    found: list[str] = api.rig.read(work)
    return found


def test_another_order_is_refused_with_the_names_of_the_right_ones(api: Api) -> None:
    for path, told in (
        ("/devices?sort=last_seen", "seen > 24h"),
        ("/devices?sort=-row", "enrolled_at, id"),
        ("/rollouts?sort=names", "created_at, name"),
        ("/rollouts?sort=--name", "created_at, name"),
        ("/groups?sort=size", "name, created_at"),
        ("/releases?sort=-counter", "product"),
    ):
        answer = api.call("GET", path)
        assert (answer.status, answer.code) == (400, "request.invalid"), path
        assert told in answer.body.decode(), path


def test_a_cursor_of_another_order_is_refused(full: Api) -> None:
    for path, name, other in (
        ("/devices", "id", "enrolled_at"),
        ("/groups", "name", "created_at"),
        ("/rollouts", "name", "created_at"),
    ):
        for mine, wrong in ((name, f"-{name}"), (name, other), (other, name), (other, f"-{other}")):
            cursor = full.get(f"{path}?limit=1&sort={mine}")["next"]
            assert full.call("GET", f"{path}?limit=1&sort={mine}&cursor={cursor}").status == 200
            answer = full.call("GET", f"{path}?limit=1&sort={wrong}&cursor={cursor}")
            assert (answer.status, answer.code) == (400, "request.invalid"), (path, mine, wrong)


def test_every_list_in_pages_names_its_orders_or_has_one(api: Api) -> None:
    told = api.get("/openapi.json")["paths"]
    paged, sorted_ = set(), set()
    for path, item in told.items():
        names = {one.get("name"): one for one in item.get("get", {}).get("parameters", [])}
        if "cursor" in names:
            paged.add(path)
        if SORT in names:
            sorted_.add(path)
            assert names[SORT]["schema"]["default"] in names[SORT]["schema"]["enum"]
    assert paged - sorted_ == set(ONE_ORDER)
