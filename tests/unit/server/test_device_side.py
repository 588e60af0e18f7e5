"""The whole device side over its protocol: joining, hints, assignments, permits, events."""

import hashlib
from collections import Counter

import msgspec
from tests.unit.server.rig import Rig

from tidegate.core.protocol import EventItem, Metrics
from tidegate.server import outcomes, telemetry
from tidegate.server.store import device_queries, hot


def test_a_device_goes_the_whole_way_and_is_counted_once(rig: Rig) -> None:
    rig.publish_trust()
    device = rig.device()
    assert device.poll().work is False
    rollout = rig.rollout(rig.release(1))
    assert device.poll().work is True
    body = device.assignment()
    assert body.action == "install"
    assert body.update is not None
    assert body.repo is not None
    device.run(body)
    assert device.poll().work is False
    assert rig.tallies(rollout) == {
        "offered": 1, "exposed": 1, "confirmed": 1,
        "last_permit_at": int(rig.now), "last_confirmed_at": int(rig.now),
    }  # fmt: skip
    assert device.assignment().action == "none"


def test_a_revert_after_a_permit_is_harm_and_not_tried_again(rig: Rig) -> None:
    rig.publish_trust()
    device = rig.device()
    rollout = rig.rollout(rig.release(1))
    body = device.assignment()
    device.tell("staged", body)
    assert device.permit(body).envelope is not None
    device.tell("rebooting", body)
    device.tell("reverted", body, reason="health.service")
    found = rig.tallies(rollout)
    assert found["exposed"] == 1
    assert found["reverted"] == 1
    assert found["reason:health.service"] == 1
    assert device.assignment().action == "none"
    assert device.poll().work is False


def test_a_halt_is_effective_when_acknowledged(rig: Rig) -> None:
    rig.publish_trust()
    staged, late = rig.device("d1"), rig.device("d2")
    rollout = rig.rollout(rig.release(1))
    body = staged.assignment()
    staged.tell("staged", body)
    rig.set_rollout(rollout, state="halted")
    refused = staged.permit(body)
    assert refused.envelope is None
    assert "halted" in refused.because
    assert staged.assignment().action == "hold"
    assert late.poll().work is False
    assert late.assignment().action == "none"
    assert staged.poll().gate_epoch == 1
    assert rig.tallies(rollout) == {"offered": 1}  # it ended at this contact


def test_an_isolated_variant_gets_nothing_and_the_others_go_on(rig: Rig) -> None:
    rig.publish_trust()
    bad, good = rig.device("d1", rev=1), rig.device("d2", rev=2)
    rollout = rig.rollout(rig.release(1))
    under_way = bad.assignment()
    bad.tell("staged", under_way)
    rig.set_rollout(rollout, isolated=["gw1-r1"])
    assert bad.permit(under_way).envelope is None
    assert bad.assignment().action == "hold"
    assert good.assignment().action == "install"


def test_asking_again_with_the_same_nonce_gives_the_same_permit(rig: Rig) -> None:
    rig.publish_trust()
    device = rig.device()
    rollout = rig.rollout(rig.release(1), room=1)
    body = device.assignment()
    device.tell("staged", body)
    first = device.open_permit(device.permit(body, nonce="ab" * 16))
    rig.now += 5
    again = device.open_permit(device.permit(body, nonce="ab" * 16))
    assert first == again
    assert rig.tallies(rollout)["exposed"] == 1


def test_permits_stop_where_the_plan_leaves_no_room_and_a_returned_one_gives_it_back(
    rig: Rig,
) -> None:
    rig.publish_trust()
    one, two = rig.device("d1"), rig.device("d2")
    rollout = rig.rollout(rig.release(1), room=1)
    first, second = one.assignment(), two.assignment()
    one.tell("staged", first)
    two.tell("staged", second)
    assert one.permit(first).envelope is not None
    assert "room" in two.permit(second).because
    one.tell("permit_returned", first)
    assert rig.tallies(rollout).get("exposed", 0) == 0
    assert two.permit(second).envelope is not None


def test_a_permit_for_another_image_is_refused(rig: Rig) -> None:
    rig.publish_trust()
    device = rig.device()
    rig.rollout(rig.release(1))
    body = device.assignment()
    device.tell("staged", body)
    refused = device.permit(body, sha256=hashlib.sha256(b"other").hexdigest())
    assert refused.envelope is None


def test_events_are_counted_once_however_often_they_come(rig: Rig) -> None:
    rig.publish_trust()
    device = rig.device()
    rollout = rig.rollout(rig.release(1))
    body = device.assignment()
    items = [
        device.event("downloading", body),
        device.event("failed", body, reason="install.write"),
    ]
    for _ in range(3):
        assert device.report(*items).acked_seq == 2
    found = rig.tallies(rollout)
    assert found["failed_before"] == found["install"] == found["reason:install.write"] == 1


