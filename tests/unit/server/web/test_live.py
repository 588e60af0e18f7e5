import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.browser.accounts import ALL, FixtureAuth
from tests.browser.fixtures import FixtureStory
from tests.browser.records import NOW

from tidegate.core.errors import RequestError
from tidegate.server.web import live
from tidegate.server.web.live import Listener, Pulse, event
from tidegate.server.web.reader import Account
from tidegate.server.web.render import LIVE
from tidegate.server.web.site import Site, Visit

VISIT = Visit(Account("jonas.weber", "approver", ALL), "session-jonas.weber", NOW)


def site(story: FixtureStory) -> Site:
    auth = FixtureAuth({"session-jonas.weber"})
    return Site(story, story, auth, lambda: NOW)


def names(events: list[bytes]) -> set[str]:
    return {
        line[7:]
        for item in events
        for line in item.decode().split("\n")
        if line.startswith("event: ")
    }


def test_an_event_is_framed_line_by_line_and_carries_its_position() -> None:
    assert event("facts", "<dl>\n</dl>", 7) == b"id: 7\nevent: facts\ndata: <dl>\ndata: </dl>\n\n"


def test_only_what_changed_is_sent() -> None:
    story = FixtureStory()

    async def run() -> tuple[list[bytes], list[bytes], list[bytes]]:
        listener = Listener(site(story), Pulse(), VISIT, "rollout", "gw1-2.5.0")
        first = await listener.fragments(100)
        same = await listener.fragments(101)
        story.confirmed += 1
        changed = await listener.fragments(102)
        return first, same, changed

    first, same, changed = asyncio.run(run())
    assert names(first) == set(LIVE["rollout"])
    assert same == []
    assert names(changed) == {"rings"}


def test_a_page_that_is_as_new_as_the_stream_is_sent_nothing_at_first() -> None:
    async def run() -> list[bytes]:
        listener = Listener(site(FixtureStory()), Pulse(), VISIT, "fleet", "")
        return await listener.fragments(100, quiet=True) + await listener.fragments(101)

    assert asyncio.run(run()) == []


def test_a_halt_reaches_an_open_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "TICK_S", 0.01)
    story = FixtureStory()

    async def run() -> set[str]:
        stream: AsyncIterator[bytes] = Listener(
            site(story), Pulse(), VISIT, "rollout", "gw1-2.5.0"
        ).run(since=100)
        assert await anext(stream) == b"retry: 3000\n\n"
        story.tell_rollout("halt", "gw1-2.5.0", VISIT.account, "", {}, NOW)
        seen: list[bytes] = []
        while "head" not in names(seen):
            seen.append(await asyncio.wait_for(anext(stream), 5))
        return {
            line for item in seen for line in item.decode().split("\n") if "Halted by gate" in line
        }

    assert asyncio.run(run())


def test_evidence_is_drawn_live_only_where_a_policy_weighs_it() -> None:
    def regions(name: str) -> set[str]:
        listener = Listener(site(FixtureStory()), Pulse(), VISIT, "rollout", name)
        return names(asyncio.run(listener.fragments(100)))

    weighed = {"evidence", "proof", "permits", "normal"}
    assert weighed <= regions("gw1-2.5.0")
    assert weighed <= regions("gw1-2.6.0")
    assert not weighed & regions("config-7")


def test_a_quiet_stream_beats_and_ends_with_its_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "TICK_S", 0.01)
    monkeypatch.setattr(live, "BEAT_S", 0.02)
    monkeypatch.setattr(live, "RECHECK_S", 0.1)
    where = site(FixtureStory())

    async def run() -> list[bytes]:
        listener = Listener(where, Pulse(), VISIT, "fleet", "")
        out = []
        async for item in listener.run(since=100):
            out.append(item)
            if len(out) == 3:
                where.auth.sign_out(VISIT.session, NOW)
        return out

    out = asyncio.run(asyncio.wait_for(run(), 20))
    assert names(out) == {"beat"}


@pytest.mark.parametrize("change", ["holds less", "sees less"])
def test_a_stream_ends_when_its_reader_may_see_less_than_at_its_beginning(
    monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Who signs in by a provider keeps a session when their groups change; and a device can leave the group by which it is seen."""
    monkeypatch.setattr(live, "TICK_S", 0.01)
    monkeypatch.setattr(live, "BEAT_S", 0.02)
    monkeypatch.setattr(live, "RECHECK_S", 0.1)
    where = site(FixtureStory())

    def lost(*_: object) -> Account:
        return Account("jonas.weber", "viewer", frozenset({"fleet.read"}))

    def refuse(*_: object) -> None:
        raise RequestError("request.not_found", "no such device")

    async def run() -> list[bytes]:
        listener = Listener(where, Pulse(), VISIT, "device", "d-1")
        out = []
        async for item in listener.run(since=100):
            out.append(item)
            if len(out) == 3:
                named = ("account", lost) if change == "holds less" else ("check", refuse)
                monkeypatch.setattr(where.auth, *named)
        return out

    assert asyncio.run(asyncio.wait_for(run(), 20))


def test_many_listeners_share_one_look_and_one_view() -> None:
    story = FixtureStory()
    looks: list[int] = []

    class Counting(FixtureStory):
        def position(self) -> int:
            looks.append(1)
            return 100

    counting = Counting(confirmed=story.confirmed)

    async def run() -> list[int]:
        where, pulse = site(counting), Pulse()
        return list(await asyncio.gather(*(pulse.position(where) for _ in range(50))))

    assert asyncio.run(run()) == [100] * 50
    assert len(looks) == 1
