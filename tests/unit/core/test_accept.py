"""What whoever publishes refuses: the device's checks, and the order that one device cannot see."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.core.repo import DAY, NOW, Repo, release, ring, signer

from tidegate.core.accept import (
    accept_release,
    accept_root,
    accept_targets,
    check_roles,
    role_keys,
)
from tidegate.core.authority import RootExtra
from tidegate.core.caps import ROLE_MAX
from tidegate.core.errors import PublisherError
from tidegate.core.metadata import (
    SignedTarget,
    TargetsDocument,
    authorities,
    make_product,
    make_root,
    make_targets,
    parse_root,
    parse_targets,
    products_of,
    root_extra,
    sign,
)

GOOD = Repo()
ROOT = parse_root(GOOD.root_body())
TARGETS = parse_targets(GOOD.targets_body())


def code(act: Callable[[], object]) -> str:
    with pytest.raises(PublisherError) as caught:
        act()
    return caught.value.code


def accept(repo: Repo, previous: Repo | None = None, targets: TargetsDocument = TARGETS) -> Any:
    before = previous.product_body() if previous is not None else None
    return accept_release(
        repo.product_body(), product="gw1", targets=targets, previous=before, now=NOW
    )


def later(*releases: SignedTarget, version: int = 2) -> Repo:
    return GOOD.but(product_version=version, releases=releases)


def test_a_next_release_is_told_apart_from_those_that_are_there() -> None:
    found = accept(later(release(117), release(118), release(119)), GOOD)
    assert [one.release.release_counter for one in found.new] == [119]
    assert [one.release.release_counter for one in found.kept] == [117, 118]
    assert found.signers == (signer("product").public.keyid,)


def test_a_release_that_is_no_longer_named_is_withdrawn() -> None:
    assert accept(later(release(118)), GOOD).gone == ("gw1/2.117/rootfs",)


def test_publishing_the_same_again_brings_nothing_new() -> None:
    assert accept(GOOD, GOOD).new == ()


@pytest.mark.parametrize(
    ("repo", "expected"),
    [
        (later(release(117), release(118), release(116, "3.0")), "compat.counter"),
        (later(release(118), release(118, "3.0")), "compat.counter"),
        (later(release(117, notes="changed"), release(118)), "release.exists"),
        (
            later(release(117), release(118), version=1).but(expires={"product": NOW + DAY}),
            "release.exists",
        ),
        (later(release(119), release(119, "3.0")), "release.malformed"),
        (later(release(118), version=2).but(expires={"product": NOW}), "sig.expired"),
        (later(release(119)).but(product=(signer("mallory"),)), "sig.unknown_key"),
        (later(release(119, product="gw2")), "sig.malformed"),
    ],
    ids=[
        "older",
        "same counter",
        "changed",
        "same version",
        "one counter twice",
        "expired",
        "foreign key",
        "other product",
    ],
)
def test_what_devices_or_order_forbid_is_not_published(repo: Repo, expected: str) -> None:
    assert code(lambda: accept(repo, GOOD)) == expected


def test_an_older_document_is_not_published_again() -> None:
    newer = later(release(117), release(118))
    assert code(lambda: accept(GOOD, newer)) == "sig.rollback"


def test_a_product_without_keys_of_its_own_is_refused() -> None:
    body = GOOD.product_body()
    assert (
        code(lambda: accept_release(body, product="gw9", targets=TARGETS, previous=None, now=NOW))
        == "sig.unknown_key"
    )


def test_a_product_role_that_delegates_is_refused() -> None:
    body = sign(
        make_targets(version=1, expires_at=NOW + DAY, products={"gw1": ring(signer("mallory"))}),
        signer("product"),
    )
    assert (
        code(lambda: accept_release(body, product="gw1", targets=TARGETS, previous=None, now=NOW))
        == "sig.malformed"
    )


# --- root and targets ---------------------------------------------------------------------------------------------------


def test_the_first_root_is_one_and_the_next_is_signed_by_both() -> None:
    first = GOOD.root_body()
    assert accept_root(first, previous=None, now=NOW).version == 1
    second = GOOD.but(root_version=2, roots=(*GOOD.roots[:2], signer("new"))).root_body()
    assert accept_root(second, previous=first, now=NOW).version == 2
    assert accept_root(first, previous=first, now=NOW).version == 1


@pytest.mark.parametrize(
    ("body", "previous", "expected"),
    [
        (GOOD.but(root_version=2).root_body(), None, "sig.rollback"),
        (GOOD.root_body(GOOD.roots[0]), None, "sig.threshold"),
        (GOOD.but(expires={"root": NOW}).root_body(), None, "sig.expired"),
        (GOOD.but(root_version=3).root_body(), GOOD.root_body(), "sig.rollback"),
        (GOOD.but(epoch=2).root_body(), GOOD.root_body(), "release.exists"),
        (
            GOOD.but(root_version=2, roots=tuple(signer(f"n{n}") for n in range(3))).root_body(),
            GOOD.root_body(),
            "sig.unknown_key",
        ),
        (GOOD.root_body(), GOOD.but(root_version=2).root_body(), "sig.rollback"),
    ],
    ids=["not 1", "1 of 2", "expired", "skips", "same version", "foreign", "older"],
)
def test_a_root_out_of_order_is_not_published(
    body: bytes, previous: bytes | None, expected: str
) -> None:
    assert code(lambda: accept_root(body, previous=previous, now=NOW)) == expected


def test_a_lab_root_is_never_extended_into_a_real_one() -> None:
    extra = root_extra(ROOT)
    roles = role_keys(ROOT)
    lab = sign(
        make_root(
            version=1,
            expires_at=NOW + DAY,
            roles=roles,
            extra=RootExtra(lab=True, authorities=extra.authorities),
        ),
        *GOOD.roots[:2],
    )
    real = GOOD.but(root_version=2).root_body()
    assert code(lambda: accept_root(real, previous=lab, now=NOW)) == "key.trust_levels"


@pytest.mark.parametrize("name", ["targets", "incident", "director", "snapshot"])
def test_a_key_stands_in_one_level_of_trust(name: str) -> None:
    roles = role_keys(ROOT) | {name: ring(GOOD.roots[0])}
    assert code(lambda: check_roles(roles)) == "key.trust_levels"


def test_online_roles_may_share_a_key() -> None:
    one = ring(signer("server"))
    check_roles(
        role_keys(ROOT) | dict.fromkeys(("snapshot", "timestamp", "director", "audit"), one)
    )


def accept_t(body: bytes) -> object:
    return accept_targets(body, root=ROOT, previous=None, now=NOW)


def test_targets_delegate_and_sign_no_images() -> None:
    assert accept_t(GOOD.targets_body()) is not None
    images = make_product(version=1, expires_at=NOW + DAY, targets=[release()])
    assert code(lambda: accept_t(sign(images, *GOOD.targets))) == "sig.malformed"


@pytest.mark.parametrize(
    "swap",
    [
        (b'"paths":["gw1/*/*"]', b'"paths":["*"]'),
        (b'"paths":["gw1/*/*"]', b'"paths":["gw1/*/*","gw2/*/*"]'),
        (b'"terminating":true', b'"terminating":false'),
        (b'"name":"product/gw1"', b'"name":"gw1"'),
    ],
)
def test_a_delegation_beyond_its_product_is_refused(swap: tuple[bytes, bytes]) -> None:
    body = make_targets(version=1, expires_at=NOW + DAY, products={"gw1": ring(signer("product"))})
    assert swap[0] in body
    assert code(lambda: accept_t(sign(body.replace(*swap), *GOOD.targets))) == "sig.malformed"


@pytest.mark.parametrize("key", [GOOD.roots[0], GOOD.targets[0], GOOD.timestamp, GOOD.director])
def test_a_product_key_has_no_other_office(key: Any) -> None:
    body = make_targets(version=1, expires_at=NOW + DAY, products={"gw1": ring(key)})
    assert code(lambda: accept_t(sign(body, *GOOD.targets))) == "key.trust_levels"


def test_an_authority_that_names_a_missing_key_is_refused() -> None:
    made = authorities(
        epoch=1,
        director=ring(signer("director")),
        incident=ring(signer("i")),
        audit=ring(signer("audit")),
        director_max_s=1,
        incident_max_s=1,
    )
    made.keys.pop(signer("director").public.keyid)
    extra = RootExtra(authorities=made)
    assert code(lambda: extra.keys("director")) == "sig.malformed"


# --- two people for `stable` ------------------------------------------------------------------------------------------------


def published_by_one(*channels: str, excused: bool) -> None:
    key = signer("product")
    targets = make_targets(
        version=1,
        expires_at=NOW + DAY,
        products={"gw1": ring(key, signer("product 2"))},
        one_signer=["gw1"] if excused else [],
    )
    body = make_product(version=1, expires_at=NOW + DAY, targets=[release(118, channels=channels)])
    document = parse_targets(sign(targets, *GOOD.targets))
    accept_release(sign(body, key), product="gw1", targets=document, previous=None, now=NOW)


def test_one_key_alone_releases_nothing_to_stable() -> None:
    with pytest.raises(PublisherError) as caught:
        published_by_one("pilot", "stable", excused=False)
    assert caught.value.code == "sig.threshold"
    assert "--needs 2" in caught.value.hint


def test_one_key_alone_releases_to_pilots() -> None:
    published_by_one("pilot", excused=False)


def test_the_targets_holders_may_excuse_a_shop_of_one() -> None:
    published_by_one("stable", excused=True)


def test_an_excuse_for_a_product_that_is_not_there_is_refused() -> None:
    body = make_targets(
        version=1, expires_at=NOW + DAY, products={"gw1": ring(signer("p"))}, one_signer=["gw2"]
    )
    body = sign(body, *GOOD.targets)
    root = parse_root(GOOD.root_body())
    assert code(lambda: accept_targets(body, root=root, previous=None, now=NOW)) == "sig.malformed"


# --- how much may be live -----------------------------------------------------------------------------------------------


def test_two_hundred_releases_may_be_live_and_one_more_may_not() -> None:
    many = tuple(release(n) for n in range(2, 203))
    assert len(accept(later(*many[:200])).new) == 200
    with pytest.raises(PublisherError) as caught:
        accept(later(*many))
    assert caught.value.code == "sig.oversized"
    assert "201 artifacts are live, at most 200" in caught.value.detail
    assert "--withdraw" in caught.value.hint


def test_a_device_takes_a_role_that_was_published_with_more_than_may_be_now() -> None:
    many = tuple(release(n) for n in range(2, 232))
    assert len(later(*many).trusted().roles["product/gw1"].signed.targets) == 230


def test_a_role_that_devices_would_not_read_is_refused_with_what_to_do() -> None:
    body = GOOD.product_body() + b" " * ROLE_MAX
    with pytest.raises(PublisherError) as caught:
        accept_release(body, product="gw1", targets=TARGETS, previous=None, now=NOW)
    assert caught.value.code == "sig.oversized"
    assert "devices read at most" in caught.value.detail
    assert caught.value.hint


def test_three_hundred_products_may_be_delegated_and_one_more_may_not() -> None:
    def body(count: int) -> bytes:
        keys = [signer(f"of many {n}") for n in range(2)]
        products = {f"gw{n}": ring(*keys, threshold=2) for n in range(count)}
        return sign(make_targets(version=2, expires_at=NOW + DAY, products=products), *GOOD.targets)

    taken = accept_targets(body(300), root=ROOT, previous=None, now=NOW)
    assert len(products_of(taken)) == 300
    with pytest.raises(PublisherError) as caught:
        accept_targets(body(301), root=ROOT, previous=None, now=NOW)
    assert caught.value.code == "sig.oversized"
    assert "301 products, at most 300" in caught.value.detail
