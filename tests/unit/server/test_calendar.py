"""What lapses when: from the database, over the API, in metrics, and in the doctor's words."""

import re

import msgspec
from tests.unit.server.rig import YEAR, Rig

from tidegate.server.calendar import calendar, one_signer
from tidegate.server.doctor import examine
from tidegate.server.tick import tick

DAY = 86_400


def levels(rig: Rig, at: int) -> dict[str, str]:
    return {one.role: one.level for one in rig.read(lambda conn: calendar(conn, at))}


def checks(rig: Rig, at: int) -> dict[str, str]:
    settings = msgspec.structs.replace(rig.app.services.settings, listen="127.0.0.1:1")
    return {one.name: one.level for one in examine(settings, at)}


def test_every_role_is_in_the_calendar(rig: Rig) -> None:
    assert levels(rig, int(rig.now)) == {}
    rig.publish_trust()
    rig.release(1)
    assert levels(rig, int(rig.now)) == dict.fromkeys(
        ("root", "targets", "product/gw1", "snapshot", "timestamp"), "ok"
    )


def test_the_doctor_warns_first_and_fails_when_something_lapsed(rig: Rig) -> None:
    rig.publish_trust()
    rig.release(1)
    soon = int(rig.now) + YEAR - 20 * DAY
    assert levels(rig, soon)["product/gw1"] == "soon"
    found = checks(rig, soon)
    assert (found["product/gw1"], found["root"]) == ("warning", "warning")
    over = int(rig.now) + YEAR + 1
    assert checks(rig, over)["product/gw1"] == "failed"


def test_a_server_that_stands_still_is_called_late_and_one_that_runs_is_not(rig: Rig) -> None:
    rig.publish_trust()
    later = int(rig.now) + DAY + 3 * 3600
    assert levels(rig, later)["timestamp"] == "late"
    assert checks(rig, later)["timestamp"] == "warning"
    tick(rig.app.services, later)
    assert levels(rig, later)["timestamp"] == "ok"


def test_metrics_count_the_seconds_down(rig: Rig) -> None:
    rig.publish_trust()
    now = int(rig.now)

    def left(at: int) -> float:
        shown = rig.scrape(at)
        found = re.search(r'tidegate_metadata_expires_seconds\{role="root"\} (\S+)', shown)
        assert found is not None
        return float(found[1])

    assert left(now + 100) == YEAR - 100
    assert left(now + YEAR + 5) == -5


def test_one_person_who_can_release_to_everybody_is_named(rig: Rig) -> None:
    rig.publish_trust()
    assert rig.read(one_signer) == ("gw1",)
    assert checks(rig, int(rig.now))["two people"] == "warning"
