"""What is old goes, in small steps; what a running or watched rollout rests on stays; and no counter notices."""

from typing import Any

import msgspec
import pytest
from sqlalchemy import func, insert, select, update
from tests.unit.server.rig import Device, Rig

from tidegate.server import retention
from tidegate.server.retention import Retention
from tidegate.server.store import Connection, tables
from tidegate.server.tick import WATCH_S, tick

DAY = 86_400
YEARS = 3 * 365 * DAY


def count(rig: Rig, table: Any, *where: Any) -> int:
    return int(
        rig.read(
            lambda conn: conn.execute(
                select(func.count()).select_from(table).where(*where)
            ).scalar()
        )
    )


@pytest.fixture
def old(rig: Rig) -> Rig:
    """Two rollouts of three years ago; everybody confirmed both. `r2` is still active."""
    rig.publish_trust()
    for number in (1, 2):
        target = rig.release(number)
        rollout = rig.rollout(target, name=f"r{number}")
        for device in (Device(rig, f"d{n}") for n in range(3)):
            if number == 1:
                rig.device(device.id)
            device.log_in()
            device.seq, device.counter = (number - 1) * 10, number - 1
            device.run(device.assignment())
            device.tell("heartbeat")
        if number == 1:
            rig.set_rollout(rollout, state="completed", ended_at=int(rig.now))
    rig.write(lambda conn: conn.execute(update(tables.update).values(detail="words of a device")))
    return rig


def forget(rig: Rig, **settings: Any) -> int:
    found = msgspec.structs.replace(rig.app.services.settings, **settings)
    begun = _begun(rig)
    return Retention(found).step(rig.app.store, begun, int(rig.now))


def _begun(rig: Rig) -> list[int]:
    from tidegate.server.store import admin_rollouts

    since = int(rig.now) - WATCH_S
    found: list[int] = rig.read(lambda conn: admin_rollouts.begun(conn, since))
    return found


def test_nothing_is_forgotten_before_its_time(old: Rig) -> None:
    before = {one.name: count(old, one) for one in tables.metadata.sorted_tables}
    old.now += 30 * DAY
    forget(old, keep_samples_s=0)
    assert {one.name: count(old, one) for one in tables.metadata.sorted_tables} == before


def test_events_of_closed_rollouts_go_and_those_of_running_ones_stay(old: Rig) -> None:
    e, u = tables.event, tables.update
    running = e.c.update_id.in_(select(u.c.id).where(u.c.rollout_id == 2))
    kept = count(old, e, running)
    assert kept > 0
    assert count(old, e) > 2 * kept
    old.now += YEARS
    forget(old)
    assert count(old, e) == count(old, e, running) == kept
    assert count(old, u) == 6


def test_details_and_permits_of_closed_rollouts_go_and_updates_stay(old: Rig) -> None:
    u = tables.update.c
    assert count(old, tables.permit) == 6
    old.now += YEARS
    forget(old)
    assert count(old, tables.update, u.rollout_id == 1, u.detail == "") == 3
    assert count(old, tables.update, u.rollout_id == 2, u.detail != "") == 3
    assert count(old, tables.permit) == 3


@pytest.mark.parametrize("incident", ["open", "mitigated", "closed"])
def test_what_an_incident_rests_on_stays_until_it_is_closed(old: Rig, incident: str) -> None:
    def work(conn: Connection) -> None:
        row = {
            "name": "INC-1", "rollout_id": 1, "kind": "halt", "state": incident, "summary": "",
            "because": [], "opened_at": 1, "opened_by": "x",
        }  # fmt: skip
        conn.execute(insert(tables.incident).values(**row))

    old.write(work)
    old.now += YEARS
    forget(old)
    left = count(old, tables.update, tables.update.c.rollout_id == 1, tables.update.c.detail != "")
    assert left == (0 if incident == "closed" else 3)


def test_a_rollout_that_is_watched_keeps_its_events(old: Rig) -> None:
    """Completed long ago, but somebody got a permit lately: its late harm is still looked for."""
    old.now += YEARS
    name = tables.tally.c.name == "last_permit_at"
    old.write(
        lambda conn: conn.execute(
            update(tables.tally)
            .where(name, tables.tally.c.rollout_id == 1)
            .values(value=int(old.now))
        )
    )
    before = count(old, tables.event, tables.event.c.update_id.is_not(None))
    forget(old)
    assert count(old, tables.event, tables.event.c.update_id.is_not(None)) == before


