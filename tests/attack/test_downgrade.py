"""Downgrades and fallbacks against a real agent, by a thief who holds the director's key: security.md 7 and 10 B.

The same attacks on the pure policy, and those that need no device, are in `tests/unit/core/test_grant.py`.
"""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.attack.field import (
    BAD,
    BEFORE,
    GOOD,
    INCIDENT,
    SECURITY,
    Field,
    grant,
    in_the_field,
    proof_of,
    signed,
)
from tests.crash.releases import DAY, Release, make_release, signer

from tidegate.agent.events import RevertAsked
from tidegate.agent.journal import COPIES
from tidegate.core.grant import Cohort, GrantBody, Leaving, Resume
from tidegate.core.hardware import HardwareRange
from tidegate.core.keys import sign_document
from tidegate.core.metadata import RoleKeys
from tidegate.core.protocol import ASSIGNMENT_TYPE, PERMIT_TYPE, AssignmentBody, Envelope
from tidegate.sim.board import Image
from tidegate.sim.faults import Behaviour, Cut, CutMode

replace = msgspec.structs.replace
MODES: tuple[CutMode, ...] = ("before", "torn", "after")


def test_a_grant_brings_a_device_back_by_download_and_bars_what_it_left() -> None:
    field = in_the_field()
    field.grant = signed(grant(field))
    field.back()
    assert field.plane.outcomes() == [("confirmed", None)]
    assert field.device.runs == GOOD
    assert [one for one in field.plane.requests if "/blobs/" in one]
    assert field.alarms() == []
    used = field.state.fallback_last["gw1"]
    assert (used.epoch, used.serial, used.update, used.done) == (1, 7, "u-back", True)
    assert field.state.resume_min == {"gw1": BAD + 1}
    assert field.state.floor == SECURITY - 1


# --- the director alone ---


def _changed(**changes: object) -> Callable[[AssignmentBody], AssignmentBody]:
    return lambda body: replace(body, **changes)


@pytest.mark.parametrize(
    ("twist", "code"),
    [
        (_changed(device_id="dev-2"), "sig.replayed"),
        (_changed(device_key="22" * 32), "sig.replayed"),
        (_changed(nonce="00" * 16), "sig.replayed"),
        (_changed(seq=1), "sig.replayed"),
        (_changed(epoch=0), "sig.replayed"),
        (_changed(epoch=2), "sig.mix_and_match"),
        (_changed(expires=1), "sig.expired"),
        (lambda body: replace(body, expires=body.issued + 3650 * DAY), "sig.expired"),
        (lambda body: sign_document(body, ASSIGNMENT_TYPE, signer("thief")), "sig.unknown_key"),
        (lambda body: sign_document(body, PERMIT_TYPE, signer("director")), "sig.malformed"),
    ],
    ids=["other device", "other key", "old question", "replay", "epoch back", "epoch ahead",
         "expired", "ten years", "forged", "type"],
)  # fmt: skip
def test_an_order_that_was_not_made_for_this_moment(twist: Any, code: str) -> None:
    field = in_the_field()
    field.plane.releases = (*field.plane.releases, make_release(4, security_version=SECURITY))
    field.plane.version = 2
    field.plane.publish()
    field.twist = twist

    def attack() -> None:
        field.order("install", 4)
        field.live(900)

    field.refuses(attack, code)


def test_an_order_recorded_earlier_is_no_answer_to_a_new_question() -> None:
    field = in_the_field()
    recorded = field.sent[-1]
    field.twist = lambda _: recorded
    field.refuses(lambda: _try(field, "install", BAD), "sig.replayed")


def _try(field: Field, action: str, counter: int, limit_s: float = 900) -> None:
    field.order(action, counter)
    field.live(limit_s)


