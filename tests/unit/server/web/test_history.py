"""What happened over time, on pages: figures that add up to the counters, whatever the spans, and of others' products nothing."""

import re

from sqlalchemy import insert
from tests.unit.server.rig import Rig
from tests.unit.server.web.test_store_pages import PASSWORD, begin, office, opened, revert

from tidegate.server.actors import Sight
from tidegate.server.auth import Actor
from tidegate.server.operations import auth_of
from tidegate.server.store import Connection, tables
from tidegate.server.web import charts
from tidegate.server.web.queries import history
from tidegate.server.web.views import HistoryPage, Plot

__all__ = ["office"]
DAY = 86_400
OLGA = Actor(name="olga", role="admin")


def _plots(page: HistoryPage | None, key: str) -> dict[str, Plot]:
    assert page is not None
    (group,) = (one for one in page.groups if one.key == key)
    return {one.code or one.label: one for one in group.told}


def test_a_rollouts_plots_add_up_to_its_counters(rig: Rig) -> None:
    rig.publish_trust()
    with opened(rig) as office:
        devices, _ = begin(office)
        inside = [one for one in devices if one.hardware.rev == 1]
        rig.now += 3 * 3_600
        for device in inside[:2]:
            body = device.assignment()
            device.tell("downloading", body)
            device.tell("staged", body, bytes=4_096)
            device.permit(body)
            device.tell("rebooting", body)
            device.tell("verifying", body)
            device.confirm(body)
        rig.now += 2 * 3_600
        revert(inside[2])
        page = rig.read(lambda conn: history.of_rollout(conn, "gw1-1.2.0", int(rig.now)))
        assert page is not None
        ends = _plots(page, "ends")
        assert {name: one.figure for name, one in ends.items()} == {
            "Given leave to activate": 3, "Confirmed": 2, "Went back by itself": 1,
        }  # fmt: skip
        assert ends["Confirmed"].values.index(2) < ends["Went back by itself"].values.index(1)
        assert _plots(page, "downloads")["Bytes fetched"].figure >= 2 * 4_096
        assert _plots(page, "reasons")["health.network"].figure == 1
        (runs,) = _plots(page, "run").values()
        assert (runs.values[-1], runs.figure, sum(runs.values) > 2) == (2, 2, True)
        assert page.at == tuple(range(page.at[0], int(rig.now) + 1, 3_600))
        text = office.page("/rollouts/gw1-1.2.0/history")
        assert "health.network" in text
        assert "2 Confirmed" in text or "Confirmed 2" in text
        assert office.client.get("/rollouts/nothing/history").status_code == 404
        fleet = office.page("/history?days=7")
        assert "Went back by itself" in fleet
        assert "each column is 1 d" in fleet


def test_nothing_yet_is_said_and_not_drawn(rig: Rig) -> None:
    with opened(rig) as office:
        assert "No update ended in this time" in office.page("/history")
        rig.publish_trust()
        rig.release(1)
        office.operations.create(
            {"release": "gw1-1.1.0", "preset": "lab", "draft": True}, OLGA, "", int(rig.now)
        )
        assert "No device was offered it" in office.page("/rollouts/gw1-1.1.0/history")


def test_a_long_life_is_drawn_in_few_columns() -> None:
    for first, last in ((0, 0), (5, 100), (1_000, 9_000), (400_000, 480_000)):
        step, begin_, count = history._spans(first, last)
        assert begin_ <= first < begin_ + step
        assert (last - begin_) // step == count - 1
        assert count <= history.SPANS_MAX


def test_the_fleets_days_are_of_the_products_that_are_seen(rig: Rig) -> None:
    today = int(rig.now) // DAY

    def fill(conn: Connection) -> None:
        for product, value in (("gw1", 3), ("obscure", 50)):
            for name in ("end:confirmed", "download.bytes", "restart:panic"):
                row = {"day": today, "product": product, "name": name, "value": value}
                conn.execute(insert(tables.daily).values(**row))
            at = int(rig.now) - DAY
            sample = {
                "at": at,
                "product": product,
                "counter": 1,
                "version": "1.1",
                "devices": value,
            }
            conn.execute(insert(tables.firmware_sample).values(**sample))

    rig.write(fill)

    def figures(sight: Sight | None = None) -> list[int]:
        more = (sight,) if sight else ()
        page = rig.read(lambda conn: history.of_fleet(conn, 7, int(rig.now), *more))
        runs = sum(sum(one.values) for one in _plots(page, "run").values())
        return [_plots(page, "ends")["Confirmed"].figure, runs] if page.groups else []

    assert figures() == [53, 53]
    assert figures(Sight(products=frozenset({"gw1"}))) == [3, 3]
    page = rig.read(
        lambda conn: history.of_fleet(conn, 7, int(rig.now), Sight(groups=frozenset({"lab"})))
    )
    assert page.groups == ()
    assert page.uncounted == ("lab",)


def test_columns_hang_below_the_line_where_something_was_taken_back() -> None:
    drawn = charts.columns((4, 0, -2), "ok", 43)
    boxes = re.findall(r'class="f-ok"[^>]* y="([\d.]+)" height="([\d.]+)"', drawn)
    (up, tall), (down, deep) = ((float(a), float(b)) for a, b in boxes)
    assert (up, tall, deep) == (0.0, 28.0, 14.0)
    assert down > up + tall
    assert "f-line" in charts.columns((), "ok")


def test_what_is_not_counted_is_not_called_none(rig: Rig) -> None:
    rig.publish_trust()
    accounts = auth_of(rig.app.services)
    with opened(rig) as office:
        accounts.create_account(
            "lara", "", PASSWORD, OLGA, int(rig.now), grants=["viewer@group:lab"]
        )
        office.sign_in("lara")
        fleet, history_ = office.page("/"), office.page("/history")
    assert "counted by product, and not by group" in fleet
    assert "No signature, hardware or order was refused" not in fleet
    assert "Reverted by the device" not in fleet
    assert "No update ended" not in history_
    assert "Of your groups (lab) there are none" in history_
