"""Several server processes on one database: what one acknowledges counts in all, and who cannot look lets nobody begin."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.unit.server.rig import Device, Rig

from tidegate.rollout import engine
from tidegate.server import devices, planning
from tidegate.server.audiences import Audiences
from tidegate.server.auth import Actor
from tidegate.server.operations import Operations
from tidegate.server.store import (
    Connection,
    admin_log,
    admin_rollouts,
    changes,
    shared,
)
from tidegate.server.store.postgres import PostgresStore
from tidegate.server.store.sqlite import SqliteStore
from tidegate.server.store.writer import Writer
from tidegate.server.tick import LEASE, LEASE_S, tick

OLGA = Actor(name="olga", role="operator")


class Pair:
    """Two servers on one database, and devices that ask whichever they like."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.one = Rig(folder, shared=True, url=url)
        self.two = Rig(folder, shared=True, offline=self.one.offline, url=url)

    def close(self) -> None:
        self.two.close()
        self.one.close()

    def device(self, name: str = "d1") -> tuple[Device, Device]:
        """Return a device as a client of the one, and the same as a client of the other."""
        here = self.one.device(name)
        there = Device(self.two, name, token=here.token)
        self.one.app.store.settle()
        return here, there

    def act(self, verb: str, name: str = "r-gw1-1.1.0", **detail: str) -> None:
        """Do what an operator asks of the one, up to its acknowledgement."""
        at = int(self.one.now)
        Operations(self.one.app.services).act(name, verb, OLGA, "why", at, detail=detail)
        self.one.app.store.settle()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path / "data")
    yield made
    made.close()


def stuck(rig: Rig) -> threading.Lock:
    """Keep a server from taking in what others change, as one whose threads get no time."""
    store = rig.app.store
    assert isinstance(store, Writer)
    store._telling.acquire()
    return store._telling


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.01)
    return holds()


def test_a_halt_that_one_process_acknowledges_none_goes_past(pair: Pair) -> None:
    pair.one.publish_trust()
    pair.one.rollout(pair.one.release(1))
    here, there = pair.device()
    late = pair.device("d2")[1]
    assert there.poll().work
    body = here.assignment()
    here.tell("staged", body, bytes=1)
    pair.act("halt")
    # The very next question to the other process, not one that comes after a while.
    assert not late.poll().work
    assert late.assignment().action == "none"
    assert "halted" in there.permit(body).because
    assert there.poll().gate_epoch == here.poll().gate_epoch > 0


def test_who_is_revoked_in_one_process_is_nobody_in_the_other(pair: Pair) -> None:
    here, there = pair.device()
    assert there.poll().poll_after_s > 0
    # The other one is a little slow to take it in: that is waited for.
    threading.Timer(0.3, stuck(pair.two).release).start()
    pair.one.write(lambda conn: devices.set_state(conn, 1, "revoked", int(pair.one.now)))
    pair.one.app.store.settle()
    assert there.ask("GET", "/d/v1/poll").code == "device.revoked"
    assert here.ask("GET", "/d/v1/poll").code == "device.revoked"


def test_sessions_of_a_new_day_and_new_metadata_are_known_to_both(pair: Pair) -> None:
    pair.one.publish_trust()
    pair.one.release(1)
    pair.one.now += 86_400
    pair.two.now += 86_400
    there = pair.device()[1]
    assert there.poll().poll_after_s > 0
    pair.one.release(2)
    pair.one.app.store.settle()
    assert pair.two.app.services.repository.versions == pair.one.app.services.repository.versions


