"""What every place for blobs promises, run over each back end."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidegate.core.errors import PublisherError, RequestError
from tidegate.server.blobs import Blobs
from tidegate.server.blobs.local import LocalBlobs

CONTENT = bytes(range(256)) * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return LocalBlobs(tmp_path / "blobs")


def _pieces() -> Iterator[bytes]:
    for start in range(0, len(CONTENT), 10_007):
        yield CONTENT[start : start + 10_007]


def test_what_was_put_is_read_back_from_any_offset(blobs: Blobs) -> None:
    assert blobs.put(DIGEST, _pieces()) == len(CONTENT)
    blob = blobs.open(DIGEST)
    assert blob is not None
    assert blob.size == len(CONTENT)
    assert blob.read_at(1000, 77) == CONTENT[1000:1077]
    assert blob.read_at(len(CONTENT) - 5, 100) == CONTENT[-5:]
    assert blob.read_at(len(CONTENT), 100) == b""
    blob.close()
    blob.close()


def test_other_bytes_than_named_are_refused_and_nothing_stays(blobs: Blobs, tmp_path: Path) -> None:
    with pytest.raises(PublisherError) as caught:
        blobs.put(DIGEST, [CONTENT[:-1]])
    assert caught.value.code == "download.hash"
    assert blobs.open(DIGEST) is None
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == []


def test_putting_again_keeps_what_is_there(blobs: Blobs) -> None:
    blobs.put(DIGEST, [CONTENT])
    held = blobs.open(DIGEST)
    blobs.put(DIGEST, [CONTENT])
    assert held is not None
    assert held.read_at(0, 10) == CONTENT[:10]
    assert blobs.size(DIGEST) == len(CONTENT)


def test_a_source_that_breaks_off_leaves_nothing(blobs: Blobs, tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield CONTENT[:100]
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        blobs.put(DIGEST, broken())
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == []


@pytest.mark.parametrize("name", ["", "../../etc/passwd", DIGEST.upper(), DIGEST + "0", "a/b"])
def test_a_name_that_is_no_digest_finds_nothing(blobs: Blobs, name: str) -> None:
    assert blobs.open(name) is None
    assert blobs.size(name) is None


def test_deleting_is_safe_to_repeat(blobs: Blobs) -> None:
    blobs.put(DIGEST, [CONTENT])
    blobs.delete(DIGEST)
    blobs.delete(DIGEST)
    assert blobs.open(DIGEST) is None


def test_an_upload_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    assert blobs.upload_offset("u1") == 0
    assert blobs.append_upload("u1", 0, b"abc") == 3
    with pytest.raises(RequestError) as caught:
        blobs.append_upload("u1", 0, b"abc")
    assert caught.value.code == "request.conflict"
    assert blobs.append_upload("u1", blobs.upload_offset("u1"), b"def") == 6
    assert blobs.upload_path("u1").read_bytes() == b"abcdef"
    blobs.drop_upload("u1")
    assert blobs.upload_offset("u1") == 0


def test_a_blob_outlives_its_process(tmp_path: Path) -> None:
    if (child := os.fork()) == 0:
        LocalBlobs(tmp_path).put(DIGEST, [CONTENT])
        os._exit(0)
    os.waitpid(child, 0)
    assert LocalBlobs(tmp_path).size(DIGEST) == len(CONTENT)
