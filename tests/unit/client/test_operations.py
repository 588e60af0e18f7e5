"""Every operation of the description has its method, and what a real server with a fleet answers comes back whole in the struct that the method promises."""

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.e2e.test_ways_of_bytes import listening
from tests.unit.server.rig import Rig

from tidegate.client import Client, Listing, StreamEvent, Tag, structs
from tidegate.client.routes import Every
from tidegate.core.errors import RequestError, TidegateError
from tidegate.server.actors import Actor
from tidegate.server.operations import auth_of

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT: dict[str, Any] = json.loads((ROOT / "docs/reference/openapi.json").read_text())
OPERATIONS: dict[str, tuple[str, str, dict[str, Any]]] = {
    told["operationId"]: (method, path, told)
    for path, item in DOCUMENT["paths"].items()
    for method, told in item.items()
    if path.startswith("/api/v1/")
}
ADMIN = Actor(name="root", role="admin")
#: What stands in the place of a name.
NAMES = {
    "rollouts": "gw1-1.1.0",
    "releases": "gw1-1.1.0",
    "devices": "gw-0017",
    "groups": "pilot",
    "claims": "line-4",
    "accounts": "olga",
    "tokens": "ci",
    "incidents": "INC-2027-001",
}
#: What is sent where the description's own example comes to nothing here.
BODIES: dict[str, Any] = {
    "jobs_create": structs.NewJob(act="tag", query="model = gw1", tags=("lab",), confirm=3),
    "rollouts_create": {"release": "gw1-1.2.0", "preset": "lab", "draft": True, "reason": "r"},
}
QUERIES: dict[str, dict[str, Any]] = {
    "components_list": {"name": "busybox"},
    "components_devices_list": {"name": "busybox"},
    "audit_proofs_consistency": {"from_": 1},
    "audit_proofs_inclusion": {"row": 1},
    "uploads_change": {"offset": 0},
}
#: Answers that would mean that client and server do not understand each other.
WRONG = {"link.answer", "link.unreachable", "server.internal"}
#: Their answers never end.
ENDLESS = {"events_stream", "stream"}


class Watched(Client):
    """A client that keeps what the server answered last."""

    raw = b""

    def _exchange(self, *arguments: Any, **more: Any) -> Any:
        answer = super()._exchange(*arguments, **more)
        self.raw = answer.body
        return answer


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    rig = Rig(tmp_path_factory.mktemp("client") / "data")
    rig.publish_trust()
    rig.release(1)
    rig.release(2, fallback_to=(1,))
    devices = [rig.device(name) for name in ("gw-0017", "d1", "d2")]
    rig.device("d9", join=False).enrol(None)
    _, token = auth_of(rig.app.services).create_token("t", "admin", ADMIN, int(rig.now))
    with listening(rig.app) as url:
        found = Watched(url, token)
        found.rollouts_create(
            {
                "release": "gw1-1.1.0",
                "preset": "lab",
                "reason": "r",
                "ring": [{"name": "all"}],
            }
        )
        for device in devices[:2]:
            device.run(device.assignment())
        devices[2].tell("downloading", devices[2].assignment())
        found.rollouts_halt("gw1-1.1.0", structs.Act(reason="screens stay black"))
        yield found
    rig.close()


def test_every_operation_has_a_method_that_takes_what_it_takes() -> None:
    assert len(OPERATIONS) > 120
    for name, (_, _, told) in OPERATIONS.items():
        taken = inspect.signature(getattr(Every, name)).parameters
        rehearsal = getattr(Every, f"{name}_dry_run", None)
        for one in told.get("parameters", ()):
            if "$ref" in one or one["name"] == "cursor":
                continue
            plain = one["name"].lower().replace("-", "_")
            there = {plain, f"{plain}_"} & set(taken)
            assert there or (plain == "dry_run" and rehearsal is not None), (name, plain)
        assert ("body" in taken) == ("requestBody" in told), name
        common = {
            one["$ref"].rpartition("/")[2] for one in told.get("parameters", ()) if "$ref" in one
        }
        assert ("key" in taken) >= ("IdempotencyKey" in common), name
        assert ("if_match" in taken) == ("IfMatch" in common), name
    extra = {
        name
        for part in Every.__mro__
        if part.__module__.startswith("tidegate.client.routes.")
        for name in vars(part)
        if not name.startswith("_") and name.removesuffix("_dry_run") not in OPERATIONS
    }
    assert extra == set()


