"""Incidents over the API of a server in process: opened, led through, told from what devices sent, and closed."""

import json
from collections import Counter
from typing import Any

import pytest
from markdown_it import MarkdownIt
from tests.unit.server.light import LightFleet
from tests.unit.server.rig import Device, Rig
from tests.unit.server.test_api_routes import Api

from tidegate.core.protocol import CheckResult
from tidegate.server import devices, reports
from tidegate.server.store import Connection, admin_devices, admin_incidents, tables

POLICY: dict[str, Any] = {
    "preset": "lab",
    "ring": [{"name": "all"}],
    "guards": [],
    "release": "gw1-1.1.0",
}
HOSTILE = (
    "<img src=x onerror=alert(1)> | `x` \x1b[31m\u202e [a](http://evil.example) password=hunter2"
)


@pytest.fixture
def api(rig: Rig) -> Api:
    rig.publish_trust()
    rig.release(1)
    return Api(rig)


def _fails(device: Device, **said: Any) -> None:
    body = device.assignment()
    device.tell("staged", body)
    assert device.permit(body).envelope is not None
    device.tell("reverted", body, **{"reason": "health.network", **said})


def _halted(api: Api, *, bad: int = 3, good: int = 4, idle: int = 1, **said: Any) -> str:
    """Halt a rollout in which every device of revision 2 failed; return its incident."""
    failing = [api.rig.device(f"bad{n}", rev=2) for n in range(bad)]
    fine = [api.rig.device(f"good{n}", rev=1) for n in range(good)]
    waiting = [api.rig.device(f"idle{n}", rev=1) for n in range(idle)]
    api.post("/rollouts", POLICY)
    for device in fine:
        device.run(device.assignment())
    for device in failing:
        api.rig.now += 60
        _fails(device, **said)
    for device in waiting:
        device.assignment()
    halted = api.post("/rollouts/gw1-1.1.0/halt", {"reason": "no network"}, "operator")
    return str(halted["stopped"]["incident"])


def test_a_halt_opens_an_incident_that_tells_who_was_hit_and_what_they_share(api: Api) -> None:
    name = _halted(api)
    found = api.get(f"/incidents/{name}", "viewer")
    report = found["report"]
    counts = report["reach"]["counts"]
    assert (counts["exposed"], counts["confirmed"], counts["reverted"]) == (7, 4, 3)
    assert report["reach"]["stopped"] == {"held": 1, "cancelled": 0}
    assert report["reach"]["first"]["device"] == "bad0"
    assert report["reach"]["last"]["device"] == "bad2"
    first = report["contrast"]["rows"][0]
    assert first["terms"] == [["variant", "gw1-r2"]]
    assert (first["bad"], first["count"], first["other_bad"], first["other_count"]) == (3, 3, 0, 4)
    assert [one["text"] for one in report["decisions"]][-1] == "halt: no network"
    assert report["schema"] == "tidegate.incident-report/1"
    exported = json.loads(api.call("GET", f"/incidents/{name}/export?format=json").body)
    assert exported == report


def test_an_incident_is_led_from_open_over_mitigated_to_closed(api: Api) -> None:
    name = _halted(api)
    at = f"/incidents/{name}"
    assert api.get(at)["incident"]["state"] == "open"
    api.post(f"{at}/edit", {"owner": "olga", "severity": "critical"}, "operator")
    again = api.post(f"{at}/edit", {"owner": "olga"}, "operator")
    assert (again["owner"], again["severity"]) == ("olga", "critical")
    assert (
        api.post(f"{at}/mitigate", {"reason": "all are back"}, "operator")["state"] == "mitigated"
    )
    assert [one["name"] for one in api.get("/incidents?state=unclosed")["items"]] == [name]
    refused = api.call("POST", f"{at}/close", {"reason": "done"})
    assert (refused.status, refused.code) == (409, "request.conflict")
    api.post(f"{at}/notes", {"kind": "hypothesis", "text": "the modem"})
    api.post(f"{at}/notes", {"kind": "hypothesis", "text": "the antenna"})
    api.post(f"{at}/notes", {"kind": "action", "text": "the contract checks the antenna"})
    unsaid = api.call("POST", f"{at}/close", {"reason": " "})
    assert (unsaid.status, unsaid.code) == (409, "request.conflict")
    assert b"no cause is proved" in unsaid.body
    api.post(f"{at}/notes", {"kind": "cause", "text": "the antenna: 5 of 5 boards hang"})
    assert b"otherwise than the counts" in api.call("POST", f"{at}/close", {"reason": ""}).body
    bench = {
        "kind": "evidence",
        "text": "5 of 5 hang, seen by gus",
        "means": "bench",
        "kept": "HW-311",
    }
    api.post(f"{at}/notes", bench)
    assert b"who decides whether gw1-1.1.0 is recalled" in api.call("POST", f"{at}/close", {}).body
    api.post(
        f"{at}/followups", {"about": "recall", "owner": "olga", "due_at": int(api.rig.now) + 9}
    )
    api.post(f"{at}/followups", {"text": "a board on the bench", "owner": "gus"})
    assert b"a follow-up has no date" in api.call("POST", f"{at}/close", {"reason": ""}).body
    closed = api.post(f"{at}/close", {"reason": "understood"}, "operator")
    assert closed["state"] == "closed"
    assert api.post(f"{at}/close", {"reason": "again"})["closed_at"] == closed["closed_at"]
    assert api.get("/incidents?state=unclosed")["items"] == []
    report = api.get(at)["report"]
    assert report["hypothesis"]["text"] == "the antenna"
    assert report["cause"]["text"] == "the antenna: 5 of 5 boards hang"
    (shown,) = report["evidence"]
    assert (shown["text"], shown["means"], shown["kept"]) == (
        "5 of 5 hang, seen by gus",
        "bench",
        "HW-311",
    )
    assert report["missing"] == ["until when 1 follow-up is done"]
    assert report["incident"]["mitigated_by"] == report["incident"]["closed_by"] != ""
    decided = [one["text"] for one in report["decisions"]]
    assert {"mitigated: all are back", "closed: understood"} <= set(decided)
    assert "hypothesis: the modem" in decided
    # What came last in one second stands last.
    assert report["timeline"][-1]["text"] == "closed: understood"
    told = [one["text"] for one in report["timeline"]]
    assert "severity critical (was major), owner olga (was nobody)" in told
    assert {"mitigated: all are back", "closed: understood", "hypothesis: the modem"} <= set(told)
    assert api.post(f"{at}/reopen", {"reason": "it came back"})["state"] == "open"
    acts = [one["action"] for one in api.get("/audit")["items"]]
    assert {"incident.edit", "incident.mitigate", "incident.close", "incident.reopen"} <= set(acts)