def test_an_outcome_without_the_devices_signature_is_refused_and_not_counted(rig: Rig) -> None:
    rig.publish_trust()
    device, other = rig.device("d1"), rig.device("d2")
    rollout = rig.rollout(rig.release(1))
    body = device.assignment()
    device.tell("staged", body)
    device.permit(body)
    plain = device.event("downloading", body).body
    assert plain is not None
    forged = EventItem(body=msgspec.structs.replace(plain, kind="confirmed"))
    device.key, own = other.key, device.key
    foreign = device.event("confirmed", body)
    device.key = own
    answer = device.report(forged)
    assert answer.refused == ((2, "sig.threshold"),)
    device.report(foreign, device.event("heartbeat"))
    assert "confirmed" not in rig.tallies(rollout)


def test_silence_becomes_an_outcome_and_a_late_voice_takes_it_back(rig: Rig) -> None:
    rig.publish_trust()
    device = rig.device()
    rollout = rig.rollout(rig.release(1))
    body = device.assignment()
    device.tell("staged", body)
    device.permit(body)
    rig.now += 101
    assert rig.write(lambda conn: telemetry.sweep_lost(conn, int(rig.now))) == {rollout}
    found = rig.tallies(rollout)
    assert found["lost"] == found["reason:lost.return"] == 1
    device.confirm(body)
    found = rig.tallies(rollout)
    assert found["confirmed"] == 1
    assert "lost" not in found
    assert "reason:lost.return" not in found


def test_errors_count_for_the_arm_that_a_device_is_in(rig: Rig) -> None:
    rig.publish_trust()
    updated, control = rig.device("d1"), rig.device("d2")
    rollout = rig.rollout(rig.release(1))
    updated.tell("heartbeat", metrics=Metrics(errors=1, device_s=10))
    updated.run(updated.assignment())
    updated.tell("heartbeat", running_counter=1, metrics=Metrics(errors=7, device_s=100))
    control.tell("heartbeat", metrics=Metrics(errors=2, device_s=50))
    found = rig.read(lambda conn: telemetry.evidence(conn, rollout))
    assert (found.updated["gw1-r1"].errors, found.updated["gw1-r1"].device_s) == (7, 100)
    assert (found.control["gw1-r1"].errors, found.control["gw1-r1"].device_s) == (3, 60)
    assert found.updated["gw1-r1"].devices == found.control["gw1-r1"].devices == 1


def test_a_fallback_goes_only_where_the_signed_release_allows_it(rig: Rig) -> None:
    rig.publish_trust()
    device, fresh = rig.device("d1"), rig.device("d2")
    first = rig.release(1)
    rig.set_rollout(rig.rollout(first), state="active")
    device.run(device.assignment())
    second = rig.release(2, fallback_to=(1,))
    bad = rig.rollout(second)
    device.run(device.assignment())
    rig.set_rollout(bad, state="falling_back")
    back = rig.rollout(first, name="back", kind="fallback", parent=bad)
    assert device.poll().work is True
    body = device.assignment()
    assert body.action == "fallback"
    assert body.target is not None
    assert body.target.release_counter == 1
    assert (
        fresh.assignment().action == "install"
    )  # it never ran the bad one: the first rollout is its own
    device.run(body)
    assert rig.tallies(back)["confirmed"] == 1
    rig.set_rollout(bad, state="completed")
    rig.set_rollout(back, state="completed")
    newcomer = rig.device("d3")
    newcomer.run(newcomer.assignment())
    for one in (device, newcomer):
        assert one.counter == 1
        assert one.assignment().action == "none"  # nobody is offered again what was called back
        assert one.poll().work is False


def test_slots_and_refusals_are_known_from_the_confirmation_on(rig: Rig) -> None:
    """By hand: two updates and a way back later, slots of the time before were shown, and a new rollout counted devices that refuse the image."""
    rig.publish_trust()
    device = rig.device("d1")
    targets, last = {}, 0

    def known() -> tuple[dict[str, str], list[str]]:
        found = rig.read(lambda conn: device_queries.by_id(conn, "d1"))
        return {name: one["sha256"] for name, one in found.slots.items()}, found.refuses

    for counter in (1, 2, 3):
        targets[counter] = rig.release(counter, fallback_to=(counter - 1,) if counter > 1 else ())
        last = rig.rollout(targets[counter])
        device.run(device.assignment())
    assert known() == ({"A": targets[2].digest, "B": targets[3].digest}, [])

    rig.set_rollout(last, state="falling_back")
    rig.rollout(targets[2], name="back", kind="fallback", parent=last)
    body = device.assignment()
    assert body.action == "fallback"
    device.run(body)
    assert known() == ({"A": targets[3].digest, "B": targets[2].digest}, [targets[3].digest])


