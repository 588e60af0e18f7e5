"""What all routes of the API have in common: pages, fields, tags, repeated calls, rehearsals."""

import asyncio
import json
from typing import Any

import pytest
from tests.unit.server.rig import Answer
from tests.unit.server.test_api_routes import POLICY, Api, api

from tidegate.core.errors import RequestError
from tidegate.server.api import fields, paging, repeats, tags
from tidegate.server.api.wire import Groups
from tidegate.server.store import admin_log, audit_rows

__all__ = ["api"]

#: Lists, each with what it is filled by.
LISTS = (
    "/rollouts",
    "/releases",
    "/devices",
    "/groups",
    "/claims",
    "/incidents",
    "/events",
    "/audit",
    "/audit/entries",
    "/rollouts/gw1-1.1.0/log",
    "/rollouts/gw1-1.1.0/updates",
    "/devices/e1/log",
    "/incidents/INC-2027-001/cohort?which=exposed",
)


def _key(one: dict[str, Any]) -> str:
    names = ("name", "id", "position", "seq", "device", "generation")
    return json.dumps([one.get(name) for name in names] + [one.get("text"), one.get("at")])


def _fill(api: Api, first: int) -> None:
    for number in range(first, first + 3):
        api.rig.device(f"d{number}")
        api.post("/groups", {"name": f"g{number}", "query": f"tag = t{number}"})
        api.post("/claims", {"name": f"c{number}", "product": "gw1"})
        api.post("/incidents", {"summary": f"number {number}"})


@pytest.fixture
def full(api: Api) -> Api:
    _fill(api, 1)
    api.rig.release(2)
    api.rig.release(3)
    api.post("/rollouts", {**POLICY, "release": "gw1-1.1.0", "guards": []})
    for number in (1, 2, 3):
        device = api.rig.device(f"e{number}")
        device.run(device.assignment())
    api.post("/rollouts/gw1-1.1.0/halt", {"reason": "screens"})
    api.post("/rollouts", {**POLICY, "release": "gw1-1.2.0", "draft": True})
    return api


def _walk(api: Api, path: str, meanwhile: Any = None) -> list[str]:
    found: list[str] = []
    cursor, joint = "", "&" if "?" in path else "?"
    for turn in range(200):
        page = api.get(f"{path}{joint}limit=1&cursor={cursor}")
        found += [_key(one) for one in page["items"]]
        if page["next"] is None:
            return found
        cursor = page["next"]
        if turn == 0 and meanwhile is not None:
            meanwhile()
    raise AssertionError("a list without end")


@pytest.mark.parametrize("path", LISTS)
def test_pages_of_one_tell_everything_once_in_the_order_of_the_whole(full: Api, path: str) -> None:
    joint = "&" if "?" in path else "?"
    if "cohort" in path:
        name = full.get("/rollouts/gw1-1.1.0")["incidents"][0]
        path = path.replace("INC-2027-001", name)
    whole = [_key(one) for one in full.get(f"{path}{joint}limit=500")["items"]]
    assert len(whole) >= 2
    assert _walk(full, path) == whole


@pytest.mark.parametrize("path", LISTS)
def test_what_is_added_while_somebody_pages_leaves_nothing_out_and_tells_nothing_twice(
    full: Api, path: str
) -> None:
    if "cohort" in path:
        path = path.replace("INC-2027-001", full.get("/rollouts/gw1-1.1.0")["incidents"][0])
    joint = "&" if "?" in path else "?"
    before = {_key(one) for one in full.get(f"{path}{joint}limit=500")["items"]}

    def more() -> None:
        _fill(full, 4)
        full.rig.release(4)

    found = _walk(full, path, more)
    assert len(found) == len(set(found))
    assert before <= set(found)


@pytest.mark.parametrize("cursor", ["x", "Yw", "YzEy!!", "Y-1", "A" * 400, "%ff", "cHgg", "w7w"])
def test_a_cursor_that_no_page_gave_is_refused(api: Api, cursor: str) -> None:
    for path in ("/devices", "/groups"):
        answer = api.call("GET", f"{path}?cursor={cursor}")
        assert (answer.status, answer.code) == (400, "request.invalid"), answer.body


def test_a_cursor_of_a_place_comes_back_as_it_was() -> None:
    for place in ((0, "a b"), (1_800_000_000, "ü"), (7, "")):
        assert paging.place_of(paging.cursor_of_place(place) or "") == place
    with pytest.raises(RequestError):
        paging.position_of(paging.cursor_of_place((1, "a")))


# --- fields ----------------------------------------------------------------------------------------------------------


