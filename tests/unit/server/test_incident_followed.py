"""What is left to do, who decides on a recall, what shows a cause, and that all of it stands in the timeline and among the decisions."""

from typing import Any

import pytest
from sqlalchemy import event
from tests.unit.server.light import LightFleet
from tests.unit.server.rig import Rig
from tests.unit.server.test_api_routes import Api
from tests.unit.server.test_incidents import POLICY

from tidegate.core.errors import RequestError
from tidegate.rollout.incident import IncidentReport
from tidegate.server import reports
from tidegate.server.store import Connection, admin_devices

DAY = 86_400


@pytest.fixture
def api(rig: Rig) -> Api:
    rig.publish_trust()
    rig.release(1)
    return Api(rig)


def _halted(api: Api) -> str:
    """Halt a rollout that one device is on, while another has not begun; return its incident's path."""
    out, idle = api.rig.device("out", rev=2), api.rig.device("idle", rev=1)
    api.post("/rollouts", POLICY)
    body = out.assignment()
    out.tell("staged", body)
    assert out.permit(body).envelope is not None
    idle.assignment()
    halted = api.post("/rollouts/gw1-1.1.0/halt", {"reason": "no network"}, "operator")
    api.rig.now += 60
    idle.assignment()  # asks again, and is cancelled
    return f"/incidents/{halted['stopped']['incident']}"


def _report(api: Api, at: str) -> Any:
    return api.get(at)["report"]


def _decided(api: Api, at: str) -> list[tuple[str, str]]:
    return [(one["who"], one["text"]) for one in _report(api, at)["decisions"]]


def test_follow_ups_stand_in_the_timeline_and_among_the_decisions(api: Api) -> None:
    at, due = _halted(api), 1_790_000_000
    who = "token:t-operator"
    api.post(f"{at}/followups", {"text": "ask the vendor", "owner": "gus"}, "operator")
    api.post(f"{at}/followups/1/edit", {"due_at": due}, "operator")
    api.post(f"{at}/followups/1/edit", {"due_at": due}, "operator")  # changes nothing
    api.post(f"{at}/followups/1/done", None, "operator")
    said = [text for by, text in _decided(api, at) if by == who and "follow-up" in text]
    assert said == [
        "follow-up 1, gus, no date: ask the vendor",
        "follow-up 1, gus, by 2026-09-21 (was gus, no date): ask the vendor",
        "follow-up 1 is done: ask the vendor",
    ]
    told = [one["text"] for one in _report(api, at)["timeline"]]
    assert set(said) <= set(told)
    assert api.call("POST", f"{at}/followups/1/edit", {"owner": "x"}).status == 409
    assert api.call("POST", f"{at}/followups/9/edit", {"owner": "x"}).status == 404
    assert "incident.edit_follow_up" in [one["action"] for one in api.get("/audit")["items"]]


def test_who_was_cancelled_is_a_decision_of_the_halt_with_its_devices(api: Api) -> None:
    at = _halted(api)
    report = _report(api, at)
    (gone,) = report["reach"]["cancelled"]
    assert (gone["device"], gone["reason"]) == ("idle", "operator.halted")
    (line,) = [one for one in report["decisions"] if one["who"] == "the server"]
    assert line["text"] == "cancelled before they began to activate: idle"
    assert line["because"][0].startswith("follows from the halt by token:t-operator")
    assert line["at"] == gone["at"]
    assert [one["device"] for one in report["reach"]["out"]] == ["out"]


def test_closing_says_that_it_was_mitigated_where_nobody_had(api: Api) -> None:
    at = _halted(api)
    api.post(f"{at}/notes", {"kind": "action", "text": "a bench"})
    api.post(f"{at}/close", {"reason": "it is over"}, "operator")
    said = [text for _, text in _decided(api, at)]
    assert said[-2:] == [
        "mitigated: nobody had said so before it was closed",
        "closed: it is over",
    ]
    assert _report(api, at)["incident"]["mitigated_by"] == "token:t-operator"