def test_an_incident_is_opened_by_hand_with_a_rollout_or_without(api: Api) -> None:
    made = api.post("/incidents", {"summary": "Smoke in Lyon", "owner": "gus"}, "approver")
    assert (made["kind"], made["state"], made["rollout"]) == ("manual", "open", None)
    report = api.get(f"/incidents/{made['name']}")["report"]
    assert report["title"] == "Smoke in Lyon"
    assert report["figures"] == ""
    about = api.post("/incidents", {"summary": "Odd", "rollout": _rollout(api)})
    assert about["rollout"] == "gw1-1.1.0"
    assert api.call("POST", "/incidents", {"summary": "x", "rollout": "nope"}).status == 404
    for body in ({"summary": " "}, {"summary": "x", "variant": "r1"}, {"summary": "x", "severity": "huge"}):  # fmt: skip
        assert api.call("POST", "/incidents", body).status == 400, body


def _rollout(api: Api) -> str:
    return str(api.post("/rollouts", POLICY)["name"])


def test_followups_have_an_owner_and_a_date_and_are_done_once(api: Api) -> None:
    made = api.post("/incidents", {"summary": "x", "owner": "gus"})
    at = f"/incidents/{made['name']}"
    due = int(api.rig.now) + 86_400
    api.post(f"{at}/followups", {"text": "modem in the lab", "owner": "gus", "due_at": due})
    api.post(f"{at}/followups", {"text": "ask the vendor"}, "operator")
    first, second = api.get(at)["followups"]
    assert (first["number"], first["owner"], first["due_at"]) == (1, "gus", due)
    assert second["owner"] == "token:t-operator"
    api.rig.now += 2 * 86_400
    assert "1 follow-up that is overdue" in api.get(at)["report"]["missing"]
    api.post(f"{at}/followups/1/done")
    done = api.get(at)["followups"][0]["done_at"]
    api.rig.now += 5
    api.post(f"{at}/followups/1/done")
    assert api.get(at)["followups"][0]["done_at"] == done
    assert api.call("POST", f"{at}/followups/9/done", {}).status == 404


def test_the_cohort_lists_every_device_page_by_page(api: Api) -> None:
    name = _halted(api, bad=5, good=3, idle=2)

    def listed(which: str, limit: int) -> list[str]:
        found, cursor = [], ""
        while True:
            page = api.get(f"/incidents/{name}/cohort?which={which}&limit={limit}&cursor={cursor}")
            found += [one["device"] for one in page["items"]]
            cursor = page["next"]
            if not cursor:
                return found

    for limit in (1, 2, 500):
        assert listed("affected", limit) == [f"bad{n}" for n in range(5)]
    assert sorted(listed("exposed", 3)) == sorted([f"bad{n}" for n in range(5)] + [f"good{n}" for n in range(3)])  # fmt: skip
    assert listed("stopped", 1) == ["idle0", "idle1"]
    assert listed("past-return", 10) == []
    assert api.call("GET", f"/incidents/{name}/cohort?which=nobody").status == 400
    assert api.call("GET", f"/incidents/{name}/cohort?cursor=zz").status == 400
    assert api.get(f"/incidents/{api.post('/incidents', {'summary': 'x'})['name']}/cohort")["items"] == []  # fmt: skip


