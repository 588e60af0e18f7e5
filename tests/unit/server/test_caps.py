"""Never more than so many of one site or cluster on their way at once, over all rollouts; and downloads within the budget of bytes."""

import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import update
from tests.unit.server.rig import Device, Rig
from tests.unit.server.test_rollouts_admin import OLGA, Desk

from tidegate.core.errors import ConfigError, RequestError
from tidegate.core.protocol import AssignmentBody, PermitBody, PermitRequest
from tidegate.rollout import presets
from tidegate.rollout.model import Deadlines, Policy, RingSpec
from tidegate.server import config, groups, permits, why
from tidegate.server.egress import Budget
from tidegate.server.store import Connection, hot, postgres, sqlite, tables
from tidegate.server.store.scope import Scope
from tidegate.server.web.queries import device as device_page

FLEET = (RingSpec(name="fleet"),)


def policy(**per: int) -> Policy:
    deadlines = Deadlines(return_s=100, confirm_s=200)
    named = {name.replace("__", "."): most for name, most in per.items()}
    return Policy(rings=FLEET, at_once_per=named, deadlines=deadlines)


def placed(rig: Rig, name: str, **attributes: str) -> Device:
    """Return a device with these attributes; `site` is the built-in one."""
    device = rig.device(name, rev=int(attributes.pop("rev", "1")))
    site = attributes.pop("site", "")
    where = tables.device.c.id == name
    values: dict[str, Any] = {"site": site, "attributes": attributes}
    rig.write(lambda conn: conn.execute(update(tables.device).where(where).values(**values)))
    return device


def staged(device: Device) -> AssignmentBody:
    body = device.assignment()
    assert body.action == "install", body.reason
    device.tell("staged", body)
    return body


def test_no_more_of_a_cluster_go_than_its_cap_and_the_next_when_one_has_an_outcome(
    rig: Rig,
) -> None:
    rig.publish_trust()
    rig.rollout(rig.release(1), policy=policy(attr__cluster=1))
    one, two, other, none = (
        placed(rig, "d1", cluster="c1"),
        placed(rig, "d2", cluster="c1"),
        placed(rig, "d3", cluster="c2"),
        placed(rig, "d4"),
    )
    bodies = {device.id: staged(device) for device in (one, two, other, none)}
    assert one.permit(bodies["d1"]).envelope is not None
    refused = two.permit(bodies["d2"])
    assert refused.because == (
        "attr.cluster c1: no more than 1 at once, and there are 1 on their way (d1)"
    )
    assert other.permit(bodies["d3"]).envelope is not None
    assert none.permit(bodies["d4"]).envelope is not None
    for kind in ("rebooting", "verifying"):
        one.tell(kind, bodies["d1"])
        assert two.permit(bodies["d2"]).envelope is None
    one.confirm(bodies["d1"])
    assert two.permit(bodies["d2"]).envelope is not None


def test_no_more_of_a_group_go_than_its_cap_by_a_list_or_a_query(rig: Rig) -> None:
    rig.publish_trust()
    capped = Policy(rings=FLEET, at_once_per={"group:pair": 1, "group:north": 1})
    rig.rollout(rig.release(1), policy=capped)
    one, two, north, both, none = (
        placed(rig, name, site=site)
        for name, site in (("d1", ""), ("d2", ""), ("d3", "n"), ("d4", "n"), ("d5", ""))
    )
    desk = Desk(rig)
    rig.write(lambda conn: groups.create(conn, "pair", None, ["d1", "d2", "d4"], OLGA, desk.now))
    rig.write(lambda conn: groups.create(conn, "north", "site = n", [], OLGA, desk.now))
    bodies = {device.id: staged(device) for device in (one, two, north, both, none)}
    assert one.permit(bodies["d1"]).envelope is not None
    said = "group pair: no more than 1 at once, and there are 1 on their way (d1)"
    assert two.permit(bodies["d2"]).because == said
    assert said in rig.read(lambda conn: why.tell(conn, "d2", desk.now)).verdict
    assert north.permit(bodies["d3"]).envelope is not None
    assert none.permit(bodies["d5"]).envelope is not None
    one.confirm(bodies["d1"])
    assert "group north: no more than 1" in both.permit(bodies["d4"]).because
    north.confirm(bodies["d3"])
    assert both.permit(bodies["d4"]).envelope is not None
    assert two.permit(bodies["d2"]).envelope is None, "the third of the pair's list is on its way"


