"""Counting an audience kind by kind says what asking every device says; and nobody is left out because the arrays do not hold what a query asks for."""

from random import Random
from typing import Any

import pytest
from sqlalchemy import insert
from tests.unit.server.rig import START, Rig
from tests.unit.server.test_rollouts_admin import OLGA, ONE_RING, Desk

from tidegate.rollout import cohort
from tidegate.rollout.engine import first_rings
from tidegate.rollout.model import Policy, RingSpec, Rollout
from tidegate.server import headcount, inquiry, operations, snapshot
from tidegate.server.groups import Book
from tidegate.server.store import Connection, admin_devices, changes, device_queries, tables

QUERIES = (
    "group:internal",
    "group:north",
    "site ~ n* and revision > 1",
    "counter < 2 or not group:internal",
    "release = gw1-1.1.0",
    "channel = beta",
    "attr.x = 1",
    "id ~ d1*",
    "has(site)",
    "tag:lab",
    "seen < 24h",
    "seen > 30d",
    "serial ~ s1*",
)


def populate(rig: Rig, count: int, seed: int) -> None:
    draw = Random(seed)

    def row(number: int) -> dict[str, Any]:
        counter = draw.randint(0, 2)
        own: dict[str, Any] = {"x": str(draw.randint(0, 1))} if draw.random() < 0.3 else {}
        if draw.random() < 0.1:
            own["tags"] = ["lab"]
        return {
            "id": f"d{number}", "public_key": "", "keytype": "ed25519", "key_sha256": f"{number:064x}",
            "state": "accepted" if draw.random() < 0.9 else "pending", "product": "gw1",
            "model": "gw1", "rev": (rev := draw.randint(1, 3)), "variant": f"gw1-r{rev}",
            "channel": draw.choice(("stable", "beta")), "site": draw.choice(("", "nord", "sud")),
            "attributes": own, "slots": {}, "refuses": [], "inhibitors": [], "enrolled_at": START,
            "running_counter": counter, "running_version": f"1.{counter}.0" if counter else "",
            "serial": draw.choice(("", f"s{number}")),
            "last_seen": draw.choice((0, START - draw.randint(0, 60 * 86_400))),
        }  # fmt: skip

    def work(conn: Connection) -> None:
        conn.execute(insert(tables.device), [row(number) for number in range(count)])
        for name, query in (("internal", None), ("north", "site = nord and revision != 2")):
            conn.execute(
                insert(tables.device_group).values(
                    name=name, query=query, created_at=START, created_by="test"
                )
            )
        members = [{"group_id": 1, "device_row": draw.randint(1, count)} for _ in range(count // 9)]
        unique = {one["device_row"]: one for one in members}
        conn.execute(insert(tables.group_member), list(unique.values()))
        changes.bump(conn, "group", "internal", START)

    rig.write(work)
    rig.restart()


def rollout_of(*audiences: str) -> Rollout:
    rings = tuple(
        RingSpec(name=f"ring{number}", audience=one) for number, one in enumerate(audiences)
    )
    policy = Policy(rings=rings)
    return Rollout(
        name="r", release_sha256="0" * 64, state="active", generation=1, policy=policy,
        rings=first_rings(policy),
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_every_audience_is_what_asking_each_device_says(rig: Rig, seed: int) -> None:
    populate(rig, 300, seed)
    draw = Random(seed)
    fleet = rig.app.services.fleet
    for _ in range(12):
        model = rollout_of(*draw.sample(QUERIES, 2), "rest")

        def asked(conn: Connection, model: Rollout = model) -> dict[tuple[str, str], int]:
            book, found = Book(conn), dict[tuple[str, str], int]()
            for device in admin_devices.devices(conn, states=("accepted",), product="gw1"):
                attrs = book.attributes(device, START)
                index = cohort.ring_of(model.policy, attrs)
                assert index is not None
                key = (model.policy.rings[index].name, str(device["variant"]))
                found[key] = found.get(key, 0) + 1
            return found

        serials = rig.read(device_queries.serials)
        truth = rig.read(asked)
        assert headcount.count(fleet, model, "gw1", START, serials) == truth, model.policy
        meant = headcount.fix(fleet, model, "gw1", START, serials)
        assert headcount.count_fixed(fleet, model, meant) == truth, model.policy
        assert meant.devices == sum(truth.values())


@pytest.mark.parametrize("query", ["seen < 24h", "serial = serial-d1"])
def test_the_planner_counts_what_is_not_in_the_arrays(rig: Rig, query: str) -> None:
    rig.publish_trust()
    rig.release(1)
    rig.device("d1").poll()
    desk = Desk(rig)
    desk.create(name="asked", audience=query)
    count = desk.operations.audiences.count
    known = rig.read(lambda conn: inquiry.evidence(conn, "asked", count, desk.now))
    assert sum(one.audience for one in known.tallies) == 1


def test_counts_follow_what_devices_become(rig: Rig) -> None:
    rig.publish_trust()
    target = rig.release(1)
    rig.rollout(target)
    device = rig.device()
    fleet = rig.app.services.fleet
    model = rollout_of("counter = 1", "rest")
    assert headcount.count(fleet, model, "gw1") == {("ring1", "gw1-r1"): 1}
    device.run(device.assignment())
    assert headcount.count(fleet, model, "gw1") == {("ring0", "gw1-r1"): 1}


def test_a_ring_by_kind_asks_no_device(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    populate(rig, 50, 1)
    monkeypatch.setattr(snapshot.Fleet, "facts", None)
    found = headcount.count(rig.app.services.fleet, rollout_of("revision = 1", "rest"), "gw1")
    assert sum(found.values()) > 30


@pytest.mark.parametrize("audience", ["serial = serial-d1", "seen < 24h", "release = gw1-1.1.0"])
def test_a_device_is_told_to_ask_by_whatever_query_it_is_meant(rig: Rig, audience: str) -> None:
    rig.publish_trust()
    rig.rollout(rig.release(1), name="before")
    device = rig.device()
    device.run(device.assignment())
    rig.set_rollout(1, state="cancelled")
    rig.rollout(rig.release(2), name="after", audience=audience)
    assert device.poll().work is True
    assert device.assignment().action == "install"


def test_a_very_large_fleet_is_not_asked_one_by_one_before_a_rollout_is_made(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.publish_trust()
    rig.release(1)
    populate(rig, 60, 2)
    monkeypatch.setattr(operations, "ASKED_MAX", 10)
    monkeypatch.setattr(admin_devices, "devices", None)
    desk = Desk(rig)
    made = desk.create(name="large")
    counted = sum(headcount.count(rig.app.services.fleet, rollout_of("rest"), "gw1").values())
    assert (made.state, made.reach) == ("active", counted)
    data = {**ONE_RING, "release": "gw1-1.1.0", "name": "late", "delivery": {"deadline": 1}}
    with pytest.raises(Exception, match=r"lint\.deadline_past"):
        desk.operations.create(data, OLGA, "because", desk.now)
