"""Ready means: requests may be sent here. What makes a process unready, what only warns, and what strangers learn of it."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.server.rig import YEAR, Answer, Rig, ask

from tidegate.core.keys import Signer
from tidegate.server import readiness
from tidegate.server.store.postgres import PostgresStore
from tidegate.server.store.sqlite import SqliteStore


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "KEPT_S", -1.0)
    monkeypatch.setattr(readiness, "WRITE_S", 0.5)


def look(rig: Rig, path: str = "/readyz", client: str | None = "127.0.0.1", **sent: str) -> Answer:
    headers = {name.replace("_", "-"): value for name, value in sent.items()}
    return rig.loop.run_until_complete(ask(rig.app, "GET", path, headers, b"", client))


def levels(answer: Answer) -> dict[str, str]:
    return {one["name"]: one["level"] for one in json.loads(answer.body)["checks"]}


def test_a_server_that_can_work_is_ready_with_and_without_a_root(rig: Rig) -> None:
    assert look(rig).status == 200
    rig.publish_trust()
    answer = look(rig)
    assert answer.status == 200
    assert set(levels(answer).values()) == {"ok"}
    assert set(levels(answer)) == {"database", "follows", "blobs", "keys", "metadata"}
    assert answer.headers["cache-control"] == "no-store"


def _foreign_keys(rig: Rig) -> None:
    object.__setattr__(rig.app.services.keys, "director", Signer.from_seed(b"x" * 32))


def _closed(rig: Rig) -> None:
    rig.app.store.close()


@pytest.mark.parametrize(("check", "spoil"), [("keys", _foreign_keys), ("database", _closed)])
def test_what_this_process_cannot_do_makes_it_unready(
    rig: Rig, check: str, spoil: Callable[[Rig], None]
) -> None:
    rig.publish_trust()
    spoil(rig)
    answer = look(rig)
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) > 0
    assert levels(answer)[check] == "failed"
    assert json.loads(answer.body)["ready"] is False


def test_metrics_say_it_too(rig: Rig) -> None:
    rig.publish_trust()
    assert "tidegate_ready 1.0" in rig.scrape()
    _foreign_keys(rig)
    assert "tidegate_ready 0.0" in rig.scrape()


def test_a_process_that_does_not_see_the_others_is_unready(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "data", shared=True)
    try:
        assert look(rig).status == 200
        store = rig.app.store
        assert isinstance(store, SqliteStore | PostgresStore)
        shared = store._shared
        assert shared is not None
        shared._fresh_until = 0.0
        shared._stopping.set()
        shared._thread.join()
        shared._fresh_until = 0.0
        answer = look(rig)
        assert answer.status == 503
        assert levels(answer)["follows"] == "failed"
    finally:
        rig.close()


def test_a_writer_that_is_stuck_makes_it_unready_and_the_question_is_taken_back(rig: Rig) -> None:
    go = threading.Event()
    rig.app.store.write(lambda _: go.wait(20))
    answer = look(rig)
    assert answer.status == 503
    assert levels(answer)["database"] == "failed"
    go.set()
    rig.write(lambda _: None)
    assert look(rig).status == 200


def test_what_concerns_every_process_warns_and_only_the_strict_count_it(rig: Rig) -> None:
    rig.publish_trust()
    rig.now += YEAR - 6 * 86_400  # root and targets have six days left, and nobody renewed the rest
    answer = look(rig)
    assert answer.status == 200
    assert levels(answer)["metadata"] == "warning"
    said = next(one for one in json.loads(answer.body)["checks"] if one["name"] == "metadata")
    assert "root expires in" in said["text"]
    strict = rig.loop.run_until_complete(_strict(rig))
    assert strict == 503


async def _strict(rig: Rig) -> int:
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    scope = {
        "type": "http", "method": "GET", "path": "/readyz", "headers": [],
        "query_string": b"strict", "client": ("127.0.0.1", 1),
    }  # fmt: skip
    await rig.app(scope, receive, send)
    return status


def test_bytes_that_are_gone_are_warned_of(rig: Rig) -> None:
    rig.publish_trust()
    rig.release(1)  # without its bytes
    assert levels(look(rig))["blobs"] == "warning"


@pytest.mark.parametrize(
    ("client", "sent"),
    [("192.0.2.7", {}), (None, {}), ("127.0.0.1", {"x_forwarded_for": "192.0.2.7"})],
)
def test_strangers_learn_names_and_levels_and_nothing_else(
    rig: Rig, client: str | None, sent: dict[str, str]
) -> None:
    rig.publish_trust()
    rig.now += YEAR - 86_400
    told = json.loads(look(rig, client=client, **sent).body)
    assert {"name", "level"} == {key for one in told["checks"] for key in one}
    assert "text" in look(rig).body.decode()


def test_it_is_alive_until_its_store_is_closed(rig: Rig) -> None:
    alive = look(rig, "/healthz")
    assert (alive.status, alive.body) == (200, b"ok\n")
    rig.app.close()
    dead = look(rig, "/healthz")
    assert (dead.status, dead.body) == (503, b"failed\n")


def test_many_questions_cost_one_write(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "KEPT_S", 60.0)
    before = rig.app.store.commits.work
    for _ in range(50):
        assert look(rig).status == 200
    assert rig.app.store.commits.work - before == 1
