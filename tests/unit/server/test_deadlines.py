"""The four deadlines on the server, and what is offered again after an end."""

from typing import Any

import pytest
from tests.unit.server.rig import Device, Rig
from tests.unit.server.test_rollouts_admin import Desk

from tidegate.core.protocol import AssignmentBody
from tidegate.rollout.model import Deadlines, Policy, Retry, RingSpec
from tidegate.server import reach, telemetry, why
from tidegate.server.store import hot
from tidegate.server.web.queries import device as device_page

POLICY = Policy(
    rings=(RingSpec(name="fleet"),),
    deadlines=Deadlines(start_s=50, finish_s=70, return_s=100, confirm_s=200),
    retry=Retry(backoff_s=10, reasons={"user.declined": 2}),
)


def offered(rig: Rig) -> tuple[Device, AssignmentBody]:
    rig.publish_trust()
    rig.rollout(rig.release(1), policy=POLICY)
    device = rig.device()
    return device, device.assignment()


def now_is(rig: Rig, later: int) -> None:
    rig.now += later
    Desk(rig).tick()


def state(rig: Rig) -> tuple[str, str | None, int]:
    one = rig.read(lambda conn: hot.updates_of(conn, 1))[0]
    return one.state, one.reason, one.attempt


@pytest.mark.parametrize(
    ("steps", "limit_s", "reason"),
    [
        ((), 50, "lost.start"),
        (("downloading",), 70, "lost.finish"),
        (("downloading", "staged", "permit"), 100, "lost.return"),
        (("downloading", "staged", "permit", "rebooting"), 100, "lost.return"),
        (("downloading", "staged", "permit", "rebooting", "verifying"), 200, "lost.confirm"),
    ],
)
def test_each_silence_has_its_deadline(
    rig: Rig, steps: tuple[str, ...], limit_s: int, reason: str
) -> None:
    device, body = offered(rig)
    for step in steps:
        if step == "permit":
            assert device.permit(body).envelope is not None
        else:
            device.tell(step, body)
    now_is(rig, limit_s - 1)
    assert state(rig)[0] != "lost"
    now_is(rig, 1)
    assert state(rig) == ("lost", reason, 1)
    tallied = rig.tallies(1)
    harm = reason in {"lost.return", "lost.confirm"}
    assert (tallied.get("lost", 0), tallied.get("unstarted", 0)) == (int(harm), int(not harm))
    assert tallied[f"reason:{reason}"] == 1


def test_who_never_began_is_no_harm_and_no_permit_that_is_out(rig: Rig) -> None:
    offered(rig)
    now_is(rig, 50)
    tally = next(iter(rig.read(lambda conn: telemetry.evidence(conn, 1)).tallies.values()))
    assert (tally.harmed, tally.pending, tally.ended) == (0, 0, 1)


def test_a_device_that_waits_in_its_staged_slot_has_no_deadline(rig: Rig) -> None:
    device, body = offered(rig)
    device.tell("staged", body)
    now_is(rig, 10_000)
    assert state(rig)[0] == "staged"


def test_a_pause_and_a_hold_are_no_silence(rig: Rig) -> None:
    offered(rig)
    rig.set_rollout(1, state="paused")
    now_is(rig, 60)
    assert state(rig)[0] == "offered"
    rig.set_rollout(1, state="active")
    now_is(rig, 49)
    assert state(rig)[0] == "offered"
    now_is(rig, 1)
    assert state(rig)[0] == "lost"


@pytest.mark.parametrize("steps", [(), ("downloading",)])
def test_who_is_heard_again_goes_on_with_the_same_attempt(rig: Rig, steps: tuple[str]) -> None:
    device, body = offered(rig)
    for step in steps:
        device.tell(step, body)
    now_is(rig, 80)
    assert state(rig)[0] == "lost"
    again = device.assignment()
    assert (again.update, again.attempt) == (body.update, 1)
    device.run(again)
    assert state(rig) == ("confirmed", None, 1)
    assert rig.tallies(1).get("unstarted", 0) == 0