def test_a_follow_up_about_the_recall_names_who_decides_and_a_recall_settles_it(api: Api) -> None:
    at = _halted(api)
    asks = "who decides until when whether gw1-1.1.0 is recalled"
    assert asks in _report(api, at)["missing"]
    due = int(api.rig.now) + DAY
    api.post(f"{at}/followups", {"about": "recall", "owner": "olga", "due_at": due})
    assert asks not in _report(api, at)["missing"]
    (one,) = api.get(at)["followups"]
    assert (one["about"], one["text"]) == ("recall", "decide whether gw1-1.1.0 is recalled")
    assert api.get("/incidents")["items"][0]["due_at"] == due
    api.post("/releases/gw1-1.1.0/recall", {"reason": "it hangs"}, "operator")
    report = _report(api, at)
    assert (report["recalled_by"], report["recall_reason"]) == ("token:t-operator", "it hangs")
    said = [text for by, text in _decided(api, at) if by == "token:t-operator"]
    assert said[-2:] == [
        "recalled gw1-1.1.0: it hangs",
        "follow-up 1 is done: decide whether gw1-1.1.0 is recalled",
    ]
    assert api.get("/incidents")["items"][0]["due_at"] == 0
    api.post("/releases/gw1-1.1.0/recall", {"reason": "again"})
    assert [text for _, text in _decided(api, at)].count("recalled gw1-1.1.0: it hangs") == 1


def test_bad_follow_ups_and_bad_evidence_are_refused_in_words(api: Api) -> None:
    at = _halted(api)
    alone = f"/incidents/{api.post('/incidents', {'summary': 'smoke'})['name']}"
    for path, body, said in (
        (f"{at}/followups", {"text": " "}, b"a follow-up has 1 to"),
        (f"{alone}/followups", {"about": "recall"}, b"there is none to recall"),
        (f"{at}/followups", {"text": "x", "about": "all"}, b""),
        (f"{at}/notes", {"kind": "note", "text": "x", "means": "log"}, b"of evidence alone"),
        (f"{at}/notes", {"kind": "evidence", "text": "x", "means": "counts"}, b""),
        (f"{at}/notes", {"kind": "evidence", "text": "x", "kept": "k" * 501}, b""),
    ):
        answer = api.call("POST", path, body)
        assert (answer.status, answer.code) == (400, "request.invalid"), body
        assert said in answer.body, answer.body


def test_what_was_said_on_the_status_page_is_told_with_who_and_when(api: Api) -> None:
    at = _halted(api)
    api.post(f"{at}/publish", {"summary": "Some hang."}, "operator")
    api.post(f"{at}/publish", {"summary": "Some hung."}, "operator")
    api.post(f"{at}/publish/update", {"text": "All are back."}, "operator")
    api.post(f"{at}/unpublish", {"reason": "it was a test"}, "operator")
    told = [one["text"] for one in _report(api, at)["timeline"] if "status page" in one["text"]]
    title = "Update stopped: gw1-1.1.0"
    assert told == [
        f"published on the status page: {title}",
        f"changed what the status page says: {title}",
        "added on the status page: All are back.",
        "taken off the status page: it was a test",
    ]


def test_the_gate_of_a_real_server_looks_at_its_tick_and_at_once(api: Api) -> None:
    at = _halted(api)
    assert _report(api, at)["rhythm"] == {
        "every_s": api.rig.app.services.settings.tick_s,
        "at_once": True,
    }
    assert _report(api, at)["warmup_s"] > 0


def test_who_was_enrolled_later_is_counted_from_the_index_alone(rig: Rig) -> None:
    fleet = LightFleet(rig, 12, says=lambda n: {"rev": 1 + n % 2})
    rig.now += 100
    then = int(rig.now)
    rig.now += 100
    fleet.add(5)
    there = rig.read(lambda conn: admin_devices.variant_counts(conn, "gw1"))
    asked: list[tuple[str, Any]] = []

    def count(conn: Connection) -> tuple[dict[str, int], list[str]]:
        event.listen(conn, "before_cursor_execute", lambda *said: asked.append((said[2], said[3])))
        found = admin_devices.enrolled_since(conn, "gw1", then, there)
        if conn.dialect.name != "sqlite":
            return found, []
        plans = [
            conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values) for sql, values in [*asked]
        ]
        return found, [str(row) for plan in plans for row in plan]

    late, plans = rig.read(count)
    assert sum(late.values()) == 5
    assert set(late) == set(there)
    assert len(plans) in {0, len(there)}
    for one in plans:
        assert "USING COVERING INDEX" in one
        assert "variant=? AND enrolled_at>?" in one


