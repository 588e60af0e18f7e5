"""The attack list of the TUF layer, one case a test: each ends in its own code."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.core.repo import DAY, NOW, Repo, release, signer

from tidegate.core.authority import ProductExtra, ProductFloor
from tidegate.core.errors import PublisherError
from tidegate.core.metadata import (
    MetaInfo,
    attach,
    detached_signature,
    make_snapshot,
    online_version,
    parse_root,
    parse_snapshot,
    parse_targets,
    sign,
    strip_signatures,
)
from tidegate.core.verify import Seen, TrustedSet, product_floor, verify_release, walk_repository

GOOD = Repo()
PATH = "gw1/2.118/rootfs"


def code(act: Callable[[], object]) -> str:
    with pytest.raises(PublisherError) as caught:
        act()
    return caught.value.code


def walk(files: dict[str, bytes], now: int = NOW, seen: Seen | None = None) -> TrustedSet:
    return walk_repository(files, anchor=GOOD.root_body(), now=now, seen=seen)


def edit(body: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    plain = json.loads(body)
    change(plain)
    return json.dumps(plain).encode()


def test_a_whole_repository_is_believed_and_names_its_releases() -> None:
    found = verify_release(GOOD.trusted(), PATH)
    assert (found.release.release_counter, found.release.version) == (118, "2.118")


def test_foreign_keys_are_refused() -> None:
    foreign = GOOD.but(timestamp=signer("foreign"))
    assert code(lambda: walk(GOOD.files() | {"timestamp.json": foreign.timestamp_body()})) == (
        "sig.unknown_key"
    )


def test_a_product_role_below_its_threshold_is_refused() -> None:
    repo = GOOD.but(product=(signer("product"), signer("product 2")), product_threshold=2)
    assert repo.trusted().roles
    body = repo.product_body(signer("product"))
    named = {
        "targets": parse_targets(repo.targets_body()).info,
        "product/gw1": parse_targets(body, "product/gw1").info,
    }
    snapshot = repo.snapshot_body(named)
    files = repo.files() | {
        "1.product%2Fgw1.json": body,
        "100.snapshot.json": snapshot,
        "timestamp.json": repo.timestamp_body(parse_snapshot(snapshot).info),
    }
    assert code(lambda: walk(files)) == "sig.threshold"


def test_changed_bytes_under_a_good_name_are_refused() -> None:
    files = GOOD.files()
    body = files["1.targets.json"]
    assert code(lambda: walk(files | {"1.targets.json": body + b" "})) == "sig.mix_and_match"
    swapped = body.replace(b'"version":1', b'"version":2')
    assert code(lambda: walk(files | {"1.targets.json": swapped})) == "sig.mix_and_match"


def test_signed_bytes_that_changed_are_refused() -> None:
    body = edit(GOOD.timestamp_body(), lambda plain: plain["signed"].update(version=101))
    assert code(lambda: walk(GOOD.files() | {"timestamp.json": body})) == "sig.threshold"


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets", "product"])
def test_what_expired_is_refused_at_the_second_it_expires(role: str) -> None:
    repo = GOOD.but(expires={role: NOW + 100})
    files, anchor = repo.files(), repo.root_body()
    assert walk_repository(files, anchor=anchor, now=NOW + 99).roles
    assert code(lambda: walk_repository(files, anchor=anchor, now=NOW + 100)) == "sig.expired"


def test_an_older_timestamp_is_refused_after_a_newer_was_seen() -> None:
    seen = GOOD.but(online=200).trusted().seen
    assert code(lambda: walk(GOOD.files(), seen=seen)) == "sig.rollback"


def test_an_older_snapshot_under_a_newer_timestamp_is_refused() -> None:
    seen = GOOD.but(online=200).trusted().seen
    files = GOOD.but(online=300, snapshot_version=150).files()
    assert code(lambda: walk(files, seen=seen)) == "sig.rollback"


def test_stolen_online_keys_cannot_bring_an_old_product_document_back() -> None:
    """Also not when every cached file is lost: what was seen is kept apart from them."""
    seen = GOOD.but(online=200, product_version=2).trusted().seen
    files = GOOD.but(online=300, product_version=1).files()
    assert code(lambda: walk(files, seen=seen)) == "sig.rollback"


def test_a_role_cannot_vanish_from_snapshot() -> None:
    repo = GOOD.but(online=200)
    snapshot = repo.snapshot_body({"targets": parse_targets(repo.targets_body()).info})
    files = repo.files() | {
        "200.snapshot.json": snapshot,
        "timestamp.json": repo.timestamp_body(parse_snapshot(snapshot).info),
    }
    assert code(lambda: walk(files, seen=GOOD.trusted().seen)) == "sig.rollback"


def test_a_snapshot_that_timestamp_does_not_name_is_refused() -> None:
    other = GOOD.but(online=99).snapshot_body()
    assert code(lambda: walk(GOOD.files() | {"100.snapshot.json": other})) == "sig.mix_and_match"


def test_length_and_digest_are_demanded() -> None:
    body = GOOD.timestamp_body(MetaInfo(100, None, None))
    assert code(lambda: walk(GOOD.files() | {"timestamp.json": body})) == "sig.malformed"


def test_a_timestamp_of_the_same_version_is_not_taken_again() -> None:
    trusted = TrustedSet(GOOD.root_body(), now=NOW)
    assert trusted.update_timestamp(GOOD.timestamp_body())
    assert not trusted.update_timestamp(GOOD.timestamp_body(MetaInfo(100, 1, "00" * 32)))
    assert trusted.expected("snapshot") == parse_snapshot(GOOD.snapshot_body()).info


def test_an_expired_timestamp_from_the_cache_still_bars_older_ones() -> None:
    trusted = TrustedSet(GOOD.root_body(), now=NOW + 10 * DAY)
    old = GOOD.but(online=200, expires={"timestamp": NOW + DAY})
    trusted.update_timestamp(old.timestamp_body(), cached=True)
    assert code(lambda: trusted.update_snapshot(old.snapshot_body())) == "sig.expired"
    assert code(lambda: trusted.update_timestamp(GOOD.timestamp_body())) == "sig.rollback"


# --- root ---------------------------------------------------------------------------------------------------------------


def next_root(**changes: object) -> Repo:
    return GOOD.but(root_version=2, **changes)


def test_a_root_signed_by_old_and_new_keys_is_taken() -> None:
    repo = next_root(roots=(*GOOD.roots[:2], signer("root 9")))
    trusted = TrustedSet(GOOD.root_body(), now=NOW)
    trusted.update_root(repo.root_body())
    assert trusted.root.version == 2


@pytest.mark.parametrize(
    ("signers", "expected"),
    [
        ((GOOD.roots[0],), "sig.threshold"),
        ((signer("n 0"), signer("n 1")), "sig.unknown_key"),
        (GOOD.roots[:2], "sig.unknown_key"),
    ],
    ids=["one of two", "new only", "old only"],
)
def test_a_root_needs_both_thresholds(signers: tuple[Any, ...], expected: str) -> None:
    repo = next_root(roots=tuple(signer(f"n {n}") for n in range(3)))
    trusted = TrustedSet(GOOD.root_body(), now=NOW)
    assert code(lambda: trusted.update_root(repo.root_body(*signers))) == expected
    assert trusted.root.version == 1


def test_one_root_key_under_two_ids_counts_once() -> None:
    def alias(plain: dict[str, Any]) -> None:
        root = plain["signed"]
        keyid = GOOD.roots[0].public.keyid
        root["keys"]["alias"] = root["keys"][keyid]
        root["roles"]["root"]["keyids"] = [keyid, "alias"]

    body = strip_signatures(edit(GOOD.root_body(), alias))
    once = sign(body, GOOD.roots[0])
    twice = attach(once, "alias", detached_signature(body, GOOD.roots[0]))
    assert code(lambda: TrustedSet(twice, now=NOW)) == "sig.threshold"


@pytest.mark.parametrize("version", [1, 3])
def test_a_root_is_neither_skipped_nor_repeated(version: int) -> None:
    trusted = TrustedSet(GOOD.root_body(), now=NOW)
    body = GOOD.but(root_version=version, epoch=2).root_body()
    assert code(lambda: trusted.update_root(body)) == "sig.rollback"


def test_the_epoch_of_the_authorities_never_falls() -> None:
    trusted = TrustedSet(GOOD.but(epoch=3).root_body(), now=NOW)
    assert code(lambda: trusted.update_root(next_root(epoch=2).root_body())) == "sig.rollback"


def test_new_online_keys_undo_a_fast_forward() -> None:
    seen = GOOD.but(online=1 << 40, product_version=1 << 40).trusted().seen
    assert code(lambda: walk(GOOD.files(), seen=seen)) == "sig.rollback"
    rescued = next_root(timestamp=signer("t2"), snapshot=signer("s2"))
    assert walk(rescued.files(), seen=seen).timestamp is not None


def test_rotating_other_keys_keeps_what_was_seen() -> None:
    seen = GOOD.but(online=200).trusted().seen
    files = next_root(director=signer("director 2")).files()
    assert code(lambda: walk(files, seen=seen)) == "sig.rollback"


# --- shapes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xef\xbb\xbf{}",
        b"[]",
        b"{}",
        b'{"signed":{},"signatures":[]}',
        b"\xff\xfe",
        b"<html>captive portal</html>",
        b'{"a":' * 40 + b"1" + b"}" * 40,
        GOOD.root_body().replace(b'"version":1', b'"version":1,"version":1'),
        GOOD.root_body().replace(b'"version":1', b'"version":1.0'),
        GOOD.root_body().replace(b'"version":1', b'"version":NaN'),
        GOOD.root_body().replace(b'"version":1', b'"version":true'),
        GOOD.root_body().replace(b'"version":1', b'"version":0'),
        GOOD.root_body().replace(b'"version":1', b'"version":' + b"9" * 30),
        GOOD.root_body().replace(b'"threshold":2', b'"threshold":0', 1),
        GOOD.root_body().replace(b'"threshold":2', b'"threshold":-1', 1),
        GOOD.root_body().replace(b'"threshold":1', b'"threshold":true'),
        GOOD.root_body().replace(b'"default"', b'"\\ud800"'),
        GOOD.timestamp_body(),
    ],
)
def test_what_is_no_root_is_malformed(body: bytes) -> None:
    assert code(lambda: parse_root(body)) == "sig.malformed"


def test_what_is_too_large_is_refused_unread() -> None:
    assert code(lambda: parse_root(b"{" + b" " * (64 << 10))) == "sig.oversized"
    assert code(lambda: TrustedSet(b"x" * (1 << 20), now=NOW)) == "sig.oversized"


def test_a_snapshot_with_a_role_of_version_true_is_malformed() -> None:
    body = make_snapshot(
        version=1, expires_at=NOW, issued_at=NOW, documents={"targets": MetaInfo(1, 1, "00" * 32)}
    )
    changed = edit(body, lambda p: p["signed"]["meta"]["targets.json"].update(version=True))
    assert code(lambda: parse_snapshot(changed)) == "sig.malformed"


# --- releases -----------------------------------------------------------------------------------------------------------


def test_a_path_that_nobody_signed_is_refused() -> None:
    trusted = GOOD.trusted()
    assert code(lambda: verify_release(trusted, "gw1/9.9/rootfs")) == "sig.director_mismatch"
    assert code(lambda: verify_release(trusted, "gw2/2.118/rootfs")) == "sig.director_mismatch"
    assert code(lambda: verify_release(trusted, "../../etc/passwd")) == "sig.director_mismatch"


def test_a_withdrawn_release_is_refused() -> None:
    trusted = GOOD.but(product_extra=ProductExtra(withdrawn=(118,))).trusted()
    assert code(lambda: verify_release(trusted, PATH)) == "sig.director_mismatch"
    assert verify_release(trusted, "gw1/2.117/rootfs").release.release_counter == 117


def test_a_product_cannot_sign_for_another() -> None:
    foreign = release(118, "2.118", product="gw2")
    trusted = GOOD.but(releases=(foreign,)).trusted()
    assert code(lambda: verify_release(trusted, PATH)) == "sig.malformed"


def test_a_description_with_an_unknown_critical_field_is_refused() -> None:
    trusted = GOOD.but(releases=(release(118, "2.118", crit=("quantum",)),)).trusted()
    assert code(lambda: verify_release(trusted, PATH)) == "sig.malformed"


def test_the_floor_of_a_product_is_per_model() -> None:
    extra = ProductExtra(product_floor=(ProductFloor(model="gw1", security_floor=5),))
    trusted = GOOD.but(product_extra=extra).trusted()
    assert (product_floor(trusted, "gw1", "gw1"), product_floor(trusted, "gw1", "gw9")) == (5, 0)


def test_online_versions_follow_the_clock_and_never_fall() -> None:
    assert online_version(NOW, 0) == NOW // 60
    assert online_version(NOW, NOW // 60) == NOW // 60 + 1
    assert online_version(0, 7) == 8
