"""The supply chain over REST."""

import json
from pathlib import Path

import pytest
from tests.unit.core.supply import paper
from tests.unit.server.caller import ask_over
from tests.unit.server.chain import Chain, bom
from tests.unit.server.rig import Answer, Rig
from tests.unit.server.test_api_routes import Api

from tidegate.core.supply.policy import IngestRule

OLD = "3.0.16-1~deb12u1"


@pytest.fixture
def chain(rig: Rig, tmp_path: Path) -> Chain:
    return Chain.on(rig, tmp_path / "lab")


@pytest.fixture
def api(chain: Chain) -> Api:
    return Api(chain.rig)


def test_components_and_their_devices_are_told_page_by_page(chain: Chain, api: Api) -> None:
    names = [f"d{number}" for number in range(5)]
    chain.install(chain.publish(1, {"sbom": bom(OLD)}), *names)
    found = api.get("/components?name=openssl&below=3.0.17&limit=1", "viewer")
    assert (found["devices"], found["items_in_all"], len(found["items"])) == (5, 2, 1)
    second = api.get(f"/components?name=openssl&below=3.0.17&limit=1&cursor={found['next']}")
    assert second["next"] is None
    assert {found["items"][0]["name"], second["items"][0]["name"]} == {"openssl", "libssl3"}
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        page = api.get(f"/components/devices?name=openssl&limit=2&cursor={cursor}")
        seen += [one["id"] for one in page["items"]]
        cursor = page["next"]
    assert seen == names
    assert api.get("/components/devices?name=openssl&ring=")["items"] == []
    assert len(api.get("/components/devices?name=openssl&ring=fleet")["items"]) == 5
    chain.rig.now += 1000
    assert len(api.get("/components/devices?name=openssl&at_least_s=900")["items"]) == 5
    assert api.get("/components/devices?name=openssl&at_least_s=2000")["items"] == []


@pytest.mark.parametrize(
    "query", ["", "name=", "name=" + "x" * 500, "name=pkg:%25zz", "name=a&cursor=zzz"]
)
def test_a_question_that_makes_no_sense_is_refused(api: Api, query: str) -> None:
    for path in ("/components", "/components/devices"):
        answer = api.call("GET", f"{path}?{query}")
        assert (answer.status, answer.code) == (400, "request.invalid")


def _send(api: Api, body: bytes, role: str = "operator") -> Answer:
    sent = {"authorization": f"Bearer {api.tokens[role]}", "content-type": "application/json"}
    path = "/api/v1/advisories"
    return api.rig.loop.run_until_complete(ask_over(api.rig.app, "POST", path, sent, body, b""))


def test_advisories_are_taken_in_told_and_forgotten(chain: Chain, api: Api) -> None:
    chain.install(chain.publish(1, {"sbom": bom(OLD)}), "d1")
    answer = _send(api, paper.dumps(paper.osv()))
    assert answer.status == 200, answer.body
    done = json.loads(answer.body)
    assert (done["format"], done["findings"], done["devices"]) == ("osv", 2, 1)
    listed = api.get("/advisories?release=gw1-1.1.0", "viewer")["items"]
    assert [one["id"] for one in listed] == ["CVE-2025-9230"]
    number = listed[0]["number"]
    page = api.get(f"/advisories/{number}/findings?limit=1")
    assert len(page["items"]) == 1
    assert page["next"]
    assert api.get("/advisories?name=ghsa-xxxx-yyyy-zzzz")["items"][0]["number"] == number
    assert api.call("POST", f"/advisories/{number}/forget", {"reason": "x"}, "viewer").status == 403
    api.post(f"/advisories/{number}/forget", {"reason": "by mistake"})
    assert api.call("GET", f"/advisories/{number}").status == 404


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 422, "supply.malformed"),
        (b"{" * 20_000, 413, "supply.too_large"),
        (b'{"id": "X", "id": "Y", "affected": []}', 422, "supply.malformed"),
        (b"{}", 422, "supply.unknown_format"),
        (paper.dumps(paper.cyclonedx()), 422, "supply.unknown_format"),
    ],
    ids=str,
)
def test_a_refused_file_changes_nothing(api: Api, body: bytes, status: int, code: str) -> None:
    answer = _send(api, body)
    assert (answer.status, answer.code) == (status, code)
    assert api.get("/advisories")["items"] == []
    assert api.get("/audit")["items"][0]["action"] == "advisory.refused"


def test_a_file_larger_than_other_bodies_is_taken(chain: Chain, api: Api) -> None:
    chain.publish(1, {"sbom": bom(OLD)})
    package = {"ecosystem": "Debian:12", "name": "openssl"}
    listed = [f"1.0.{number}-1~deb12u1" for number in range(150_000)]
    body = paper.dumps(paper.osv(affected=[{"package": package, "versions": [*listed, OLD]}]))
    assert len(body) > 3 << 20
    answer = _send(api, body)
    assert answer.status == 200, answer.body
    assert json.loads(answer.body)["findings"] == 2
    assert _send(api, b" " * (17 << 20)).status == 413


def test_an_attachment_comes_back_as_it_was_and_never_as_a_page(chain: Chain, api: Api) -> None:
    chain.publish(1, {"sbom": bom(OLD), "notes": b"<script>alert(1)</script>"})
    chain.publish(2)
    for one in api.get("/releases/gw1-1.1.0")["attachments"]:
        path = f"/releases/gw1-1.1.0/attachments/{one['sha256']}"
        answer = api.call("GET", path, role="viewer")
        assert len(answer.body) == one["length"]
        assert answer.headers["content-type"].startswith("application/octet-stream")
        assert answer.headers["content-disposition"].startswith("attachment;")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert api.call("GET", path.replace("1.1.0", "1.2.0")).status == 404
    payload = api.get("/releases/gw1-1.1.0")["artifacts"][0]["sha256"]
    assert api.call("GET", f"/releases/gw1-1.1.0/attachments/{payload}").status == 404


def test_the_rules_of_the_server_are_told(chain: Chain, api: Api) -> None:
    key = chain.lab.signer("product").public
    chain.demand(IngestRule(needs=("sbom",), signers=(key,)))
    found = api.get("/ingest-rules", "viewer")["items"]
    assert found[0]["signers"] == [{"keytype": "ed25519", "public": key.public, "keyid": key.keyid}]


def test_exposure_is_a_metric(chain: Chain, api: Api) -> None:
    chain.install(chain.publish(1, {"sbom": bom(OLD)}), "d1", "d2")
    chain.bring(paper.osv())
    sent = {"authorization": f"Bearer {api.tokens['viewer']}"}
    found = api.rig.loop.run_until_complete(
        ask_over(api.rig.app, "GET", "/metrics", sent, b"", b"")
    )
    lines = found.body.decode().splitlines()
    assert "tidegate_devices_exposed 2.0" in lines
    assert "tidegate_advisories_open 1.0" in lines
