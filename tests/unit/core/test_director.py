"""What a stolen director cannot do: each attempt ends in its own code."""

from collections.abc import Callable

import msgspec
import pytest
from tests.unit.core.repo import DAY, NOW, Repo, release, signer

from tidegate.core.director import (
    check_assignment,
    check_fallback,
    check_permit,
    open_assignment,
    open_permit,
    open_time,
    resolve_target,
)
from tidegate.core.errors import TidegateError
from tidegate.core.hardware import HardwareRange
from tidegate.core.keys import Signer, sign_document
from tidegate.core.metadata import SignedTarget
from tidegate.core.protocol import (
    ASSIGNMENT_TYPE,
    PERMIT_TYPE,
    TIME_TYPE,
    AssignedTarget,
    AssignmentBody,
    PermitBody,
    RepoBinding,
    SlotState,
    TimeBody,
)

REPO = Repo()
TRUSTED = REPO.trusted()
ROOT = TRUSTED.root
NONCE, OTHER = "ab" * 16, "cd" * 16
KEY = "11" * 32


def code(act: Callable[[], object]) -> str:
    with pytest.raises(TidegateError) as caught:
        act()
    return caught.value.code


def assigned(found: SignedTarget, **changes: object) -> AssignedTarget:
    one = found.release
    target = AssignedTarget(
        path=found.path,
        length=found.length,
        sha256=found.sha256,
        product=one.product,
        release_counter=one.release_counter,
        security_version=one.security_version,
        hardware=one.hardware,
        channels=one.channels,
    )
    return msgspec.structs.replace(target, **changes)


BODY = AssignmentBody(
    device_id="dev-1",
    device_key=KEY,
    seq=10,
    issued=NOW,
    expires=NOW + DAY,
    nonce=NONCE,
    action="install",
    update="u1",
    target=assigned(release(118)),
    repo=RepoBinding(root_min=1, timestamp_min=100, snapshot_min=100),
)


def body(**changes: object) -> AssignmentBody:
    return msgspec.structs.replace(BODY, **changes)


def check(one: AssignmentBody, *, last: tuple[int, int] = (1, 9), now: int = NOW) -> None:
    check_assignment(
        one, ROOT, device_id="dev-1", device_key_sha256=KEY, nonce=NONCE, last=last, now=now
    )


def test_a_good_assignment_leads_to_its_signed_release() -> None:
    opened = open_assignment(sign_document(BODY, ASSIGNMENT_TYPE, REPO.director), ROOT)
    check(opened)
    assert resolve_target(opened, TRUSTED) == release(118)


@pytest.mark.parametrize("one", [REPO.timestamp, REPO.roots[0], signer("x")])
def test_only_the_director_assigns(one: Signer) -> None:
    envelope = sign_document(BODY, ASSIGNMENT_TYPE, one)
    assert code(lambda: open_assignment(envelope, ROOT)) == "sig.unknown_key"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"device_id": "dev-2"}, "sig.replayed"),
        ({"device_key": "22" * 32}, "sig.replayed"),
        ({"nonce": OTHER}, "sig.replayed"),
        ({"seq": 9}, "sig.replayed"),
        ({"seq": 1}, "sig.replayed"),
        ({"epoch": 0}, "sig.replayed"),
        ({"epoch": 2}, "sig.mix_and_match"),
        ({"expires": NOW}, "sig.expired"),
        ({"expires": NOW + 8 * DAY}, "sig.expired"),
        ({"target": None}, "sig.malformed"),
        ({"update": None}, "sig.malformed"),
        ({"repo": None}, "sig.malformed"),
        ({"action": "fallback", "target": None}, "sig.malformed"),
    ],
)
def test_an_assignment_for_something_else_is_refused(
    changes: dict[str, object], expected: str
) -> None:
    assert code(lambda: check(body(**changes))) == expected


def test_a_new_epoch_starts_the_numbering_again() -> None:
    root = Repo(epoch=2).trusted().root
    check_assignment(
        body(epoch=2, seq=1),
        root,
        device_id="dev-1",
        device_key_sha256=KEY,
        nonce=NONCE,
        last=(1, 1 << 40),
        now=NOW,
    )


def test_an_assignment_with_an_unknown_critical_field_is_refused() -> None:
    envelope = sign_document(body(crit=("quantum",)), ASSIGNMENT_TYPE, REPO.director)
    assert code(lambda: open_assignment(envelope, ROOT)) == "sig.malformed"


