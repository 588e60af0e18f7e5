"""Devices that stay connected: a poll is held until there is news, a stop reaches everybody, and nobody is held who does not know how things stand."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest
from tests.unit.server.rig import Answer, Device, Rig, ask

from tidegate.core.protocol import PollAnswer
from tidegate.server import devices
from tidegate.server.wakeup import SPREAD_MAX_S, Waiters, asked_s

#: Longer than any test takes: whoever is answered before was woken.
LONG = "wait=50"


def held(device: Device, tag: str, prefer: str = LONG) -> Coroutine[Any, Any, Answer]:
    headers = {"authorization": f"Bearer {device.token}", "if-none-match": tag, "prefer": prefer}
    return ask(device.rig.app, "GET", "/d/v1/poll", headers)


def tag_of(device: Device) -> str:
    return device.ask("GET", "/d/v1/poll").headers["etag"]


async def waiting(rig: Rig, *polls: Coroutine[Any, Any, Answer]) -> list["asyncio.Task[Answer]"]:
    """Begin polls, and see that all of them are held."""
    tasks = [asyncio.create_task(one) for one in polls]
    for _ in range(100):
        await asyncio.sleep(0.001)
        if len(rig.app.hot.polls.waiters) == len(tasks):
            return tasks
    raise AssertionError([one.result() for one in tasks if one.done()])


async def answers(tasks: list["asyncio.Task[Answer]"]) -> list[Answer]:
    return list(await asyncio.wait_for(asyncio.gather(*tasks), 10))


def test_a_device_that_waits_hears_of_a_stop_at_once(rig: Rig) -> None:
    rig.publish_trust()
    old = rig.rollout(rig.release(5), audience="id=nobody")
    them = [rig.device(f"d{n}") for n in range(20)]
    tags = [tag_of(one) for one in them]

    async def scene() -> list[Answer]:
        tasks = await waiting(rig, *(held(one, tag) for one, tag in zip(them, tags, strict=True)))
        rig.set_rollout(old, state="halted")
        began = time.monotonic()
        found = await answers(tasks)
        assert time.monotonic() - began < 5
        return found

    for answer in rig.loop.run_until_complete(scene()):
        assert answer.as_(PollAnswer).gate_epoch == 1
        assert answer.headers["preference-applied"] == "wait"


def test_a_device_that_waits_hears_of_a_release_for_it_and_others_do_not(rig: Rig) -> None:
    rig.publish_trust()
    target = rig.release(5)
    wanted, other = rig.device("d1"), rig.device("d2")
    tags = tag_of(wanted), tag_of(other)

    async def scene() -> Answer:
        first, second = await waiting(rig, held(wanted, tags[0]), held(other, tags[1]))
        rig.rollout(target, audience="id=d1")
        [answer] = await answers([first])
        assert not second.done()
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        return answer

    assert rig.loop.run_until_complete(scene()).as_(PollAnswer).work
    assert not len(rig.app.hot.polls.waiters)


def test_the_answer_comes_when_the_time_is_over(rig: Rig) -> None:
    device = rig.device()
    tag = tag_of(device)
    began = time.monotonic()
    answer = rig.loop.run_until_complete(held(device, tag, "respond-async, wait=2; x=1"))
    assert 0.5 < time.monotonic() - began < 10
    assert (answer.status, answer.headers["preference-applied"]) == (304, "wait")


@pytest.mark.parametrize(
    ("tag", "prefer"),
    [
        ("", LONG),  # knows nothing
        ('"1-7-00"', LONG),  # has not heard of the last stop
        ("*", LONG),
        ('"x"', LONG),
        (None, "wait=0"),
        (None, "wait=-5"),
        (None, "wait=999999999999"),
        (None, "wait"),
        (None, "return=minimal"),
    ],
)
def test_nobody_is_held_who_does_not_know_how_things_stand_or_did_not_ask(
    rig: Rig, tag: str | None, prefer: str
) -> None:
    device = rig.device()
    known = tag_of(device) if tag is None else tag
    answer = rig.loop.run_until_complete(asyncio.wait_for(held(device, known, prefer), 5))
    assert answer.status in {200, 304}
    assert "preference-applied" not in answer.headers


def test_a_device_with_work_is_not_held(rig: Rig) -> None:
    rig.publish_trust()
    device = rig.device()
    rig.rollout(rig.release(5))
    answer = rig.loop.run_until_complete(asyncio.wait_for(held(device, tag_of(device)), 5))
    assert answer.status == 304
    assert "preference-applied" not in answer.headers


def test_a_change_between_the_answer_and_the_wait_is_not_missed(rig: Rig) -> None:
    device = rig.device()
    tag = tag_of(device)
    polls = rig.app.hot.polls
    hint = polls._hint
    made: list[int] = []

    def late(token: bytes | None) -> Any:
        found = hint(token)
        if not made:  # somebody stops a rollout right after the answer was looked up
            made.append(1)
            rig.write(_stop)
        return found

    def _stop(conn: Any) -> None:
        from tidegate.server.store import changes, hot

        hot.raise_gate_epoch(conn, "default")
        changes.bump(conn, "gate", "1", int(rig.now))

    polls._hint = late  # type: ignore[method-assign]
    answer = rig.loop.run_until_complete(asyncio.wait_for(held(device, tag), 5))
    assert answer.as_(PollAnswer).gate_epoch == 1


def test_a_device_that_is_revoked_while_it_waits_is_told_so(rig: Rig) -> None:
    device = rig.device()
    tag = tag_of(device)

    async def scene() -> Answer:
        tasks = await waiting(rig, held(device, tag))
        rig.write(lambda conn: devices.set_state(conn, 1, "revoked", int(rig.now)))
        return (await answers(tasks))[0]

    assert rig.loop.run_until_complete(scene()).code == "device.revoked"


def test_a_newer_question_of_a_device_takes_the_place_of_the_older(rig: Rig) -> None:
    device = rig.device()
    tag = tag_of(device)

    async def scene() -> None:
        [older] = await waiting(rig, held(device, tag))
        newer = asyncio.create_task(held(device, tag))
        assert (await answers([older]))[0].status == 304
        assert not newer.done()
        assert len(rig.app.hot.polls.waiters) == 1
        rig.app.hot.polls.waiters.close()
        await answers([newer])
        # a server that is about to stop holds nobody
        assert (await asyncio.wait_for(held(device, tag), 5)).status == 304

    rig.loop.run_until_complete(scene())


def test_there_is_a_bound_to_how_many_wait() -> None:
    async def scene() -> None:
        waiters = Waiters(2)
        tasks = [asyncio.create_task(waiters.wait(row, 50)) for row in range(3)]
        await asyncio.sleep(0.01)
        assert [one.done() for one in tasks] == [False, False, True]
        assert tasks[2].result() is False
        waiters.wake([0, 7])
        assert await asyncio.wait_for(tasks[0], 5)
        assert len(waiters) == 1
        await waiters.wake_all()
        assert await asyncio.wait_for(tasks[1], 5)
        assert not len(waiters)

    asyncio.run(scene())


def test_a_release_wakes_a_crowd_spread_over_a_while_and_a_stop_wakes_it_at_once() -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        waiters = Waiters(5_000)
        tasks = [asyncio.create_task(waiters.wait(row, 500)) for row in range(1, 2_001)]
        await asyncio.sleep(0)
        later: list[float] = []
        call_later = loop.call_later

        def noted(delay: float, *what: Any) -> asyncio.TimerHandle:
            later.append(delay)
            return call_later(delay, *what)

        loop.call_later = noted  # type: ignore[method-assign,assignment]
        await waiters.wake_those(lambda row: row <= 1_000)
        loop.call_later = call_later  # type: ignore[method-assign]
        assert len(later) == 1_000
        assert 0 <= min(later) < 0.2
        assert 4 < max(later) <= min(5, SPREAD_MAX_S)  # a thousand, two hundred a second
        assert sum(one < 2.5 for one in later) in range(400, 600)
        await waiters.wake_all()
        began = time.monotonic()
        assert all(await asyncio.wait_for(asyncio.gather(*tasks), 5))
        assert time.monotonic() - began < 3

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"wait=30", 30),
        (b'respond-async, WAIT="30"; foo', 30),
        (b"wait = 30", 30),
        (b"wait=3.5", 0),
        (b"wait=", 0),
        (b"waiting=30", 0),
        (b"", 0),
        (b"wait=\xb2", 0),
    ],
)
def test_reads_a_preference(text: bytes, seconds: int) -> None:
    assert asked_s(text) == seconds