@pytest.mark.parametrize("skew_years", [-55, 10])
def test_a_wrong_clock_takes_a_fresh_answer_and_no_old_one(skew_years: int) -> None:
    field = in_the_field()
    wall = int(field.plane.clock.wall())
    field.device.clock.skew_s = -wall + 100 if skew_years < 0 else skew_years * 365 * DAY
    recorded = field.sent[-1]
    field.twist = lambda _: recorded
    field.refuses(lambda: _try(field, "install", BAD), "sig.replayed")
    field.twist = None
    field.grant = signed(grant(field))
    field.back()
    assert field.device.runs == GOOD


@pytest.mark.parametrize("clock", ["right", "1970"])
def test_turning_the_clock_back_does_not_bring_a_lapsed_grant_to_life(clock: str) -> None:
    """The thief, who may say what time it is, says a time at which the grant was good."""
    field = in_the_field()
    field.grant = signed(_later(grant(field), 20))
    if clock == "1970":
        field.device.clock.skew_s = -int(field.plane.clock.wall()) + 100
    field.twist = lambda body: replace(body, issued=body.issued - 10 * DAY)
    field.plane.skew_s = -10 * DAY
    field.refuses(field.back, "sig.expired")


def test_numbers_run_ahead_are_undone_by_the_recovery_ceremony() -> None:
    field = in_the_field()
    field.twist = lambda body: replace(body, seq=(1 << 53) - 1)
    _try(field, "hold", 0, 300)
    field.twist = None
    field.grant = signed(grant(field))
    field.refuses(lambda: _try(field, "fallback", GOOD), "sig.replayed")
    field.plane.epoch, field.plane.version = 2, 2
    field.plane.publish()
    field.grant = signed(grant(field))
    field.back(update="u-after")
    assert field.device.runs == GOOD


def test_authorities_never_go_back() -> None:
    field = in_the_field()
    field.plane.epoch, field.plane.version = 2, 2
    field.plane.publish()
    field.order("none")
    field.live(600)
    field.plane.epoch, field.plane.version = 1, 3
    field.plane.publish()
    field.refuses(lambda: _try(field, "install", BAD), "sig.rollback")


def test_a_pilot_build_is_not_installed_on_a_stable_device() -> None:
    field = in_the_field()
    pilot = make_release(4, security_version=SECURITY, channels=("pilot",))
    field.plane.releases = (*field.plane.releases, pilot)
    field.plane.version = 2
    field.plane.publish()
    field.refuses(lambda: _try(field, "install", 4), "compat.channel")


@pytest.mark.parametrize("counter", [GOOD, BEFORE])
def test_a_plain_downgrade(counter: int) -> None:
    field = in_the_field(way_back=True)
    field.refuses(lambda: _try(field, "install", counter), "compat.counter")


def test_a_way_back_that_nobody_allowed_even_to_the_resident_slot() -> None:
    field = in_the_field()
    field.refuses(lambda: _try(field, "fallback", BEFORE), "compat.counter")
    field.refuses(lambda: _try(field, "fallback", GOOD), "compat.counter")


def test_what_release_signers_allowed_is_the_resident_slot_and_no_more() -> None:
    field = in_the_field(way_back=True)
    field.refuses(lambda: _try(field, "fallback", GOOD), "compat.counter")
    field.back(BEFORE)
    assert field.device.runs == BEFORE
    assert field.state.fallback_last == {}


# --- the director with a grant that does not fit ---

Make = Callable[[Field], Envelope]


def _of(**changes: object) -> Make:
    return lambda field: signed(grant(field, **changes))


def _later(body: GrantBody, days: int) -> GrantBody:
    return replace(body, issued=body.issued - days * DAY, expires=body.expires - days * DAY)


def _twice(field: Field) -> Envelope:
    once = signed(grant(field), INCIDENT[0])
    return replace(once, signatures=once.signatures * 2)


