"""What a program with an operator's token can send to the API: every route of its own description, with every body that no client sends."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.e2e.attack import RAW, TEXTS, problem_code
from tests.e2e.served import Served, serving

pytestmark = pytest.mark.e2e

#: Answers without end, or bytes instead of JSON.
STREAMS = {"/api/v1/stream", "/api/v1/events/stream"}
ODD: tuple[Any, ...] = (None, [], {}, -1, 1 << 63, 1 << 400, True, 1.5, *TEXTS)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("api") / "data") as one:
        yield one


@pytest.fixture(scope="module")
def headers(served: Served) -> dict[str, str]:
    token = (served.data / "bootstrap.token").read_text().strip()
    return {"authorization": f"Bearer {token}", "content-type": "application/json"}


def _description(served: Served, headers: dict[str, str]) -> dict[str, Any]:
    status, body = served.ask("GET", "/api/v1/openapi.json", None, headers)
    assert status == 200, body[:200]
    return dict(json.loads(body))


def _routes(description: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method.upper(), path, route)
        for path, item in description["paths"].items()
        for method, route in item.items()
        if path.startswith("/api/v1") and path not in STREAMS and isinstance(route, dict)
    ]


def _bodies(description: dict[str, Any], route: dict[str, Any]) -> Iterator[bytes]:
    yield from RAW.values()
    schema = route.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})  # fmt: skip
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    fields = description.get("components", {}).get("schemas", {}).get(name, {}).get("properties", {})  # fmt: skip
    known = [*fields, "name", "release", "ring", "delivery", "windows"]
    for field in known:
        for value in ODD:
            yield json.dumps({field: value}).encode()


@pytest.mark.timeout(100)
def test_no_route_of_the_api_breaks_on_what_it_is_sent(
    served: Served, headers: dict[str, str]
) -> None:
    description = _description(served, headers)
    routes = _routes(description)
    assert len(routes) > 40
    faults, asked = [], 0
    for method, path, route in routes:
        place = path.replace("{number}", "1").replace("{name}", "nothing")
        bodies = [b""] if method in {"GET", "DELETE"} else _bodies(description, route)
        for body in bodies:
            asked += 1
            status, answer = served.ask(method, place, body, headers)
            if status >= 500:
                faults.append((method, place, body[:80], status, answer[:200]))
    assert asked > 1000
    assert faults == []
    log = served.log.read_text()
    assert "Traceback" not in log, log[-3000:]


@pytest.mark.parametrize("text", ["%00", "..%2f..%2f", "%ff%fe", "a" * 5000, "%3Cscript%3E", "'%20OR%201=1--", "%E2%80%AE"])  # fmt: skip
def test_no_name_and_no_query_breaks_a_route(
    served: Served, headers: dict[str, str], text: str
) -> None:
    faults = []
    for method, path, _ in _routes(_description(served, headers)):
        if method != "GET":
            continue
        place = path.partition("{")[0] + text + path.rpartition("}")[2] if "{" in path else path
        for query in ("", f"?cursor={text}&limit=1&query={text}&state={text}", "?limit=-1"):
            status, answer = served.ask(method, place + query, None, headers)
            if status >= 500:
                faults.append((place + query, status, answer[:200]))
    assert faults == []


def test_without_a_token_every_route_says_so_and_nothing_else(
    served: Served, headers: dict[str, str]
) -> None:
    for method, path, _ in _routes(_description(served, headers)):
        if path.endswith("openapi.json"):
            continue
        place = path.replace("{number}", "1").replace("{", "").replace("}", "")
        for given in ({}, {"authorization": "Bearer tg_nobody"}, {"authorization": "Basic YTpi"}):
            status, body = served.ask(method, place, b"{}", given)
            code = problem_code(status, body, "application/problem+json")
            assert code == "request.unauthenticated", (method, path)


def test_a_body_that_is_too_large_is_refused(served: Served, headers: dict[str, str]) -> None:
    status, body = served.ask("POST", "/api/v1/claims", b" " * ((1 << 20) + 1), headers)
    assert problem_code(status, body, "application/problem+json") == "request.too_large"


@pytest.mark.parametrize("name", sorted(RAW))
def test_a_bundle_that_is_none_is_refused_and_leaves_nothing(
    served: Served, headers: dict[str, str], name: str
) -> None:
    before = sorted((served.data / "blobs").rglob("*"))
    status, body = served.ask("POST", "/api/v1/bundles", RAW[name], headers)
    problem_code(status, body, "application/problem+json")
    assert 400 <= status < 500
    assert sorted((served.data / "blobs").rglob("*")) == before
