"""Grants of a way back on the server: drafted for a computed cohort, taken in only as the incident ring signed it, and sent with each device's own proof."""

import base64
from typing import Any

import msgspec
import pytest
from tests.unit.server.rig import Device, Rig
from tests.unit.server.test_rollouts_admin import EVE, OLGA, PIA, Desk

from tidegate.core import keys
from tidegate.core.codec import canonical, decode_document
from tidegate.core.errors import TidegateError
from tidegate.core.grant import GRANT_TYPE, GrantBody, open_grant
from tidegate.core.keys import Signer
from tidegate.core.merkle import proves
from tidegate.core.protocol import Envelope, GrantUse
from tidegate.server import grants, incidents
from tidegate.server.grants import GrantAsk, GrantDraft
from tidegate.server.store import rollout_rows
from tidegate.server.web.queries import incidents as web

BAD = "gw1-1.3.0"


@pytest.fixture
def desk(rig: Rig) -> Desk:
    rig.publish_trust()
    rig.release(1)
    return Desk(rig)


def _halted(desk: Desk, count: int) -> list[Device]:
    """Bring devices over 1 and 2 to 3, which names no way back, and halt it: 1 is in nobody's slot any more."""
    devices = [desk.rig.device(f"d{n}") for n in range(count)]
    for counter in (1, 2, 3):
        if counter > 1:
            desk.rig.release(counter)
        desk.create(f"gw1-1.{counter}.0")
        for device in devices:
            device.run(device.assignment())
            device.assignment()  # it says what stands in its slots
    desk.act("halt", BAD)
    return devices


def _incident(desk: Desk) -> str:
    row = desk.row(BAD)
    found = desk.rig.read(lambda conn: incidents.of_rollout(conn, row["id"]))
    return str(found[0].name)


def _draft(desk: Desk, **ask: Any) -> GrantDraft:
    given = {"to": "gw1-1.1.0", "reason": "boot loops", **ask}
    services = desk.rig.app.services
    return grants.draft(services, _incident(desk), GrantAsk(**given), OLGA, desk.now)


def _body(envelope: Envelope) -> GrantBody:
    return decode_document(base64.b64decode(envelope.payload), GrantBody)


def _signed(desk: Desk, envelope: Envelope, *signers: Signer) -> Envelope:
    for one in signers or (desk.rig.signer("incident"),):
        envelope = keys.add_signature(envelope, one)
    return envelope


def _submit(desk: Desk, envelope: Envelope, reason: str = "bring them back") -> Any:
    operations = desk.operations
    return operations.fall_back_by_grant(_incident(desk), envelope, OLGA, reason, desk.now)


