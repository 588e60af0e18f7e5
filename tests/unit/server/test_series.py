"""What is kept over time is what a count of everything anew gives, after any history: repeats, late words, lost devices, forgetting."""

from collections import Counter
from importlib import import_module
from random import Random
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, select
from tests.unit.server.rig import Device, Rig
from tests.unit.server.test_api_routes import POLICY, Api, api

from tidegate.server import outcomes, series, telemetry
from tidegate.server.retention import Retention
from tidegate.server.store import Connection, hot, tables

__all__ = ["api"]
#: Events of an update's way, and what may end it.
WAY = ("downloading", "staged", "rebooting", "verifying")
ENDS = ("confirmed", "reverted", "failed", "declined")
REASONS = ("install.write", "download.hash", "health.service", "boot.no_return")


def play(rig: Rig, random: Random, devices: list[Device], steps: int) -> None:
    """Have devices do what devices may do, in any order, and the server what it does beside."""
    orders: dict[str, Any] = {}
    sent: dict[str, Any] = {}
    for _ in range(steps):
        device = random.choice(devices)
        body = orders.get(device.id)
        match random.randrange(9):
            case 0 | 1:
                device.log_in()
                found = device.assignment()
                if found.update:
                    orders[device.id] = found
            case 2 | 3 | 4 if body:
                kind = random.choice(WAY)
                got = random.randrange(1, 9_999) if kind == "staged" else 0
                sent[device.id] = device.event(kind, body, bytes=got)
                device.report(sent[device.id])
            case 5 if body:
                device.permit(body)
            case 6 if body:
                kind = random.choice(ENDS)
                reason = None if kind == "confirmed" else random.choice(REASONS)
                sent[device.id] = device.event(kind, body, reason=reason, running_counter=1)
                device.report(sent[device.id], sent[device.id])
            case 7 if device.id in sent:
                device.report(sent[device.id])
            case 8:
                rig.now += random.choice((60, 1_800, 4_000))
                rig.write(lambda conn: telemetry.sweep_lost(conn, int(rig.now)))
            case _:
                continue


def recounted(conn: Connection, rollout: int) -> Counter[str]:
    """Count a rollout's updates anew, from their rows."""
    found: Counter[str] = Counter()
    asked = select(tables.update).where(tables.update.c.rollout_id == rollout)
    for row in conn.execute(asked):
        update = hot.UpdateRow(*row)
        found.update(outcomes.contributions(update))
        found["bytes"] += update.bytes
    return +found


def summed(rig: Rig, rollout: int) -> Counter[str]:
    told = rig.read(lambda conn: series.of_rollout(conn, rollout, "r"))
    found = Counter(told.before)
    for point in told.items:
        found.update(point.counts)
    return +found


@pytest.mark.parametrize("seed", range(4))
def test_hours_add_up_to_what_a_count_of_everything_gives(rig: Rig, seed: int) -> None:
    random = Random(seed)
    rig.publish_trust()
    rollout = rig.rollout(rig.release(1))
    devices = [rig.device(f"d{number}") for number in range(4)]
    play(rig, random, devices, 150)
    anew = rig.read(lambda conn: recounted(conn, rollout))
    assert len(anew) > 4
    assert summed(rig, rollout) == anew
    kept = Counter(rig.tallies(rollout))
    assert {name: kept[name] for name in anew if name != "bytes"} == {
        name: value for name, value in anew.items() if name != "bytes"
    }
    hours = rig.read(lambda conn: len(series.of_rollout(conn, rollout, "r").items))
    assert hours > 1
    # from the middle on: what was before is told as a sum
    middle = int(rig.now) - 7_200
    late = rig.read(lambda conn: series.of_rollout(conn, rollout, "r", since=middle))
    assert all(point.at >= middle - 3_600 for point in late.items)
    both = Counter(late.before)
    for point in late.items:
        both.update(point.counts)
    assert +both == anew
    # hours become days, and nothing is lost
    rig.now += 200 * 86_400
    settings = msgspec.structs.replace(rig.app.services.settings, keep_samples_s=35 * 86_400)
    Retention(settings).step(rig.app.store, [rollout], int(rig.now))
    assert summed(rig, rollout) == anew
    points = rig.read(lambda conn: series.of_rollout(conn, rollout, "r").items)
    assert all(point.at % 86_400 == 0 for point in points)


def test_what_was_counted_before_there_were_hours_is_in_the_first(rig: Rig) -> None:
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    step = import_module("tidegate.server.store.migrations.versions.0028_pre_rollout_hour")
    rig.publish_trust()
    rollout = rig.rollout(rig.release(1))
    play(rig, Random(9), [rig.device(f"d{number}") for number in range(3)], 60)
    anew = rig.read(lambda conn: recounted(conn, rollout))

    def again(conn: Connection) -> None:
        conn.exec_driver_sql("DROP TABLE rollout_hour")
        with Operations.context(MigrationContext.configure(conn)):
            step.upgrade()

    rig.write(again)
    assert anew["bytes"] > 0
    assert summed(rig, rollout) == anew
    told = rig.read(lambda conn: series.of_rollout(conn, rollout, "r"))
    assert len(told.items) == 1


def test_a_lie_about_bytes_does_not_spoil_the_sum(rig: Rig) -> None:
    rig.publish_trust()
    rollout = rig.rollout(rig.release(1))
    for number in range(3):
        device = rig.device(f"d{number}")
        device.tell("staged", device.assignment(), bytes=(1 << 53) - 1)
    assert summed(rig, rollout)["bytes"] == 3 * outcomes.BYTES_MAX


def test_the_fleet_by_day_and_by_version(rig: Rig) -> None:
    rig.publish_trust()
    rig.rollout(rig.release(1))
    start = int(rig.now)
    for number in range(3):
        rig.device(f"d{number}")
    rig.app.tick()
    for number in range(3):
        device = Device(rig, f"d{number}")
        device.log_in()
        device.run(device.assignment())
    rig.now += 3_600
    rig.app.tick()
    told = rig.read(lambda conn: series.of_fleet(conn, start))
    assert sum(point.counts.get("end:confirmed", 0) for point in told.days) == 3
    assert sum(point.counts.get("download.bytes", 0) for point in told.days) == 3 * 4096
    assert told.versions[-1].counts["gw1 1.1.0"] == 3
    daily = tables.daily.c
    confirmed = select(func.sum(daily.value)).where(daily.name == "end:confirmed")
    assert rig.read(lambda conn: conn.execute(confirmed).scalar()) == 3


def test_the_api_tells_both(api: Api) -> None:
    api.post("/rollouts", {**POLICY, "release": "gw1-1.1.0", "guards": []})
    device = api.rig.device("d9")
    device.run(device.assignment())
    [point] = api.get("/rollouts/gw1-1.1.0/series")["items"]
    assert point["counts"]["confirmed"] == point["counts"]["exposed"] == 1
    assert point["counts"]["bytes"] == 4096
    [day] = api.get("/series")["days"]
    assert day["counts"]["end:confirmed"] == 1
