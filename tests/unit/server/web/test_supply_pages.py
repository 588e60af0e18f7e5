"""Components and advisories on the web, over a real server: what documents say is shown as text, whatever it says."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from litestar import Litestar
from litestar.testing import TestClient
from tests.unit.core.supply import paper
from tests.unit.server.chain import Chain, bom
from tests.unit.server.rig import Rig

from tidegate.server.auth import Actor
from tidegate.server.operations import Operations, auth_of
from tidegate.server.web.domain import create_web
from tidegate.server.web.guard import form_token

OLD = "3.0.16-1~deb12u1"
ROOT = Actor(name="root", role="admin")
EVIL = "<img src=x onerror=alert(1)>"
Client = TestClient[Litestar]


@pytest.fixture
def chain(rig: Rig, tmp_path: Path) -> Chain:
    return Chain.on(rig, tmp_path / "lab")


@pytest.fixture
def client(chain: Chain) -> Iterator[Client]:
    services = chain.rig.app.services
    accounts = auth_of(services)
    for name, role in (("olga", "admin"), ("eve", "viewer")):
        accounts.create_account(name, role, "correct horse battery", ROOT, int(chain.rig.now))
    router = create_web(services, accounts, Operations(services))
    with TestClient(Litestar([router], openapi_config=None), base_url="http://tg.test") as made:
        _sign_in(made, "olga")
        yield made


def _sign_in(client: Client, name: str) -> str:
    client.cookies.clear()
    fields = {"name": name, "password": "correct horse battery"}
    assert client.post("/sign-in", data=fields, follow_redirects=False).status_code == 303
    return form_token(client.cookies["tidegate_session"])


def _text(client: Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text[-300:]
    assert EVIL not in answer.text
    assert "<script>alert" not in answer.text
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.text))


def test_a_search_tells_devices_releases_and_rings(chain: Chain, client: Client) -> None:
    chain.install(chain.publish(1, {"sbom": bom(OLD)}), "d1", "d2")
    text = _text(client, "/components?q=openssl&below=3.0.17")
    assert "2 devices run openssl below 3.0.17" in text
    assert "gw1-1.1.0" in text
    assert "d1" in text
    assert "fleet" in text
    assert "No release has such a part" in _text(client, "/components?q=nothing")
    assert "libssl3" in _text(client, "/components?q=libssl")
    assert "purl" in _text(client, "/components?q=pkg:%25")


def test_names_out_of_documents_are_shown_and_never_run(chain: Chain, client: Client) -> None:
    hostile = bom(OLD, paper.component(EVIL, EVIL, "", group="=cmd|x"))
    image = paper.dsse(paper.statement("ab" * 32, builder=EVIL), chain.lab.signer("product"))
    chain.install(chain.publish(1, {"sbom": hostile, "provenance": image}), "d1")
    chain.bring(paper.osv(f"X-{EVIL}", summary=EVIL, aliases=[EVIL, "CVE-1"]))
    name = f"=cmd|x/{EVIL}"
    text = _text(client, "/components?" + urlencode({"q": name}))
    assert "1 device runs" in text
    for path in ("/advisories", "/advisories/1", "/releases/gw1-1.1.0"):
        _text(client, path)


def test_a_file_is_taken_in_and_seen_on_the_release(chain: Chain, client: Client) -> None:
    chain.install(chain.publish(1, {"sbom": bom(OLD)}), "d1")
    token = _sign_in(client, "olga")

    def send(body: bytes, csrf: str) -> int:
        files = {"file": ("advisory.json", body, "application/json")}
        answer = client.post(
            "/advisories", data={"csrf": csrf}, files=files, follow_redirects=False
        )
        return answer.status_code

    assert send(paper.dumps(paper.osv()), token) == 303
    assert "2 findings; 1 device exposed" in _text(client, "/advisories")
    assert send(paper.dumps({"id": 7}), token) == 422
    assert send(paper.dumps(paper.osv()), "forged") == 403
    assert send(paper.dumps(paper.osv()), _sign_in(client, "eve")) == 403
    _sign_in(client, "olga")
    text = _text(client, "/releases/gw1-1.1.0")
    assert "CVE-2025-9230" in text
    assert "2 parts" in text
    assert "1 device exposed now" in _text(client, "/advisories")
    chain.bring(paper.openvex(product="pkg:generic/gw1"))
    text = _text(client, "/advisories/1")
    assert "Not affected" in text
    assert "vulnerable_code_not_in_execute_path" in text
    assert "0 devices exposed now" in _text(client, "/advisories")


def test_who_sees_some_products_is_told_of_their_parts_and_of_no_others(
    chain: Chain, client: Client
) -> None:
    chain.install(chain.publish(1, {"sbom": bom(OLD)}), "d1", "d2")
    chain.bring(paper.osv())
    accounts, now = auth_of(chain.rig.app.services), int(chain.rig.now)
    for name, grant in (("gina", "product:gw1"), ("otto", "product:other"), ("lara", "group:lab")):
        accounts.create_account(
            name, "", "correct horse battery", ROOT, now, grants=[f"viewer@{grant}"]
        )
    _sign_in(client, "gina")
    assert "2 devices run openssl" in _text(client, "/components?q=openssl")
    assert "CVE-2025-9230" in _text(client, "/advisories/1")
    assert "those that concern gw1" in _text(client, "/advisories")
    for name in ("otto", "lara"):
        _sign_in(client, name)
        for path in ("/components?q=openssl", "/components?q=libssl", "/advisories"):
            text = _text(client, path)
            assert not [one for one in ("gw1", "d1", "libssl3", "2025") if one in text], (
                name,
                text,
            )
        assert "None concerns what is yours" in _text(client, "/advisories")
        assert client.get("/advisories/1").status_code == 404
    assert "your roles are in groups" in _text(client, "/components?q=openssl")


@pytest.mark.parametrize("path", ["/advisories/9", "/advisories/x", "/advisories/" + "9" * 30])
def test_an_advisory_that_is_not_there_is_not_found(client: Client, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("cursor", ["x", "-1", "9" * 30, "٣"])
def test_a_cursor_of_somebody_else_does_no_harm(client: Client, cursor: str) -> None:
    for path in ("/components?q=openssl&cursor=", "/advisories?cursor="):
        assert client.get(path + cursor).status_code == 200
