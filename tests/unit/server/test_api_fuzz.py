"""Schemathesis over the API's own description, against a server in process with a fleet: as an administrator, and as nobody.

No fault, no answer that the description does not name, no body that is not what it promises. Bounded, and the same cases every time.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.python import asgi
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.e2e.attack import RAW
from tests.unit.server.caller import ask_over as send
from tests.unit.server.rig import Rig
from tests.unit.server.test_api_routes import POLICY, Api

from tidegate.core.errors import HINTS
from tidegate.core.reasons import REASONS
from tidegate.server import amendments, drafts
from tidegate.server.api import wire
from tidegate.server.api.examples import BODIES

CODES = {*HINTS, *REASONS}
ROOT = Path(__file__).resolve().parents[3]
DOCUMENT: dict[str, Any] = json.loads((ROOT / "docs/reference/openapi.json").read_text())
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
#: Answers without end.
ENDLESS = {"/api/v1/stream", "/api/v1/events/stream"}
OPERATIONS = sorted(
    (path, method)
    for path, item in DOCUMENT["paths"].items()
    for method in item
    if path not in ENDLESS
)
#: Cases of each route: of values that fit, and of values that do not.
CASES = 6
#: What stands in the place of a name: things that are there, and things that no name can be.
THERE = {
    "rollouts": ("gw1-1.1.0", "draft"),
    "releases": ("gw1-1.1.0",),
    "devices": ("d1", "d2", "d3"),
    "groups": ("pilot", "r1"),
    "claims": ("line-4",),
    "incidents": ("INC-2027-001",),
    "accounts": ("olga",),
    "tokens": ("ci",),
}
EXTREMES = (
    "\x00",
    "..",
    "%2e%2e%2f",
    "a" * 5_000,
    "9" * 30,
    "-1",
    str(1 << 63),
    "\ufffd\u202e",
    "' OR 1=1 --",
    "<script>",
)


class Fleet(Api):
    """The API, and a device that may call what devices call."""

    device_token = ""


@schemathesis.serializer("application/x-tar")
def as_it_is(_: Any, value: Any) -> Any:
    return value if isinstance(value, bytes) else str(value).encode()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    rig = Rig(tmp_path_factory.mktemp("fuzz") / "data")
    rig.publish_trust()
    rig.release(1)
    rig.release(2, fallback_to=(1,))
    api = Fleet(rig)
    devices = [rig.device(f"d{number}", rev=1 + number % 2) for number in range(3)]
    rig.device("d9", join=False).enrol(None)
    api.post("/groups", {"name": "pilot", "devices": ["d1"]})
    api.post("/groups", {"name": "r1", "query": "revision = 1"})
    api.post("/claims", {"name": "line-4", "product": "gw1"})
    api.post("/accounts", {"name": "olga", "role": "operator"})
    api.post("/tokens", {"name": "ci", "role": "viewer"})
    upload = api.post("/uploads", {"sha256": "0" * 64, "length": 10 << 20})
    THERE["uploads"] = (upload["id"],)
    api.post("/rollouts", {**POLICY, "release": "gw1-1.1.0"})
    api.post("/rollouts", {**POLICY, "release": "gw1-1.2.0", "name": "draft", "draft": True})
    for device in devices[:2]:
        device.run(device.assignment())
    devices[2].tell("downloading", devices[2].assignment())
    api.post("/rollouts/gw1-1.1.0/halt", {"reason": "screens stay black"})
    api.device_token = devices[0].token
    yield api
    rig.close()


@pytest.fixture(scope="module")
def description(fleet: Fleet) -> Any:
    asked = json.loads(fleet.call("GET", "/openapi.json").body)
    assert asked == DOCUMENT, "docs/reference/openapi.json is stale: `make docs`"
    schema = schemathesis.openapi.from_dict(_without_places(asked))
    schema.app = fleet.rig.app
    return schema


def _without_places(told: Any) -> Any:
    """Say of a tuple that it has so many items of these kinds, not which stands where: the tool turns that into a schema which it then refuses."""
    if isinstance(told, list):
        return [_without_places(one) for one in told]
    if not isinstance(told, dict):
        return told
    found = {key: _without_places(one) for key, one in told.items()}
    if "prefixItems" in found:
        found["items"] = {"anyOf": found.pop("prefixItems")}
    return found


def _placed(case: Any, path: str, draw: Any) -> None:
    """Name what is there in every second case, and nonsense now and then: a name made at random meets nothing."""
    noun = path.removeprefix("/api/v1/").split("/")[0]
    for name in case.path_parameters or {}:
        choice = draw(st.integers(0, 5))
        if choice == 0:
            case.path_parameters[name] = draw(st.sampled_from(EXTREMES))
        elif choice < 4 and name == "name" and noun in THERE:
            case.path_parameters[name] = draw(st.sampled_from(THERE[noun]))
        elif choice < 4 and name == "number":
            case.path_parameters[name] = draw(st.integers(1, 3))


@pytest.mark.parametrize(("path", "method"), OPERATIONS, ids=lambda text: str(text).strip("/"))
def test_no_route_has_a_fault_or_an_answer_that_it_does_not_name(
    fleet: Fleet, description: Any, path: str, method: str
) -> None:
    operation = description[path][method]
    admin = {"Authorization": f"Bearer {fleet.tokens['admin']}"}
    if path.startswith("/d/v1/"):
        admin = {"Authorization": f"Bearer {fleet.device_token}"}
    client = asgi.get_client(cast("Any", fleet.rig.app))
    asked = 0

    def check(case: Any, headers: dict[str, str]) -> int:
        nonlocal asked
        asked += 1
        response = case.call(session=client, headers=headers)
        case.validate_response(response, checks=CHECKS)
        return int(response.status_code)

    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

        @settings(
            max_examples=CASES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(data=st.data(), case=operation.as_strategy(generation_mode=mode))
        def run(data: st.DataObject, case: Any) -> None:
            _placed(case, path, data.draw)
            check(case, admin)

        try:
            run()
        except Unsatisfiable:
            # nothing that is sent could be wrong: no parameter, no body
            assert mode is GenerationMode.NEGATIVE

    @settings(max_examples=2, deadline=None, database=None, derandomize=True, phases=[Phase.generate], suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def nobody(case: Any) -> None:
        status = check(case, {"Authorization": ""})
        if path.startswith("/api/v1/") and path != "/api/v1/openapi.json":
            assert status == 401

    nobody()
    assert asked >= 2


def _declared(path: str, method: str) -> set[int]:
    return {int(status) for status in DOCUMENT["paths"][path][method]["responses"]}


def _concrete(path: str, name: str = "d1") -> str:
    return re.sub(r"\{(\w+)\}", lambda found: "1" if found[1] == "number" else name, path)


def _problems(fleet: Fleet, path: str, method: str, place: str, body: bytes, query: str) -> str:
    """Ask, and return what is wrong with the answer; nothing when it is one of those that the description names."""
    device = path.startswith("/d/v1/")
    token = fleet.device_token if device else fleet.tokens["admin"]
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    answer = fleet.rig.loop.run_until_complete(
        send(fleet.rig.app, method.upper(), place, headers, body, query.encode("latin-1"))
    )
    told = (
        f"{method} {place[:60]} {body[:40]!r} {query[:40]}: {answer.status} {answer.body[:160]!r}"
    )
    if answer.status >= 500 or answer.status not in _declared(path, method):
        return told
    if answer.status >= 400 and answer.body:
        kind = answer.headers["content-type"]
        return "" if kind == "application/problem+json" and answer.code in CODES else told
    return ""


HOSTILE: dict[str, bytes] = {
    **RAW,
    "a NUL": b'{"reason": "a\\u0000b", "name": "a\\u0000b", "query": "\\u0000", "tags": ["\\u0000"]}',
    "a number beyond 64 bits": b'{"max_count": 9223372036854775808, "due_at": 18446744073709551616}',
    "text as number": b'{"max_count": "7", "due_at": "7", "reason": 7}',
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_no_body_whatever_gets_an_answer_that_its_route_does_not_name(
    fleet: Fleet, name: str
) -> None:
    wrong = [
        _problems(fleet, path, method, _concrete(path), HOSTILE[name], "")
        for path, method in OPERATIONS
        if method != "get" and path != "/api/v1/bundles"
    ]
    assert len(wrong) > 40
    assert [one for one in wrong if one] == []


@pytest.mark.parametrize("text", EXTREMES, ids=range(len(EXTREMES)))
def test_no_path_and_no_query_gets_an_answer_that_its_route_does_not_name(
    fleet: Fleet, text: str
) -> None:
    wrong = []
    for path, method in OPERATIONS:
        place = re.sub(r"\{\w+\}", lambda _: text, path)
        wrong.append(_problems(fleet, path, method, place, b"{}", ""))
        asked = "&".join(
            f"{one['name']}={quote(text)}"
            for one in DOCUMENT["paths"][path][method].get("parameters", ())
            if one.get("in") == "query"
        )
        if asked:
            wrong.append(_problems(fleet, path, method, _concrete(path), b"{}", asked))
    assert [one for one in wrong if one] == []


def test_an_address_that_is_no_text_is_no_fault(fleet: Fleet) -> None:
    for query in ("query=%ff%fe", "query=%ed%a0%80", "cursor=%00", "limit=%ff"):
        assert _problems(fleet, "/api/v1/devices", "get", "/api/v1/devices", b"", query) == ""


def test_the_description_is_whole(fleet: Fleet) -> None:
    operations = [one for item in DOCUMENT["paths"].values() for one in item.values()]
    names = [one["operationId"] for one in operations]
    assert len(set(names)) == len(names) > 110
    assert [one["operationId"] for one in operations if not one["summary"]] == []
    tags = {one["name"] for one in DOCUMENT["tags"]}
    assert {tag for one in operations for tag in one["tags"]} == tags
    assert [one["operationId"] for one in operations if len(one["tags"]) != 1] == []
    assert len({one["summary"] for one in operations}) > 80
    for path, item in DOCUMENT["paths"].items():
        for one in item.values():
            given = one.get("parameters", ())
            told = {found["name"] for found in given if found.get("in") == "path"}
            assert told == set(re.findall(r"\{(\w+)\}", path)), path
    text = json.dumps(DOCUMENT)
    used = set(re.findall(r'"#/components/(\w+/[^"]+)"', text))
    assert used == {
        f"{kind}/{name}"
        for kind in ("schemas", "responses", "parameters")
        for name in DOCUMENT["components"][kind]
    }


def test_every_example_is_what_its_route_reads() -> None:
    def plain(example: dict[str, Any]) -> dict[str, Any]:
        return {name: one for name, one in example.items() if name != "reason"}

    made = drafts.draft_of(plain(BODIES["rollouts_create"]))
    row = {"state": "active", "generation": 1, "started_at": 1, "fixed": None}
    stands = {**msgspec.to_builtins(made), **row}
    for kind, example in BODIES.items():
        if isinstance(kind, type):
            assert msgspec.convert(msgspec.to_builtins(example), kind) == example
        elif kind == "rollouts_change":
            assert amendments.amended(stands, plain(example)) != made
        elif isinstance(example, dict):
            assert drafts.draft_of(plain(example)).release
        else:
            assert isinstance(example, wire.Act)
