"""A grant's ceremony: drafted, read, signed apart, merged, checked by the code that devices run."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.unit.core.repo import DAY, NOW, Repo, signer
from tests.unit.core.way_back import BAD, GRANT, INCIDENT, OLD, grant, signed

from tidegate.core.errors import ConfigError, TidegateError
from tidegate.core.grant import Cohort, GrantBody
from tidegate.core.keys import Signer
from tidegate.core.protocol import Envelope
from tidegate.publisher.ceremony import SignatureFile
from tidegate.publisher.grant import (
    check_grant_file,
    describe_grant,
    grant_progress,
    holders_of,
    merge_grant,
    read_grant,
    sign_grant,
    words_of,
    write_grant,
)

REPO = Repo(releases=(OLD, BAD))
TRUSTED = REPO.trusted()
HOLDERS = holders_of(TRUSTED.root)


def draft(body: GrantBody = GRANT) -> Envelope:
    return msgspec.structs.replace(signed(body), signatures=())


def code(act: Callable[[], object]) -> str:
    with pytest.raises(TidegateError) as caught:
        act()
    return caught.value.code


def sigs(envelope: Envelope, *signers: Signer) -> list[SignatureFile]:
    return [sign_grant(envelope, one, f"holder {n}", now=NOW) for n, one in enumerate(signers)]


def test_two_holders_apart_make_a_grant_that_a_device_takes(tmp_path: Path) -> None:
    path = tmp_path / "inc.fallback.json"
    write_grant(path, draft())
    envelope, body = read_grant(path)
    assert body == GRANT
    assert grant_progress(envelope, HOLDERS).missing == 2
    for one in INCIDENT:  # each on a machine of its own, one after the other
        envelope = merge_grant(envelope, sigs(draft(), one), HOLDERS)
        write_grant(path, envelope)
        envelope, _ = read_grant(path)
    step = grant_progress(envelope, HOLDERS)
    assert (step.missing, len(step.signed)) == (0, 2)
    found, images = check_grant_file(envelope, TRUSTED, now=NOW)
    assert (found, images) == (GRANT, (OLD,))


def test_signatures_do_not_change_the_words() -> None:
    whole = merge_grant(draft(), sigs(draft(), *INCIDENT), HOLDERS)
    assert words_of(whole) == words_of(draft())
    assert words_of(draft(grant(serial=8))) != words_of(draft())


def test_one_holder_is_too_few_and_twice_the_same_is_one() -> None:
    once = merge_grant(draft(), sigs(draft(), INCIDENT[0]), HOLDERS)
    twice = merge_grant(once, sigs(draft(), INCIDENT[0]), HOLDERS)
    assert grant_progress(twice, HOLDERS).missing == 1
    assert code(lambda: check_grant_file(twice, TRUSTED, now=NOW)) == "sig.threshold"


def test_a_signature_by_a_stranger_on_another_draft_or_spoiled_is_not_merged() -> None:
    stranger = sigs(draft(), signer("stranger"))
    assert code(lambda: merge_grant(draft(), stranger, HOLDERS)) == "sig.unknown_key"
    other = sigs(draft(grant(serial=8)), INCIDENT[0])
    assert code(lambda: merge_grant(draft(), other, HOLDERS)) == "sig.mix_and_match"
    lying = [msgspec.structs.replace(other[0], words=words_of(draft()))]
    assert code(lambda: merge_grant(draft(), lying, HOLDERS)) == "sig.threshold"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (grant(expires=NOW), "sig.expired"),
        (grant(expires=NOW + 31 * DAY), "sig.expired"),
        (grant(epoch=2), "sig.mix_and_match"),
        (grant(tenant="other"), "sig.replayed"),
        (grant(cohort=Cohort()), "sig.malformed"),
        (grant(to=(msgspec.structs.replace(GRANT.to[0], length=5),)), "sig.director_mismatch"),
        (grant(to=(msgspec.structs.replace(GRANT.to[0], path="gw1/9/x"),)), "sig.director_mismatch"),
    ],
)  # fmt: skip
def test_the_check_refuses_what_a_device_would(body: GrantBody, expected: str) -> None:
    assert code(lambda: check_grant_file(signed(body), TRUSTED, now=NOW)) == expected


def test_a_withdrawn_release_is_no_way_back() -> None:
    from tidegate.core.authority import ProductExtra

    repo = Repo(releases=(OLD, BAD), product_extra=ProductExtra(withdrawn=(117,)))
    act = lambda: check_grant_file(signed(), repo.trusted(), now=NOW)  # noqa: E731
    assert code(act) == "sig.director_mismatch"


def test_the_signer_reads_what_it_allows() -> None:
    text = "\n".join(describe_grant(GRANT))
    for word in ("DOWNGRADE", "gw1 3 to 4", "counter 118", "2.117", "11 devices", "below counter 119", "INC-2026-014", "boot loops"):  # fmt: skip
        assert word in text
    assert "EVERY device" in "\n".join(describe_grant(grant(cohort=Cohort(all=True))))


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b"\xff", b'{"payload": "e30=", "payloadType": "x", "signatures": []}', b"[" * 9999],
)  # fmt: skip
def test_a_file_that_is_no_grant_is_refused(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(body)
    assert code(lambda: read_grant(path)) == "sig.malformed"


def test_a_huge_or_missing_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b" " * (1 << 20))
    assert code(lambda: read_grant(path)) == "sig.oversized"
    with pytest.raises(ConfigError):
        read_grant(tmp_path / "nothing.json")
