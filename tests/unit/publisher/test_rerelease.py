"""The same bytes under a higher counter: a way back that is no exception."""

from pathlib import Path

import pytest
from tests.unit.core.repo import NOW, Repo, release

from tidegate.core.accept import accept_release
from tidegate.core.errors import PublisherError
from tidegate.core.metadata import sign
from tidegate.publisher.bundle import read
from tidegate.publisher.rerelease import re_release
from tidegate.publisher.sign import check_bundle, sign_bundle

OLD, BAD = release(117), release(118)
REPO = Repo(releases=(OLD, BAD))
TRUSTED = REPO.trusted()


def test_it_names_the_same_bytes_after_everything_else(tmp_path: Path) -> None:
    path, (new,) = re_release(REPO.product_body(), "gw1-2.117", tmp_path, now=NOW)
    assert path.name == "gw1-2.117.r119.bundle"
    one = new.release
    assert (one.release_counter, one.version) == (119, "2.117.r119")
    assert (new.sha256, new.length, one.install) == (OLD.sha256, OLD.length, OLD.release.install)
    assert one.security_version == OLD.release.security_version
    assert one.fallback_to == ()
    assert read(path).manifest.payloads == ()
    sign_bundle(path, REPO.product[0])
    accepted = check_bundle(
        path, targets=TRUSTED.targets, previous=REPO.product_body(), now=NOW, folder=tmp_path
    )
    assert accepted.new == (new,)
    assert {one.path for one in accepted.kept} == {OLD.path, BAD.path}


def test_bytes_that_are_not_published_must_come_in_the_bundle(tmp_path: Path) -> None:
    path, _ = re_release(REPO.product_body(), "gw1-2.117", tmp_path, now=NOW)
    sign_bundle(path, REPO.product[0])
    with pytest.raises(PublisherError, match="not in the bundle"):
        check_bundle(path, targets=TRUSTED.targets, previous=None, now=NOW, folder=tmp_path)


def test_whoever_passed_the_waypoint_may_take_it(tmp_path: Path) -> None:
    old = release(117, from_counters=((90, 116),))
    before = REPO.but(releases=(old, BAD)).product_body()
    _, (new,) = re_release(before, "gw1-2.117", tmp_path, now=NOW)
    assert new.release.from_counters == ((90, 116), (117, 118))


@pytest.mark.parametrize(
    ("name", "given", "code"),
    [
        ("gw1-9.9", {}, "release.malformed"),
        ("gw2-2.117", {}, "release.malformed"),
        ("", {}, "release.malformed"),
        ("gw1-2.117", {"counter": 118}, "compat.counter"),
        ("gw1-2.117", {"version": "2.118"}, "release.exists"),
        ("gw1-2.117", {"version": "../../etc"}, "release.malformed"),
    ],
)
def test_what_cannot_be_published_again(
    tmp_path: Path, name: str, given: dict[str, object], code: str
) -> None:
    with pytest.raises(PublisherError) as caught:
        re_release(REPO.product_body(), name, tmp_path, now=NOW, **given)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert list(tmp_path.iterdir()) == []


def test_a_publisher_accepts_it_only_signed(tmp_path: Path) -> None:
    path, _ = re_release(REPO.product_body(), "gw1-2.117", tmp_path, now=NOW)
    body = read(path).product.body
    for signed in (body, sign(body, REPO.director)):
        with pytest.raises(PublisherError) as caught:
            accept_release(
                signed,
                product="gw1",
                targets=TRUSTED.targets,
                previous=REPO.product_body(),
                now=NOW,
            )
        assert caught.value.code == "sig.unknown_key"
