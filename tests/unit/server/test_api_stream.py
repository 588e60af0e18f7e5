"""The stream of events: typed, resumable, bounded, and for those only who may see everything."""

import asyncio
import contextlib
import functools
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import delete
from tests.unit.server.test_api_routes import POLICY, Api, api

from tidegate.server import following
from tidegate.server.actors import Actor
from tidegate.server.api import stream
from tidegate.server.following import Place
from tidegate.server.store import tables as t

__all__ = ["api"]


class Follower:
    """One reader of the stream, beside the loop of the test."""

    def __init__(self, api: Api, query: str = "", last: str = "", role: str = "admin") -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.text = ""
        self._gone = asyncio.Event()
        self._news = asyncio.Event()
        headers = [(b"authorization", f"Bearer {api.tokens[role]}".encode())]
        if last:
            headers.append((b"last-event-id", last.encode()))
        scope = {
            "type": "http", "method": "GET", "path": "/api/v1/events/stream", "headers": headers,
            "query_string": query.encode(), "client": ("192.0.2.1", 1), "server": ("test", 80),
            "scheme": "http", "root_path": "", "raw_path": b"/api/v1/events/stream",
            "http_version": "1.1", "state": {},
        }  # fmt: skip
        self.task = asyncio.ensure_future(api.rig.app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {one.decode(): value.decode() for one, value in message["headers"]}
        else:
            self.text += message.get("body", b"").decode()
            if not message.get("more_body", False):
                self._gone.set()  # as a server tells once the answer is whole
        self._news.set()

    async def until(self, what: str, count: int = 1) -> list[dict[str, Any]]:
        """Read until so many events of a name came; return all events so far."""
        async with asyncio.timeout(20):
            while self.text.count(what) < count:
                self._news.clear()
                await self._news.wait()
        return self.events()

    def events(self) -> list[dict[str, Any]]:
        found = []
        for block in self.text.replace("\r\n", "\n").split("\n\n"):
            lines = dict(one.split(": ", 1) for one in block.split("\n") if ": " in one and one[0] != ":")  # fmt: skip
            if "event" in lines:
                found.append({"id": lines["id"], "event": lines["event"], **json.loads(lines["data"])})  # fmt: skip
        return found

    async def leave(self) -> None:
        self._gone.set()
        async with asyncio.timeout(20):
            await asyncio.gather(self.task, return_exceptions=True)


@contextlib.asynccontextmanager
async def following_(api: Api, query: str = "", last: str = "") -> AsyncIterator[Follower]:
    one = Follower(api, query, last)
    try:
        yield one
    finally:
        await one.leave()


def _group(api: Api, name: str) -> None:
    from tidegate.server import groups
    from tidegate.server.actors import Actor

    actor = Actor(name="root", role="admin")
    api.rig.write(lambda conn: groups.create(conn, name, "tag = x", [], actor, int(api.rig.now)))


def test_what_happens_is_told_with_its_name_and_where_the_reader_stands(api: Api) -> None:
    async def story() -> list[dict[str, Any]]:
        async with following_(api, "kinds=group") as one:
            await one.until("follow")
            await asyncio.to_thread(_group, api, "g1")
            await asyncio.to_thread(_group, api, "g2")
            found = await one.until("event: change", 2)
            assert one.text.count("data: ") == 2
        assert one.headers["content-type"].startswith("text/event-stream")
        return found

    # a comment is no event: a browser would be told of one without a name and without content
    first, second = api.rig.loop.run_until_complete(story())
    assert (first["event"], first["kind"], first["key"]) == ("change", "group", "g1")
    assert second["key"] == "g2"
    assert following.place_of(first["id"]).change < following.place_of(second["id"]).change


def test_a_reader_that_comes_back_misses_nothing_and_hears_nothing_twice(api: Api) -> None:
    async def story() -> tuple[list[str], list[str]]:
        async with following_(api, "kinds=group") as one:
            await one.until("follow")
            await asyncio.to_thread(_group, api, "g1")
            before = await one.until("event: change")
        for name in ("g2", "g3"):
            await asyncio.to_thread(_group, api, name)
        async with following_(api, "kinds=group", before[-1]["id"]) as one:
            after = await one.until("event: change", 2)
        return [one["key"] for one in before], [one["key"] for one in after]

    assert api.rig.loop.run_until_complete(story()) == (["g1"], ["g2", "g3"])


def test_reports_of_devices_come_in_their_order_from_where_the_reader_stood(api: Api) -> None:
    device = api.rig.device()
    api.post("/rollouts", {**POLICY, "release": "gw1-1.1.0", "guards": []})
    place = api.rig.read(following.here)
    device.run(device.assignment())
    log = [one["position"] for one in api.get("/events?limit=500")["items"] if one["position"] > place.event]  # fmt: skip
    assert len(log) >= 4

    async def story() -> list[dict[str, Any]]:
        async with following_(api, "reports=true", str(place)) as one:
            return await one.until("event: event", len(log))

    told = [one for one in api.rig.loop.run_until_complete(story()) if one["event"] == "event"]
    assert [one["position"] for one in told] == log
    assert told[-1]["kind"] == "confirmed"


def test_who_was_away_for_too_long_is_told_to_look_at_everything_anew(api: Api) -> None:
    for name in ("g1", "g2", "g3"):
        _group(api, name)
    newest = api.rig.read(following.here)
    api.rig.write(lambda conn: conn.execute(delete(t.change).where(t.change.c.seq < newest.change)))
    kinds = following.KINDS
    lost, place, more = api.rig.read(lambda conn: following.since(conn, Place(1, 0), kinds, reports=False))  # fmt: skip
    assert [type(one).__name__ for _, one in lost] == ["Resync"]
    assert (place, more) == (newest, False)
    ahead = Place(newest.change + 5, 0)
    back, _, _ = api.rig.read(lambda conn: following.since(conn, ahead, kinds, reports=False))
    assert "earlier state" in back[0][1].why
    right = Place(newest.change - 1, newest.event)
    told, _, _ = api.rig.read(lambda conn: following.since(conn, right, kinds, reports=False))
    assert [one.key for _, one in told] == ["g3"]


def test_silence_is_filled_and_ends_with_the_token(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.05)

    async def story() -> str:
        async with following_(api) as one:
            await one.until("nothing new", 2)
            await asyncio.to_thread(api.accounts.revoke_token, "t-admin", _root(), int(api.rig.now))
            async with asyncio.timeout(20):
                await one.task
            return one.text

    assert ": nothing new" in api.rig.loop.run_until_complete(story())


@pytest.mark.parametrize("end", ["revoked", "narrowed"])
def test_a_stream_on_which_something_always_happens_ends_with_the_token_too(
    api: Api, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.2)
    now = int(api.rig.now)
    api.accounts.create_account("other", "admin", "words and words", _root(), now)
    api.accounts.create_account("boss", "admin", "words and words", _root(), now)
    boss = Actor(name="boss", role="admin")
    _, api.tokens["admin"] = api.accounts.create_token("busy", "admin", boss, now)

    async def story() -> str:
        async with following_(api) as one:
            await one.until("follow")
            if end == "revoked":
                await asyncio.to_thread(api.accounts.revoke_token, "busy", _root(), now)
            else:
                work = functools.partial(api.accounts.edit_account, "boss", _root(), now)
                await asyncio.to_thread(work, grants=["viewer@product:gw1"])
            async with asyncio.timeout(20):
                for number in itertools.count():
                    if one.task.done():
                        break
                    await asyncio.to_thread(_group, api, f"busy{number}")
            return one.text

    text = api.rig.loop.run_until_complete(story())
    assert "busy0" in text
    assert "nothing new" not in text


def test_many_who_ask_at_once_get_no_more_streams_than_in_turn(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "STREAMS_MAX", 2)

    async def story() -> int:
        held = [Follower(api) for _ in range(6)]
        for done in itertools.islice(asyncio.as_completed([one.task for one in held]), 4):
            async with asyncio.timeout(20):
                await done
        found = sum("follow" in one.text for one in held)
        for one in held:
            await one.leave()
        return found

    assert api.rig.loop.run_until_complete(story()) == 2


def _root() -> Actor:
    return Actor(name="root", role="admin")


def test_one_person_has_a_bounded_number_of_streams_and_gets_them_back(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "STREAMS_MAX", 2)

    async def story() -> tuple[int, str, int]:
        held = [Follower(api), Follower(api)]
        for one in held:
            await one.until("follow")
        third = Follower(api)
        await third.task
        for one in held:
            await one.leave()
        async with following_(api) as again:
            await again.until("follow")
            return third.status, third.text, again.status

    status, text, again = api.rig.loop.run_until_complete(story())
    assert (status, json.loads(text)["code"], again) == (429, "request.rate_limited", 200)


@pytest.mark.parametrize(("query", "last"), [("kinds=grup", ""), ("", "x"), ("", "1.-2"), ("", "9" * 39)])  # fmt: skip
def test_what_cannot_be_followed_is_refused(api: Api, query: str, last: str) -> None:
    async def story() -> Follower:
        one = Follower(api, query, last)
        async with asyncio.timeout(20):
            await one.task
        return one

    refused = api.rig.loop.run_until_complete(story())
    assert (refused.status, json.loads(refused.text)["code"]) == (400, "request.invalid")