def test_logs_of_the_first_and_the_most_telling_are_attached_without_secrets(api: Api) -> None:
    devices = [api.rig.device(f"d{n}") for n in range(12)]
    api.post("/rollouts", POLICY)
    checks = (
        CheckResult(name="network", ok=False, detail="no route, token=abc123"),
        CheckResult(name="boot", ok=True),
    )
    for number, device in enumerate(devices):
        log = f"boot {number}\nwifi psk=topsecret\n" + "x" * 9_000
        if number == 7:
            log = "Kernel panic - not syncing\nCall Trace:\n"
        reason = "health.service" if number > 4 else "health.network"
        _fails(device, log=log, health=checks, reason=reason)
    halted = api.post("/rollouts/gw1-1.1.0/halt", {"reason": "x"})
    report = api.get(f"/incidents/{halted['stopped']['incident']}")["report"]
    logs = report["logs"]
    assert len(logs) == reports.LOGS_MAX
    assert [one["device"] for one in logs][:2] == ["d0", "d1"]
    assert "d7" in {one["device"] for one in logs}
    assert {one["reason"] for one in logs} == {"health.network", "health.service"}
    assert all(len(one["text"]) <= reports.LOG_CHARS for one in logs)
    assert logs[0]["cut"] is True
    assert "topsecret" not in json.dumps(logs)
    assert "abc123" not in json.dumps(logs)
    assert logs[0]["checks"] == ["network: no route, token=[hidden]"]


def test_what_a_device_says_harms_no_reader_of_the_report(api: Api) -> None:
    name = _halted(api, detail=HOSTILE[:500], log=HOSTILE + "\n```\n# Out\n" + "y" * 15_000)
    text = api.call("GET", f"/incidents/{name}/export?format=md").body.decode()
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    kinds = {one.type for token in tokens for one in (token, *(token.children or ()))}
    assert not kinds & {"html_inline", "html_block", "link_open", "image", "code_inline"}
    assert "\u202e" not in text
    assert "\x1b" not in text
    answer = api.call("GET", f"/incidents/{name}/export?format=html")
    page = answer.body.decode()
    assert "<img" not in page
    assert "\u202e" not in page
    assert "hunter2" not in text + page
    assert "script-src" not in answer.headers["content-security-policy"]
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_an_unknown_incident_is_not_found_whatever_is_asked(api: Api) -> None:
    for method, path, body in (
        ("GET", "", None),
        ("GET", "/export", None),
        ("GET", "/cohort", None),
        ("POST", "/edit", {"owner": "x"}),
        ("POST", "/notes", {"text": "x"}),
        ("POST", "/followups", {"text": "x"}),
        ("POST", "/mitigate", {}),
        ("POST", "/publish", {"summary": "x"}),
        ("POST", "/unpublish", {}),
        ("POST", "/publish/update", {"text": "x"}),
    ):
        answer = api.call(method, f"/incidents/INC-1999-001{path}", body)
        assert (answer.status, answer.code) == (404, "request.not_found"), path


def test_outcomes_of_several_states_come_in_one_order_whichever_are_asked_for(rig: Rig) -> None:
    fleet = LightFleet(rig, 40)
    flow = {"in_flight": "none", "first": 0}
    fleet.start({"guards": [], "ring": [{"name": "all"}], "flow": flow})
    fleet.look()
    out, ends = fleet.ask(), ("confirmed", "reverted", "failed", "confirmed")
    for number, row in enumerate(out):
        rig.now += number % 3 == 0  # several at the same time
        state = ends[number % 4]
        fleet.end([row], state, None if state == "confirmed" else "health.boot")
    states, rollout_id = {"confirmed", "reverted", "failed", "permitted"}, fleet.id

    def asked(**more: Any) -> list[tuple[int, str]]:
        found = rig.read(
            lambda conn: admin_incidents.outcomes(conn, rollout_id, states=states, **more)
        )
        return [(one.state_at, one.device) for one in found]

    whole = asked()
    assert len(whole) == len(out) >= 20
    assert whole == sorted(whole)
    assert asked(limit=7) == whole[:7]
    assert asked(after=whole[6], limit=5) == whole[7:12]
    latest = sorted(whole, key=lambda one: (-one[0], one[1]))
    assert asked(newest_first=True, limit=5) == latest[:5]


def test_what_is_counted_of_devices_is_what_there_is(rig: Rig) -> None:
    fleet = LightFleet(rig, 30, says=lambda n: {"rev": 1 + n % 3})
    fleet.start({"guards": [], "ring": [{"name": "all"}]})
    fleet.look()
    fleet.end(fleet.ask()[:11])
    rig.write(lambda conn: devices.set_state(conn, 30, "revoked", fleet.now))

    def truth(conn: Connection) -> tuple[dict[str, int], int]:
        there = [
            one
            for one in conn.execute(tables.device.select()).mappings()
            if one["state"] == "accepted"
        ]
        return dict(Counter(one["variant"] for one in there)), sum(
            one["running_counter"] == 1 for one in there
        )

    by_variant, running = rig.read(truth)
    assert rig.read(lambda conn: admin_devices.variant_counts(conn, "gw1")) == by_variant
    assert rig.read(lambda conn: admin_devices.running_count(conn, "gw1", 1)) == running
    assert sum(by_variant.values()) == 29
