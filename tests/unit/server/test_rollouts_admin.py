"""Operators' acts on rollouts, over real devices that speak the protocol: make, stop, widen, two people, bring back, report."""

from typing import Any

import msgspec
import pytest
from tests.unit.server.rig import Device, Rig

from tidegate.core.errors import TidegateError
from tidegate.core.protocol import Metrics
from tidegate.rollout import engine
from tidegate.rollout import incident as story
from tidegate.rollout.model import Plan
from tidegate.server import approvals, audit, incidents, inquiry, planning, reports, rollouts
from tidegate.server.acts import Outcome
from tidegate.server.auth import Actor, Auth
from tidegate.server.operations import Operations, auth_of
from tidegate.server.store import Connection, admin_log, admin_rollouts
from tidegate.server.tick import tick

OLGA = Actor(name="olga", role="operator")
PIA = Actor(name="pia", role="approver")
EVE = Actor(name="eve", role="viewer")
OLGA_ROOT = Actor(name="root", role="admin")
ONE_RING: dict[str, Any] = {
    "preset": "lab",
    "guards": [{"type": "failure_rate", "max": "20%", "sample": 3}],
    "ring": [{"name": "all"}],
}


class Desk:
    """Operations on a rig, as one operator."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.operations = Operations(rig.app.services)

    @property
    def now(self) -> int:
        return int(self.rig.now)

    def create(self, release: str = "gw1-1.1.0", **more: Any) -> Outcome:
        data = {**ONE_RING, "release": release, **more}
        return self.operations.create(data, OLGA, "because", self.now)

    def act(
        self,
        verb: str,
        name: str = "gw1-1.1.0",
        actor: Actor = OLGA,
        reason: str = "why",
        **more: Any,
    ) -> Outcome:
        return self.operations.act(name, verb, actor, reason, self.now, detail=more)

    def row(self, name: str = "gw1-1.1.0") -> dict[str, Any]:
        found = self.rig.read(lambda conn: admin_rollouts.rollout(conn, name))
        assert found is not None
        return dict(found)

    def tick(self) -> None:
        assert tick(self.rig.app.services, self.now).leader

    def people(self, *names: str, role: str = "approver") -> Auth:
        auth = auth_of(self.rig.app.services)
        admin = Actor(name="root", role="admin")
        for name in names:
            auth.create_account(name, role, "correct horse battery", admin, self.now)
        return auth


@pytest.fixture
def desk(rig: Rig) -> Desk:
    rig.publish_trust()
    rig.release(1)
    return Desk(rig)


def _code(call: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(TidegateError) as caught:
        call(*args, **kwargs)
    return caught.value.code


def _revert(device: Device) -> None:
    body = device.assignment()
    device.tell("staged", body)
    assert device.permit(body).envelope is not None
    device.tell("reverted", body, reason="boot.counter_exhausted")


def test_a_rollout_that_is_made_is_open_at_once_and_reaches_a_device(desk: Desk) -> None:
    device = desk.rig.device()
    made = desk.create()
    assert (made.state, made.reach) == ("active", 1)
    assert device.poll().work is True
    device.run(device.assignment())
    desk.rig.now += 60
    desk.tick()
    desk.tick()
    assert desk.row()["state"] == "completed"


def test_a_preview_writes_nothing_and_says_who_is_left_out(desk: Desk) -> None:
    desk.rig.device("d1", rev=1)
    desk.rig.device("d2", rev=99)
    before = desk.rig.read(admin_log.position)
    found = desk.operations.preview({**ONE_RING, "release": "gw1-1.1.0"}, OLGA, desk.now)
    assert (found.matched, found.offered) == (2, 1)
    assert [(one.code, one.count) for one in found.skipped] == [("compat.hardware", 1)]
    assert found.rings[0].variants == {"gw1-r1": 1}
    assert desk.rig.read(admin_log.position) == before


def test_making_the_same_again_is_no_second_rollout_and_other_content_is_refused(
    desk: Desk,
) -> None:
    desk.create()
    assert desk.create().already is True
    assert _code(desk.create, ring=[{"name": "other"}]) == "request.conflict"


def test_an_audience_holds_in_every_ring(desk: Desk) -> None:
    desk.rig.device("d1", rev=1)
    desk.rig.device("d2", rev=2)
    made = desk.create(audience="revision = 2", ring=[{"name": "a", "audience": "revision < 5"}])
    assert made.reach == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"release": "gw1-1.1.1"}, "did you mean"),
        ({"rign": []}, "ring"),
        ({"windows": {"activate": ["25:00-26:00"]}}, "windows.activate"),
        ({"delivery": {"rate": 5}}, "unit"),
        ({"start": "tomorrow"}, "start"),
        ({"audience": "modle = x"}, "model"),
        ({"name": "../etc"}, "name"),
    ],
)
def test_a_mistake_in_a_draft_is_named(desk: Desk, change: dict[str, Any], words: str) -> None:
    with pytest.raises(TidegateError) as caught:
        desk.create(**{"release": "gw1-1.1.0", **change})
    assert caught.value.code in {"request.invalid", "request.not_found"}
    assert words in caught.value.detail


def test_a_viewer_can_do_nothing_and_an_approver_can_stop_but_not_widen(desk: Desk) -> None:
    desk.create()
    assert _code(desk.act, "halt", actor=EVE) == "request.forbidden"
    assert desk.act("halt", actor=PIA).state == "halted"
    assert _code(desk.act, "resume", actor=PIA) == "request.forbidden"


def test_a_halt_takes_effect_at_once_and_tells_what_it_found(desk: Desk) -> None:
    inert, gone, done = (desk.rig.device(f"d{n}") for n in range(3))
    desk.create()
    waiting, on_its_way = inert.assignment(), gone.assignment()
    inert.tell("staged", waiting)
    gone.tell("staged", on_its_way)
    assert gone.permit(on_its_way).envelope is not None
    done.run(done.assignment())
    epoch = done.poll().gate_epoch
    halted = desk.act("halt", reason="screens black")
    assert halted.stopped is not None
    assert halted.stopped.inert == 1
    assert [(one.device, one.state) for one in halted.stopped.past] == [("d1", "permitted")]
    assert halted.stopped.confirmed == 1
    refused = inert.permit(waiting)
    assert refused.envelope is None
    assert "halted" in refused.because
    assert done.poll().gate_epoch == epoch + 1
    assert desk.act("halt").already is True


def test_of_two_acts_on_one_generation_only_the_first_is_carried_out(desk: Desk) -> None:
    desk.rig.device()
    made = desk.create()
    seen = desk.row()["generation"]
    assert seen > made.generation
    ops = desk.operations
    assert ops.act("gw1-1.1.0", "pause", OLGA, "x", desk.now, generation=seen).state == "paused"
    late = _code(ops.act, "gw1-1.1.0", "resume", OLGA, "x", desk.now, generation=seen)
    assert late == "request.conflict"


def test_a_plan_for_an_older_generation_is_dropped(desk: Desk) -> None:
    desk.create()
    row = desk.row()
    model = planning.model_of(row)
    evidence = desk.rig.read(
        lambda conn: planning.evidence_of(
            conn, row, model, desk.operations.audiences.count, desk.now
        )
    )
    plan = engine.plan(model, evidence, desk.now + 1_000_000)
    desk.act("halt")
    stale = Plan(
        parent_generation=row["generation"],
        verdict="advance",
        state="active",
        rings=plan.rings,
        changed=True,
    )
    assert desk.rig.write(lambda conn: planning.apply_plan(conn, row, stale, desk.now)) is False
    assert desk.row()["state"] == "halted"


def test_a_bad_release_halts_itself_and_the_report_says_why(desk: Desk) -> None:
    devices = [desk.rig.device(f"d{n}") for n in range(4)]
    desk.create()
    for device in devices:
        _revert(device)
    desk.tick()
    row = desk.row()
    assert (row["state"], row["halted_by"]) == ("halted", "planner")
    assert "4 of 4 attempts ended badly" in row["because"][0]["text"]
    (found,) = desk.rig.read(lambda conn: incidents.of_rollout(conn, row["id"]))
    assert (found.kind, found.opened_by, found.state) == ("halt", "planner", "open")
    report = desk.rig.read(lambda conn: reports.build(conn, found.name, desk.now))
    assert report.reach.counts.reverted == 4
    text = story.to_markdown(story.lay_out(report))
    assert "4 of 4 attempts ended badly" in text
    assert "a corrective action" in report.missing


def test_a_bad_variant_is_isolated_and_readmitted_by_hand(desk: Desk) -> None:
    device, other = desk.rig.device("d1", rev=1), desk.rig.device("d2", rev=2)
    desk.create()
    desk.act("isolate", variant="gw1-r1", reason="field report")
    assert device.assignment().action == "none"
    assert other.assignment().action == "install"
    row = desk.row()
    (found,) = desk.rig.read(lambda conn: incidents.of_rollout(conn, row["id"]))
    assert (found.kind, found.subject) == ("isolation", "gw1-r1")
    again = desk.act("readmit", variant="gw1-r1", reason="it was the router")
    assert again.reach == 1
    assert device.assignment().action == "install"
    assert _code(desk.act, "readmit", variant="gw1-r1") == "request.conflict"


def test_the_evidence_tells_errors_and_device_time_of_both_arms(desk: Desk) -> None:
    updated, waiting = desk.rig.device("d0"), desk.rig.device("d1")
    desk.create()
    updated.run(updated.assignment())
    for device in (updated, waiting):
        device.tell("heartbeat", metrics=Metrics(errors=2, device_s=300))
    count = desk.operations.audiences.count
    found = desk.rig.read(lambda conn: inquiry.evidence(conn, "gw1-1.1.0", count, desk.now))
    assert {(one.arm, one.errors, one.device_s) for one in found.exposure} >= {("updated", 2, 300)}


def test_cancelling_ends_what_has_not_activated(desk: Desk) -> None:
    device = desk.rig.device()
    desk.create()
    body = device.assignment()
    desk.act("pause")
    assert desk.act("cancel").state == "cancelled"
    row = desk.row()
    states = desk.rig.read(lambda conn: admin_rollouts.update_states(conn, row["id"]))
    assert states == {"cancelled": 1}
    assert device.permit(body).envelope is None


def test_why_it_was_stopped_stays_its_reason(desk: Desk) -> None:
    desk.rig.device()
    desk.create()
    desk.act("pause", reason="storm in Lyon")
    desk.tick()
    assert desk.row()["because"][0]["text"] == "paused by olga: storm in Lyon"
    desk.act("halt", reason="screens black")
    desk.tick()
    assert desk.row()["because"][0]["text"] == "halted by olga: screens black"


def test_widening_wants_a_reason_and_stopping_does_not(desk: Desk) -> None:
    desk.rig.device()
    desk.create()
    assert desk.act("pause", reason="").state == "paused"
    assert _code(desk.act, "resume", reason=" ") == "request.confirmation_needed"


# --- two people -----------------------------------------------------------------------------------------------------


def test_beyond_the_limit_a_second_person_starts_it(desk: Desk) -> None:
    desk.people("pia", "olga")
    device = desk.rig.device()
    made = desk.create()
    assert (made.state, desk.row()["state"]) == ("awaiting_approval", "awaiting_approval")
    assert made.request is not None
    assert device.poll().work is False
    own = _code(
        desk.operations.decide,
        made.request,
        Actor(name="olga", role="admin"),
        "",
        desk.now,
        approve=True,
    )
    assert own == "request.forbidden"
    done = desk.operations.decide(made.request, PIA, "seen", desk.now, approve=True)
    assert done.state == "active"
    assert device.poll().work is True
    again = _code(desk.operations.decide, made.request, PIA, "", desk.now, approve=True)
    assert again == "request.conflict"


def test_a_token_is_not_a_second_person(desk: Desk) -> None:
    desk.people("pia")
    desk.rig.device()
    made = desk.create()
    token = Actor(name="token:ci", role="admin", kind="token", owner="pia")
    assert made.request is not None
    assert (
        _code(desk.operations.decide, made.request, token, "", desk.now, approve=True)
        == "request.forbidden"
    )


def test_one_person_alone_can_go_on_and_is_told_so(desk: Desk) -> None:
    desk.rig.device()
    desk.people("olga", role="admin")
    assert desk.rig.read(approvals.is_single) is True
    assert desk.create().state == "active"
    desk.people("pia")
    assert desk.rig.read(approvals.is_single) is False


def test_taking_a_gate_out_takes_a_second_person_whatever_its_reach(desk: Desk) -> None:
    desk.rig.device()
    desk.create(ring=[{"name": "all", "gates": [{"type": "soak", "time": "1h"}]}])
    desk.people("pia", "olga")
    keeps = {**ONE_RING, "ring": [{"name": "all", "gates": [{"type": "soak", "time": "2h"}]}]}
    operations = desk.operations
    # One device is all of this fleet: the limits of reach are put out of the way.
    operations.rules = msgspec.structs.replace(operations.rules, above_share_bp=10_000)
    assert operations.edit("gw1-1.1.0", keeps, OLGA, "slower", desk.now).request is None
    assert operations.edit("gw1-1.1.0", {**ONE_RING}, OLGA, "hurry", desk.now).request is not None
    asked = operations.edit("gw1-1.1.0", {**keeps, "guards": []}, OLGA, "hurry", desk.now)
    assert asked.request is not None
    assert desk.row()["policy"]["rings"][0]["gates"]
    assert operations.decide(asked.request, PIA, "seen", desk.now, approve=True).verb == "edit"
    assert desk.row()["policy"]["guards"] == []


def test_a_ring_that_waits_for_approval_is_not_approved_by_who_made_it(desk: Desk) -> None:
    auth = desk.people("pia")
    auth.create_account("olga", "admin", "correct horse battery", OLGA_ROOT, desk.now)
    desk.rig.device()
    pilot = {"name": "pilot", "audience": "revision = 1", "gates": [{"type": "approval"}]}
    made = desk.create(ring=[pilot, {"name": "all"}])
    if made.request is not None:
        desk.operations.decide(made.request, PIA, "seen", desk.now, approve=True)
    olga = Actor(name="olga", role="admin")
    token = Actor(name="token:ci", role="admin", kind="token", owner="pia")
    for actor in (olga, msgspec.structs.replace(olga, name="olga.sso", aliases=("olga",)), token):
        assert _code(desk.act, "approve", actor=actor) == "request.forbidden"
    assert desk.act("approve", actor=PIA).verb == "approve"


def test_a_second_account_of_the_same_person_is_no_second_person(desk: Desk) -> None:
    auth = desk.people("pia")
    root = Actor(name="root", role="admin")
    auth.create_account("olga", "operator", "correct horse battery", root, desk.now)
    auth.create_account(
        "olga.sso", "approver", "correct horse battery", root, desk.now, person="olga"
    )
    desk.rig.device()
    made = desk.create()
    assert made.request is not None
    other = Actor(name="olga.sso", role="approver", aliases=("olga",))
    assert (
        _code(desk.operations.decide, made.request, other, "", desk.now, approve=True)
        == "request.forbidden"
    )
    assert "olga.sso" not in made.text


def test_an_edit_voids_what_was_asked_for(desk: Desk) -> None:
    desk.people("pia")
    desk.rig.device()
    made = desk.create()
    data = {**ONE_RING, "ring": [{"name": "other"}]}
    desk.operations.edit("gw1-1.1.0", data, OLGA, "typo", desk.now)
    assert made.request is not None
    assert (
        _code(desk.operations.decide, made.request, PIA, "", desk.now, approve=True)
        == "request.conflict"
    )


def test_what_nobody_approves_in_time_lapses(desk: Desk) -> None:
    desk.people("pia")
    desk.rig.device()
    desk.create()
    desk.rig.now += 86_401
    desk.tick()
    assert desk.row()["state"] == "draft"
    assert [one.state for one in desk.operations.requests("")] == ["lapsed"]


def test_resuming_after_a_halt_takes_two_even_for_one_device(desk: Desk) -> None:
    desk.rig.device()
    desk.create()
    desk.act("halt")
    desk.people("pia")
    asked = desk.act("resume")
    assert (asked.state, asked.request is not None) == ("halted", True)
    assert desk.act("approve", actor=PIA).state == "active"


# --- the way back ---------------------------------------------------------------------------------------------------


def _brought_forward(desk: Desk, count: int) -> list[Device]:
    devices = [desk.rig.device(f"d{n}") for n in range(count)]
    desk.create()
    for device in devices:
        device.run(device.assignment())
    desk.rig.release(2, fallback_to=(1,))
    desk.create("gw1-1.2.0")
    for device in devices:
        device.run(device.assignment())
        device.assignment()  # it says what stands in its slots
    return devices


def test_a_cohort_is_ordered_back_and_the_parent_ends(desk: Desk) -> None:
    devices = _brought_forward(desk, 3)
    name = "gw1-1.2.0"
    desk.act("halt", name)
    found = desk.operations.way_back(name, "", "exposed", desk.now)
    assert (found.to, found.resident, found.elsewhere) == ("gw1-1.1.0", 3, 0)
    done = desk.operations.fall_back(name, "", "exposed", OLGA, "errors are up", desk.now)
    assert (done.name, done.state) == ("gw1-1.2.0.back1", "active")
    assert desk.row(name)["state"] == "falling_back"
    for device in devices[:2]:
        device.run(device.assignment())
    desk.rig.now += 60
    desk.tick()
    desk.tick()
    assert desk.row("gw1-1.2.0.back1")["state"] == "active"
    for device in devices[2:]:
        body = device.assignment()
        assert body.action == "fallback"
        device.run(body)
    desk.rig.now += 60
    desk.tick()
    desk.tick()
    assert desk.row("gw1-1.2.0.back1")["state"] == "completed"
    assert desk.row(name)["state"] == "completed"
    for device in devices:
        assert device.assignment().action == "none"
    desk.rig.now += 10_000
    desk.tick()
    assert desk.row(name)["state"] == "completed"


def test_a_rollout_that_was_brought_back_is_not_halted_again_by_what_it_was_halted_for(
    desk: Desk,
) -> None:
    devices = [desk.rig.device(f"d{n}") for n in range(6)]
    desk.create()
    for device in devices:
        device.run(device.assignment())
    desk.rig.release(2, fallback_to=(1,))
    desk.create("gw1-1.2.0")
    for device in devices[:3]:
        device.run(device.assignment())
        device.assignment()
    for device in devices[3:]:
        body = device.assignment()
        device.tell("staged", body)
        if device.permit(body).envelope is not None:
            device.tell("reverted", body, reason="health.service")
    desk.tick()
    assert desk.row("gw1-1.2.0")["halted_by"] == "planner"
    desk.operations.fall_back("gw1-1.2.0", "", "exposed", OLGA, "back", desk.now)
    for device in devices[:3]:
        device.run(device.assignment())
    for _ in range(3):
        desk.rig.now += 60
        desk.tick()
    row = desk.row("gw1-1.2.0")
    assert row["state"] == "completed"
    assert len(desk.rig.read(lambda conn: incidents.of_rollout(conn, row["id"]))) == 1


def test_only_the_variant_that_was_named_goes_back(desk: Desk) -> None:
    _brought_forward(desk, 1)
    desk.act("halt", "gw1-1.2.0")
    found = desk.operations.way_back("gw1-1.2.0", "", "variant:gw1-r7", desk.now)
    assert found.resident == 0
    refused = _code(
        desk.operations.fall_back, "gw1-1.2.0", "", "variant:gw1-r7", OLGA, "x", desk.now
    )
    assert refused == "request.conflict"


def test_no_way_back_without_a_signed_word(desk: Desk) -> None:
    desk.rig.device()
    desk.create()
    desk.act("halt")
    assert (
        _code(desk.operations.way_back, "gw1-1.1.0", "", "exposed", desk.now) == "request.conflict"
    )


def test_a_way_back_is_ordered_only_after_a_halt(desk: Desk) -> None:
    _brought_forward(desk, 1)
    code = _code(desk.operations.fall_back, "gw1-1.2.0", "", "exposed", OLGA, "x", desk.now)
    assert code == "request.conflict"


# --- what is written down -------------------------------------------------------------------------------------------


def test_every_act_stands_in_the_log_once_and_the_chain_holds(desk: Desk) -> None:
    desk.rig.device()
    desk.create()
    desk.act("pause")
    desk.act("resume")
    desk.act("halt")
    actions = [one.action for one in desk.rig.read(audit.export)]
    assert actions == [
        "rollout.create", "rollout.start", "rollout.pause", "rollout.resume", "incident.open", "rollout.halt",
    ]  # fmt: skip
    assert desk.rig.read(audit.verify).ok is True


def test_a_scheduled_rollout_starts_at_its_time(desk: Desk) -> None:
    device = desk.rig.device()
    made = desk.create(start=desk.now + 100)
    assert made.state == "scheduled"
    desk.tick()
    assert device.poll().work is False
    desk.rig.now += 100
    desk.tick()
    assert desk.row()["state"] == "active"
    assert device.poll().work is True


def test_a_newer_release_for_the_same_audience_takes_over(desk: Desk) -> None:
    device = desk.rig.device()
    desk.create()
    body = device.assignment()
    assert body.action == "install"
    desk.rig.release(2)
    desk.create("gw1-1.2.0")
    assert desk.row()["state"] == "superseded"
    newer = device.assignment()
    assert newer.target is not None
    assert newer.target.release_counter == 2


def test_only_one_replica_ticks(desk: Desk) -> None:
    desk.rig.write(lambda conn: admin_log.take_lease(conn, "reconciler", "another", desk.now, 30))
    assert tick(desk.rig.app.services, desk.now).leader is False
    assert tick(desk.rig.app.services, desk.now + 31).leader is True


def test_an_incident_is_closed_only_with_a_corrective_action(desk: Desk) -> None:
    desk.create()
    halted = desk.act("halt")
    assert halted.stopped is not None
    name = halted.stopped.incident

    def close() -> incidents.IncidentFacts:
        def work(conn: Connection) -> incidents.IncidentFacts:
            return incidents.move(conn, name, "close", OLGA, "understood", desk.now)

        return desk.rig.app.store.write(work).result(10)

    assert _code(close) == "request.conflict"
    desk.rig.write(
        lambda conn: incidents.note(conn, name, "action", "fixed the driver", OLGA, desk.now)
    )
    assert close().state == "closed"
    kind, body = desk.rig.read(lambda conn: reports.export(conn, name, "md", desk.now))
    assert kind == "text/markdown"
    assert b"fixed the driver" in body


def test_hostile_words_of_people_do_no_harm_in_the_report(desk: Desk) -> None:
    desk.create()
    halted = desk.act("halt", reason="<script>alert(1)</script>\n# heading")
    assert halted.stopped is not None
    name = halted.stopped.incident
    _, page = desk.rig.read(lambda conn: reports.export(conn, name, "html", desk.now))
    assert b"<script" not in page
    _, text = desk.rig.read(lambda conn: reports.export(conn, name, "md", desk.now))
    assert b"\n# heading" not in text


def test_verbs_are_listed_with_their_permission() -> None:
    assert set(rollouts.PERMISSIONS.values()) == {
        "rollout.widen",
        "rollout.approve",
        "rollout.halt",
    }
