"""Mandates as people write them, and what becomes of them in a bundle."""

import datetime as dt
from pathlib import Path

import pytest
from tests.unit.core.repo import NOW
from tests.unit.publisher.test_release import lab, manifest, shop  # noqa: F401 - fixtures

from tidegate.core.errors import ConfigError, PublisherError
from tidegate.core.metadata import parse_targets, product_extra
from tidegate.publisher.bundle import build, read
from tidegate.publisher.lab import Lab
from tidegate.publisher.manifest import read_release
from tidegate.publisher.restage import restage
from tidegate.publisher.sign import check_bundle, sign_bundle, summary
from tidegate.publisher.staging import describe, parse_staging, read_staging

AT = int(dt.datetime(2026, 11, 25, 8, tzinfo=dt.UTC).timestamp())
DAY = 86_400


def steps(text: object, now: int = NOW) -> list[tuple[int, int]]:
    found = parse_staging(text).mandate(1, now)
    return [(one.bucket_max, one.not_before) for one in found.steps]


def test_times_with_a_plus_count_from_the_first_step() -> None:
    found = steps("1%@2026-11-25T08:00Z, 10%@+1d, 100%@+3d")
    assert found == [(100, AT), (1000, AT + DAY), (10_000, AT + 3 * DAY)]
    assert steps(["0.5% @ +1h", "100% @ +2h"]) == [(50, NOW + 3600), (10_000, NOW + 3600 + 7200)]
    assert steps("1%@2026-11-25T09:00+01:00") == [(100, AT)]


@pytest.mark.parametrize(
    "text",
    ["", ",", "1%", "1%@", "@+1d", "1@+1d", "0%@+1d", "101%@+1d", "1%@+1d,1%@+2d", "10%@+1d,1%@+2d", "1%@tomorrow",
     "1%@2026-11-25T08:00", "1%@2026-11-25T08:00Z,2%@+0s",
     "1%@+1d,,2%@+2d", "1%@1969-01-01T00:00Z", 5, None, [1], [], {"a": 1}],
)  # fmt: skip
def test_steps_that_say_nothing_clear_are_refused(text: object) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_staging(text)
    assert caught.value.code == "config.invalid"


def test_steps_out_of_order_in_time_are_refused_when_built() -> None:
    with pytest.raises(ConfigError, match="later and larger"):
        parse_staging("1%@2026-11-25T08:00Z,10%@2026-11-24T08:00Z").mandate(1, NOW)


def test_every_mandate_has_a_salt_of_its_own_unless_one_is_given(tmp_path: Path) -> None:
    spec = parse_staging("1%@+1d")
    first, second = spec.mandate(1, NOW), spec.mandate(1, NOW)
    assert first.salt != second.salt
    assert len(first.salt) == 32
    file = tmp_path / "mandate.toml"
    file.write_text('steps = ["1%@+1d", "100%@+2d"]\nsalt = "' + "5a" * 16 + '"\n')
    assert read_staging(str(file)).mandate(1, NOW).salt == "5a" * 16


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("steps = 3", "config.invalid"),
        ('step = "1%@+1d"', "config.unknown_key"),
        ("", "config.missing"),
        ('steps = "1%@+1d"\nsalt = "00"', "config.invalid"),
        ("steps = [", "config.invalid"),
        ('schema = 2\nsteps = "1%@+1d"', "config.invalid"),
    ],
)
def test_a_mandate_file_is_read_strictly(tmp_path: Path, text: str, code: str) -> None:
    file = tmp_path / "mandate.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_staging(str(file))
    assert caught.value.code == code
    with pytest.raises(ConfigError) as caught:
        read_staging(str(tmp_path / "nowhere.toml"))
    assert caught.value.code == "config.unreadable"


def built(shop: Path, path: Path, previous: bytes | None = None) -> Path:  # noqa: F811
    out = shop / "out"
    return build(read_release(path), out, previous=previous, now=NOW, level=3).bundle


def first_release(shop: Path, lab: Lab, line: str) -> Path:  # noqa: F811 - the fixtures' names
    path = manifest(shop)
    path.write_text(line + path.read_text())
    made = built(shop, path)
    sign_bundle(made, lab.signer("product"))
    return made


def test_a_release_is_built_and_checked_with_its_mandate(shop: Path, lab: Lab) -> None:  # noqa: F811
    made = first_release(shop, lab, 'mandate = "1%@2026-11-25T08:00Z,50%@+1d"\n')
    (found,) = summary(made).mandates
    assert describe(found) == (
        "1 % from 2026-11-25 08:00 UTC",
        "50 % from 2026-11-26 08:00 UTC",
        "nobody else, until a later product role widens it (now 50 %)",
    )
    targets = parse_targets(read(lab.trust).documents["targets"])
    accepted = check_bundle(made, targets=targets, previous=None, now=NOW, folder=shop)
    assert product_extra(accepted.document).crit == ("mandates",)


def test_the_next_release_keeps_the_mandates_of_those_before(shop: Path, lab: Lab) -> None:  # noqa: F811
    before = read(first_release(shop, lab, 'mandate = "1%@+1d"\n')).documents["product/gw1"]
    path = manifest(shop, "1.1.0", 2)
    path.write_text('mandate = "2%@+1d"\n' + path.read_text())
    made = built(shop, path, before)
    assert [one.counter for one in summary(made).mandates] == [1, 2]
    plain = built(shop, manifest(shop, "1.1.0", 2), before)
    assert [one.counter for one in summary(plain).mandates] == [1]


def test_restaging_widens_or_ends_a_mandate_and_changes_nothing_else(shop: Path, lab: Lab) -> None:  # noqa: F811
    first = first_release(shop, lab, 'mandate = "1%@2026-11-25T08:00Z,10%@+3d"\n')
    before = read(first).documents["product/gw1"]
    targets = parse_targets(read(lab.trust).documents["targets"])

    def again(text: str | None) -> tuple[list[tuple[int, int]], Path]:
        spec = parse_staging(text) if text is not None else None
        made = restage(before, "gw1-1.0.0", spec, shop, now=NOW, expires_s=DAY)
        sign_bundle(made, lab.signer("product"))
        accepted = check_bundle(made, targets=targets, previous=before, now=NOW, folder=shop)
        assert not accepted.new
        assert not accepted.gone
        extra = product_extra(accepted.document)
        return [(s.bucket_max, s.not_before) for one in extra.mandates for s in one.steps], made

    wider, made = again("100%@2026-11-26T08:00Z")
    assert wider == [(100, AT), (10_000, AT + DAY)]
    assert summary(made).mandates[0].salt == summary(first).mandates[0].salt
    assert again("5%@2026-11-26T08:00Z")[0] == [(100, AT), (500, AT + DAY), (1000, AT + 3 * DAY)]
    assert again(None)[0] == []
    with pytest.raises(PublisherError, match="nothing more"):
        again("1%@2026-11-27T08:00Z")
    with pytest.raises(PublisherError, match="is not published with a mandate"):
        restage(before, "gw1-9.9.9", None, shop, now=NOW, expires_s=DAY)


def test_release_toml_says_where_a_mandate_is_wrong(shop: Path) -> None:  # noqa: F811
    path = manifest(shop)
    path.write_text('mandate = "5%"\n' + path.read_text())
    with pytest.raises(ConfigError, match=r"release\.toml: mandate"):
        read_release(path)