ATTACKS: dict[str, tuple[Make, str]] = {
    "signed by one of two": (lambda f: signed(grant(f), INCIDENT[0]), "sig.threshold"),
    "one key signs twice": (_twice, "sig.malformed"),
    "director key": (lambda f: signed(grant(f), signer("director")), "sig.unknown_key"),
    "director beside one": (
        lambda f: signed(grant(f), INCIDENT[0], signer("director")), "sig.threshold"),
    "product keys": (lambda f: signed(grant(f), signer("product"), signer("root")), "sig.unknown_key"),
    "from another build": (
        _of(leaving=(Leaving(release_counter=BAD, sha256="cd" * 32),)), "compat.counter"),
    "from another counter": (
        lambda f: signed(grant(f, leaving=(replace(grant(f).leaving[0], release_counter=BEFORE),))),
        "compat.counter"),
    "expired": (lambda f: signed(_later(grant(f), 20)), "sig.expired"),
    "not begun": (lambda f: signed(_later(grant(f), -2)), "sig.expired"),
    "for a year": (
        lambda f: signed(grant(f, expires=grant(f).issued + 365 * DAY)), "sig.expired"),
    "other product": (_of(product="gw2"), "sig.replayed"),
    "other tenant": (_of(tenant="other"), "sig.replayed"),
    "other hardware": (_of(hardware=(HardwareRange("gw1", 4, 9),)), "compat.hardware"),
    "other image": (
        lambda f: signed(grant(f, to=(replace(grant(f).to[0], sha256="00" * 32),))),
        "sig.director_mismatch"),
    "outside the cohort": (
        _of(cohort=Cohort(merkle_root="ab" * 32, count=9)), "sig.replayed"),
    "later epoch": (_of(epoch=2), "sig.mix_and_match"),
    "nobody named": (_of(cohort=Cohort()), "sig.malformed"),
    "a bar that shuts out": (_of(resume=Resume(min_counter=1 << 20)), "sig.malformed"),
    "a bar that bars nothing": (_of(resume=Resume(min_counter=BAD)), "sig.malformed"),
    "a field to be understood": (_of(crit=("quantum",)), "sig.malformed"),
}  # fmt: skip


@pytest.fixture(scope="module")
def field() -> Field:
    return in_the_field()


@pytest.mark.parametrize("name", ATTACKS)
def test_a_grant_that_does_not_fit_is_refused_under_its_own_code(field: Field, name: str) -> None:
    make, code = ATTACKS[name]
    field.grant, field.proof = make(field), proof_of("dev-1")
    field.refuses(lambda: field.back(update="u-" + name.replace(" ", "-")), code)


def test_each_attack_is_told_also_when_they_come_one_after_the_other() -> None:
    field = in_the_field()
    for number in range(3):
        field.forget()
        field.grant = signed(grant(field, tenant="other"))
        field.back(update=f"u-row-{number}")
        assert field.alarms() == ["sig.replayed"]
        assert field.plane.outcomes() == [("failed", "sig.replayed")]


@pytest.mark.parametrize("proof", [None, "other"])
def test_a_device_that_cannot_be_shown_to_be_meant(field: Field, proof: str | None) -> None:
    field.grant = signed(grant(field))
    field.proof = None if proof is None else proof_of("dev-2")
    field.refuses(lambda: field.back(update=f"u-proof-{proof}"), "sig.replayed")
    field.proof = proof_of("dev-1")


def test_below_the_floor_not_even_a_grant_leads_back() -> None:
    field = in_the_field()
    weak = make_release(GOOD, security_version=SECURITY - 2, fallback_to=())
    field.plane.releases = (weak, *field.plane.releases[1:])
    field.plane.version = 2
    field.plane.publish()
    field.grant = signed(grant(field))
    field.refuses(field.back, "compat.floor")


def test_an_image_that_is_not_live_any_more() -> None:
    field = in_the_field()
    field.grant = signed(grant(field))
    field.order("fallback", GOOD)
    field.plane.releases = field.plane.releases[1:]
    field.plane.version = 2
    field.plane.publish()
    field.refuses(lambda: field.live(900), "sig.director_mismatch")


