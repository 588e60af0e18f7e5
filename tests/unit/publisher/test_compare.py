import pytest
from tests.unit.core.repo import DAY, NOW, release, ring, signer
from tests.unit.publisher.test_ceremony import ADA, BEN, CLEO, first_root, spec

from tidegate.core.accept import alone
from tidegate.core.authority import Mandate, MandateStep, ProductExtra
from tidegate.core.errors import ConfigError
from tidegate.core.mandate import with_mandates
from tidegate.core.metadata import (
    make_product,
    make_targets,
    parse_root,
    parse_targets,
    product_extra,
)
from tidegate.publisher.ceremony import begin_product, begin_root, begin_targets
from tidegate.publisher.compare import (
    Difference,
    compare_products,
    compare_roots,
    compare_targets,
)

DORA = signer("dora")


def changed(found: Difference) -> dict[str, tuple[set[str], set[str]]]:
    return {
        one.role: ({key.identity for key in one.comes}, {key.identity for key in one.goes})
        for one in found.changes
    }


def test_who_comes_and_who_goes_is_told_by_the_key_itself() -> None:
    before = first_root()
    after = begin_root(
        spec(root=ring(ADA, BEN, DORA, threshold=2)),
        previous=before,
        now=NOW + DAY,
        raise_epoch=True,
    )
    found = compare_roots(parse_root(after), parse_root(before))
    assert changed(found) == {"root": ({DORA.public.identity}, {CLEO.public.identity})}
    assert ("epoch", "1", "2") in found.facts
    assert found.expires == (NOW + 365 * DAY, NOW + 366 * DAY)


def test_a_key_under_another_name_neither_comes_nor_goes() -> None:
    def named(name: str) -> bytes:
        role = ring(signer("p1"))
        keys = type(role)((role.keys[0].called(name),), 1)
        return make_targets(version=1, expires_at=NOW, products={"gw1": keys})

    found = compare_targets(parse_targets(named("ben")), parse_targets(named("ada")))
    assert found.changes == ()


def test_names_of_keys_come_back_from_what_was_signed() -> None:
    key = signer("p1").public.called("rita")
    body = begin_targets({"gw1": ring(signer("p2"))}, previous=None, now=NOW)
    body = begin_targets({"gw1": type(ring())((key,), 1)}, previous=body, now=NOW)
    found = compare_targets(parse_targets(body), None)
    assert [one.name for one in found.rings[0].after.keys] == ["rita"]


def test_another_threshold_alone_is_a_change() -> None:
    pair = (signer("p1"), signer("p2"))
    before = begin_targets({"gw1": ring(*pair, threshold=2)}, previous=None, now=NOW)
    after = begin_targets({"gw1": ring(*pair)}, previous=before, now=NOW)
    found = compare_targets(parse_targets(after), parse_targets(before))
    assert [(one.role, one.needs_changed) for one in found.changes] == [("gw1", True)]
    assert "one key alone" in found.warnings[0]


def test_a_product_that_goes_is_named() -> None:
    before = begin_targets(
        {"gw1": ring(signer("p1")), "gw2": ring(signer("p1"))}, previous=None, now=NOW
    )
    after = begin_targets({}, previous=before, now=NOW, without=["gw1"])
    found = compare_targets(parse_targets(after), parse_targets(before))
    assert [(one.role, one.after.keys) for one in found.changes] == [("gw1", ())]


def test_a_leave_for_one_person_is_told_loudly_and_ends_with_the_second_signer() -> None:
    one, two = signer("p1"), signer("p2")
    body = begin_targets({"gw1": ring(one)}, previous=None, now=NOW, one_signer=["gw1"])
    assert alone(parse_targets(body)) == ("gw1",)
    assert "ONE person" in compare_targets(parse_targets(body), None).warnings[0]
    kept = begin_targets({"gw2": ring(two)}, previous=body, now=NOW)
    assert alone(parse_targets(kept)) == ("gw1",)
    ended = begin_targets({"gw1": ring(one, two, threshold=2)}, previous=kept, now=NOW)
    assert alone(parse_targets(ended)) == ()
    back = begin_targets({"gw1": ring(one)}, previous=ended, now=NOW)
    assert alone(parse_targets(back)) == ()


def test_a_role_that_needs_every_key_is_warned_of() -> None:
    draft = begin_root(spec(root=ring(ADA, BEN, threshold=2)), previous=None, now=NOW)
    warnings = compare_roots(parse_root(draft), None).warnings
    assert any(text.startswith("root: every key") for text in warnings)
    draft = begin_root(spec(root=ring(ADA)), previous=None, now=NOW)
    warnings = compare_roots(parse_root(draft), None).warnings
    assert any(text.startswith("root: one key alone") for text in warnings)


def test_a_product_role_signed_anew_keeps_its_releases_and_shows_its_floor() -> None:
    before = make_product(version=7, expires_at=NOW + DAY, targets=[release(117), release(118)])
    after = begin_product(before, "gw1", now=NOW, floors={"gw1": 6})
    found = compare_products(
        parse_targets(after, "product/gw1"), parse_targets(before, "product/gw1")
    )
    assert (found.before, found.after) == (7, 8)
    assert found.facts == (("floor gw1", "0", "6"),)
    assert found.expires == (NOW + DAY, NOW + 180 * DAY)


def test_a_release_that_is_taken_back_goes_with_its_mandate_and_is_named() -> None:
    steps = (MandateStep(not_before=NOW, bucket_max=10_000),)
    staged = Mandate(counter=118, salt="5a" * 16, steps=steps)
    before = make_product(
        version=7,
        expires_at=NOW + DAY,
        targets=[release(117), release(118)],
        extra=with_mandates(ProductExtra(), [staged]),
    )
    after = parse_targets(begin_product(before, "gw1", now=NOW, withdraw=[118]), "product/gw1")
    found = compare_products(after, parse_targets(before, "product/gw1"))
    assert found.facts == (("release", "gw1/2.118/rootfs", "withdrawn"),)
    assert product_extra(after).withdrawn == (118,)
    assert product_extra(after).mandates == ()
    with pytest.raises(ConfigError):
        begin_product(before, "gw1", now=NOW, withdraw=[119])