def _code(call: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(TidegateError) as caught:
        call(*args, **kwargs)
    return caught.value.code


def test_a_signed_grant_brings_its_cohort_back_each_with_its_own_proof(desk: Desk) -> None:
    devices = _halted(desk, 5)
    draft = _draft(desk)
    assert (draft.way.resident, draft.way.elsewhere, draft.way.to) == (0, 5, "gw1-1.1.0")
    body = _body(draft.envelope)
    assert body.cohort.count == 5
    assert [one.release_counter for one in body.leaving] == [3]
    assert (body.resume.min_counter, body.to[0].release_counter) == (4, 1)
    done = _submit(desk, _signed(desk, draft.envelope))
    assert (done.name, done.state, done.reach) == ("gw1-1.3.0.back1", "active", 5)
    root = desk.rig.read(desk.rig.app.services.repository.root)
    assert root is not None
    for device in devices:
        ordered = device.assignment()
        assert ordered.action == "fallback"
        assert ordered.grant is not None
        assert ordered.cohort_proof is not None
        grant = open_grant(ordered.grant, root)
        tree = {"root": grant.cohort.merkle_root or "", "count": 5}
        assert proves(ordered.cohort_proof, device.id, **tree)  # type: ignore[arg-type]
        device.run(ordered)
    desk.rig.now += 60
    desk.tick()
    desk.tick()
    assert desk.row(BAD)["state"] == "completed"
    assert {device.counter for device in devices} == {1}


def test_whoever_came_to_run_the_bad_build_after_the_draft_is_not_meant(desk: Desk) -> None:
    devices = _halted(desk, 2)
    late = desk.rig.device("latecomer")
    signed = _signed(desk, _draft(desk).envelope)
    late.counter, late.sha256 = 3, devices[0].sha256
    late.assignment()
    _submit(desk, signed)
    assert late.assignment().action != "fallback"
    assert devices[0].assignment().action == "fallback"


def test_the_page_and_the_list_tell_of_a_grant(desk: Desk) -> None:
    _halted(desk, 2)
    draft = _draft(desk)
    name = _incident(desk)
    facts = desk.rig.read(lambda conn: grants.of_incident(conn, name))
    assert [(one.state, one.signatures, one.rollout) for one in facts] == [("draft", 0, "")]
    _submit(desk, _signed(desk, draft.envelope))
    facts = desk.rig.read(lambda conn: grants.of_incident(conn, name))
    assert [(one.state, one.signatures, one.rollout) for one in facts] == [
        ("accepted", 1, "gw1-1.3.0.back1")
    ]
    page = desk.rig.read(lambda conn: web.page(conn, name, desk.now))
    assert page is not None
    shown = next(one for one in page.related if one.term.startswith("Grant "))
    assert shown.value == "gw1-1.3.0 back to gw1-1.1.0, 2 devices: accepted, signed by 1"
    assert shown.href == "/rollouts/gw1-1.3.0.back1"
    said = [one.text for one in desk.rig.read(lambda conn: incidents.notes(conn, name))]
    assert any("is drafted: back to gw1-1.1.0 for 2 devices" in text for text in said)
    assert any("is signed by 1 holders" in text for text in said)


def test_a_device_that_is_on_its_way_to_the_bad_build_is_meant_too(desk: Desk) -> None:
    _halted(desk, 2)
    raw = desk.row(BAD)["id"]
    coming = desk.rig.device("coming")
    desk.rig.set_rollout(raw, state="active", room=None)
    ordered = coming.assignment()
    coming.tell("staged", ordered)
    assert coming.permit(ordered).envelope is not None
    desk.act("halt", BAD)
    assert _body(_draft(desk).envelope).cohort.count == 3


def test_handing_in_the_same_again_orders_nothing_twice(desk: Desk) -> None:
    _halted(desk, 2)
    signed = _signed(desk, _draft(desk).envelope)
    first = _submit(desk, signed)
    again = _submit(desk, signed)
    assert again.already
    assert again.name == first.name


@pytest.mark.parametrize("who", ["nobody", "stranger", "product/gw1", "director"])
def test_only_the_incident_ring_grants(desk: Desk, who: str) -> None:
    _halted(desk, 2)
    envelope = _draft(desk).envelope
    if who == "director":
        envelope = _signed(desk, envelope, desk.rig.app.services.keys.director)
    elif who != "nobody":
        envelope = _signed(desk, envelope, desk.rig.signer(who))
    assert _code(_submit, desk, envelope) == "sig.unknown_key"
    assert desk.row(BAD)["state"] == "halted"


@pytest.mark.parametrize("name", ["reason", "expires", "serial", "resume"])
def test_other_bytes_than_were_drafted_are_not_taken(desk: Desk, name: str) -> None:
    _halted(desk, 2)
    draft = _draft(desk)
    plain = msgspec.to_builtins(_body(draft.envelope))
    plain[name] = {"reason": "x", "expires": desk.now + 9, "serial": 1, "resume": {"min_counter": 9}}[name]  # fmt: skip
    other = keys.sign_envelope(canonical(plain), GRANT_TYPE, desk.rig.signer("incident"))
    assert _code(_submit, desk, other) == "request.not_found"


def test_what_devices_would_refuse_is_refused_here_with_their_code(desk: Desk) -> None:
    _halted(desk, 2)
    signed = _signed(desk, _draft(desk, valid_s=3600).envelope)
    desk.rig.now += 3601
    assert _code(_submit, desk, signed) == "sig.expired"


def test_a_grant_that_ran_out_brings_nobody_back_any_more(desk: Desk) -> None:
    one, two = _halted(desk, 2)
    _submit(desk, _signed(desk, _draft(desk, valid_s=3600).envelope))
    one.run(one.assignment())
    desk.rig.now += 3601
    assert two.assignment().action != "fallback"
    assert two.counter == 3


def test_a_device_that_used_a_later_grant_is_not_offered_an_older_one(desk: Desk) -> None:
    one, _ = _halted(desk, 2)
    draft = _draft(desk)
    _submit(desk, _signed(desk, draft.envelope))
    serial = _body(draft.envelope).serial
    row = desk.row("gw1-1.3.0.back1")
    ways = desk.rig.app.services.ways
    live = desk.rig.read(lambda conn: rollout_rows.live_one(conn, row["id"]))
    assert live is not None
    assert live.grant_id is not None
    grant_id = live.grant_id
    sha256 = one.sha256

    def way(last: GrantUse) -> Any:
        from tidegate.core.grant import Holder
        from tidegate.core.release import Running

        holder = Holder(
            device_id=one.id,
            product="gw1",
            hardware=one.hardware,
            running=Running(release_counter=3, sha256=sha256),
            release=None,
            floor=0,
            last=last,
        )
        return desk.rig.read(lambda conn: ways.find(conn, grant_id, holder, "u-1", desk.now))

    assert not isinstance(way(GrantUse()), str)
    used = GrantUse(epoch=1, serial=serial, update="u-0", done=True)
    assert way(used) == "security.fallback_replayed"


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        ({"reason": " "}, "request.confirmation_needed"),
        ({"to": "gw1-1.3.0"}, "request.conflict"),
        ({"to": "gw1-9.9.9"}, "request.not_found"),
        ({"cohort": "somebody"}, "request.invalid"),
        ({"cohort": "variant:gw1-r7"}, "request.conflict"),
        ({"cohort": "variant:gw1-r1", "everybody": True}, "request.invalid"),
        ({"valid_s": 31 * 86_400}, "request.invalid"),
    ],
)
def test_a_draft_that_cannot_be_is_refused(desk: Desk, ask: dict[str, Any], code: str) -> None:
    _halted(desk, 1)
    assert _code(_draft, desk, **ask) == code


