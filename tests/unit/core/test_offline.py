"""What is believed of a release on a stick: each role's own expiry, by a time that no online key pushes."""

import pytest
from tests.crash.lab import make_device
from tests.crash.releases import DAY, signer

from tidegate.core.errors import PublisherError
from tidegate.core.keys import Signer
from tidegate.core.metadata import RoleKeys, file_name, make_product, make_targets, sign
from tidegate.core.offline import believe
from tidegate.core.verify import TrustedSet

PLANE = make_device(1, 2).plane
NOW = int(PLANE.clock.wall())


def documents(targets_days: int, product_days: int, by: Signer | None = None) -> dict[str, bytes]:
    keys = RoleKeys((signer("product").public,), 1)
    targets = make_targets(version=1, expires_at=NOW + targets_days * DAY, products={"gw1": keys})
    product = make_product(
        version=1,
        expires_at=NOW + product_days * DAY,
        targets=[one.target for one in PLANE.releases],
    )
    return {
        "targets": sign(targets, signer("targets")),
        "product/gw1": sign(product, by or signer("product")),
    }


@pytest.mark.parametrize(
    ("targets_days", "product_days", "after_days", "code"),
    [
        (20, 20, 10, ""),
        (5, 20, 10, "sig.expired"),
        (20, 5, 10, "sig.expired"),
        (400, 400, 310, "sig.expired"),
    ],
    ids=["good", "targets", "product", "root"],
)
def test_each_offline_role_is_good_until_its_own_end(
    targets_days: int, product_days: int, after_days: int, code: str
) -> None:
    trusted = TrustedSet(PLANE.files[file_name("root", 1)], now=0)
    found = documents(targets_days, product_days)
    if not code:
        believe(trusted, "gw1", found, offline_now=NOW + after_days * DAY)
        assert set(trusted.roles) == {"targets", "product/gw1"}
        return
    with pytest.raises(PublisherError) as caught:
        believe(trusted, "gw1", found, offline_now=NOW + after_days * DAY)
    assert caught.value.code == code
    assert trusted.roles == {}, "nothing half believed"


def test_a_key_that_is_not_the_products_signs_nothing() -> None:
    trusted = TrustedSet(PLANE.files[file_name("root", 1)], now=0)
    with pytest.raises(PublisherError) as caught:
        believe(trusted, "gw1", documents(20, 20, signer("snapshot")), offline_now=NOW)
    assert caught.value.code == "sig.unknown_key"