def test_a_grant_of_an_earlier_epoch() -> None:
    field = in_the_field()
    field.grant = signed(grant(field))
    field.plane.epoch, field.plane.version = 2, 2
    field.plane.publish()
    field.refuses(field.back, "sig.replayed")


def test_one_public_key_under_two_ids_is_one_key() -> None:
    field = in_the_field()
    one = INCIDENT[0].public
    second = type(one)("f" * 64, one.keytype, one.public)
    field.plane.incident = RoleKeys((one, second), 2)
    field.plane.version = 2
    field.plane.publish()
    envelope = signed(grant(field), INCIDENT[0])
    copy = replace(envelope.signatures[0], keyid="f" * 64)
    field.grant = replace(envelope, signatures=(*envelope.signatures, copy))
    field.refuses(field.back, "sig.threshold")


def test_a_ring_with_a_threshold_of_nobody_trusts_nobody() -> None:
    field = in_the_field()
    field.plane.incident = RoleKeys((INCIDENT[0].public,), 0)
    field.plane.version = 2
    field.plane.publish()
    field.grant = replace(signed(grant(field)), signatures=())
    field.refuses(lambda: _try(field, "fallback", GOOD), "sig.malformed")


def test_strict_mode_wants_the_release_to_name_the_way_back_too() -> None:
    field = in_the_field()
    field.plane.strict_fallback, field.plane.version = True, 2
    field.plane.publish()
    field.grant = signed(grant(field))
    field.refuses(field.back, "compat.counter")


# --- once, and not again ---


def test_a_grant_that_was_used_is_worth_nothing() -> None:
    field = in_the_field()
    field.grant = signed(grant(field))
    field.back()
    field.forget()
    field.refuses(lambda: field.back(update="u-again"), "security.fallback_replayed")
    assert field.device.runs == GOOD


def test_the_way_to_the_bad_build_stays_closed() -> None:
    field = in_the_field()
    field.grant = signed(grant(field))
    field.back()
    field.refuses(lambda: _try(field, "install", BAD), "compat.counter")
    field.refuses(lambda: _try(field, "install", BEFORE), "compat.counter")
    # The slot that was left still holds it, confirmed: not even by hand does it come back.
    assert field.device.runner is not None
    before = field.state.phase
    now = int(field.device.clock.now())
    field.device.runner.feed(RevertAsked(now=now, reason="I liked it"))
    assert field.state.phase == before
    better = make_release(4, security_version=SECURITY)
    field.plane.releases = (*field.plane.releases, better)
    field.plane.version = 2
    field.plane.publish()
    field.device.board.catalogue.add(_image(better))
    field.forget()
    field.install(4, "u-4")
    assert field.device.runs == 4


def test_an_old_grant_is_not_good_again_after_a_recovery() -> None:
    field = in_the_field()
    field.grant = old = signed(grant(field))
    field.back()
    better = make_release(4, security_version=SECURITY)
    field.device.board.catalogue.add(_image(better))
    field.plane.releases = (*field.plane.releases, better)
    field.plane.epoch, field.plane.version = 2, 2
    field.plane.publish()
    field.grant = old
    field.refuses(lambda: field.back(update="u-after"), "sig.replayed")
    field.install(4, "u-4")
    assert field.device.runs == 4
    # A new one of the new epoch leads back from there, whatever its number.
    sha256 = better.target.release.install.sha256
    fresh = grant(
        field,
        serial=1,
        leaving=(Leaving(release_counter=4, sha256=sha256),),
        resume=Resume(min_counter=5),
    )
    field.forget()
    field.grant = signed(fresh)
    field.back(update="u-fresh")
    assert field.device.runs == GOOD


def test_a_way_back_that_reverted_is_used_up_too() -> None:
    field = in_the_field()
    field.device.board.truth.behaviours[(GOOD, "*")] = Behaviour(service=False)
    field.grant = signed(grant(field))
    field.back()
    assert field.plane.outcomes() == [("reverted", "health.service")]
    assert field.device.runs == BAD
    field.refuses(lambda: field.back(update="u-back", attempt=2), "security.fallback_replayed")


