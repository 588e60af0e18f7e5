"""Every route that changes something is called with the example of its own description; whatever is done leaves a row that names the request.

Generated from the route table: a new route is looked at without anybody adding it here, as far as an example alone brings it to do something.
"""

import json
from typing import Any

import pytest
from tests.unit.server.caller import Route, ask_over, routes
from tests.unit.server.rig import Answer, Rig

from tidegate.server import audit
from tidegate.server.auth import Actor
from tidegate.server.operations import auth_of

ROOT = Actor(name="root", role="admin")
PREFIX = "/api/v1"
#: Calls that are answered and change nothing that an operator would be asked about, and why.
NOTHING_DONE = {
    "POST /devices/{name:str}/accept": "the device is accepted already",
    "POST /incidents/{name:str}/unpublish": "nothing was published",
    "POST /preauthorized": "the example's entry names no key, and is refused by itself",
    "POST /rollouts/{name:str}/start": "the rollout has started already",
    "POST /uploads": "room for bytes that nobody believes; taking them in is the act, and recorded",
}
NAMES = {
    "rollouts": "gw1-1.1.0",
    "releases": "gw1-1.1.0",
    "devices": "gw-0017",
    "groups": "pilot",
    "claims": "line-4",
    "accounts": "olga",
    "tokens": "ci",
}


@pytest.fixture
def calls(rig: Rig) -> "Calls":
    rig.publish_trust()
    rig.release(1)
    rig.device("gw-0017")
    return Calls(rig)


class Calls:
    """Calls every route that changes something, in several rounds: what one makes, another changes."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        _, self.token = auth_of(rig.app.services).create_token("t", "admin", ROOT, int(rig.now))
        self.incident = "INC-2027-001"
        self.document = json.loads(
            self.send("GET", f"{PREFIX}/openapi.json", None, "the-document").body
        )

    def send(self, method: str, path: str, body: object, request: str) -> Answer:
        raw = b"" if body is None else json.dumps(body).encode()
        headers = {
            "authorization": f"Bearer {self.token}",
            "content-type": "application/json",
            "x-request-id": request,
        }
        return self.rig.loop.run_until_complete(
            ask_over(self.rig.app, method, path, headers, raw, b"")
        )

    def body(self, route: Route) -> Any:
        path = route.path.replace(":str}", "}").replace(":int}", "}")
        told = self.document["paths"].get(path, {}).get(route.method.lower(), {})
        return (
            told.get("requestBody", {})
            .get("content", {})
            .get("application/json", {})
            .get("example", {})
        )

    def path(self, route: Route) -> str:
        noun = route.path.removeprefix(PREFIX).split("/")[1]
        return route.named(
            name=NAMES.get(noun, self.incident), number="1", key="0" * 64, digest="0" * 64
        )


def rank(route: Route) -> tuple[int, str]:
    """Make first, change then, end last."""
    ends = ("cancel", "recall", "revoke", "decommission", "reject", "close")
    last = route.method == "DELETE" or route.path.endswith(ends)
    return (2 if last else 1 if "{" in route.path else 0), route.path


def test_whatever_a_route_does_leaves_a_row_that_names_the_request(calls: Calls) -> None:
    found = [
        one
        for one in routes(calls.rig.app.admin, PREFIX)  # type: ignore[arg-type]
        if one.method != "GET"
    ]
    assert len(found) > 55
    done: set[str] = set()
    spoke: set[str] = set()
    for turn in range(2):
        for number, route in enumerate(sorted(found, key=rank)):
            request = f"request-{turn}-{number:03}"
            answer = calls.send(route.method, calls.path(route), calls.body(route), request)
            assert answer.headers["x-request-id"] == request
            if not 200 <= answer.status < 300:
                continue
            name = f"{route.method} {route.path.removeprefix(PREFIX)}"
            done.add(name)
            rows = [one for one in calls.rig.read(audit.export) if one.request == request]
            if rows:
                spoke.add(name)
            assert {one.ip for one in rows} <= {"192.0.2.1"}
    assert sorted(done - spoke) == sorted(NOTHING_DONE)
    assert len(spoke) >= 28
    assert calls.rig.read(audit.verify).ok