def test_a_permit_that_comes_back_unused_makes_room(rig: Rig) -> None:
    rig.publish_trust()
    rig.rollout(rig.release(1), policy=policy(site=1))
    one, two = placed(rig, "d1", site="lyon"), placed(rig, "d2", site="lyon")
    first, second = staged(one), staged(two)
    assert one.permit(first).envelope is not None
    assert two.permit(second).envelope is None
    one.tell("permit_returned", first)
    assert two.permit(second).envelope is not None


def test_a_cap_counts_devices_of_other_rollouts_also_of_those_without_one(rig: Rig) -> None:
    rig.publish_trust(("gw1",))
    rig.rollout(rig.release(1), name="without", audience="id = d1")
    one, two = placed(rig, "d1", cluster="c1"), placed(rig, "d2", cluster="c1")
    first = staged(one)
    assert one.permit(first).envelope is not None
    rig.rollout(rig.release(2), name="with", policy=policy(attr__cluster=1))
    second = staged(two)
    assert "on their way (d1)" in two.permit(second).because


def test_a_device_that_was_lost_counts_until_it_is_heard_again(rig: Rig) -> None:
    rig.publish_trust()
    rig.rollout(rig.release(1), policy=policy(attr__cluster=1))
    one, two = placed(rig, "d1", cluster="c1"), placed(rig, "d2", cluster="c1")
    first, second = staged(one), staged(two)
    assert one.permit(first).envelope is not None
    rig.now += 101
    desk = Desk(rig)
    desk.tick()
    refused = two.permit(second)
    assert "1 that did not come back (d1)" in refused.because
    told = rig.read(lambda conn: why.tell(conn, "d2", desk.now))
    assert "no more than 1 at once, and there are 1 that did not come back (d1)" in told.verdict
    page = rig.read(lambda conn: device_page.page(conn, "d2", desk.now))
    assert "there are 1 that did not come back (d1)" in page.verdict
    rig.now += 10
    one.poll()
    rig.app.services.flush_seen()
    assert two.permit(second).envelope is not None


def test_a_lost_device_that_was_taken_out_of_the_fleet_holds_nobody_up(rig: Rig) -> None:
    rig.publish_trust()
    rig.rollout(rig.release(1), policy=policy(attr__cluster=1))
    one, two = placed(rig, "d1", cluster="c1"), placed(rig, "d2", cluster="c1")
    first, second = staged(one), staged(two)
    assert one.permit(first).envelope is not None
    rig.now += 101
    Desk(rig).tick()
    gone = update(tables.device).where(tables.device.c.id == "d1").values(state="decommissioned")
    rig.write(lambda conn: conn.execute(gone))
    assert two.permit(second).envelope is not None


def test_the_lower_of_the_servers_and_the_rollouts_cap_holds(rig: Rig) -> None:
    rig.publish_trust()
    services = rig.app.services
    services.settings = msgspec.structs.replace(services.settings, caps={"site": 2})
    rig.rollout(rig.release(1), policy=policy(site=5))
    devices = [placed(rig, f"d{number}", site="lyon") for number in range(4)]
    answers = [device.permit(staged(device)) for device in devices]
    assert [one.envelope is not None for one in answers] == [True, True, False, False]


def test_permits_asked_for_at_once_never_pass_the_cap(rig: Rig) -> None:
    """As from several servers on one database: each question comes over a connection of its own."""
    rig.publish_trust()
    rig.rollout(rig.release(1), policy=policy(site=3))
    devices = [placed(rig, f"d{number}", site="lyon") for number in range(12)]
    asked = [(device, staged(device)) for device in devices]
    granted: list[object] = []

    def ask(device: Device, body: AssignmentBody) -> None:
        assert body.target is not None
        request = PermitRequest(
            nonce=f"{int(device.id[1:]):032x}",
            update=body.update or "",
            attempt=1,
            slot_sha256=body.target.sha256,
            release_counter=1,
        )
        row = next(
            number for number, one in enumerate(rig.app.services.fleet.ids) if one == device.id
        )
        if rig.url:  # another process on the same database
            other = postgres.open_store(rig.url, durable=False)
            job = other.write(lambda conn: permits.permit(conn, row, request, int(rig.now)))
            granted.append(job.result(60))
            other.close()
            return
        engine = sqlite._engine(rig.folder / sqlite.DATABASE_NAME, durable=False, own=Scope())
        with engine.connect() as conn, conn.begin():
            granted.append(permits.permit(conn, row, request, int(rig.now)))
        engine.dispose()

    threads = [threading.Thread(target=ask, args=one) for one in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(one, PermitBody) for one in granted) == 3

    def out(conn: Connection) -> int:
        return len(hot.updates_in(conn, 1, ("permitted",)))

    assert rig.read(out) == 3