def test_every_text_of_the_status_page_is_kept_with_its_times(api: Api) -> None:
    at = _halted(api)
    api.post(f"{at}/publish", {"title": "Stopped", "summary": "Nothing to do."}, "operator")
    api.rig.now += 60
    api.post(f"{at}/publish/update", {"text": "All are back."}, "operator")
    api.rig.now += 60
    changed = {"title": "Over", "summary": "All are back.", "action": "A new bench."}
    api.post(f"{at}/publish", changed, "operator")
    first, last = _report(api, at)["pages"]
    assert (first["title"], first["summary"], first["until"]) == (
        "Stopped",
        "Nothing to do.",
        last["at"],
    )
    assert (last["title"], last["action"], last.get("until", 0)) == ("Over", "A new bench.", 0)
    assert last["at"] - first["at"] == 120
    assert first["by"] == "token:t-operator"
    api.rig.now += 60
    api.post(f"{at}/unpublish", {"reason": "done"}, "operator")
    report = _report(api, at)
    assert report["told"] is None
    assert report["pages"][-1]["until"] - last["at"] == 60


def test_whoever_was_cancelled_held_the_image_or_did_not(api: Api) -> None:
    held = api.rig.device("held", rev=2)
    api.post("/rollouts", POLICY)
    held.tell("staged", held.assignment())
    bare = api.rig.device("bare", rev=1)
    bare.assignment()
    stop = api.post("/rollouts/gw1-1.1.0/halt", {"reason": "no network"}, "operator")
    at = f"/incidents/{stop['stopped']['incident']}"
    api.rig.now += 60
    for device in (held, bare):
        device.assignment()
    gone = {one["device"]: one for one in _report(api, at)["reach"]["cancelled"]}
    assert gone["held"]["staged_at"] >= gone["held"]["offered_at"] > 0
    assert gone["bare"]["offered_at"] > 0
    assert not gone["bare"].get("staged_at", 0)
    lines = [one["text"] for one in _report(api, at)["timeline"]]
    assert "staged by 1: held" in lines
    assert "offered to 2: bare, held" in lines


def test_a_hypothesis_is_a_decision(api: Api) -> None:
    at = _halted(api)
    api.post(f"{at}/notes", {"kind": "hypothesis", "text": "the modem"}, "operator")
    assert ("token:t-operator", "hypothesis: the modem") in _decided(api, at)


def test_a_report_counts_rings_later_devices_and_what_the_others_run(api: Api) -> None:
    at = _halted(api)
    api.rig.now += 60
    api.rig.device("late", rev=2)
    report = _report(api, at)
    fleet = report["fleet"]
    assert (fleet["since"], fleet["joined"]) == (1, 0)
    assert sum(fleet["idle"].values()) == fleet["never"]
    held = [one["members"] for one in report["reach"]["rings"]]
    assert sum(sum(one.values()) for one in held) == fleet["matching"]


def test_a_report_is_told_where_a_fixed_audience_cannot_be_read_any_more(api: Api) -> None:
    name = _halted(api).rpartition("/")[2]

    def unreadable(*_: object) -> dict[tuple[str, str], int]:
        raise RequestError("request.not_found", "the fixed audience is not readable")

    def work(conn: Connection) -> IncidentReport:
        return reports.build(conn, name, int(api.rig.now), audience=unreadable)

    told = api.rig.app.services.store.read(work)
    assert told.reach.counts.attempts == 1
    assert [one.members for one in told.reach.rings] == [None]


def test_a_text_that_was_never_changed_is_told_without_looking_through_the_log_of_acts(
    api: Api,
) -> None:
    at = _halted(api)
    name, now = at.rpartition("/")[2], int(api.rig.now)
    api.post(f"{at}/publish", {"title": "Stopped", "summary": "Nothing to do."}, "operator")
    api.post(f"{at}/publish/update", {"text": "All are back."}, "operator")
    asked: list[str] = []

    def work(conn: Connection) -> IncidentReport:
        event.listen(conn, "before_cursor_execute", lambda *said: asked.append(str(said[2])))
        return reports.build(conn, name, now)

    (page,) = api.rig.app.services.store.read(work).pages
    assert (page.title, page.by, page.at, page.until) == ("Stopped", "token:t-operator", now, 0)
    assert asked
    assert not any("FROM audit" in one for one in asked)
    api.post(f"{at}/publish", {"title": "Over"}, "operator")
    pages = api.rig.app.services.store.read(work).pages
    assert [one.title for one in pages] == ["Stopped", "Over"]
    assert any("FROM audit" in one for one in asked)
