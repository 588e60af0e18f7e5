"""The REST API over a server in process: who may do what, in which form it answers, and what a repeated call does."""

import errno
import json
import tempfile
from pathlib import Path
from typing import Any, cast

import pytest
from litestar import Litestar
from tests.unit.server.caller import ask_over, routes
from tests.unit.server.rig import Answer, Rig

from tidegate.rollout.model import Exposure, Tally
from tidegate.server.api.paging import cursor_of, position_of
from tidegate.server.auth import COOKIE, ROLES, Actor, Auth
from tidegate.server.facts import ExposureFacts, TallyFacts
from tidegate.server.operations import auth_of
from tidegate.server.store import hot

ROOT = Actor(name="root", role="admin")
POLICY: dict[str, Any] = {"preset": "lab", "ring": [{"name": "all"}]}


class Api:
    """Calls the API as one role."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.accounts: Auth = auth_of(rig.app.services)
        self.tokens = {
            role: self.accounts.create_token(f"t-{role}", role, ROOT, int(rig.now))[1]
            for role in ROLES
        }

    @property
    def app(self) -> Litestar:
        return cast("Litestar", self.rig.app.admin)

    def call(
        self, method: str, path: str, body: object = None, role: str = "admin", **headers: str
    ) -> Answer:
        raw = json.dumps(body).encode() if body is not None else None
        sent = {"authorization": f"Bearer {self.tokens[role]}", **headers}
        if raw is not None:
            sent["content-type"] = "application/json"
        query = b""
        if "?" in path:
            path, _, text = path.partition("?")
            query = text.encode()
        return self.rig.loop.run_until_complete(
            ask_over(self.rig.app, method, f"/api/v1{path}", sent, raw or b"", query)
        )

    def get(self, path: str, role: str = "admin", **headers: str) -> Any:
        answer = self.call("GET", path, role=role, **headers)
        assert answer.status == 200, answer.body
        return json.loads(answer.body)

    def post(self, path: str, body: object = None, role: str = "admin", **headers: str) -> Any:
        answer = self.call("POST", path, {} if body is None else body, role, **headers)
        assert answer.status in {200, 201}, answer.body
        return json.loads(answer.body)


@pytest.fixture
def api(rig: Rig) -> Api:
    rig.publish_trust()
    rig.release(1)
    return Api(rig)


def test_a_rollout_over_rest_from_preview_to_halt(api: Api) -> None:
    device = api.rig.device()
    body = {**POLICY, "release": "gw1-1.1.0", "reason": "first"}
    assert api.post("/rollouts?dry_run=true", body, "operator")["offered"] == 1
    made = api.post("/rollouts", body, "operator")
    assert (made["name"], made["state"]) == ("gw1-1.1.0", "active")
    device.run(device.assignment())
    evidence = api.get("/rollouts/gw1-1.1.0/evidence", "viewer")
    (tally,) = evidence["tallies"]
    assert (tally["ring"], tally["variant"], tally["confirmed"], tally["audience"]) == (
        "all",
        "gw1-r1",
        1,
        1,
    )
    halted = api.post("/rollouts/gw1-1.1.0/halt", {"reason": "stop"}, "approver")
    assert halted["stopped"]["confirmed"] == 1
    shown = api.get("/rollouts/gw1-1.1.0")
    assert (shown["state"], shown["halt_reason"]) == ("halted", "stop")
    assert shown["incidents"] == [halted["stopped"]["incident"]]
    assert any("halt" in one["action"] for one in api.get("/rollouts/gw1-1.1.0/log")["items"])
    assert api.get("/rollouts/gw1-1.1.0/explain")["lines"][0].startswith("gw1-1.1.0 is halted")
    report = api.call("GET", f"/incidents/{shown['incidents'][0]}/export?format=md")
    assert report.status == 200
    assert report.body.startswith(b"# INC-2027-001: gw1-1.1.0 halted")


def test_counters_that_are_told_equal_what_the_update_rows_say(api: Api) -> None:
    devices = [api.rig.device(f"d{n}", rev=1 + n % 2) for n in range(6)]
    api.post("/rollouts", {**POLICY, "guards": [], "release": "gw1-1.1.0"})
    for device in devices[:3]:
        device.run(device.assignment())
    body = devices[3].assignment()
    devices[3].tell("staged", body)
    assert devices[3].permit(body).envelope is not None
    devices[3].tell("reverted", body, reason="health.service")
    devices[4].tell("downloading", devices[4].assignment())
    told: dict[str, int] = {}
    for tally in api.get("/rollouts/gw1-1.1.0/evidence")["tallies"]:
        for name in ("offered", "exposed", "confirmed", "reverted", "downloading"):
            told[name] = told.get(name, 0) + tally[name]
    states: dict[str, int] = {}
    for device in devices:
        for update in api.get(f"/devices/{device.id}/updates")["items"]:
            states[update["state"]] = states.get(update["state"], 0) + 1
    assert states == {"confirmed": 3, "reverted": 1, "downloading": 1}
    assert told == {"offered": 5, "exposed": 4, "confirmed": 3, "reverted": 1, "downloading": 1}


def test_the_same_idempotency_key_gives_the_same_answer_and_acts_once(api: Api) -> None:
    api.rig.device()
    body = {**POLICY, "release": "gw1-1.1.0"}
    first = api.call("POST", "/rollouts", body, idempotency_key="k1")
    again = api.call("POST", "/rollouts", body, idempotency_key="k1")
    assert (first.status, again.status) == (201, 201)
    assert first.body == again.body
    assert again.headers["idempotent-replay"] == "true"
    other = api.call("POST", "/rollouts", {**body, "name": "x"}, idempotency_key="k1")
    assert (other.status, other.code) == (409, "request.conflict")
    by_another = api.call(
        "POST", "/rollouts", {**body, "name": "y"}, "operator", idempotency_key="k1"
    )
    assert by_another.status == 201
    assert len(api.get("/rollouts")["items"]) == 2


def test_a_secret_is_never_kept_for_a_repetition(api: Api) -> None:
    body = {"product": "gw1"}
    one = api.post("/claims", body, idempotency_key="k")
    two = api.post("/claims", body, idempotency_key="k")
    assert one["token"] != two["token"]


def test_an_act_on_an_older_generation_is_refused(api: Api) -> None:
    api.rig.device()
    api.post("/rollouts", {**POLICY, "release": "gw1-1.1.0"})
    shown = api.call("GET", "/rollouts/gw1-1.1.0")
    tag = shown.headers["etag"]
    assert api.call("POST", "/rollouts/gw1-1.1.0/pause", {}, if_match=tag).status == 200
    late = api.call("POST", "/rollouts/gw1-1.1.0/resume", {"reason": "x"}, if_match=tag)
    assert (late.status, late.code) == (412, "request.conflict")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/rollouts/nothing", None, 404, "request.not_found"),
        ("GET", "/nothing", None, 404, "request.not_found"),
        ("DELETE", "/status", None, 405, "request.method"),
        ("GET", "/devices?query=modle%20%3D%20x", None, 400, "request.invalid"),
        ("GET", "/devices?cursor=%2A%2A", None, 400, "request.invalid"),
        ("GET", "/devices?limit=100000", None, 400, "request.invalid"),
        ("POST", "/rollouts/x/halt", {"unknown": 1}, 400, "request.invalid"),
        ("POST", "/rollouts", {"release": "nope"}, 404, "request.not_found"),
        ("POST", "/groups", {"name": "g", "query": "model ="}, 400, "request.invalid"),
        ("POST", "/tokens", {"name": "t", "role": "king"}, 400, "request.invalid"),
        ("POST", "/bundles", None, 422, "release.malformed"),
        ("POST", "/root", None, 422, "sig.malformed"),
    ],
)
def test_whatever_is_wrong_is_told_as_a_problem_with_its_code(
    api: Api, method: str, path: str, body: object, status: int, code: str
) -> None:
    answer = api.call(method, path, body)
    assert (answer.status, answer.code) == (status, code)
    assert answer.headers["content-type"].startswith("application/problem+json")


def test_a_body_that_is_too_large_is_refused(api: Api) -> None:
    answer = api.call("POST", "/rollouts", {"name": "x" * (2 << 20)})
    assert (answer.status, answer.code) == (413, "request.too_large")


def test_a_bundle_that_does_not_fit_on_the_disk_is_refused_as_that(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "write", full)
    answer = api.call("POST", "/bundles", {"tar": "no"})
    assert (answer.status, answer.code) == (507, "data.full")


def test_a_body_that_is_no_json_is_refused_in_one_line(api: Api) -> None:
    raw = api.rig.loop.run_until_complete(
        ask_over(
            api.rig.app, "POST", "/api/v1/rollouts/x/halt",
            {"authorization": f"Bearer {api.tokens['admin']}", "content-type": "application/json"},
            b"{\xff", b"",
        )
    )  # fmt: skip
    assert (raw.status, raw.code) == (400, "request.invalid")


def test_a_session_cookie_changes_nothing_without_our_own_header(api: Api) -> None:
    api.accounts.create_account("olga", "operator", "correct horse battery", ROOT, int(api.rig.now))
    session = api.accounts.sign_in("olga", "correct horse battery", "here", int(api.rig.now))
    cookie = {"cookie": f"{COOKIE}={session}"}

    def call(method: str, path: str, **more: str) -> Answer:
        sent = {**cookie, "content-type": "application/json", **more}
        return api.rig.loop.run_until_complete(
            ask_over(api.rig.app, method, f"/api/v1{path}", sent, b"{}", b"")
        )

    assert json.loads(call("GET", "/me").body)["name"] == "olga"
    refused = call("POST", "/rollouts/x/halt")
    assert (refused.status, refused.code) == (403, "request.forbidden")
    assert call("POST", "/rollouts/x/halt", tidegate_form="1").status == 404


def test_devices_are_listed_page_by_page_and_by_query(api: Api) -> None:
    for number in range(5):
        api.rig.device(f"d{number}", rev=1 + number % 2)
    first = api.get("/devices?limit=3")
    rest = api.get(f"/devices?limit=3&cursor={first['next']}")
    names = [one["id"] for one in (*first["items"], *rest["items"])]
    assert names == ["d0", "d1", "d2", "d3", "d4"]
    assert rest["next"] is None
    odd = api.get("/devices?query=revision%20%3D%202")
    assert [one["id"] for one in odd["items"]] == ["d1", "d3"]


def test_why_says_the_one_thing_that_stands_in_the_way(api: Api) -> None:
    device = api.rig.device()
    api.post("/rollouts", {**POLICY, "release": "gw1-1.1.0"})
    api.post("/devices/d1/hold", {"reason": "lab"})
    found = api.get("/devices/d1/why", "viewer")
    assert found["verdict"] == "d1 is not updating, because it is held by token:t-admin"
    api.post("/devices/d1/unhold")
    device.run(device.assignment())
    assert "nothing to do" in api.get("/devices/d1/why")["verdict"]


def test_a_pending_device_is_accepted_once_and_a_revoked_one_stays_so(api: Api) -> None:
    device = api.rig.device("d9", join=False)
    assert device.enrol(None).status == 200
    assert [one["id"] for one in api.get("/devices?state=pending")["items"]] == ["d9"]
    assert api.post("/devices/d9/accept")["state"] == "accepted"
    assert api.post("/devices/d9/accept")["state"] == "accepted"
    assert api.post("/devices/d9/revoke", {"reason": "stolen"})["state"] == "revoked"
    again = api.call("POST", "/devices/d9/accept", {})
    assert (again.status, again.code) == (409, "request.conflict")


def test_hostile_words_of_a_device_come_back_as_data(api: Api) -> None:
    evil = '<img src=x onerror="alert(1)">\u202e\x00'
    device = api.rig.device("d1", join=False)
    api.rig.claim("claim-1")
    assert device.enrol("claim-1", attributes={"name": evil}).status == 200
    answer = api.call("GET", "/devices/d1")
    assert answer.headers["content-type"].startswith("application/json")
    assert json.loads(answer.body)["attributes"] == {"name": evil}


def test_a_claim_lets_a_device_in_until_it_is_revoked(api: Api) -> None:
    made = api.post("/claims", {"product": "gw1", "name": "line", "max_count": 5}, "operator")
    one, two = api.rig.device("d1", join=False), api.rig.device("d2", join=False)
    assert json.loads(one.enrol(made["token"]).body)["state"] == "accepted"
    assert api.get("/claims")["items"][0]["used"] == 1
    api.post("/claims/line/revoke")
    assert two.enrol(made["token"]).status == 403


def test_claims_bear_names_of_their_own(api: Api) -> None:
    names = [api.post("/claims", {"product": "gw1"}, "operator")["name"] for _ in range(2)]
    assert len(set(names)) == 2
    body = {"product": "gw1", "name": names[0]}
    assert api.call("POST", "/claims", body).status == 409


def test_a_group_is_an_audience(api: Api) -> None:
    api.rig.device("d1", rev=1)
    api.rig.device("d2", rev=2)
    api.post("/groups", {"name": "pilot", "devices": ["d2"]}, "operator")
    body = {**POLICY, "release": "gw1-1.1.0", "audience": "group:pilot"}
    assert api.post("/rollouts?dry_run=true", body)["matched"] == 1
    assert [one["id"] for one in api.get("/devices?group=pilot")["items"]] == ["d2"]
    assert api.call("DELETE", "/groups/pilot").status == 204
    assert api.post("/rollouts?dry_run=true", body)["matched"] == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/groups", {"name": "broken", "query": "state = failed"}),
        ("/rollouts", {**POLICY, "release": "gw1-1.1.0", "audience": "state != confirmed"}),
    ],
)
def test_nobody_is_meant_by_what_changes_with_every_update(
    api: Api, path: str, body: dict[str, Any]
) -> None:
    refused = api.call("POST", path, body)
    assert (refused.status, refused.code) == (400, "request.invalid")
    assert "device list --query" in json.loads(refused.body)["hint"]


def test_a_group_that_keeps_devices_out_is_not_removed(api: Api) -> None:
    api.rig.device("d1")
    for name in ("frozen", "broken", "pilot"):
        api.post("/groups", {"name": name, "devices": []})
    rings = [{"name": "one", "audience": "group:pilot", "gates": ["soak"]}, {"name": "two", "audience": "not group:frozen"}]  # fmt: skip
    api.post("/rollouts", {**POLICY, "release": "gw1-1.1.0", "ring": rings})
    api.post("/rollouts/gw1-1.1.0/isolate", {"where": "group:broken"})
    for name in ("frozen", "broken"):
        refused = api.call("DELETE", f"/groups/{name}")
        assert (refused.status, refused.code) == (409, "request.conflict")
        assert f"keeps devices out by group {name}" in json.loads(refused.body)["detail"]
    assert api.call("DELETE", "/groups/pilot").status == 204
    api.post("/rollouts/gw1-1.1.0/readmit", {"where": "group:broken", "reason": "mended"})
    assert api.call("DELETE", "/groups/broken").status == 204


def test_a_ticket_signs_in_once(api: Api) -> None:
    api.accounts.create_account("olga", "viewer", "correct horse battery", ROOT, int(api.rig.now))
    made = api.post("/accounts/olga/ticket")
    assert made["path"].startswith("/sign-in/ticket?t=t_")
    assert api.accounts.redeem(made["ticket"], int(api.rig.now)) is not None
    assert api.accounts.redeem(made["ticket"], int(api.rig.now)) is None


def test_a_ticket_names_the_address_that_browsers_use(api: Api, tmp_path: Path) -> None:
    outside = Rig(tmp_path / "outside", more={"external_url": "https://ota.example.com/"})
    for one, base in ((api, ""), (Api(outside), "https://ota.example.com")):
        one.accounts.create_account(
            "olga", "viewer", "correct horse battery", ROOT, int(one.rig.now)
        )
        made = one.post("/accounts/olga/ticket")
        assert made["url"] == (f"{base}{made['path']}" if base else "")
    outside.close()


def test_the_status_adds_up(api: Api) -> None:
    api.rig.device("d1")
    api.post("/rollouts", {**POLICY, "release": "gw1-1.1.0"})
    found = api.get("/status", "viewer")
    assert found["devices"] == {"accepted": 1}
    assert found["rollouts"] == {"active": 1}
    assert found["single_operator"] is True


def test_what_was_done_stands_in_the_audit_and_the_chain_holds(api: Api) -> None:
    api.post("/groups", {"name": "g", "query": "model = gw1"})
    newest = api.get("/audit", "approver")["items"][0]
    assert (newest["action"], newest["object"], newest["actor"]) == (
        "group.create",
        "g",
        "token:t-admin",
    )
    assert api.get("/audit/verify")["ok"] is True


def test_the_description_is_openapi_and_names_every_route(api: Api) -> None:
    document = api.get("/openapi.json")
    assert document["openapi"].startswith("3.1")
    known = {
        path.replace(":str}", "}").replace(":int}", "}")
        for _, path, *_ in routes(api.app, "/api/v1")
    }
    missing = {one for one in known if one not in document["paths"]} - {"/api/v1/openapi.json"}
    assert missing == set()
    assert document["paths"]["/d/v1/permit"]["post"]["requestBody"]["required"] is True
    text = json.dumps(document)
    names = set(document["components"]["schemas"])
    used = {part.split('"', 1)[0] for part in text.split("#/components/schemas/")[1:]}
    assert used <= names


def test_a_cursor_comes_back_as_it_was_and_foreign_ones_are_refused() -> None:
    for position in (1, 2, 10**12):
        assert position_of(cursor_of(position)) == position
    assert cursor_of(0) is None


def test_metrics_need_a_token_from_elsewhere_and_count_devices(api: Api) -> None:
    api.rig.device("d1")
    nobody = api.rig.loop.run_until_complete(ask_over(api.rig.app, "GET", "/metrics", {}, b"", b""))
    assert nobody.status == 401
    headers = {"authorization": f"Bearer {api.tokens['viewer']}"}
    found = api.rig.loop.run_until_complete(
        ask_over(api.rig.app, "GET", "/metrics", headers, b"", b"")
    )
    assert found.status == 200
    assert found.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = found.body.decode().splitlines()
    assert 'tidegate_devices{state="accepted"} 1.0' in lines
    epoch = api.rig.read(lambda conn: hot.gate_epoch(conn, "default"))
    assert f"tidegate_gate_epoch {float(epoch)}" in lines


HOSTILE: list[bytes] = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b'"x"',
    b"{",
    b"\xff\xfe",
    b'{"reason": 1}',
    b'{"reason": null, "name": [], "product": {}, "tags": "x", "text": 5}',
    b'{"name": "' + b"x" * 5000 + b'"}',
    b'{"name": "../../etc", "product": "a b", "release": "\\u0000", "max_count": -1, "role": "admin"}',
    b'{"release": "gw1-1.1.0", "ring": [' + b"[" * 200 + b"]" * 200 + b"]}",
    b'{"release": "gw1-1.1.0", "ring": [{"name": "a", "steps": ["1e999%"]}], "start": 1e400}',
    b'{"release": "gw1-1.1.0", "ring": [{"name": "a", "audience": "((((((((((((((("}]}',
    b'{"release": "gw1-1.1.0", "windows": {"zone": "../../../etc/passwd", "activate": ["Mon"]}}',
    b'{"release": "gw1-1.1.0", "guards": [{"type": "os"}], "delivery": {"tries": 99999999999999999999}}',
    b'{"max_count": 18446744073709551616, "product": "gw1", "expires_in_s": 1e308}',
    b'{"query": "a = \\ud800", "name": "g"}',
]


def test_no_body_whatever_makes_the_server_fail(api: Api) -> None:
    api.rig.device("d1")
    api.post("/rollouts", {**POLICY, "release": "gw1-1.1.0"})
    failed = []
    for method, path, *_ in routes(api.app, "/api/v1"):
        if method in {"GET", "HEAD"}:
            continue
        for name in ("gw1-1.1.0", "d1"):
            concrete = (
                path.removeprefix("/api/v1")
                .replace("{name:str}", name)
                .replace("{number:int}", "1")
            )
            if name != "d1" and "{name:str}" not in path:
                continue
            for body in HOSTILE:
                sent = {
                    "authorization": f"Bearer {api.tokens['admin']}",
                    "content-type": "application/json",
                }
                answer = api.rig.loop.run_until_complete(
                    ask_over(api.rig.app, method, f"/api/v1{concrete}", sent, body, b"")
                )
                if answer.status >= 500:
                    failed.append((method, concrete[:40], body[:60], answer.body[:200]))
    assert failed == []


def test_no_query_whatever_makes_the_server_fail(api: Api) -> None:
    sent = {"authorization": f"Bearer {api.tokens['admin']}"}
    queries = [
        b"query=%00", b"query=((((", b"query=" + b"not%20" * 300 + b"a", b"cursor=%ff", b"cursor=Yy0x", b"limit=-1",
        b"limit=1e9", b"state=" + b"a," * 90, b"ring=%22", b"format=../x", b"group=a%29%20or%20%28b", b"cursor=Yzk5OTk5OTk5OTk5OTk5OTk5OTk",
    ]  # fmt: skip
    failed = []
    for method, path, *_ in routes(api.app, "/api/v1"):
        if method != "GET" or path.endswith("/stream"):
            continue
        concrete = path.replace("{name:str}", "x").replace("{number:int}", "9" * 30)
        for text in queries:
            answer = api.rig.loop.run_until_complete(
                ask_over(api.rig.app, "GET", concrete, sent, b"", text)
            )
            if answer.status >= 500:
                failed.append((concrete, text[:60], answer.body[:200]))
    assert failed == []


def test_a_refused_call_is_not_kept_under_its_key(api: Api) -> None:
    body = {"reason": "x"}
    refused = api.call("POST", "/rollouts/gw1-1.1.0/halt", body, idempotency_key="h")
    assert refused.status == 404
    api.rig.device()
    api.post("/rollouts", {**POLICY, "release": "gw1-1.1.0"})
    assert api.call("POST", "/rollouts/gw1-1.1.0/halt", body, idempotency_key="h").status == 200


def test_the_last_use_of_a_token_is_told(api: Api) -> None:
    api.get("/me", "viewer")
    api.rig.write(lambda _: None)
    used = {one["name"]: one["last_used_at"] for one in api.get("/tokens")["items"]}
    assert used["t-viewer"] == int(api.rig.now)
    assert used["t-approver"] is None


def _why(api: Api, device: str = "d1") -> str:
    return str(api.get(f"/devices/{device}/why")["verdict"])


def test_why_names_what_stands_in_the_way_one_thing_at_a_time(api: Api) -> None:
    device = api.rig.device("d1", rev=1)
    wrong = api.rig.device("d2", rev=99)
    assert "no rollout has anything for it" in _why(api)
    ring = {"name": "all", "audience": "revision = 1"}
    api.post("/rollouts", {"preset": "lab", "ring": [ring], "release": "gw1-1.1.0"})
    assert wrong.assignment().action == "none"
    assert "compat.hardware" in _why(api, "d2")
    api.post("/rollouts/gw1-1.1.0/isolate", {"variant": "gw1-r1"})
    assert "its variant gw1-r1 is isolated" in _why(api)
    api.post("/rollouts/gw1-1.1.0/readmit", {"variant": "gw1-r1", "reason": "x"})
    body = device.assignment()
    device.tell("staged", body)
    assert "d1 is" in _why(api)
    api.post("/rollouts/gw1-1.1.0/halt", {"reason": "screens black"})
    assert "screens black" in _why(api)
    assert "d1 is not updating" in _why(api)


def test_why_says_until_when_a_device_is_held_back(api: Api) -> None:
    for one in range(12):
        api.rig.device(f"d{one}", rev=1)
    policy = {
        "preset": "normal",
        "ring": [{"name": "all"}],
        "flow": {"first": 0, "holdback": "50%"},
        "release": "gw1-1.1.0",
    }
    api.post("/rollouts", policy)
    said = [_why(api, f"d{one}") for one in range(12)]
    held = [one for one in said if "held back until" in one]
    assert 1 <= len(held) <= 11
    assert all("in 14 d" in one for one in held)


def _folded(api: Api) -> dict[str, int]:
    """Fold the event log, page by page: the last signed word about every update, and its reason."""
    last: dict[str, tuple[str, str | None]] = {}
    cursor = ""
    while True:
        page = api.get(f"/events?limit=5&cursor={cursor}")
        for one in page["items"]:
            if one["update"] and one["signed"]:
                last[one["update"]] = (one["kind"], one["reason"])
        if page["next"] is None:
            break
        cursor = page["next"]
    folded: dict[str, int] = {}
    for word in (word for pair in last.values() for word in pair if word):
        folded[word] = folded.get(word, 0) + 1
    return folded


def test_counters_equal_what_is_folded_from_the_event_log(api: Api) -> None:
    devices = [api.rig.device(f"d{n}", rev=1 + n % 2) for n in range(8)]
    api.post("/rollouts", {**POLICY, "guards": [], "release": "gw1-1.1.0"})
    for number, device in enumerate(devices):
        body = device.assignment()
        device.tell("downloading", body)
        if number == 7:
            device.tell("failed", body, reason="download.timeout")
            continue
        device.tell("staged", body)
        assert device.permit(body).envelope is not None
        if number % 3 == 0:
            device.tell("reverted", body, reason="health.network")
        elif number % 3 == 1:
            device.tell("verifying", body)
            device.confirm(body)
        device.tell("heartbeat")
    folded = _folded(api)
    told: dict[str, int] = {}
    for tally in api.get("/rollouts/gw1-1.1.0/evidence")["tallies"]:
        for name in ("confirmed", "reverted"):
            told[name] = told.get(name, 0) + tally[name]
        told["failed"] = told.get("failed", 0) + tally["failed_before"] + tally["failed_after"]
        for reason, count in tally["reasons"].items():
            told[reason] = told.get(reason, 0) + count
    assert folded == {
        "confirmed": 2, "reverted": 3, "failed": 1, "health.network": 3, "download.timeout": 1,
    }  # fmt: skip
    assert told == folded


def test_all_that_is_known_about_errors_and_counts_can_be_told() -> None:
    assert set(Exposure.__struct_fields__) <= set(ExposureFacts.__struct_fields__)
    assert set(Tally.__struct_fields__) <= set(TallyFacts.__struct_fields__)