@pytest.mark.parametrize(
    "changes",
    [
        {"length": 1},
        {"sha256": "00" * 32},
        {"product": "gw2"},
        {"release_counter": 119},
        {"security_version": 7},
        {"hardware": (HardwareRange("gw1", 0, 99),)},
        {"channels": ("stable", "pilot")},
        {"path": "gw1/9.9/rootfs"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_director_and_product_role_must_say_the_same(changes: dict[str, object]) -> None:
    lied = body(target=assigned(release(118), **changes))
    assert code(lambda: resolve_target(lied, TRUSTED)) == "sig.director_mismatch"


@pytest.mark.parametrize("field", ["root_min", "timestamp_min", "snapshot_min"])
def test_metadata_older_than_demanded_are_held_back_by_somebody(field: str) -> None:
    assert BODY.repo is not None
    repo = msgspec.structs.replace(BODY.repo, **{field: 101})
    assert code(lambda: resolve_target(body(repo=repo), TRUSTED)) == "sig.mix_and_match"


PERMIT = PermitBody(
    device_id="dev-1",
    permit="p1",
    update="u1",
    attempt=1,
    slot_sha256=KEY,
    gate_epoch=3,
    nonce=NONCE,
    issued=NOW,
)


def permit(one: PermitBody, elapsed_s: float = 1.0) -> None:
    check_permit(
        one,
        device_id="dev-1",
        update="u1",
        attempt=1,
        slot_sha256=KEY,
        nonce=NONCE,
        elapsed_s=elapsed_s,
    )


def test_a_good_permit_is_good() -> None:
    permit(open_permit(sign_document(PERMIT, PERMIT_TYPE, REPO.director), ROOT))


@pytest.mark.parametrize(
    "changes",
    [
        {"device_id": "dev-2"},
        {"update": "u2"},
        {"attempt": 2},
        {"slot_sha256": "22" * 32},
        {"nonce": OTHER},
    ],
)
def test_a_permit_for_something_else_is_refused(changes: dict[str, object]) -> None:
    assert code(lambda: permit(msgspec.structs.replace(PERMIT, **changes))) == "sig.replayed"


@pytest.mark.parametrize("elapsed_s", [-1.0, 900.0, 1e9])
def test_a_permit_is_good_for_its_time_only(elapsed_s: float) -> None:
    assert code(lambda: permit(PERMIT, elapsed_s)) == "sig.expired"


def test_an_assignment_is_no_permit() -> None:
    envelope = sign_document(BODY, ASSIGNMENT_TYPE, REPO.director)
    assert code(lambda: open_permit(envelope, ROOT)) == "sig.malformed"


def test_the_time_is_believed_for_its_own_question_only() -> None:
    envelope = sign_document(
        TimeBody(device_id="dev-1", nonce=NONCE, time=NOW), TIME_TYPE, REPO.director
    )
    assert open_time(envelope, ROOT, device_id="dev-1", nonce=NONCE) == NOW
    assert code(lambda: open_time(envelope, ROOT, device_id="dev-1", nonce=OTHER)) == "sig.replayed"


RUNNING = release(118).release
BACK = release(117)
RESIDENT = SlotState(
    state="confirmed", release_counter=117, security_version=6, sha256=BACK.release.install.sha256
)


def fall_back(
    found: SignedTarget = BACK, other: SlotState = RESIDENT, floor: int = 6, now: int = NOW
) -> None:
    check_fallback(found, running=RUNNING, other=other, floor=floor, now=now)


def test_the_running_release_allows_the_way_back_that_it_names() -> None:
    fall_back()


def test_no_other_way_back_is_allowed() -> None:
    assert code(lambda: fall_back(release(116))) == "compat.counter"
    assert code(lambda: fall_back(now=NOW + 30 * DAY)) == "sig.expired"
    assert code(lambda: fall_back(floor=7)) == "compat.floor"
    assert code(lambda: fall_back(release(117, product="gw2"))) == "sig.director_mismatch"


@pytest.mark.parametrize(
    "other",
    [
        SlotState(state="staged", sha256=BACK.release.install.sha256),
        SlotState(state="bad", sha256=BACK.release.install.sha256),
        SlotState(state="empty"),
        SlotState(state="confirmed", release_counter=117, sha256="00" * 32),
    ],
)
def test_only_the_image_in_the_other_slot_is_gone_back_to(other: SlotState) -> None:
    assert code(lambda: fall_back(other=other)) == "install.slot"