def test_news_of_a_late_download_count_without_asking_first(rig: Rig) -> None:
    device, body = offered(rig)
    device.tell("downloading", body)
    now_is(rig, 80)
    device.tell("staged", body)
    assert state(rig)[0] == "staged"
    assert device.permit(body).envelope is not None


def test_one_lost_after_its_permit_does_not_stage_again(rig: Rig) -> None:
    device, body = offered(rig)
    device.tell("staged", body)
    assert device.permit(body).envelope is not None
    now_is(rig, 100)
    device.tell("staged", body)
    assert state(rig) == ("lost", "lost.return", 1)


def test_a_failed_download_is_offered_again_after_its_pause_and_why_says_when(rig: Rig) -> None:
    device, body = offered(rig)
    device.tell("failed", body, reason="download.timeout")
    told = device.assignment()
    assert told.action == "none"
    verdict = _verdict(rig)
    assert "failed: download.timeout" in verdict
    assert "attempt 2 of 3 in " in verdict
    rig.now += 15
    again = device.assignment()
    assert (again.action, again.attempt) == ("install", 2)
    for attempt in (2, 3):
        device.tell("failed", again, reason="download.timeout")
        rig.now += 1_000
        if attempt == 2:
            again = device.assignment()
            assert again.attempt == 3
    assert device.assignment().action == "none"
    assert "no further attempt: 3 of 3 made" in _verdict(rig)
    assert rig.tallies(1)["retried"] == 2


def test_a_person_who_said_no_is_asked_again_where_the_policy_says_so(rig: Rig) -> None:
    device, body = offered(rig)
    device.tell("declined", body, reason="user.declined")
    assert device.assignment().action == "none"
    rig.now += 60
    assert device.assignment().attempt == 2


def test_who_is_asked_again_may_take_what_it_refuses_since_its_owner_said_no(rig: Rig) -> None:
    device, body = offered(rig)
    device.tell("declined", body, reason="user.declined")
    device.refuses = (rig.read(lambda conn: reach.targets(conn, 1))[0].digest,)
    device.assignment()
    assert "attempt 2 of 2 in " in _verdict(rig)
    rig.now += 60
    again = device.assignment()
    assert (again.action, again.attempt, again.allow_refused) == ("install", 2, True)
    assert not body.allow_refused
    # It goes on being asked, and nothing says that it refuses.
    assert device.assignment().action == "install"
    assert "is updating to gw1-1.1.0: offered" in _verdict(rig)
    device.run(again)
    assert state(rig) == ("confirmed", None, 2)


def test_a_no_counts_also_after_the_deadline_of_the_beginning(rig: Rig) -> None:
    device, body = offered(rig)
    now_is(rig, 50)
    assert state(rig)[:2] == ("lost", "lost.start")
    device.tell("declined", body, reason="user.declined")
    assert state(rig) == ("declined", "user.declined", 1)
    assert (rig.tallies(1)["declined"], rig.tallies(1).get("unstarted", 0)) == (1, 0)


def test_an_install_that_failed_is_evidence_and_not_offered_again(rig: Rig) -> None:
    device, body = offered(rig)
    device.tell("failed", body, reason="install.write")
    rig.now += 10_000
    assert device.assignment().action == "none"
    assert "install.write is not tried again" in _verdict(rig)


def _verdict(rig: Rig) -> Any:
    """Return the verdict of the API; the web says no less about the next attempt."""
    return rig.read(lambda conn: why.tell(conn, "d1", int(rig.now))).verdict


def test_the_page_of_a_device_says_whether_there_is_a_next_attempt(rig: Rig) -> None:
    device, body = offered(rig)
    device.tell("failed", body, reason="download.timeout")
    page = rig.read(lambda conn: device_page.page(conn, "d1", int(rig.now)))
    assert "attempt 2 of 3 in " in page.verdict