def _order(name: str) -> tuple[int, str]:
    """Make first, look and change then, end last."""
    ends = (
        "_cancel",
        "_recall",
        "_revoke",
        "_decommission",
        "_reject",
        "_close",
        "_remove",
        "_complete",
    )
    last = name.endswith(ends)
    return (2 if last else 0 if name.endswith("_create") or name == "incidents_grants" else 1, name)


def _body(told: dict[str, Any]) -> Any:
    content = told["requestBody"]["content"]
    ((media, shown),) = content.items()
    if media != "application/json" or "example" not in shown:
        return b"{}"
    if "$ref" not in shown["schema"]:
        return shown["example"]
    struct = getattr(structs, shown["schema"]["$ref"].rpartition("/")[2])
    return msgspec.convert(shown["example"], struct)


def _call(client: Watched, name: str) -> Any:
    _, path, told = OPERATIONS[name]
    noun = path.split("/")[3]
    given: list[Any] = []
    for one in told.get("parameters", ()):
        if one.get("in") == "path":
            number = one["schema"]["type"] == "integer"
            given.append(1 if number else NAMES.get(noun, "0" * 64))
    if noun == "uploads" and given:
        given = [client.uploads_create(structs.NewUpload(sha256="0" * 64, length=1 << 20)).id]
    if "requestBody" in told:
        given.append(BODIES[name] if name in BODIES else _body(told))
    return getattr(client, name)(*given, **QUERIES.get(name, {}))


def _same(client: Watched, answer: Any) -> None:
    """Hold a struct against the bytes that it came from: no field is lost or changed."""
    if isinstance(answer, Listing):
        for page in answer.pages():
            _same(client, page)
    elif isinstance(answer, msgspec.Struct):
        _within(json.loads(client.raw), json.loads(msgspec.json.encode(answer)), "")


def _within(raw: Any, ours: Any, where: str) -> None:
    """What the server left out because it is the default, the struct may have."""
    if isinstance(raw, dict):
        assert set(raw) <= set(ours), where
        for key, one in raw.items():
            _within(one, ours[key], f"{where}.{key}")
    elif isinstance(raw, list):
        assert len(raw) == len(ours), where
        for one, other in zip(raw, ours, strict=True):
            _within(one, other, where)
    else:
        assert raw == ours, where


def test_what_a_server_answers_comes_back_whole(client: Watched) -> None:
    refused: dict[str, str] = {}
    done: set[str] = set()
    for name in sorted(OPERATIONS, key=_order):
        if name in ENDLESS:
            continue
        try:
            answer = _call(client, name)
            _same(client, answer)
        except TidegateError as error:
            refused[name] = error.code
        else:
            done.add(name)
    assert {name: code for name, code in refused.items() if code in WRONG} == {}
    # what the fleet of this test gives nothing to do is refused, in words that are understood too
    assert len(done) > 85, sorted(refused)


def test_rehearsals_say_what_would_be_and_do_nothing(client: Watched) -> None:
    before = [one.number for one in client.jobs_list()]
    would = client.rollouts_cancel_dry_run("gw1-1.1.0", structs.Act(reason="r"))
    assert (would.name, would.verb) == ("gw1-1.1.0", "cancel")
    _same(client, would)
    wanted = structs.NewJob(act="tag", query="model = gw1", tags=("x",))
    assert client.jobs_create_dry_run(wanted).devices > 0
    assert [one.number for one in client.jobs_list()] == before


def test_a_stream_tells_what_happens(client: Watched) -> None:
    stream = client.events_stream(kinds="group", last_event_id="0.0")
    client.groups_create(structs.NewGroup(name="streamed", query="site = lab"))
    found = next(one for one in stream if "streamed" in one.data)
    assert isinstance(found, StreamEvent)
    assert (found.event, json.loads(found.data)["kind"]) == ("change", "group")
    assert found.id


def test_only_what_was_seen_is_changed(client: Watched) -> None:
    client.groups_create(structs.NewGroup(name="seen", query="site = lab"))
    tag = Tag()
    client.groups_show("seen", tag=tag)
    client.groups_replace("seen", structs.GroupChange(query="site = roof"), if_match=tag)
    with pytest.raises(RequestError) as caught:
        client.groups_replace("seen", structs.GroupChange(query="site = van"), if_match=tag)
    assert caught.value.code == "request.conflict"
    assert client.groups_show("seen", tag=tag).query == "site = roof"
    assert tag.changed
    assert client.groups_show("seen", tag=tag).query == "site = roof"
    assert not tag.changed
