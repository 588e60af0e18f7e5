"""A device tells of restarts that nobody asked for, once each, and of no others."""

from typing import Any

import msgspec
import pytest
from tests.crash.lab import Device, make_device
from tests.unit.agent.test_machine import NOW, idle, on_trial, permitted, run, started

from tidegate.agent import arrival
from tidegate.agent.events import Beat, Started
from tidegate.agent.ledger import report
from tidegate.agent.restarts import WAITING_MAX
from tidegate.agent.runner import Runner
from tidegate.agent.state import State
from tidegate.core.protocol import EventBody, Metrics, Restart


def watched(**changes: object) -> State:
    return msgspec.structs.replace(idle(), attended="always", **changes)


def boot(name: str = "boot-2", **changes: Any) -> Started:
    return started("A", name, marks={"A": "good", "B": "good"}, attended=True, **changes)


def told(state: State) -> list[Restart]:
    return [one.restart for one in state.outbox if one.restart is not None]


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({}, "unknown"),
        ({"watchdog": True}, "watchdog"),
        ({"cause": "panic"}, "panic"),
        # The kernel's word is the closer one.
        ({"cause": "panic", "watchdog": True}, "panic"),
    ],
)
def test_a_boot_that_just_ended_is_told_with_what_is_known(
    changes: dict[str, Any], cause: str
) -> None:
    state = run(watched(), boot(**changes))
    assert told(state) == [Restart(boot_id="boot-1", cause=cause, always=True)]
    assert state.outbox[0].kind == "heartbeat"


@pytest.mark.parametrize(
    "event",
    [
        boot(orderly=True),
        # The agent alone was started again.
        boot("boot-1"),
        # An agent that looks once cannot say how a boot ends.
        msgspec.structs.replace(boot(), attended=False),
    ],
)
def test_what_is_no_such_restart_is_not_told(event: Started) -> None:
    assert told(run(watched(), event)) == []


@pytest.mark.parametrize("before", [permitted(), on_trial()])
def test_restarts_of_an_update_are_the_updates_own_story(before: State) -> None:
    before = msgspec.structs.replace(before, attended="always")
    assert told(run(before, started("B", "boot-9", attended=True))) == []


def test_a_word_of_the_watchdog_that_sticks_is_not_believed() -> None:
    state = run(watched(watchdog_before=True), boot(watchdog=True))
    assert told(state)[0].cause == "unknown"


def test_what_was_before_an_agent_looked_is_not_told_and_that_one_looks_is() -> None:
    new = run(msgspec.structs.replace(idle(), boot_id=""), boot("boot-1"))
    assert (new.attended, told(new)) == ("always", [])
    older = run(idle(), boot())
    assert (older.attended, told(older)) == ("later", [])
    assert told(run(older, boot("boot-3"))) == [Restart(boot_id="boot-2")]

    def said(state: State, *, first: bool) -> Restart | None:
        beat = run(state, Beat(now=NOW, metrics=Metrics(), first=first)).beat
        assert beat is not None
        return beat.restart

    assert said(new, first=True) == Restart(count=0, always=True)
    assert said(older, first=True) == Restart(count=0)
    assert said(older, first=False) is None
    assert said(idle(), first=True) is None


def test_a_lost_journal_makes_nobody_new() -> None:
    state = run(msgspec.structs.replace(idle(), boot_id="", damaged=True), boot())
    assert (state.attended, told(state)) == ("later", [])


def test_a_board_that_crashes_on_and_on_away_from_its_server_adds_to_one_report() -> None:
    state = watched()
    for number in range(2, 22):
        state = run(state, boot(f"boot-{number}"))
    assert len(told(state)) == WAITING_MAX
    assert sum(one.count for one in told(state)) == 20
    assert told(state)[-1].boot_id == "boot-20"
    assert len({one.seq for one in state.outbox}) == WAITING_MAX


def test_it_makes_room_before_an_outcome_does() -> None:
    state = run(watched(), boot())
    for _ in range(200):
        state = report(state, NOW, "confirmed", None)
    assert told(state) == []


