"""The incident ring's grant and the director's order, attacked in every way of security.md 10 B: each refusal has its own code."""

from typing import Any

import msgspec
import pytest
from tests.unit.core.repo import DAY, NOW, Repo, release, signer
from tests.unit.core.way_back import (
    BAD,
    COHORT,
    GRANT,
    INCIDENT,
    LEVELS,
    OLD,
    Gw1,
    code,
    grant,
    proof,
    returned,
    signed,
)

from tidegate.core.codec import canonical
from tidegate.core.director import open_assignment
from tidegate.core.grant import (
    GRANT_TYPE,
    Cohort,
    Leaving,
    Resume,
    check_grant,
)
from tidegate.core.hardware import HardwareRange
from tidegate.core.keys import Signer, add_signature, sign_document, sign_envelope
from tidegate.core.metadata import RoleKeys, SignedTarget
from tidegate.core.protocol import (
    ASSIGNMENT_TYPE,
    PERMIT_TYPE,
    GrantUse,
    SlotState,
)
from tidegate.core.verify import walk_repository

# --- what is allowed ---


def test_1_a_newer_release_is_installed() -> None:
    device = Gw1(runs=OLD)
    device.install(BAD)
    assert device.runs == BAD


def test_2_a_grant_leads_back_and_is_used_up() -> None:
    device = Gw1()
    device.back(signed())
    assert (device.runs, device.used.serial, device.resume_min) == (OLD, 7, 119)


def test_a_grant_for_all_needs_no_proof() -> None:
    device = Gw1(device_id="somebody")
    device.back(signed(grant(cohort=Cohort(all=True))), cohort_proof=None)
    assert device.runs == OLD


def test_two_bad_builds_and_two_hardware_families_fit_into_one_grant() -> None:
    wide = grant(
        leaving=(*GRANT.leaving, Leaving(release_counter=119, sha256="cd" * 32)),
        to=(returned(OLD), returned(OLD, path="gw1/2.117/rootfs-gw2", sha256="ef" * 32)),
        resume=Resume(min_counter=120),
    )
    newest = release(119)
    Gw1(repo=Repo(releases=(OLD, BAD, newest))).back(signed(wide))


# --- the director ---


@pytest.mark.parametrize("key", [signer("stranger"), *INCIDENT, signer("product")])
def test_3_a_forged_assignment(key: Signer) -> None:
    device = Gw1(runs=OLD)
    body = device.assignment(BAD, "install")
    assert code(lambda: device.obey(body, key)) == "sig.unknown_key"


def test_4_a_document_of_another_type() -> None:
    device = Gw1()
    root = device.repo.trusted().root
    permit = sign_document(device.assignment(BAD, "install"), PERMIT_TYPE, device.repo.director)
    assert code(lambda: open_assignment(permit, root)) == "sig.malformed"
    as_grant = sign_document(GRANT, ASSIGNMENT_TYPE, INCIDENT[0])
    assert code(lambda: device.back(add_signature(as_grant, INCIDENT[1]))) == "sig.malformed"
    body = device.assignment(OLD, "fallback")
    as_fallback = sign_document(body, GRANT_TYPE, INCIDENT[0])
    assert code(lambda: device.back(add_signature(as_fallback, INCIDENT[1]))) == "sig.malformed"


@pytest.mark.parametrize(
    ("number", "changes", "expected"),
    [
        ("5 other device", {"device_id": "dev-2"}, "sig.replayed"),
        ("5 other key", {"device_key": "22" * 32}, "sig.replayed"),
        ("6 replay", {"seq": 9}, "sig.replayed"),
        ("8 authorities rolled back", {"epoch": 0}, "sig.replayed"),
        ("8 authorities of a newer root", {"epoch": 2}, "sig.mix_and_match"),
        ("9 expired", {"expires": NOW}, "sig.expired"),
        ("13 another question", {"nonce": "cd" * 16}, "sig.replayed"),
        ("14 ten years", {"expires": NOW + 3650 * DAY}, "sig.expired"),
    ],
)
def test_5_to_14_an_order_for_something_else(
    number: str, changes: dict[str, object], expected: str
) -> None:
    device = Gw1(runs=OLD)
    assert code(lambda: device.install(BAD, **changes)) == expected, number
    assert device.runs == OLD


def test_7_a_number_run_ahead_is_undone_by_a_new_epoch() -> None:
    device = Gw1(runs=OLD)
    device.obey(device.assignment(OLD, "install", seq=(1 << 53) - 1))
    assert code(lambda: device.install(BAD, seq=11)) == "sig.replayed"
    device.repo = device.repo.but(epoch=2)
    device.install(BAD, seq=11)
    assert device.runs == BAD


