"""When more comes than the database takes, what goes first goes first: polls are spread, logs, events, joining, new work; never what people do."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import msgspec
import pytest
from tests.unit.server.rig import Device, Rig

from tidegate.core.protocol import PollAnswer
from tidegate.server import load
from tidegate.server.load import LATE_MAX_S, LATE_S, LOOKS, ORDER

QUEUE = 4
JOINING = ("enrol", "session", "rekey")


@contextlib.contextmanager
def backlog(rig: Rig, count: int) -> Iterator[None]:
    """Have so many pieces of work wait for the writer."""
    services = rig.app.services
    services.settings = msgspec.structs.replace(services.settings, events_queue=QUEUE)
    started, go = threading.Event(), threading.Event()

    def stand(_: object) -> None:
        started.set()
        go.wait(20)

    futures = [rig.app.store.write(stand)]
    assert started.wait(10)
    futures += [rig.app.store.write(lambda _: None) for _ in range(count)]
    try:
        yield
    finally:
        go.set()
        for one in futures:
            one.result(20)


def refused(device: Device) -> set[str]:
    """Return what a device is refused with 503; bodies are none, so that what is let in ends before it waits."""
    found = set()
    for route in ("log", "events", "assignment", "permit", *JOINING):
        answer = device.ask("POST", f"/d/v1/{route}", b"{")
        if answer.status == 503:
            assert (answer.code, answer.headers["retry-after"]) == ("server.busy", "5")
            found.add("joining" if route in JOINING else route)
        else:
            assert answer.code == "request.invalid"
    return found


@pytest.mark.parametrize(
    ("waiting", "gone"),
    [
        (1, set()),
        (2, {"log"}),
        (4, {"log", "events"}),
        (6, {"log", "events", "joining"}),
        (8, {"log", "events", "joining", "assignment", "permit"}),
    ],
)
def test_who_is_refused_goes_in_the_stated_order(rig: Rig, waiting: int, gone: set[str]) -> None:
    device = rig.device()
    with backlog(rig, waiting):
        assert refused(device) == gone
        assert device.ask("GET", "/d/v1/poll").status == 200
    assert {one for one in ORDER if rig.app.services.counters.shed[one]} == gone
    assert 'tidegate_shed_total{what="events"}' in rig.scrape()
    assert refused(device) == set()


@pytest.mark.parametrize(
    ("waiting", "late_s", "spread"),
    [(0, 0.0, 1), (2, 0.0, 2), (4, 0.0, 4), (0, LATE_S, 2), (0, LATE_MAX_S, 4)],
)
def test_polls_are_spread_when_the_server_is_behind(
    rig: Rig, waiting: int, late_s: float, spread: int
) -> None:
    device = rig.device()
    usual = device.ask("GET", "/d/v1/poll")
    with backlog(rig, waiting):
        for _ in range(LOOKS):
            rig.app.hot.load.look(late_s)
        tag = usual.headers["etag"]
        answer = device.ask("GET", "/d/v1/poll", if_none_match=tag)
        if spread == 1:
            assert answer.status == 304
        else:
            usual_s = usual.as_(PollAnswer).poll_after_s
            assert abs(answer.as_(PollAnswer).poll_after_s - spread * usual_s) <= spread
    rig.app.hot.load.look(0.0)
    assert device.ask("GET", "/d/v1/poll", if_none_match=tag).status == 304


def test_a_loop_that_is_late_once_spreads_nobody(rig: Rig) -> None:
    for late_s in (0.0, 5.0, 0.0, 0.0, 5.0, 5.0, 0.0):
        rig.app.hot.load.look(late_s)
        assert rig.app.hot.load.spread == 1


def test_a_device_may_wait_with_the_tag_of_a_spread_answer(rig: Rig) -> None:
    device = rig.device()
    with backlog(rig, QUEUE):
        rig.app.hot.load.look(0.0)
        tag = device.ask("GET", "/d/v1/poll").headers["etag"]
    found = device.ask("GET", "/d/v1/poll", if_none_match=tag, prefer="wait=1")
    assert found.headers["preference-applied"] == "wait"


def test_a_running_server_looks_once_a_second(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "LOOK_S", 0.01)
    seen: list[float] = []
    often = asyncio.Event()

    def note(late_s: float) -> None:
        seen.append(late_s)
        if len(seen) == 3:
            often.set()

    monkeypatch.setattr(rig.app.hot.load, "look", note)

    async def live() -> None:
        rig.app.hot.load.watch()
        await asyncio.wait_for(often.wait(), 30)
        rig.app.hot.load.close()

    rig.loop.run_until_complete(live())
    assert all(late_s < 5 for late_s in seen)
