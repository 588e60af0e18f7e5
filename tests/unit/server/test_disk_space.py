"""A disk that gets full: files do not take its last, and what did not fit is gone."""

import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidegate.core.errors import BusyError
from tidegate.server.blobs import local
from tidegate.server.blobs.local import PART_BYTES, LocalBlobs

DIGEST = "a" * 64
SMALL = 1 << 20


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path)


def _free(monkeypatch: pytest.MonkeyPatch, total: int, free: int) -> None:
    usage = shutil.disk_usage("/")._replace(total=total, free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)


@pytest.mark.parametrize(
    ("total", "free", "fits"),
    [
        (10 << 40, local.RESERVE_BYTES + PART_BYTES, True),
        (10 << 40, local.RESERVE_BYTES + PART_BYTES - 1, False),
        (100 << 20, (5 << 20) + PART_BYTES, True),
        (100 << 20, (5 << 20) + PART_BYTES - 1, False),
    ],
)
def test_the_last_of_a_disk_is_left_alone(
    blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch, total: int, free: int, fits: bool
) -> None:
    upload = blobs.begin_upload("u", 2 * PART_BYTES)
    _free(monkeypatch, total, free)
    if fits:
        assert blobs.append_upload(upload, 0, bytes(PART_BYTES)) == PART_BYTES
        return
    with pytest.raises(BusyError, match=r"data\.full"):
        blobs.append_upload(upload, 0, bytes(PART_BYTES))
    with pytest.raises(BusyError, match=r"data\.full"):
        blobs.put(DIGEST, [bytes(PART_BYTES)])
    assert blobs.upload_offset(upload) == 0
    assert blobs.size(DIGEST) is None


@pytest.fixture
def bounded() -> Iterator[None]:
    """No file may grow beyond a megabyte."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("bounded")
def test_what_did_not_fit_of_a_part_is_gone(blobs: LocalBlobs, tmp_path: Path) -> None:
    upload = blobs.begin_upload("u", PART_BYTES)
    with pytest.raises(BusyError) as caught:
        blobs.append_upload(upload, 0, bytes(PART_BYTES))
    assert caught.value.code == "data.full"
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) == 0
