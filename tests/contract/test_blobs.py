"""What every place for blobs promises, run over each back end."""

import hashlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.objectstore import blobs_at, raw_client

from tidegate.core.errors import PublisherError, RequestError
from tidegate.server.blobs import Blobs, Where
from tidegate.server.blobs import s3 as s3_module
from tidegate.server.blobs.local import LocalBlobs, create

CONTENT = bytes(range(256)) * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
#: Longer than one part of any back end, and than one span that is read.
LARGE = os.urandom(1 << 20) * 34 + b"the end"
LARGE_DIGEST = hashlib.sha256(LARGE).hexdigest()


@dataclass
class Place:
    """A back end, and everything that lies in it, looked at past it."""

    blobs: Blobs
    folder: Path | None = None
    store: tuple[str, str] | None = None

    def kept(self) -> list[str]:
        """Return what is stored, parts of unfinished uploads included."""
        if self.folder is not None:
            return [str(one) for one in self.folder.rglob("*") if one.is_file()]
        assert self.store is not None
        client, bucket = raw_client(self.store[0]), self.store[1]
        whole = client.list_objects_v2(Bucket=bucket).get("Contents", ())
        begun = client.list_multipart_uploads(Bucket=bucket).get("Uploads", ())
        return [str(one["Key"]) for one in (*whole, *begun)]

    def again(self) -> Blobs:
        """Return another process' view of it."""
        if self.folder is not None:
            return LocalBlobs(self.folder)
        assert self.store is not None
        return blobs_at(*self.store)


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "local":
        return Place(LocalBlobs(tmp_path / "blobs"), folder=tmp_path / "blobs")
    store = (request.getfixturevalue("moto"), request.getfixturevalue("bucket"))
    return Place(blobs_at(*store), store=store)


@pytest.fixture
def blobs(place: Place) -> Blobs:
    return place.blobs


def _pieces(content: bytes = CONTENT, size: int = 10_007) -> Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def test_what_was_put_is_read_back_from_any_offset(blobs: Blobs) -> None:
    assert blobs.put(DIGEST, _pieces()) == len(CONTENT)
    blob = blobs.open(DIGEST)
    assert blob is not None
    assert blob.size == len(CONTENT)
    assert blob.read_at(1000, 77) == CONTENT[1000:1077]
    assert blob.read_at(len(CONTENT) - 5, 100) == CONTENT[-5:]
    assert blob.read_at(len(CONTENT), 100) == b""
    assert blob.read_at(len(CONTENT) + 5, 100) == b""
    assert blob.read_at(3, 7) == CONTENT[3:10]
    blob.close()
    blob.close()


def test_a_large_one_is_put_in_parts_and_read_from_end_to_end(place: Place) -> None:
    assert place.blobs.put(LARGE_DIGEST, _pieces(LARGE, 1_000_003)) == len(LARGE)
    blob = place.again().open(LARGE_DIGEST)
    assert blob is not None
    digest, at = hashlib.sha256(), 0
    while piece := blob.read_at(at, 1 << 20):
        digest.update(piece)
        at += len(piece)
    blob.close()
    assert (at, digest.hexdigest()) == (len(LARGE), LARGE_DIGEST)
    assert len(place.kept()) == 1


def test_an_empty_one_is_a_blob_too(blobs: Blobs) -> None:
    digest = hashlib.sha256().hexdigest()
    assert blobs.put(digest, []) == 0
    blob = blobs.open(digest)
    assert blob is not None
    assert (blob.size, blob.read_at(0, 10)) == (0, b"")


@pytest.mark.parametrize("content", [CONTENT, LARGE])
def test_other_bytes_than_named_are_refused_and_nothing_stays(place: Place, content: bytes) -> None:
    digest = hashlib.sha256(content).hexdigest()
    with pytest.raises(PublisherError) as caught:
        place.blobs.put(digest, _pieces(content[:-1], 1 << 20))
    assert caught.value.code == "download.hash"
    assert place.blobs.open(digest) is None
    assert place.kept() == []


def test_putting_again_keeps_what_is_there(blobs: Blobs) -> None:
    blobs.put(DIGEST, [CONTENT])
    held = blobs.open(DIGEST)
    assert blobs.put(DIGEST, [CONTENT]) == len(CONTENT)
    assert held is not None
    assert held.read_at(0, 10) == CONTENT[:10]
    assert blobs.size(DIGEST) == len(CONTENT)