def test_8_a_root_whose_epoch_falls_is_refused() -> None:
    before = Repo(epoch=3)
    after = before.but(epoch=2, root_version=2)
    files = {**after.files(), "1.root.json": before.root_body()}
    act = lambda: walk_repository(files, anchor=before.root_body(), now=NOW)  # noqa: E731
    assert code(act) == "sig.rollback"


def test_10_in_1970_the_question_proves_the_moment() -> None:
    body = Gw1(runs=OLD).assignment(BAD, "install")
    stale = Gw1(runs=OLD, now=100)
    # By its own clock nothing has ended yet; the nonce is what a replayed order cannot have.
    old = msgspec.structs.replace(body, nonce="00" * 16)
    assert code(lambda: stale.obey(old)) == "sig.replayed"
    assert stale.runs == OLD
    plain: dict[str, Any] = msgspec.to_builtins(body)
    del plain["nonce"]
    bare = sign_envelope(canonical(plain), ASSIGNMENT_TYPE, stale.repo.director)
    root = stale.repo.trusted().root
    assert code(lambda: open_assignment(bare, root)) == "sig.malformed"
    proved = Gw1(runs=OLD, now=body.issued)
    proved.obey(body)
    assert proved.runs == BAD


def test_12_an_old_order_below_the_floor() -> None:
    weak = release(119, security_version=4)
    device = Gw1(repo=Repo(releases=(BAD, weak)))
    assert code(lambda: device.install(weak)) == "compat.floor"


def test_15_an_image_that_nobody_signed() -> None:
    device = Gw1(runs=OLD)
    assert code(lambda: device.install(release(130))) == "sig.director_mismatch"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sha256", "00" * 32),
        ("length", 5),
        ("security_version", 9),
        ("hardware", (HardwareRange("gw1", 0, 99),)),
        ("channels", ("stable", "pilot")),
        ("release_counter", 500),
    ],
)
def test_16_and_17_a_director_who_lies_about_an_image(name: str, value: object) -> None:
    device = Gw1(runs=OLD)
    body = device.assignment(BAD, "install")
    assert body.target is not None
    lied = msgspec.structs.replace(body.target, **{name: value})
    wrong = msgspec.structs.replace(body, target=lied)
    assert code(lambda: device.obey(wrong)) == "sig.director_mismatch"


def test_18_other_hardware() -> None:
    assert code(lambda: Gw1(runs=OLD, rev=8).install(BAD)) == "compat.hardware"


def test_19_a_pilot_build_on_a_stable_device() -> None:
    pilot = release(120, channels=("pilot",))
    device = Gw1(repo=Repo(releases=(BAD, pilot)))
    assert code(lambda: device.install(pilot)) == "compat.channel"


def test_20_a_plain_downgrade() -> None:
    assert code(lambda: Gw1().install(OLD)) == "compat.counter"


# --- the way back ---


def test_21_without_any_authorisation() -> None:
    there = SlotState(state="confirmed", release_counter=117, sha256=OLD.release.install.sha256)
    assert code(lambda: Gw1(other=there).back(None)) == "compat.counter"


def test_22_signed_by_one_of_two() -> None:
    assert code(lambda: Gw1().back(signed(GRANT, INCIDENT[0]))) == "sig.threshold"


def test_23_one_key_signs_twice() -> None:
    once = signed(GRANT, INCIDENT[0])
    twice = msgspec.structs.replace(once, signatures=once.signatures * 2)
    assert code(lambda: Gw1().back(twice)) == "sig.malformed"


@pytest.mark.parametrize("name", ["director", "product", "root 0", "targets 0", "stranger"])
def test_24_a_key_of_another_role(name: str) -> None:
    keys = (signer(name), signer("timestamp"))
    assert code(lambda: Gw1().back(signed(GRANT, *keys))) == "sig.unknown_key"
    one_good = signed(GRANT, INCIDENT[0], signer(name))
    assert code(lambda: Gw1().back(one_good)) == "sig.threshold"


def test_25_below_the_floor() -> None:
    assert code(lambda: Gw1(floor=7).back(signed())) == "compat.floor"


def test_26_from_another_build() -> None:
    other = release(118, install=OLD.release.install)
    device = Gw1(runs=other, repo=Repo(releases=(OLD, BAD)))
    assert code(lambda: device.back(signed())) == "compat.counter"
    newer = release(119)
    assert code(lambda: Gw1(runs=newer).back(signed())) == "compat.counter"


