"""An object store that is slow, refuses or lies: an error that says so, or the right bytes; never wrong ones under a digest."""

import hashlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.objectstore import Exchange, Faulty, blobs_at, raw_client, settings_for

from tidegate.core.errors import BusyError, ConfigError, TidegateError, TransferError
from tidegate.server.blobs import Blob, s3
from tidegate.server.doctor import Check, examine
from tidegate.server.nearby import Nearby
from tidegate.server.store.sqlite import open_store

CONTENT = os.urandom(300_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
LARGE = os.urandom(s3.PART_BYTES * 2 + 17)
LARGE_DIGEST = hashlib.sha256(LARGE).hexdigest()


@pytest.fixture
def store(bucket: str, moto: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Return (address past the double, bucket) with one blob in it; waits are short."""
    monkeypatch.setattr(s3, "_READ_S", 1)
    monkeypatch.setattr(s3, "_CONNECT_S", 1)
    blobs_at(moto, bucket).put(DIGEST, [CONTENT])
    return moto, bucket


def _of_objects(change: Callable[[Exchange], None]) -> Callable[[Exchange], None]:
    """Change what is read of an object, and nothing else."""

    def fault(one: Exchange) -> None:
        if one.method == "GET" and f"/{DIGEST}" in one.path:
            change(one)

    return fault


def _read(faulty: Faulty, bucket: str, offset: int = 1000, count: int = 200_000) -> bytes:
    blob = blobs_at(faulty.address, bucket).open(DIGEST)
    assert blob is not None
    try:
        return blob.read_at(offset, count)
    finally:
        blob.close()


def _ignore_range(one: Exchange) -> None:
    for name in [name for name in one.headers if name.lower() == "range"]:
        del one.headers[name]


def _other_range(one: Exchange) -> None:
    start, end = one.headers["Range"].removeprefix("bytes=").split("-")
    # as long as the one that was asked for, one byte before it
    one.headers["Range"] = f"bytes={int(start) - 1}-{int(end) - 1}"


def _other_tag(one: Exchange) -> None:
    one.answer["etag"] = '"00000000000000000000000000000000"'


def _no_content_range(one: Exchange) -> None:
    one.answer.pop("content-range")


def _says_more(one: Exchange) -> None:
    one.answer["content-length"] = str(len(one.content) + 10)


def _gives_less(one: Exchange) -> None:
    one.content = one.content[:-10]
    one.answer["content-length"] = str(len(one.content))


@pytest.mark.parametrize("lie", [_other_tag, _no_content_range, _says_more, _gives_less])
def test_an_answer_that_is_not_what_was_asked_for_is_an_error(
    faulty: Faulty, store: tuple[str, str], lie: Callable[[Exchange], None]
) -> None:
    faulty.after = _of_objects(lie)
    with pytest.raises(TransferError) as caught:
        _read(faulty, store[1])
    assert caught.value.code == "blobs.untrue"


@pytest.mark.parametrize("lie", [_ignore_range, _other_range])
def test_a_store_that_gives_another_range_is_caught(
    faulty: Faulty, store: tuple[str, str], lie: Callable[[Exchange], None]
) -> None:
    faulty.before = _of_objects(lie)
    with pytest.raises(TransferError) as caught:
        _read(faulty, store[1])
    assert caught.value.code == "blobs.untrue"


def test_an_object_that_was_changed_meanwhile_is_caught(
    store: tuple[str, str], faulty: Faulty
) -> None:
    blob = blobs_at(faulty.address, store[1]).open(DIGEST)
    assert blob is not None
    key = f"fleet/{DIGEST[:2]}/{DIGEST}"
    raw_client(store[0]).put_object(Bucket=store[1], Key=key, Body=CONTENT[::-1])
    with pytest.raises(TransferError) as caught:
        blob.read_at(0, 10)
    assert caught.value.code == "blobs.untrue"


def test_a_body_that_breaks_off_goes_on_where_it_did(
    faulty: Faulty, store: tuple[str, str]
) -> None:
    cuts = iter((50_000, 100_000))

    def cut(one: Exchange) -> None:
        one.cut = next(cuts, None)

    faulty.after = _of_objects(cut)
    assert _read(faulty, store[1]) == CONTENT[1000:201_000]


def test_a_body_that_always_breaks_off_is_given_up(faulty: Faulty, store: tuple[str, str]) -> None:
    def cut(one: Exchange) -> None:
        one.cut = 0

    faulty.after = _of_objects(cut)
    with pytest.raises(BusyError) as caught:
        _read(faulty, store[1])
    assert caught.value.code == "blobs.unreachable"
    assert len([one for one in faulty.seen if one.method == "GET"]) <= 12


def test_a_store_that_is_busy_for_a_moment_is_asked_again(
    faulty: Faulty, store: tuple[str, str]
) -> None:
    blobs = blobs_at(faulty.address, store[1])
    faulty.refuse = (503, 2)
    assert blobs.size(DIGEST) == len(CONTENT)
    faulty.reset = 2
    assert blobs.size(DIGEST) == len(CONTENT)


def test_a_store_that_stays_busy_is_said_to_be(faulty: Faulty, store: tuple[str, str]) -> None:
    blobs = blobs_at(faulty.address, store[1])
    faulty.refuse = (503, 1000)
    begun = time.monotonic()
    with pytest.raises(BusyError) as caught:
        blobs.size(DIGEST)
    assert caught.value.code == "blobs.unreachable"
    with pytest.raises(BusyError) as caught:
        blobs.put(DIGEST, [CONTENT])
    assert caught.value.code == "blobs.unreachable"
    assert time.monotonic() - begun < 60


def test_a_store_that_does_not_answer_is_not_waited_for(
    faulty: Faulty, store: tuple[str, str]
) -> None:
    faulty.go.clear()
    begun = time.monotonic()
    with pytest.raises(BusyError) as caught:
        blobs_at(faulty.address, store[1]).size(DIGEST)
    assert caught.value.code == "blobs.unreachable"
    assert time.monotonic() - begun < 20


def test_nothing_there_at_all_is_an_error_that_says_so(bucket: str) -> None:
    with pytest.raises(BusyError) as caught:
        blobs_at("http://127.0.0.1:9", bucket).size(DIGEST)
    assert caught.value.code == "blobs.unreachable"


def test_a_slow_store_gives_its_bytes_in_the_end(faulty: Faulty, store: tuple[str, str]) -> None:
    def slow(one: Exchange) -> None:
        one.drip_s = 0.02

    faulty.after = _of_objects(slow)
    assert _read(faulty, store[1], 0, 50_000) == CONTENT[:50_000]


@pytest.mark.parametrize("status", [301, 400, 401, 403])
def test_a_refusal_is_for_whoever_configured_it_and_shows_no_secret(
    faulty: Faulty, store: tuple[str, str], status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    blobs = blobs_at(faulty.address, store[1])
    faulty.refuse = (status, 1000)
    with pytest.raises(ConfigError) as caught:
        blobs.size(DIGEST)
    assert caught.value.code == "blobs.refused"
    shown = f"{caught.value} {caught.value.hint} {caplog.text}"
    assert "nobody-knows" not in shown
    assert "Signature" not in shown


def test_without_credentials_it_says_so(
    moto: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    with pytest.raises(ConfigError) as caught:
        blobs_at(moto, bucket).size(DIGEST)
    assert caught.value.code == "blobs.refused"


def test_a_bucket_that_is_not_there_is_refused(moto: str, bucket: str) -> None:
    with pytest.raises(ConfigError) as caught:
        blobs_at(moto, f"{bucket}-else").put(DIGEST, [CONTENT])
    assert caught.value.code == "blobs.refused"


def test_a_store_that_keeps_less_than_it_was_given_keeps_nothing(
    faulty: Faulty, store: tuple[str, str]
) -> None:
    """The lie is told of the write: what is stored is shorter, and was acknowledged."""

    def shorten(one: Exchange) -> None:
        if one.method == "PUT":
            one.body = one.body[:-5]
            one.headers["Content-Length"] = str(len(one.body))

    body = CONTENT[:-1]
    digest = hashlib.sha256(body).hexdigest()
    faulty.before = shorten
    with pytest.raises(TransferError) as caught:
        blobs_at(faulty.address, store[1]).put(digest, [body])
    assert caught.value.code == "blobs.untrue"
    assert blobs_at(*store).size(digest) is None


def test_what_was_there_before_is_not_deleted_by_a_lie(
    faulty: Faulty, store: tuple[str, str]
) -> None:
    def lie(one: Exchange) -> None:
        if one.method == "HEAD":
            one.answer["content-length"] = "17"

    faulty.after = lie
    with pytest.raises(TransferError) as caught:
        blobs_at(faulty.address, store[1]).put(DIGEST, [CONTENT])
    assert caught.value.code == "blobs.untrue"
    assert blobs_at(*store).size(DIGEST) == len(CONTENT)


def test_a_large_one_that_is_there_leaves_no_parts_behind(store: tuple[str, str]) -> None:
    for _ in range(2):
        assert blobs_at(*store).put(LARGE_DIGEST, [LARGE]) == len(LARGE)
    client = raw_client(store[0])
    assert not client.list_multipart_uploads(Bucket=store[1]).get("Uploads")


def test_parts_that_fail_leave_no_upload_behind(faulty: Faulty, store: tuple[str, str]) -> None:
    def refuse_second(one: Exchange) -> None:
        if "partNumber=2" in one.path:
            one.status, one.content, one.answer = 403, b"", {}

    faulty.after = refuse_second
    with pytest.raises(TidegateError):
        blobs_at(faulty.address, store[1]).put(LARGE_DIGEST, [LARGE])
    faulty.after = None
    client = raw_client(store[0])
    assert not client.list_multipart_uploads(Bucket=store[1]).get("Uploads")
    assert blobs_at(*store).size(LARGE_DIGEST) is None


@pytest.mark.parametrize("content", [CONTENT[:5000], LARGE])
def test_a_store_that_knows_no_conditions_is_written_without(
    faulty: Faulty, store: tuple[str, str], content: bytes
) -> None:
    def unknown(one: Exchange) -> None:
        if any(name.lower() == "if-none-match" for name in one.headers):
            one.method, one.path = "GET", "/no-such-bucket-at-all"

    def say(one: Exchange) -> None:
        if one.path == "/no-such-bucket-at-all":
            one.status = 501
            one.content = b"<Error><Code>NotImplemented</Code></Error>"
            one.answer = {"content-type": "application/xml"}

    faulty.before, faulty.after = unknown, say
    digest = hashlib.sha256(content).hexdigest()
    assert blobs_at(faulty.address, store[1]).put(digest, [content]) == len(content)
    assert blobs_at(*store).size(digest) == len(content)


def test_the_second_writer_of_one_blob_changes_nothing(
    faulty: Faulty, store: tuple[str, str]
) -> None:
    before = raw_client(store[0]).head_object(Bucket=store[1], Key=f"fleet/{DIGEST[:2]}/{DIGEST}")
    blobs_at(faulty.address, store[1]).put(DIGEST, [CONTENT])
    after = raw_client(store[0]).head_object(Bucket=store[1], Key=f"fleet/{DIGEST[:2]}/{DIGEST}")
    assert before["LastModified"] == after["LastModified"]
    writes = [one for one in faulty.seen if one.method == "PUT"]
    assert [one.headers.get("If-None-Match") for one in writes] == ["*"]
    assert [one.status for one in writes] == [412]


def test_the_doctor_tries_the_store_and_says_what_does_not_work(
    faulty: Faulty, store: tuple[str, str], tmp_path: Path
) -> None:
    def flip(one: Exchange) -> None:
        if one.method == "GET":
            one.content = bytes([one.content[0] ^ 1]) + one.content[1:]

    open_store(tmp_path).close()
    settings = msgspec.structs.replace(
        settings_for(faulty.address, store[1]), data_dir=tmp_path, listen="127.0.0.1:1"
    )

    def tried() -> dict[str, Check]:
        return {one.name: one for one in examine(settings, 1_800_000_000)}

    assert tried()["object store"].level == "ok"
    faulty.after = flip
    assert (tried()["blobs"].level, tried()["blobs"].fix != "") == ("failed", True)
    faulty.after, faulty.refuse = None, (403, 1000)
    assert "blobs.refused" in tried()["blobs"].text
    assert raw_client(store[0]).list_objects_v2(Bucket=store[1])["KeyCount"] == 1


def test_what_is_read_inside_a_transaction_is_fetched_beside_and_its_digest_asked(
    faulty: Faulty, store: tuple[str, str], tmp_path: Path
) -> None:
    nearby = Nearby(blobs_at(faulty.address, store[1]), tmp_path / "near")

    def opened(sha256: str) -> Blob | None:
        until = time.monotonic() + 20
        while True:
            begun = time.monotonic()
            try:
                return nearby.open(sha256)
            except BusyError:
                # whoever asks does not wait for the store
                assert time.monotonic() - begun < 1
                assert time.monotonic() < until
                time.sleep(0.02)

    faulty.go.clear()
    with pytest.raises(BusyError) as caught:
        nearby.open(DIGEST)
    assert caught.value.code == "server.busy"
    faulty.go.set()
    blob = opened(DIGEST)
    assert blob is not None
    assert blob.read_at(0, len(CONTENT)) == CONTENT
    asked = len(faulty.seen)
    assert nearby.open(DIGEST) is not None
    assert len(faulty.seen) == asked
    assert opened("0" * 64) is None


def test_what_was_changed_on_its_way_is_not_kept_nearby(
    faulty: Faulty, store: tuple[str, str], tmp_path: Path
) -> None:
    def flip(one: Exchange) -> None:
        one.content = one.content[:-1] + bytes([one.content[-1] ^ 1])

    faulty.after = _of_objects(flip)
    nearby = Nearby(blobs_at(faulty.address, store[1]), tmp_path / "near")
    until = time.monotonic() + 20
    while not [one for one in faulty.seen if one.method == "GET"]:
        with pytest.raises(BusyError):
            nearby.open(DIGEST)
        assert time.monotonic() < until
        time.sleep(0.02)
    time.sleep(0.2)
    with pytest.raises(BusyError):
        nearby.open(DIGEST)
    kept = [one for one in (tmp_path / "near").rglob("*") if one.is_file()]
    assert [one for one in kept if one.name == DIGEST] == []


def test_credentials_go_in_no_url_but_a_signed_link(faulty: Faulty, store: tuple[str, str]) -> None:
    _read(faulty, store[1])
    assert all("Signature" not in one.path and "tests" not in one.path for one in faulty.seen)
    assert all(len(one.headers["X-Amz-Content-SHA256"]) == 64 for one in faulty.seen)