def test_a_power_cut_takes_nothing_and_gives_nothing() -> None:
    """Cut at every durable operation of the way back: it ends on the good build, without an alarm, and the grant is used up."""
    whole = in_the_field()
    whole.grant = signed(grant(whole))
    begun = whole.device.board.power.operations
    whole.back()
    count = whole.device.board.power.operations - begun
    assert count > 20
    for number in range(1, count + 1):
        mode: CutMode = MODES[number % len(MODES)]
        field = in_the_field()
        field.grant = signed(grant(field))
        field.device.board.power.arm(Cut(number, mode))
        field.back()
        where = (number, mode)
        used = field.state.fallback_last["gw1"]
        assert (field.device.runs, used.serial, used.done) == (GOOD, 7, True), where
        assert field.alarms() == [], where
        assert field.plane.outcomes() == [("confirmed", None)], where


def test_a_failed_download_does_not_use_the_grant_up() -> None:
    field = in_the_field()
    field.grant = signed(grant(field))
    blobs = dict(field.plane.blobs)
    name = field.plane.releases[0].target.sha256
    spoiled = bytearray(blobs[name])
    spoiled[-7] ^= 1
    field.plane.blobs[name] = bytes(spoiled)
    field.back()
    assert field.plane.outcomes() == [("failed", "download.hash")]
    field.plane.blobs = blobs
    field.forget()
    field.back(attempt=2)
    assert field.device.runs == GOOD


@pytest.mark.parametrize("copy", COPIES)
def test_one_damaged_copy_of_the_journal_opens_no_way_back_that_was_used(copy: str) -> None:
    field = in_the_field()
    field.grant = signed(grant(field))
    field.back()
    field.device.board.storage.write(copy, b"not a journal")
    field.device.start()
    next(iter(field.device.run(60)))
    field.refuses(lambda: field.back(update="u-again"), "security.fallback_replayed")


# --- the floor ---


def test_the_floor_rises_when_an_image_is_confirmed_and_not_before() -> None:
    field = in_the_field()
    assert field.state.floor == SECURITY - 1
    stronger = make_release(4, security_version=SECURITY + 3, fallback_to=())
    field.device.board.catalogue.add(_image(stronger))
    field.device.board.truth.behaviours[(4, "*")] = Behaviour(service=False)
    field.plane.releases = (*field.plane.releases, stronger)
    field.plane.floor, field.plane.version = SECURITY + 2, 2
    field.plane.publish()
    seen = set()
    field.order("install", 4)
    for runner in field.device.run(7200):
        seen.add((type(runner.state.phase).__name__, runner.state.floor))
        if field.plane.outcomes():
            field.plane.order = None
            break
    # It reverted during probation, to an image below the new floor: allowed, because the floor had not risen.
    assert field.plane.outcomes() == [("reverted", "health.service")]
    assert field.device.runs == BAD
    assert {name for name, _ in seen} >= {"Downloading", "Testing"}
    assert {floor for _, floor in seen} == {SECURITY - 1}


def test_the_floor_rises_to_what_the_product_says_and_no_image_goes_below() -> None:
    field = in_the_field(way_back=True)
    stronger = make_release(4, security_version=SECURITY + 3)
    field.device.board.catalogue.add(_image(stronger))
    field.plane.releases = (*field.plane.releases, stronger)
    field.plane.floor, field.plane.version = SECURITY + 2, 2
    field.plane.publish()
    field.install(4, "u-4")
    assert (field.device.runs, field.state.floor) == (4, SECURITY + 2)
    field.refuses(lambda: field.back(BAD), "compat.floor")
    assert field.device.runner is not None
    before = field.state.phase
    now = int(field.device.clock.now())
    field.device.runner.feed(RevertAsked(now=now, reason="by hand"))
    assert field.state.phase == before


def _image(release: Release) -> Image:
    one = release.target.release
    return Image(one.release_counter, one.version, one.install.sha256, one.install.size)