def test_an_older_server_and_an_older_device_are_understood() -> None:
    fields = [
        (one.name, one.type, one.default if one.default is not msgspec.NODEFAULT else ...)
        for one in msgspec.structs.fields(EventBody)
        if one.name in {"device_id", "seq", "at", "kind", "metrics"}
    ]
    older = msgspec.defstruct(
        "Older", [(name, kind) if default is ... else (name, kind, default) for name, kind, default in fields]
    )  # fmt: skip
    body = EventBody(device_id="d1", seq=1, at=1, kind="heartbeat", restart=Restart(cause="panic"))
    assert (
        msgspec.to_builtins(msgspec.json.decode(msgspec.json.encode(body), type=older))["seq"] == 1
    )
    plain = msgspec.structs.replace(body, restart=None)
    assert b"restart" not in msgspec.json.encode(plain)
    assert msgspec.json.decode(msgspec.json.encode(plain), type=EventBody).restart is None


# --- with ports ---


def begun(runner: Runner) -> Runner:
    for _ in range(2):
        runner.tick()
    return runner


def booted(device: Device) -> Runner:
    """Restart the machine."""
    device.start()
    assert device.runner is not None
    return begun(device.runner)


def again(device: Device, *, stays: bool = True) -> Runner:
    """Start the agent again in the same boot."""
    assert device.runner is not None
    runner = Runner(device.runner.ports, device.settings)
    runner.stays = stays
    return begun(runner)


def test_the_mark_lives_from_one_stop_to_the_next_start() -> None:
    device = make_device(1)
    storage = device.board.storage
    booted(device).stopped()
    assert storage.read(arrival.MARK) == device.board.boot_id().encode()
    assert told(booted(device).state) == [], "it was told to stop before the restart"
    assert storage.read(arrival.MARK) is None
    gone = device.board.boot_id()
    assert told(booted(device).state) == [Restart(boot_id=gone, always=True)]


def test_an_agent_that_was_stopped_and_started_again_saw_no_shutdown() -> None:
    device = make_device(1)
    booted(device).stopped()
    again(device)
    assert len(told(booted(device).state)) == 1


def test_the_mark_of_another_boot_says_nothing_of_this_one() -> None:
    """The power went between the journal and the mark: it still stands when the next boot ends."""
    device = make_device(1)
    booted(device).stopped()
    left = device.board.storage.read(arrival.MARK)
    assert left is not None
    booted(device)
    second = device.board.boot_id()
    device.board.storage.write(arrival.MARK, left)
    assert [one.boot_id for one in told(booted(device).state)] == [second]


def test_polls_write_nothing_of_it() -> None:
    device = make_device(1)
    booted(device)
    before = device.board.power.operations
    device.settle()
    for _ in device.run(20 * 3600):
        pass
    assert len(device.plane.kinds()) == 0
    # The journal at the first poll: a block of numbers for heartbeats, in two files at most.
    assert device.board.power.operations <= before + 12


def test_a_crash_that_the_kernel_wrote_down_is_called_one() -> None:
    device = make_device(1)
    booted(device)
    device.board.panicked = True
    assert told(booted(device).state)[0].cause == "panic"
    assert not device.board.panicked, "it says so once"


def test_an_agent_that_looks_once_says_nothing_and_writes_no_mark() -> None:
    device = make_device(1)
    booted(device)
    device.start()
    runner = again(device, stays=False)
    runner.stopped()
    assert told(runner.state) == []
    assert device.board.storage.read(arrival.MARK) is None


def test_it_is_told_to_the_server_once() -> None:
    device = make_device(1)
    booted(device)
    gone = device.board.boot_id()
    device.start()
    device.settle()
    for _ in device.run(7200):
        pass
    heard = [one.restart for one in device.plane.events.values() if one.restart is not None]
    assert sorted((one.boot_id, one.count) for one in heard) == [("", 0), (gone, 1)]