def test_whoever_may_not_order_a_way_back_may_not_draft_one(desk: Desk) -> None:
    _halted(desk, 1)
    services, name = desk.rig.app.services, _incident(desk)
    ask = GrantAsk(reason="please")
    assert _code(grants.draft, services, name, ask, EVE, desk.now) == "request.forbidden"


def test_the_newest_good_release_below_is_taken_when_none_is_named(desk: Desk) -> None:
    _halted(desk, 1)
    draft = _draft(desk, to="", everybody=True)
    body = _body(draft.envelope)
    assert draft.way.to == "gw1-1.2.0"
    assert body.cohort.all
    assert body.cohort.merkle_root is None
    assert draft.way.resident == 1
    done = _submit(desk, _signed(desk, draft.envelope))
    assert done.reach == 1


def test_a_rest_that_a_resident_fallback_left_is_brought_back_by_a_grant(desk: Desk) -> None:
    """Serials rise; a second way back may be ordered while a first one runs."""
    _halted(desk, 2)
    first = _draft(desk)
    second = _draft(desk)
    assert _body(second.envelope).serial > _body(first.envelope).serial
    _submit(desk, _signed(desk, first.envelope))
    assert desk.row(BAD)["state"] == "falling_back"
    done = _submit(desk, _signed(desk, second.envelope))
    assert done.name == "gw1-1.3.0.back2"


def test_many_devices_are_ordered_back_only_when_a_second_person_agrees(desk: Desk) -> None:
    desk.people("pia", "olga")
    devices = _halted_by_two(desk)
    asked = _submit(desk, _signed(desk, _draft(desk).envelope))
    assert asked.request is not None
    assert desk.row(BAD)["state"] == "halted"
    assert devices[0].assignment().action != "fallback"
    done = desk.operations.decide(asked.request, PIA, "seen", desk.now, approve=True)
    assert (done.name, done.reach) == ("gw1-1.3.0.back1", 2)
    ordered = devices[0].assignment()
    assert ordered.action == "fallback"
    assert ordered.grant is not None


def _halted_by_two(desk: Desk) -> list[Device]:
    """As `_halted`, where every widening needs a second person."""
    devices = [desk.rig.device(f"d{n}") for n in range(2)]
    for counter in (1, 2, 3):
        if counter > 1:
            desk.rig.release(counter)
        made = desk.create(f"gw1-1.{counter}.0")
        if made.request is not None:
            desk.operations.decide(made.request, PIA, "", desk.now, approve=True)
        for device in devices:
            device.run(device.assignment())
            device.assignment()
    desk.act("halt", BAD)
    return devices
