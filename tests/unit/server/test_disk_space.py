"""A disk that gets full: files do not take its last, and what did not fit is gone."""

import contextlib
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.server.rig import Rig

from tidegate.core.errors import BusyError
from tidegate.server import backup
from tidegate.server.blobs import local
from tidegate.server.blobs.local import PART_BYTES, LocalBlobs

DIGEST = "a" * 64


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


@contextlib.contextmanager
def bounded(count: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: what a system says then is what it says of a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_did_not_fit_of_a_part_is_gone(blobs: LocalBlobs, tmp_path: Path) -> None:
    upload = blobs.begin_upload("u", PART_BYTES)
    with bounded(1 << 20), pytest.raises(BusyError, match=r"data\.full"):
        blobs.append_upload(upload, 0, bytes(PART_BYTES))
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) == 0


@pytest.mark.sqlite("backs up the file")
@pytest.mark.parametrize("name", ["backup", "backup.tar"])
def test_a_disk_that_is_full_is_not_taken_for_a_bad_backup(rig: Rig, name: str) -> None:
    place, back = rig.folder.with_name(name), rig.folder.with_name("back")
    backup.back_up(rig.folder, place, int(rig.now))
    with bounded(100 << 10), pytest.raises(BusyError, match=r"data\.full.*back is full"):
        backup.bring_back(place, back)
    assert sorted(one.name for one in rig.folder.parent.iterdir()) == sorted(["data", name])
    backup.bring_back(place, back)