def test_no_counter_notices(old: Rig) -> None:
    def shown() -> list[str]:
        words = (
            "tidegate_rollout_updates",
            "tidegate_update_ends",
            "tidegate_updates{",
            "tidegate_device_download",
            "tidegate_rollout_bytes",
            "tidegate_firmware",
        )
        return [line for line in old.scrape().splitlines() if line.startswith(words)]

    before = shown()
    old.now += YEARS
    assert forget(old) > 0
    assert shown() == before


def test_messages_that_are_settled_go_and_those_that_are_owed_stay(old: Rig) -> None:
    def work(conn: Connection) -> None:
        for done in (None, int(old.now)):
            conn.execute(
                insert(tables.outbox).values(
                    kind="webhook", payload={}, created_at=1, next_at=1, done_at=done
                )
            )

    old.write(work)
    old.now += 91 * DAY
    forget(old)
    assert (
        count(old, tables.outbox)
        == count(old, tables.outbox, tables.outbox.c.done_at.is_(None))
        == 1
    )


@pytest.mark.sqlite(
    "where there are several processes, rows carry the machine's time and go by number"
)
def test_changes_do_not_grow_for_ever_on_a_server_of_one_process(
    old: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "KEPT", 5)
    newest = old.read(lambda conn: conn.execute(select(func.max(tables.change.c.seq))).scalar())
    assert count(old, tables.change) > 10
    forget(old)
    assert count(old, tables.change) > 10
    old.now += 2 * DAY
    forget(old)
    assert count(old, tables.change) == 5
    assert newest == old.read(
        lambda conn: conn.execute(select(func.max(tables.change.c.seq))).scalar()
    )


def test_the_chart_keeps_four_samples_a_day_of_what_is_old(rig: Rig) -> None:
    start = int(rig.now) - int(rig.now) % DAY

    def work(conn: Connection) -> None:
        rows = [
            {"at": at, "product": "gw1", "counter": 1, "version": "", "devices": 1}
            for at in range(start, start + 3 * DAY, 300)
        ]
        conn.execute(insert(tables.firmware_sample), rows)

    rig.write(work)
    rig.now = start + 36 * DAY
    forget(rig)
    sample = tables.firmware_sample
    assert count(rig, sample, sample.c.at < start + DAY) == 4
    assert count(rig, sample, sample.c.at >= start + DAY) == 2 * 288


def test_never_forgets_nothing(old: Rig) -> None:
    old.now += YEARS
    before = count(old, tables.event)
    forget(old, keep_events_s=0, keep_details_s=0, keep_messages_s=0, keep_samples_s=0)
    assert count(old, tables.event) == before


def test_it_goes_in_small_steps_and_goes_on_with_the_next_tick(
    old: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "STEP", 2)
    monkeypatch.setattr(retention, "STEPS_MAX", 3)
    old.now += YEARS
    begun = _begun(old)
    made = Retention(old.app.services.settings)
    commits = old.app.store.commits.work
    done = [made.step(old.app.store, begun, int(old.now)) for _ in range(20)]
    assert max(done) <= 6
    assert done[0] == 6
    assert done[-1] == 0
    assert old.app.store.commits.work - commits <= 3 * 20
    assert count(old, tables.permit) == 3


def test_the_tick_does_it(old: Rig) -> None:
    services = old.app.services
    services.settings = msgspec.structs.replace(services.settings, keep_events_s=30 * DAY)
    old.now += 31 * DAY
    assert tick(old.app.services, int(old.now)).leader
    assert count(old, tables.event, tables.event.c.update_id.is_(None)) == 0


def test_the_border_is_found_by_halving_whatever_gaps_there_are(rig: Rig) -> None:
    from tidegate.server.store import retention_rows

    def work(conn: Connection) -> list[int]:
        rows = [
            {"position": number, "device_row": 1, "seq": number, "received_at": 100 + number // 3,
             "at": 0, "kind": "heartbeat", "body": ""}
            for number in range(3, 400, 7)
        ]  # fmt: skip
        conn.execute(insert(tables.event), rows)
        for before in range(95, 240):
            below = retention_rows.border(conn, tables.event, "position", "received_at", before)
            older = {one["position"] for one in rows if int(str(one["received_at"])) < before}
            assert {one["position"] for one in rows if int(str(one["position"])) < below} == older
        return []

    rig.write(work)