def test_27_presented_again() -> None:
    device = Gw1()
    device.back(signed())
    again = lambda: device.back(signed(), seq=11, update="u2")  # noqa: E731
    assert code(again) == "security.fallback_replayed"
    device.runs = BAD
    assert code(again) == "security.fallback_replayed"
    older = signed(grant(serial=6))
    assert code(lambda: device.back(older, seq=12)) == "security.fallback_replayed"


def test_the_same_update_goes_on_until_it_came_to_a_trial() -> None:
    open_use = GrantUse(epoch=1, serial=7, update="u1")
    device = Gw1(used=open_use)
    assert code(lambda: device.back(signed(), update="u2")) == "security.fallback_replayed"
    device.back(signed())
    assert device.runs == OLD
    assert code(lambda: device.back(signed(), seq=11)) == "security.fallback_replayed"


@pytest.mark.parametrize(
    "times",
    [
        {"expires": NOW},
        {"expires": NOW - 1},
        {"not_before": NOW + 3600},
        {"issued": NOW + 3600, "expires": NOW + DAY},
    ],
)
def test_28_too_late_or_too_early(times: dict[str, object]) -> None:
    assert code(lambda: Gw1().back(signed(grant(**times)))) == "sig.expired"


@pytest.mark.parametrize(("days", "ring_days"), [(365, 30), (31, 30), (8, 7), (31, 365)])
def test_29_for_longer_than_root_lets_the_ring_say(days: int, ring_days: int) -> None:
    long = grant(issued=NOW, expires=NOW + days * DAY)
    device = Gw1(repo=Repo(releases=(OLD, BAD), incident_max_s=ring_days * DAY))
    assert code(lambda: device.back(signed(long))) == "sig.expired"


def test_30_for_another_product() -> None:
    assert code(lambda: Gw1().back(signed(grant(product="gw2")))) == "sig.replayed"


def test_for_another_tenant() -> None:
    assert code(lambda: Gw1().back(signed(grant(tenant="other")))) == "sig.replayed"


def test_31_for_other_hardware() -> None:
    assert code(lambda: Gw1(rev=5).back(signed())) == "compat.hardware"


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": "00" * 32},
        {"length": 5},
        {"security_version": 9},
        {"release_counter": 116},
        {"path": "gw1/2.116/rootfs"},
    ],
)
def test_32_to_another_image(changes: dict[str, object]) -> None:
    other = grant(to=(returned(OLD, **changes),))
    assert code(lambda: Gw1().back(signed(other))) == "sig.director_mismatch"


def test_32_to_an_image_that_is_not_live() -> None:
    device = Gw1(repo=Repo(releases=(BAD,)))
    assert code(lambda: device.back(signed())) == "sig.director_mismatch"


def test_33_outside_the_cohort() -> None:
    stranger = Gw1(device_id="dev-99")
    assert code(lambda: stranger.back(signed())) == "sig.replayed"
    assert code(lambda: stranger.back(signed(), cohort_proof=proof("dev-1"))) == "sig.replayed"
    assert code(lambda: Gw1().back(signed(), cohort_proof=None)) == "sig.replayed"


def test_34_of_an_earlier_epoch() -> None:
    later = Repo(releases=(OLD, BAD), epoch=2)
    assert code(lambda: Gw1(repo=later).back(signed())) == "sig.replayed"
    ahead = signed(grant(epoch=2))
    assert code(lambda: Gw1().back(ahead)) == "sig.mix_and_match"


def test_35_one_key_under_two_ids() -> None:
    one = signer("incident 0").public
    second = type(one)("f" * 64, one.keytype, one.public)
    repo = Repo(releases=(OLD, BAD), incident=RoleKeys((one, second), 2))
    envelope = signed(GRANT, INCIDENT[0])
    copy = msgspec.structs.replace(envelope.signatures[0], keyid="f" * 64)
    doubled = msgspec.structs.replace(envelope, signatures=(*envelope.signatures, copy))
    assert code(lambda: Gw1(repo=repo).back(doubled)) == "sig.threshold"


@pytest.mark.parametrize("threshold", [0, -1])
def test_36_a_threshold_of_nobody(threshold: int) -> None:
    repo = Repo(releases=(OLD, BAD), incident=RoleKeys((INCIDENT[0].public,), threshold))
    device = Gw1(repo=repo)
    unsigned = msgspec.structs.replace(signed(), signatures=())
    assert code(lambda: device.back(unsigned)) == "sig.malformed"