def test_downloads_begin_no_faster_than_the_budget_and_everybody_has_a_turn(rig: Rig) -> None:
    rig.publish_trust()
    services = rig.app.services
    # Payloads of these tests are 4,096 bytes: one every four seconds, and what ten seconds carry may be taken ahead.
    services.settings = msgspec.structs.replace(services.settings, egress_rate=1024)
    rig.rollout(rig.release(1))
    waiting = {f"d{number}": rig.device(f"d{number}") for number in range(12)}
    began: list[int] = []
    start = int(rig.now)
    told: list[int] = []
    while waiting and rig.now < start + 200:
        for name, device in list(waiting.items()):
            assert device.poll().work is True
            body = device.assignment()
            if body.action == "install":
                began.append(int(rig.now) - start)
                del waiting[name]
            else:
                assert "downloads of the server begin at" in body.reason
                told.append(body.poll_after_s)
        rig.now += 1
    assert not waiting
    assert began[:3] == [0, 0, 0]
    # on average never more than the rate but for what may be taken ahead, and never less while somebody waits
    for place, at in enumerate(began):
        assert 1024 * at <= (place + 1) * 4096 <= 1024 * (at + 10) + 4096
    assert told
    assert max(told) >= services.settings.poll_interval_s


def test_a_site_has_a_budget_of_its_own_and_why_says_so(rig: Rig) -> None:
    rig.publish_trust()
    services = rig.app.services
    services.settings = msgspec.structs.replace(services.settings, egress_site_rate=1)
    rig.rollout(rig.release(1))
    one, two, far = (
        placed(rig, "d1", site="lyon"),
        placed(rig, "d2", site="lyon"),
        placed(rig, "d3", site="nantes"),
    )
    assert one.assignment().action == "install"
    held = two.assignment()
    assert held.action == "none"
    assert held.poll_after_s == 4096 - 10
    assert far.assignment().action == "install"
    bounds = why.bounds_of(services.settings)
    told = rig.read(lambda conn: why.tell(conn, "d2", int(rig.now), bounds))
    assert "downloads of site lyon begin at 1 B/s at most, and the next may in" in told.verdict
    assert [one.code for one in told.checks if not one.ok] == ["egress"]
    page = rig.read(lambda conn: device_page.page(conn, "d2", int(rig.now), bounds))
    assert "downloads of site lyon begin at 1 B/s at most" in page.verdict
    rig.now += 4096
    assert two.assignment().action == "install"


@pytest.mark.parametrize(
    ("per", "part"),
    [
        ({"sites": 1}, 'flow.per: "sites" cannot be capped; did you mean "site"?'),
        ({"seen": 1}, 'flow.per: "seen" cannot be capped'),
        ({"group:": 1}, 'flow.per: "group:" cannot be capped'),
        ({"group": 1}, '"attr.NAME"'),
        ({"site": 0.5}, "flow.per.site: a whole number of devices"),
        ({"site": -1}, "flow.per.site: a whole number of devices"),
    ],
)
def test_what_cannot_be_capped_is_named(per: dict[str, Any], part: str) -> None:
    with pytest.raises(RequestError) as caught:
        presets.policy_from_dict({"flow": {"per": per}})
    assert part in caught.value.detail


def test_caps_and_budget_are_read_from_the_servers_file(tmp_path: Path) -> None:
    file = tmp_path / "tidegate.toml"
    file.write_text(
        '[cap]\nsite = 20\n"attr.cluster" = 1\n[egress]\nrate = "100MB/s"\nsite_rate = "none"\n'
    )
    found = config.load(file, environ={})
    assert found.caps == {"site": 20, "attr.cluster": 1}
    assert why.bounds_of(found).budget == Budget(100_000_000, 0)
    file.write_text("[cap]\ncluster = 1\n")
    with pytest.raises(ConfigError, match=r"\[cap\]: \"cluster\" cannot be capped"):
        config.load(file, environ={})