def test_fields_cut_an_object_and_every_item_of_a_page(full: Api) -> None:
    assert full.get("/rollouts/gw1-1.1.0?fields=name,policy.rings.name") == {
        "name": "gw1-1.1.0",
        "policy": {"rings": [{"name": "all"}]},
    }
    page = full.get("/devices?fields=id,state&limit=2")
    assert page["items"] == [
        {"id": "d1", "state": "accepted"},
        {"id": "d2", "state": "accepted"},
    ]
    assert page["next"]


def test_a_field_that_no_answer_has_is_refused_with_the_nearest(full: Api) -> None:
    answer = full.call("GET", "/devices?fields=id,stat")
    assert (answer.status, answer.code) == (400, "request.invalid")
    assert "state" in json.loads(answer.body)["detail"]
    assert full.call("GET", "/devices?fields=" + "a," * 400).status == 400


def test_fields_of_a_page_are_those_of_its_items() -> None:
    assert fields.known_fields((Groups,)) == {
        "name",
        "query",
        "members",
        "created_at",
        "created_by",
    }
    assert fields.known_fields((dict[str, Any],)) == frozenset()


# --- tags ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/groups/g1", "/groups", "/devices/d1", "/rollouts/gw1-1.1.0", "/me", "/openapi.json"]
)
def test_an_answer_that_is_known_is_not_sent_again(full: Api, path: str) -> None:
    first = full.call("GET", path)
    tag = first.headers["etag"]
    again = full.call("GET", path, if_none_match=f'"x", W/{tag}')
    assert (again.status, again.body) == (304, b"")
    assert again.headers["etag"] == tag
    assert full.call("GET", path, if_none_match='"x"').status == 200


def test_a_tag_changes_with_what_is_told_and_stays_good_for_an_edit_until_somebody_edits(
    full: Api,
) -> None:
    first = full.call("GET", "/devices/e1").headers["etag"]
    full.rig.now += 60
    full.rig.device("e1").poll()
    full.rig.app.services.flush_seen()
    full.rig.write(lambda _: None)
    second = full.call("GET", "/devices/e1").headers["etag"]
    assert first != second
    assert tags.edit_of(first) == tags.edit_of(second)
    body = {"tags": ["lab"]}
    assert full.call("PUT", "/devices/e1/tags", body, if_match=first).status == 200
    late = full.call("PUT", "/devices/e1/tags", {"tags": []}, if_match=first)
    assert (late.status, late.code) == (412, "request.conflict")
    told = json.loads(late.body)
    assert told["status"] == 412
    assert "If-Match" in told["hint"]
    assert full.get("/devices/e1")["tags"] == ["lab"]
    assert full.call("PUT", "/devices/e1/tags", {"tags": []}, if_match="*").status == 200


def test_a_conflict_that_has_nothing_to_do_with_the_tag_stays_one(full: Api) -> None:
    full.post("/devices/d1/revoke", {"reason": "stolen"})
    tag = full.call("GET", "/devices/d1").headers["etag"]
    assert full.call("POST", "/devices/d1/accept", {}, if_match=tag).status == 409


def test_the_tag_of_a_group_knows_who_is_in_it(full: Api) -> None:
    full.post("/groups", {"name": "s", "devices": ["d1"]})
    tag = full.call("GET", "/groups/s").headers["etag"]
    assert full.call("PUT", "/groups/s", {"devices": ["d2"]}, if_match=tag).status == 200
    assert full.call("PUT", "/groups/s", {"devices": ["d3"]}, if_match=tag).status == 412
    assert full.call("DELETE", "/groups/s", if_match=tag).status == 412
    assert full.call("DELETE", "/groups/s").status == 204


def test_the_tag_of_an_incident_is_that_of_what_can_be_edited(full: Api) -> None:
    name = full.get("/incidents")["items"][0]["name"]
    tag = full.call("GET", f"/incidents/{name}").headers["etag"]
    full.post(f"/incidents/{name}/notes", {"text": "looked at it"})
    assert full.post(f"/incidents/{name}/edit", {"owner": "olga"}, if_match=tag)["owner"] == "olga"
    assert full.call("POST", f"/incidents/{name}/edit", {"owner": "x"}, if_match=tag).status == 412


# --- the same call again ----------------------------------------------------------------------------------------------

