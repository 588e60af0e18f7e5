"""The rollout mandate: who may have a release from when on, and which mandates may be published."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.core.repo import NOW, Repo, release
from tests.unit.core.test_accept import accept, code, later

from tidegate.core.authority import Mandate, MandateStep, ProductExtra
from tidegate.core.bucket import bucket
from tidegate.core.errors import PublisherError
from tidegate.core.mandate import allowed, next_step_at, place, with_mandates
from tidegate.core.metadata import parse_targets, product_extra

SALT = "5a" * 16
STEPS = ((NOW, 100), (NOW + 60, 1000), (NOW + 120, 10_000))


def mandate(
    counter: int = 119, steps: tuple[tuple[int, int], ...] = STEPS, salt: str = SALT
) -> Mandate:
    made = tuple(MandateStep(not_before=at, bucket_max=most) for at, most in steps)
    return Mandate(counter=counter, salt=salt, steps=made)


def with_extra(
    *mandates: Mandate, version: int = 2, counters: tuple[int, ...] = (117, 118, 119)
) -> Repo:
    extra = with_mandates(ProductExtra(), mandates)
    return later(*map(release, counters), version=version).but(product_extra=extra)


def test_without_a_mandate_everybody_may() -> None:
    assert allowed(None, "dev-1", 0) is None


def test_a_device_waits_for_the_first_step_that_holds_its_bucket() -> None:
    found = mandate()
    device = next(f"dev-{n}" for n in range(9999) if 100 <= place(found, f"dev-{n}") < 1000)
    early = allowed(found, device, NOW - 1)
    assert early is not None
    assert (early.share, early.opens_at, early.reason) == (0, NOW + 60, "compat.mandate")
    barred = allowed(found, device, NOW + 59)
    assert barred is not None
    assert (barred.place, barred.share) == (bucket(SALT, device), 100)
    assert allowed(found, device, NOW + 60) is None
    assert allowed(found, device, NOW + 10**9) is None


def test_a_device_beyond_the_last_step_has_no_turn() -> None:
    found = mandate(steps=((NOW, 1),))
    barred = allowed(found, "dev-1", NOW + 10**9)
    assert barred is not None
    assert barred.opens_at is None


def test_the_salt_orders_the_devices_and_each_salt_otherwise() -> None:
    devices = [f"dev-{n}" for n in range(2000)]
    first = {one for one in devices if bucket(SALT, one) < 1000}
    second = {one for one in devices if bucket("a5" * 16, one) < 1000}
    assert 120 < len(first) < 280
    assert len(first & second) < 60


@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 10_000)), min_size=1, max_size=8),
    st.integers(0, 10_000),
    st.integers(0, 10_000),
    st.text(min_size=1, max_size=20),
)
def test_time_only_ever_lets_in_more(
    steps: list[tuple[int, int]], first: int, second: int, device: str
) -> None:
    times = sorted({at for at, _ in steps})
    shares = sorted({most for _, most in steps})
    kept = tuple(zip(times, shares, strict=False))
    found = mandate(steps=kept)
    early, late = sorted((first, second))
    if allowed(found, device, early) is None:
        assert allowed(found, device, late) is None
    barred = allowed(found, device, early)
    if barred is not None and barred.opens_at is not None:
        assert barred.opens_at > early
        assert allowed(found, device, barred.opens_at - 1) is not None
        assert allowed(found, device, barred.opens_at) is None
    following = next_step_at(found, early)
    assert following == next((at for at, _ in kept if at > early), None)


@pytest.mark.parametrize(
    "steps",
    [
        (),
        ((NOW, 100), (NOW, 1000)),
        ((NOW, 1000), (NOW + 1, 1000)),
        ((NOW, 1000), (NOW + 1, 100)),
        ((NOW + 1, 100), (NOW, 1000)),
        ((NOW, 0),),
        ((NOW, 10_001),),
        ((-1, 10),),
        tuple((NOW + n, n + 1) for n in range(33)),
    ],
)
def test_steps_out_of_order_are_read_by_nobody(steps: tuple[tuple[int, int], ...]) -> None:
    plain = {
        "counter": 119,
        "salt": SALT,
        "steps": [{"not_before": at, "bucket_max": most} for at, most in steps],
    }
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(plain, type=Mandate)


@pytest.mark.parametrize("salt", ["", "5a" * 15, "5a" * 65, "5A" * 16, "5a" * 16 + "\n", "zz" * 16, "5a" * 16 + "5"])  # fmt: skip
def test_a_salt_that_could_be_guessed_or_misread_is_none(salt: str) -> None:
    plain = {"counter": 1, "salt": salt, "steps": [{"not_before": 0, "bucket_max": 1}]}
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(plain, type=Mandate)


def test_a_role_with_a_mandate_says_so_in_crit_and_reads_back() -> None:
    body = with_extra(mandate()).product_body()
    extra = product_extra(parse_targets(body, "product/gw1"))
    assert extra.crit == ("mandates",)
    assert extra.mandate(119) == mandate()
    assert extra.mandate(118) is None
    assert with_mandates(extra, ()).crit == ()


def test_an_agent_that_knows_no_mandates_refuses_the_role() -> None:
    extra = msgspec.structs.replace(ProductExtra(), crit=("mandates-of-tomorrow",))
    body = later(release(119)).but(product_extra=extra).product_body()
    with pytest.raises(PublisherError) as caught:
        product_extra(parse_targets(body, "product/gw1"))
    assert caught.value.code == "sig.malformed"


def test_a_release_comes_with_its_mandate() -> None:
    found = accept(with_extra(mandate()), later(release(117), release(118), version=1))
    assert [one.release.release_counter for one in found.new] == [119]


BEFORE = later(release(117), release(118), version=1)
UNMARKED = with_extra(mandate()).but(product_extra=ProductExtra(mandates=(mandate(),)))


@pytest.mark.parametrize(
    ("repo", "words"),
    [
        (UNMARKED, "crit"),
        (with_extra(mandate(120)), "no release has it"),
        (with_extra(mandate(118)), "narrower"),
        (with_extra(mandate(), mandate(steps=((NOW, 10_000),))), "two mandates"),
        (with_extra(mandate(119), mandate(120), counters=(117, 118, 119, 120)), "salt"),
    ],
    ids=["not in crit", "no release", "after its release", "twice", "one salt"],
)
def test_a_mandate_that_would_not_bind_is_not_published(repo: Repo, words: str) -> None:
    with pytest.raises(PublisherError, match=words) as caught:
        accept(repo, BEFORE)
    assert caught.value.code == "release.malformed"


@pytest.mark.parametrize(
    ("steps", "salt", "fine"),
    [
        (STEPS, SALT, True),
        (((NOW, 100), (NOW + 60, 10_000)), SALT, True),
        (((NOW - 60, 100), (NOW + 60, 1000), (NOW + 120, 10_000)), SALT, True),
        (((NOW, 10_000),), SALT, True),
        (STEPS[:2], SALT, False),
        (((NOW + 1, 100), (NOW + 60, 1000), (NOW + 120, 10_000)), SALT, False),
        (((NOW, 99), (NOW + 60, 1000), (NOW + 120, 10_000)), SALT, False),
        (STEPS, "a5" * 16, False),
    ],
)
def test_what_was_published_is_widened_or_ended_but_never_narrowed(
    steps: tuple[tuple[int, int], ...], salt: str, fine: bool
) -> None:
    before = with_extra(mandate())
    after = with_extra(mandate(steps=steps, salt=salt), version=3)
    if fine:
        assert accept(after, before).new == ()
    else:
        assert code(lambda: accept(after, before)) == "release.malformed"
    assert accept(with_extra(version=3), before).new == ()