def test_a_process_that_cannot_look_lets_nobody_begin_and_holds_up_a_halt_for_its_lease_only(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.one.publish_trust()
    pair.one.rollout(pair.one.release(1))
    there = pair.device()[1]
    assert there.poll().work
    monkeypatch.setattr(shared, "LEASE_S", 0.5)
    store = pair.two.app.store
    assert isinstance(store, SqliteStore | PostgresStore)
    others = store._shared
    assert others is not None
    assert within(10, lambda: others._fresh_until < shared.clock_s() + 0.5)
    lock = stuck(pair.two)
    try:
        began = time.monotonic()
        pair.act("halt")
        assert 0.4 < time.monotonic() - began < 5
        assert not pair.two.app.store.fresh
        assert not there.poll().work
        refused = there.ask("POST", "/d/v1/assignment", {})
        assert (refused.status, refused.code) == (503, "server.busy")
    finally:
        lock.release()
    assert within(10, lambda: pair.two.app.store.fresh)
    pair.act("resume")
    # a lease of half a second runs out on a busy machine, and that may delay a start
    assert within(10, lambda: there.poll().work)


def test_who_is_too_far_behind_reads_everything_anew(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "KEPT", 10)
    there = pair.device()[1]
    lock = stuck(pair.two)
    try:
        pair.one.write(lambda conn: devices.set_state(conn, 1, "revoked", int(pair.one.now)))

        def many(conn: Connection) -> None:
            for number in range(1_500):
                changes.notify(conn, "because", str(number))

        pair.one.write(many)
    finally:
        lock.release()
    pair.one.app.store.settle()
    assert there.ask("GET", "/d/v1/poll").code == "device.revoked"


def test_numbers_of_a_transaction_that_was_undone_are_heard_when_others_use_them(
    pair: Pair,
) -> None:
    heard: list[str] = []
    pair.one.app.store.subscribe(lambda changed: heard.extend(one.key for one in changed))

    def fails(conn: Connection) -> None:
        changes.notify(conn, "because", "undone")
        raise KeyboardInterrupt  # the whole group is undone, as when the disk is full

    with pytest.raises(KeyboardInterrupt):
        pair.one.write(fails)
    pair.two.write(lambda conn: changes.notify(conn, "because", "theirs"))
    pair.two.app.store.settle()
    assert heard == ["theirs"]


def test_a_busy_process_does_not_keep_another_from_writing(pair: Pair) -> None:
    stop = threading.Event()

    def slow(conn: Connection) -> None:
        changes.notify(conn, "because", "x")
        time.sleep(0.002)

    def busy() -> None:
        while not stop.is_set():
            pair.one.write(slow)

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(20):
            began = time.monotonic()
            pair.two.write(lambda conn: changes.notify(conn, "because", "y"))
            assert time.monotonic() - began < 3
    finally:
        stop.set()
        thread.join()


def test_a_plan_that_two_processes_make_at_once_is_applied_once(pair: Pair) -> None:
    pair.one.publish_trust()
    rollout = pair.one.rollout(pair.one.release(1))
    pair.device()
    now = int(pair.one.now)
    seen = [
        one.read(lambda conn: admin_rollouts.rollout_by_id(conn, rollout)) for one in _both(pair)
    ]
    plans = []
    for rig, row in zip(_both(pair), seen, strict=True):
        count = Audiences(rig.app.services.fleet).count
        model = planning.model_of(row)
        evidence = rig.read(
            lambda conn, row=row, model=model, count=count: planning.evidence_of(
                conn, row, model, count, now
            )
        )
        plans.append(engine.plan(model, evidence, now))
    assert plans[0] == plans[1]
    assert plans[0].changed
    results = []
    threads = [
        threading.Thread(
            target=lambda rig=rig, row=row, plan=plan: results.append(
                rig.write(lambda conn: planning.apply_plan(conn, row, plan, now))
            )
        )
        for rig, row, plan in zip(_both(pair), seen, plans, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False, True]
    row = pair.one.read(lambda conn: admin_rollouts.rollout_by_id(conn, rollout))
    assert row["generation"] == seen[0]["generation"] + 1
    assert len(pair.one.read(lambda conn: admin_log.plan_log(conn, rollout))) == 1


def _both(pair: Pair) -> tuple[Rig, Rig]:
    return pair.one, pair.two


def test_bad_news_that_one_process_takes_in_wakes_the_planner_of_the_other(pair: Pair) -> None:
    pair.one.publish_trust()
    pair.one.rollout(pair.one.release(1))
    there = pair.device()[1]
    woken = threading.Event()
    pair.one.app.services.wake = woken.set
    there.seq = 10
    body = there.assignment()
    woken.clear()
    there.tell("failed", body, reason="install.write")
    assert woken.wait(5)


def test_one_process_ticks_and_a_clock_that_steps_back_does_not_stop_the_others(pair: Pair) -> None:
    now = int(pair.one.now)
    assert tick(pair.one.app.services, now).leader
    assert not tick(pair.two.app.services, now + 1).leader
    # The leader died; the clock was an hour ahead when it took its lease.
    assert tick(pair.two.app.services, now - 3_600).leader
    assert not tick(pair.one.app.services, now - 3_590).leader
    assert tick(pair.one.app.services, now - 3_600 + LEASE_S + 1).leader
    assert pair.two.read(lambda conn: admin_log.leased(conn, LEASE, "x", now - 3_560, LEASE_S))
