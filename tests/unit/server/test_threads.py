"""A place of blobs that does not answer: whoever publishes waits; people who do something else, and the planner, do not."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.unit.server.caller import ask_over
from tests.unit.server.rig import Answer, Rig, ask
from tests.unit.server.test_api_routes import Api

from tidegate.server import readiness, threads, uploads

#: More than any pool of threads has.
MANY = threads.PEOPLE_MAX + threads.BLOBS_MAX + 8


class Hung:
    """Stands for whatever asks the store: does not come back before it may."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.news = threading.Condition()
        self.asked = 0

    def __call__(self, *_: object, **__: object) -> Any:
        with self.news:
            self.asked += 1
            self.news.notify_all()
        self.go.wait(60)

    def wait(self, times: int) -> None:
        with self.news:
            assert self.news.wait_for(lambda: self.asked >= times, 30)


@pytest.fixture
def hung(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hung]:
    found = Hung()
    monkeypatch.setattr(readiness, "READ_S", 0.3)
    monkeypatch.setattr(readiness, "KEPT_S", -1.0)
    blobs = type(rig.app.services.blobs)
    monkeypatch.setattr(blobs, "remote", True)
    for name in ("open", "size", "upload_offset", "begin_upload", "drop_upload"):
        monkeypatch.setattr(blobs, name, found)
    yield found
    found.go.set()


@pytest.fixture
def api(rig: Rig) -> Api:
    rig.publish_trust()
    return Api(rig)


def test_who_halts_and_the_planner_do_not_wait_for_those_who_publish(api: Api, hung: Hung) -> None:
    rig = api.rig
    rollout = rig.rollout(rig.release(1), name="r1")
    assert rollout
    sent = {"authorization": f"Bearer {api.tokens['admin']}", "content-type": "application/json"}

    async def call(method: str, path: str, body: bytes = b"") -> Answer:
        return await ask_over(rig.app, method, f"/api/v1{path}", sent, body, b"")

    async def scene() -> Answer:
        promise = json.dumps({"sha256": "0" * 64, "length": 1000}).encode()
        publishing = [asyncio.create_task(call("POST", "/uploads", promise)) for _ in range(MANY)]
        await asyncio.to_thread(hung.wait, threads.BLOBS_MAX)
        probes = [
            asyncio.create_task(ask(rig.app, "GET", "/readyz", {}, b"", "127.0.0.1"))
            for _ in range(MANY)
        ]
        await asyncio.sleep(0.05)
        halted = await asyncio.wait_for(
            call("POST", "/rollouts/r1/halt", b'{"reason": "it burns"}'), 20
        )
        await asyncio.wait_for(
            threads.call(rig.app.services.threads.planner, rig.app.tick, int(rig.now)), 20
        )
        hung.go.set()
        await asyncio.gather(*publishing, *probes, return_exceptions=True)
        return halted

    assert rig.loop.run_until_complete(asyncio.wait_for(scene(), 60)).status == 200


def test_a_place_that_does_not_answer_makes_unready_and_is_asked_once(rig: Rig, hung: Hung) -> None:
    look = rig.app.readiness.look
    for _ in range(3):
        found = {one.name: one for one in look(int(rig.now)).checks}
        assert found["blobs"].level == "failed"
        assert found["blobs"].text == "no answer within 0.3 s"
    assert hung.asked == 1
    hung.go.set()
    until = time.monotonic() + 20
    while not look(int(rig.now)).ready:
        assert time.monotonic() < until


def test_a_place_that_refuses_makes_unready_before_there_is_a_release(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(readiness, "KEPT_S", -1.0)
    monkeypatch.setattr(type(rig.app.services.blobs), "size", refuse)
    found = {one.name: one.level for one in rig.app.readiness.look(int(rig.now)).checks}
    assert found["blobs"] == "failed"


def test_uploads_that_lapsed_are_dropped_beside_the_planner_once_at_a_time(
    rig: Rig, hung: Hung, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "sweep", hung)
    for _ in range(3):
        rig.app.tick(int(rig.now))
    assert hung.asked == 1