def test_37_back_to_the_bad_build() -> None:
    device = Gw1()
    device.back(signed())
    assert code(lambda: device.install(BAD, seq=11)) == "compat.counter"
    between = release(118, version="2.118-bis", install=release(140).release.install)
    assert code(lambda: device._rules(between.release, fallback=False)) == "compat.counter"
    better = release(119)
    device.repo = Repo(releases=(OLD, BAD, better))
    device.install(better, seq=12)
    assert device.runs == better


def test_the_image_that_runs_may_be_repaired_below_the_bar() -> None:
    device = Gw1()
    device.back(signed())
    device.install(OLD, seq=11)
    assert device.runs == OLD


def test_38_an_old_grant_after_the_recovery() -> None:
    device = Gw1()
    device.back(signed())
    device.runs = BAD
    device.repo = device.repo.but(epoch=2)
    assert code(lambda: device.back(signed(), update="u2")) == "sig.replayed"
    fresh = signed(grant(epoch=2, serial=1))
    device.back(fresh, update="u2")
    assert (device.runs, device.used.epoch) == (OLD, 2)


# --- a grant that contradicts itself, or goes too far ---


@pytest.mark.parametrize(
    "changes",
    [
        {"cohort": Cohort()},
        {"cohort": Cohort(merkle_root=LEVELS[-1].hex(), count=len(COHORT), all=True)},
        {"cohort": Cohort(merkle_root=LEVELS[-1].hex())},
        {"resume": Resume(min_counter=118)},
        {"resume": Resume(min_counter=120)},
        {"resume": Resume(min_counter=0xFFFFFFFF)},
        {"to": (returned(OLD), returned(OLD, path="gw1/2.116/rootfs", release_counter=116))},
        {"to": (returned(OLD), returned(OLD))},
        {"to": (returned(OLD, release_counter=118),)},
        {"crit": ("quantum",)},
    ],
)
def test_a_grant_that_makes_no_sense(changes: dict[str, object]) -> None:
    assert code(lambda: Gw1().back(signed(grant(**changes)))) == "sig.malformed"


@pytest.mark.parametrize(("name", "value"), [("uses", 2), ("spec", 2), ("from", []), ("to", [])])
def test_a_grant_of_another_make(name: str, value: object) -> None:
    plain = {**msgspec.to_builtins(GRANT), name: value}
    envelope = add_signature(sign_envelope(canonical(plain), GRANT_TYPE, INCIDENT[0]), INCIDENT[1])
    assert code(lambda: Gw1().back(envelope)) == "sig.malformed"


def test_a_grant_too_large_to_travel_is_refused_before_it_is_read() -> None:
    many = tuple(Leaving(release_counter=118, sha256=f"{n:064x}") for n in range(64))
    back = tuple(returned(OLD, path=f"gw1/2.117/{'x' * 250}{n}") for n in range(64))
    large = grant(leaving=many, to=back, hardware=(HardwareRange("gw1"),) * 64)
    assert code(lambda: Gw1().back(signed(large))) == "sig.oversized"


def test_the_bar_reaches_one_beyond_what_is_published_even_if_the_bad_build_was_withdrawn() -> None:
    Gw1(repo=Repo(releases=(OLD,))).back(signed())


def test_another_component_is_not_gone_back_to() -> None:
    mcu = msgspec.structs.replace(BAD.release, component="mcu")
    device = Gw1(runs=SignedTarget(BAD.path, BAD.length, BAD.sha256, mcu))
    assert code(lambda: device.back(signed())) == "sig.director_mismatch"


def test_in_strict_mode_the_release_itself_must_name_the_way_back_as_well() -> None:
    strict = Repo(releases=(OLD, BAD), strict_fallback=True)
    assert code(lambda: Gw1(repo=strict).back(signed())) == "compat.counter"
    naming = release(118)
    named = Gw1(repo=Repo(releases=(OLD, naming), strict_fallback=True), runs=naming)
    named.back(signed())
    late = NOW + 31 * DAY
    closed = Gw1(repo=strict, runs=naming, now=late)
    held = lambda: check_grant(  # noqa: E731
        grant(issued=late, expires=late + DAY),
        OLD,
        root=strict.trusted().root,
        holder=closed.holder,
        update="u1",
        proof=proof("dev-1"),
        published=118,
        now=late,
    )
    assert code(held) == "sig.expired"


def test_a_resident_slot_needs_no_grant_where_the_release_allows_it() -> None:
    naming = release(118)
    there = SlotState(state="confirmed", release_counter=117, sha256=OLD.release.install.sha256)
    device = Gw1(repo=Repo(releases=(OLD, naming)), runs=naming, other=there)
    device.back(None)
    assert (device.runs, device.used.serial) == (OLD, 0)