#: Calls that take a key, each such that doing it twice would be seen.
KEYED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/rollouts", {**POLICY, "release": "gw1-1.3.0", "draft": True}),
    ("/rollouts/gw1-1.2.0/start", {"reason": "go"}),
    ("/rollouts/gw1-1.2.0/cancel", {"reason": "no"}),
    ("/groups", {"name": "k", "query": "tag = k"}),
    ("/devices/d1/hold", {"reason": "lab"}),
    ("/devices/d1/revoke", {"reason": "stolen"}),
    ("/devices/d1/rekey", {"reason": "old"}),
    ("/incidents", {"summary": "something"}),
    ("/incidents/INC-2027-001/notes", {"text": "a note"}),
    ("/incidents/INC-2027-001/followups", {"text": "to do"}),
    ("/incidents/INC-2027-001/mitigate", {"reason": "over"}),
    ("/releases/gw1-1.3.0/recall", {"reason": "bad"}),
)


@pytest.mark.parametrize(("path", "body"), KEYED, ids=[one[0] for one in KEYED])
def test_a_server_that_dies_between_act_and_answer_acts_once(
    full: Api, path: str, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(full.get("/audit?limit=500")["items"])

    async def die(*_: Any) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(repeats._Answer, "release", die)
    monkeypatch.setattr(repeats, "keep_late", die)
    with pytest.raises(asyncio.CancelledError):
        full.call("POST", path, body, idempotency_key="k")
    monkeypatch.undo()
    done = len(full.get("/audit?limit=500")["items"])
    assert done > before
    again = full.call("POST", path, body, idempotency_key="k")
    assert again.status in {200, 201}, again.body
    assert again.headers["idempotent-replay"] == "true"
    assert json.loads(again.body)
    assert len(full.get("/audit?limit=500")["items"]) == done


def test_two_processes_that_get_one_call_act_once(
    full: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look before the act finds nothing in either of them; the act itself looks again."""
    body = {"name": "twice", "query": "tag = a"}
    first = full.call("POST", "/groups", body, idempotency_key="k")
    real = admin_log.kept_answer
    asked: list[str] = []

    def blind_at_first(conn: Any, key: str) -> Any:
        asked.append(key)
        return None if len(asked) == 1 else real(conn, key)

    monkeypatch.setattr(admin_log, "kept_answer", blind_at_first)
    second = full.call("POST", "/groups", body, idempotency_key="k")
    assert (first.status, second.status) == (201, 201)
    assert first.body == second.body
    assert len(asked) == 2


def test_what_an_isolation_counted_afterwards_stands_in_the_answer_that_is_kept(full: Api) -> None:
    full.post("/rollouts/gw1-1.2.0/start", {"reason": "go"})
    body = {"variant": "gw1-r1", "reason": "r1 burns"}
    first = full.call("POST", "/rollouts/gw1-1.2.0/isolate", body, idempotency_key="k")
    again = full.call("POST", "/rollouts/gw1-1.2.0/isolate", body, idempotency_key="k")
    assert first.status == 200, first.body
    assert first.body == again.body


# --- rehearsals -------------------------------------------------------------------------------------------------------


def _rehearsed(api: Api, method: str, path: str, body: Any) -> Answer:
    before = api.rig.read(audit_rows.head)
    answer = api.call(method, f"{path}?dry_run=true", body)
    assert api.rig.read(audit_rows.head) == before
    return answer


def test_a_recall_is_rehearsed_whole_and_leaves_nothing(full: Api) -> None:
    full.post("/rollouts/gw1-1.2.0/start", {"reason": "go"})
    told = _rehearsed(full, "POST", "/releases/gw1-1.2.0/recall", {"reason": "bad"})
    assert told.status == 200
    assert full.get("/releases/gw1-1.2.0")["state"] == "live"
    assert full.get("/rollouts/gw1-1.2.0")["state"] == "active"
    done = full.call("POST", "/releases/gw1-1.2.0/recall", {"reason": "bad"})
    assert done.body == told.body
    assert full.get("/releases/gw1-1.2.0")["state"] == "recalled"


def test_what_would_be_refused_is_refused_in_a_rehearsal(full: Api) -> None:
    refused = _rehearsed(full, "POST", "/releases/gw1-1.2.0/recall", {})
    assert refused.code == "request.confirmation_needed"
    assert _rehearsed(full, "DELETE", "/groups/none", None).status == 404


def test_groups_and_policies_are_rehearsed(full: Api) -> None:
    assert (
        json.loads(_rehearsed(full, "PUT", "/groups/g1", {"query": "tag = x"}).body)["query"]
        == "tag = x"
    )
    assert full.get("/groups/g1")["query"] == "tag = t1"
    assert _rehearsed(full, "DELETE", "/groups/g1", None).status == 204
    assert full.get("/groups/g1")["name"] == "g1"
    body = {**POLICY, "release": "gw1-1.2.0", "priority": 7}
    assert _rehearsed(full, "PUT", "/rollouts/gw1-1.2.0", body).status == 200
    assert full.get("/rollouts/gw1-1.2.0")["policy"]["priority"] != 7