def test_a_fallback_that_the_release_does_not_name_is_not_ordered(rig: Rig) -> None:
    rig.publish_trust()
    device = rig.device()
    first = rig.release(1)
    rig.rollout(first)
    device.run(device.assignment())
    bad = rig.rollout(rig.release(2))
    device.run(device.assignment())
    rig.set_rollout(bad, state="falling_back")
    rig.rollout(first, name="back", kind="fallback", parent=bad)
    assert device.assignment().action == "none"


def test_a_failed_transfer_is_tried_again_and_counted_where_it_ends(rig: Rig) -> None:
    rig.publish_trust()
    device = rig.device()
    rollout = rig.rollout(rig.release(1))
    body = device.assignment()
    device.tell("failed", body, reason="download.timeout")
    assert rig.tallies(rollout)["transfer"] == 1
    assert device.assignment().action == "none"
    assert device.poll().work is True
    rig.now += 61
    again = device.assignment()
    assert (again.action, again.update, again.attempt) == ("install", body.update, 2)
    device.run(again)
    found = rig.tallies(rollout)
    assert found["confirmed"] == 1
    assert "failed_before" not in found


def test_a_held_device_gets_nothing_until_it_is_let_go(rig: Rig) -> None:
    rig.publish_trust()
    device = rig.device()
    rig.rollout(rig.release(1))
    device.held = True
    assert device.assignment().action == "none"
    # It goes on asking: that it let itself go is told by its next question alone.
    assert device.poll().work is True
    device.held = False
    assert device.assignment().action == "install"


def test_counters_equal_what_the_update_rows_say(rig: Rig) -> None:
    rig.publish_trust()
    rollout = rig.rollout(rig.release(1))
    steps = [
        [], ["downloading"], ["staged"], ["staged", "permit"], ["staged", "permit", "rebooting"],
        ["staged", "permit", "verifying"], ["staged", "permit", "reverted"], ["failed"], ["declined"],
        ["staged", "permit", "permit_returned"], ["staged", "permit", "failed"],
    ]  # fmt: skip
    for number, kinds in enumerate(steps):
        device = rig.device(f"d{number}")
        body = device.assignment()
        for kind in kinds:
            if kind == "permit":
                device.permit(body)
            else:
                reason = "boot.watchdog" if kind in {"failed", "reverted"} else None
                device.tell(kind, body, reason=reason)
    rows = rig.read(
        lambda conn: hot.updates_in(conn, rollout, tuple(outcomes.OPEN | outcomes.ENDED))
    )
    expected: Counter[str] = Counter()
    for row in rows:
        expected.update(outcomes.contributions(row))
    found = {
        name: value for name, value in rig.tallies(rollout).items() if not name.startswith("last_")
    }
    assert found == dict(expected)
    assert len(rows) == len(steps)


def test_everything_is_there_after_a_restart(rig: Rig) -> None:
    rig.publish_trust()
    device = rig.device()
    rollout = rig.rollout(rig.release(1))
    body = device.assignment()
    device.tell("staged", body)
    rig.restart()
    assert device.poll().work is True
    assert device.permit(body).envelope is not None
    device.confirm(body)
    rig.restart()
    assert rig.tallies(rollout)["confirmed"] == 1
    assert device.poll().work is False


def test_a_returned_permit_does_not_take_a_newer_one_with_it(rig: Rig) -> None:
    """The power failed before the boot flag: the agent asks anew at once, and its word on the old permit comes later."""
    rig.publish_trust()
    device = rig.device()
    rollout = rig.rollout(rig.release(1), room=1)
    body = device.assignment()
    device.tell("staged", body)
    device.open_permit(device.permit(body, nonce="aa" * 16))
    device.open_permit(device.permit(body, nonce="bb" * 16))
    device.tell("permit_returned", body, nonce="aa" * 16)
    assert rig.tallies(rollout)["exposed"] == 1
    device.tell("rebooting", body)
    device.confirm(body)
    assert rig.tallies(rollout)["confirmed"] == 1


def test_a_question_that_was_given_up_is_not_granted_when_it_comes_late(rig: Rig) -> None:
    rig.publish_trust()
    device = rig.device()
    rollout = rig.rollout(rig.release(1))
    body = device.assignment()
    device.tell("staged", body)
    device.tell("permit_returned", body, nonce="aa" * 16)
    assert "returned" in device.permit(body, nonce="aa" * 16).because
    assert "exposed" not in rig.tallies(rollout)
    assert device.permit(body).envelope is not None


def test_a_heartbeat_that_comes_again_is_measured_once(rig: Rig) -> None:
    rig.publish_trust()
    device = rig.device()
    rollout = rig.rollout(rig.release(1))
    beat = device.event("heartbeat", metrics=Metrics(errors=5, device_s=60))
    for _ in range(3):
        device.report(beat)
    found = rig.read(lambda conn: telemetry.evidence(conn, rollout))
    assert (found.control["gw1-r1"].errors, found.control["gw1-r1"].device_s) == (5, 60)