@pytest.mark.parametrize("count", [100, len(LARGE) // 2])
def test_a_source_that_breaks_off_leaves_nothing(place: Place, count: int) -> None:
    def broken() -> Iterator[bytes]:
        yield from _pieces(LARGE[:count], 1 << 20)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        place.blobs.put(LARGE_DIGEST, broken())
    assert place.kept() == []


@pytest.mark.parametrize("name", ["", "../../etc/passwd", DIGEST.upper(), DIGEST + "0", "a/b"])
def test_a_name_that_is_no_digest_finds_nothing(blobs: Blobs, name: str) -> None:
    assert blobs.open(name) is None
    assert blobs.size(name) is None
    assert blobs.link(name, 60) is None


def test_deleting_is_safe_to_repeat(blobs: Blobs) -> None:
    blobs.put(DIGEST, [CONTENT])
    blobs.delete(DIGEST)
    blobs.delete(DIGEST)
    assert blobs.open(DIGEST) is None
    assert blobs.size(DIGEST) is None
    assert blobs.link(DIGEST, 60) is None


def test_an_upload_goes_on_in_another_process_where_it_was_cut_off(place: Place) -> None:
    upload = place.blobs.begin_upload("u1", len(LARGE))
    size, other = upload.part_bytes, place.again()
    assert other.upload_offset(upload) == 0
    assert place.blobs.append_upload(upload, 0, LARGE[:size]) == size
    assert other.upload_offset(upload) == size
    with pytest.raises(RequestError) as caught:
        other.append_upload(upload, 0, LARGE[:size])
    assert caught.value.code == "request.conflict"
    assert other.open_upload(upload) is None
    for at in range(size, len(LARGE), size):
        other.append_upload(upload, at, LARGE[at : at + size])
    assert place.blobs.upload_offset(upload) == len(LARGE)
    for whole in (other.open_upload(upload), place.again().open_upload(upload)):
        assert whole is not None
        assert whole.size == len(LARGE)
        assert whole.read_at(size - 3, 6) == LARGE[size - 3 : size + 3]
        assert whole.read_at(len(LARGE) - 4, 9) == LARGE[-4:]
        whole.close()
    assert other.upload_offset(upload) == len(LARGE)
    other.drop_upload(upload)
    other.drop_upload(upload)
    assert place.blobs.upload_offset(upload) == 0
    assert place.kept() == []


def test_what_is_no_part_is_refused(place: Place) -> None:
    upload = place.blobs.begin_upload("u1", len(LARGE))
    for offset, part in ((0, b"abc"), (3, LARGE[: upload.part_bytes]), (0, b"")):
        with pytest.raises(RequestError) as caught:
            place.blobs.append_upload(upload, offset, part)
        assert caught.value.code == "request.invalid"
    assert place.blobs.upload_offset(upload) == 0


def test_an_upload_that_is_dropped_in_the_middle_leaves_nothing(place: Place) -> None:
    upload = place.blobs.begin_upload("u1", len(LARGE))
    place.blobs.append_upload(upload, 0, LARGE[: upload.part_bytes])
    place.blobs.drop_upload(upload)
    assert place.kept() == []
    assert place.blobs.open_upload(upload) is None


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-x"])
def test_an_upload_is_named_by_us(blobs: Blobs, name: str) -> None:
    with pytest.raises(RequestError):
        blobs.begin_upload(name, 10)


def test_a_blob_outlives_its_process(tmp_path: Path) -> None:
    if (child := os.fork()) == 0:
        LocalBlobs(tmp_path).put(DIGEST, [CONTENT])
        os._exit(0)
    os.waitpid(child, 0)
    assert LocalBlobs(tmp_path).size(DIGEST) == len(CONTENT)


def test_what_a_killed_process_left_half_written_is_swept_and_nothing_else(tmp_path: Path) -> None:
    read, told = os.pipe()

    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(1 << 16)
            os.write(told, b"x")
            time.sleep(0.01)

    if (child := os.fork()) == 0:
        LocalBlobs(tmp_path / "blobs").put(DIGEST, endless())
    try:
        os.read(read, 1)
        partial = tmp_path / "blobs" / "partial"
        (partial / "upload-u1").write_bytes(b"part")
        create(Where(), tmp_path)
        left = len(list(partial.iterdir()))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert left == 2, "who still writes is left alone"
    create(Where(), tmp_path)
    assert [one.name for one in partial.iterdir()] == ["upload-u1"]


def test_parts_grow_where_ten_thousand_would_not_do(bucket: str, moto: str) -> None:
    upload = blobs_at(moto, bucket).begin_upload("u1", 200 << 30)
    assert upload.part_bytes > s3_module.PART_BYTES
    assert -(-upload.length // upload.part_bytes) <= 10_000


def test_emptying_takes_blobs_and_what_is_on_its_way_and_nothing_that_lies_beside(
    place: Place,
) -> None:
    place.blobs.put(DIGEST, _pieces())
    gathering = place.blobs.begin_upload("half", len(LARGE))
    place.blobs.append_upload(gathering, 0, LARGE[: gathering.part_bytes])
    if place.store is not None:
        client = raw_client(place.store[0])
        client.put_object(Bucket=place.store[1], Key="beside/notes.txt", Body=b"x")
    elif place.folder is not None:
        (place.folder.parent / "beside").write_bytes(b"x")
    place.blobs.empty()
    assert [one for one in place.kept() if "beside" not in one] == []
    if place.store is not None:
        assert place.kept() == ["beside/notes.txt"]
    place.blobs.empty()
    assert place.blobs.put(DIGEST, _pieces()) == len(CONTENT)
