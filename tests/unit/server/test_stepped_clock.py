"""The server's clock is wrong for a while, and set right: nothing is forgotten by it, and nobody waits until that time really comes."""

import contextlib

import msgspec
import pytest
from sqlalchemy import func, select
from tests.unit.server.rig import START, Rig
from tests.unit.server.test_webhook import Receiver, _halted, _hook

from tidegate.core.errors import PublisherError
from tidegate.rollout.model import GateSpec, Policy, RingSpec
from tidegate.server import egress, outbox, retention
from tidegate.server import tick as tick_module
from tidegate.server.egress import Budget
from tidegate.server.limits import RateLimit
from tidegate.server.store import Connection, admin_log, tables
from tidegate.server.tick import SAMPLE_S, tick

DAY = 86_400
YEAR = 365 * DAY
HOUR = 3_600


def heartbeats(rig: Rig) -> int:
    asked = select(func.count()).select_from(tables.event).where(tables.event.c.update_id.is_(None))
    return int(rig.read(lambda conn: conn.execute(asked).scalar()))


def look(rig: Rig, at: int) -> None:
    """Have the planner look; by a clock that is years ahead everything that was signed has lapsed."""
    with contextlib.suppress(PublisherError):
        tick(rig.app.services, at)


@pytest.fixture
def lived(rig: Rig) -> Rig:
    """A server that heard of a device, whose planner looked."""
    rig.publish_trust()
    rig.device().tell("heartbeat")
    look(rig, int(rig.now))
    assert heartbeats(rig) == 1
    return rig


def keep(rig: Rig, events_s: int) -> None:
    services = rig.app.services
    services.settings = msgspec.structs.replace(services.settings, keep_events_s=events_s)
    retentions = tick_module._RETENTIONS
    retentions.pop(services.fleet, None)


@pytest.mark.parametrize("ahead_s", [2 * YEAR, 70 * YEAR])
def test_a_clock_that_was_years_ahead_for_an_hour_forgets_nothing(lived: Rig, ahead_s: int) -> None:
    start = int(lived.now)
    for after_s in range(0, HOUR, 600):
        look(lived, start + ahead_s + after_s)
    look(lived, start + HOUR)
    assert heartbeats(lived) == 1


def test_a_server_that_stood_still_catches_up_by_two_days_an_hour(lived: Rig) -> None:
    keep(lived, 30 * DAY)
    start, hours = int(lived.now) + 40 * DAY, 0
    while heartbeats(lived) and hours < 100:
        look(lived, start + hours * HOUR)
        hours += 1
    assert 15 <= hours <= 17


@pytest.mark.parametrize("wrong", [60, START - YEAR])
def test_a_clock_that_was_behind_does_not_put_forgetting_off(lived: Rig, wrong: int) -> None:
    keep(lived, DAY // 2)
    look(lived, wrong)
    look(lived, int(lived.now) + DAY)
    assert heartbeats(lived) == 0


def test_a_fresh_server_whose_clock_was_not_set_yet_forgets_in_time_once_it_is(rig: Rig) -> None:
    belief, now = retention.Belief(), int(rig.now)
    assert belief.until(rig.app.store, 60) == 60
    assert belief.until(rig.app.store, now) == now
    assert rig.read(admin_log.believed) == now


def test_bytes_taken_by_a_clock_ahead_hold_nobody_up_once_it_is_right(rig: Rig) -> None:
    rig.publish_trust()
    rig.release(1)
    length = int(rig.read(lambda conn: conn.execute(select(func.max(tables.artifact.c.length))).scalar()))  # fmt: skip
    budget = Budget(rate=max(1, length // 100), site_rate=max(1, length // 200))
    now = int(rig.now)

    def take(at: int) -> egress.Wait | None:
        def work(conn: Connection) -> egress.Wait | None:
            return egress.take(conn, budget, tenant="default", site="s1", length=length, now=at)

        found: egress.Wait | None = rig.write(work)
        return found

    assert take(now + YEAR) is None
    assert take(now + YEAR) is not None
    assert rig.read(lambda conn: egress.waits(conn, budget, tenant="default", now=now)) == []
    assert take(now) is None
    must = take(now)
    assert must is not None  # and the budget is one again
    assert must.after_s <= 200
    assert take(now + 300) is None


def test_who_sent_too_much_by_a_clock_ahead_may_send_again_soon() -> None:
    limit = RateLimit(per_s=1, burst=10)
    assert limit.take("d1", 1_000_000, 10)
    assert not limit.take("d1", 1_000_000)
    assert not limit.take("d1", 1000)
    assert limit.take("d1", 1001)
    assert not limit.take("d1", 1001)


def test_a_message_that_was_put_off_by_a_clock_ahead_is_sent_when_it_is_right(rig: Rig) -> None:
    _halted(rig)
    receiver, now = Receiver(500, 200), int(rig.now)
    assert outbox.deliver(rig.app.store, (_hook(receiver),), now + YEAR) == 0
    assert rig.read(lambda conn: admin_log.owed(conn, now + 1))
    assert outbox.deliver(rig.app.store, (_hook(receiver),), now + 1) == 1


def test_the_chart_goes_on_after_a_clock_was_ahead(rig: Rig) -> None:
    rig.publish_trust()
    rig.release(1)
    rig.device()
    start = int(rig.now)
    look(rig, start + 100 * DAY)
    look(rig, start + SAMPLE_S)
    at = tables.firmware_sample.c.at
    found = rig.read(lambda conn: conn.execute(select(func.min(at))).scalar())
    assert found <= start + SAMPLE_S


def test_a_ring_that_a_clock_ahead_opened_soaks_its_time_and_not_a_day_more(rig: Rig) -> None:
    """By hand: the clock stood a day ahead for a minute, and a soak of 20 seconds had *1 d left*."""
    rig.publish_trust()
    device, later = rig.device("d1"), rig.device("d2")
    soak = GateSpec(gate="soak", settings={"time": "1h"})
    rings = (
        RingSpec(name="first", audience="id = d1", gates=(soak,)),
        RingSpec(name="rest"),
    )
    start, rig.now = rig.now, rig.now + DAY
    rollout = rig.rollout(rig.release(1), policy=Policy(rings=rings))
    rig.set_rollout(
        rollout,
        rings=[
            {"state": "open", "step": 0, "opened_at": int(rig.now), "before": {}},
            {"state": "waiting", "step": -1, "opened_at": 0, "before": {}},
        ],
    )
    device.run(device.assignment())
    rig.now = start
    look(rig, int(rig.now))
    assert later.assignment().action == "none"
    rig.now += 2 * HOUR + 1
    look(rig, int(rig.now))
    assert later.assignment().action == "install"


def test_who_opened_a_session_by_a_clock_ahead_opens_another_once_it_is_right(rig: Rig) -> None:
    """By hand: after a day ahead and back, every device was locked out for that day, and its address with it."""
    rig.publish_trust()
    device = rig.device("d1")
    start, rig.now = rig.now, rig.now + DAY
    device.log_in()
    ahead = device.token
    assert device.ask("GET", "/d/v1/poll").status == 200
    rig.now = start + 10
    assert device.ask("GET", "/d/v1/poll").status == 200, "it goes on with what it has"
    device.log_in()
    assert device.ask("GET", "/d/v1/poll").status == 200
    newer, device.token = device.token, ahead
    assert device.ask("GET", "/d/v1/poll").status == 401, "and no longer, once there is a newer"
    device.token = newer
    rig.restart()
    assert device.ask("GET", "/d/v1/poll").status == 200
