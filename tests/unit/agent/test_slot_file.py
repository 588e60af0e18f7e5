"""A slot's bytes on real files and block devices: what is written stands there, what is read comes from the medium, and every failure has its code."""

import errno
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tidegate.agent.install.slot_file import SlotFile
from tidegate.core.errors import DeviceError

MIB = 1 << 20
OPEN, PWRITE, PREADV = os.open, os.pwrite, os.preadv


def refused(*_: object) -> Any:
    raise OSError(errno.EINVAL, "Invalid argument")


def failing(code: int) -> Callable[..., Any]:
    def call(*_: object) -> Any:
        raise OSError(code, os.strerror(code))

    return call


def cached_only(path: str, flags: int, *mode: int) -> int:
    """Open as a file system does that knows no way past its cache."""
    if flags & os.O_DIRECT:
        refused()
    return OPEN(path, flags, *mode)


@pytest.fixture(params=["past the cache", "cached", "refused when written", "refused when read"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How far a file system goes along with reading and writing past its cache."""
    way: str = request.param
    if way == "cached":
        monkeypatch.setattr(os, "open", cached_only)
    if way == "refused when written":
        monkeypatch.setattr(
            os, "pwrite", lambda fd, data, at: refused() if direct(fd) else PWRITE(fd, data, at)
        )
    if way == "refused when read":
        monkeypatch.setattr(os, "preadv", refused)
    return way


def direct(handle: int) -> bool:
    import fcntl

    return bool(fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_DIRECT)


@pytest.mark.parametrize("seed", range(3))
def test_what_was_written_stands_there_whatever_its_place_and_length(
    tmp_path: Path, way: str, seed: int
) -> None:
    random = Random(f"{way} {seed}")
    size = 3 * MIB + 700
    path = tmp_path / "slot"
    path.write_bytes(random.randbytes(size))
    want = bytearray(path.read_bytes())
    with closing(SlotFile(str(path), None)) as slot:
        assert slot.size == size
        for _ in range(40):
            offset = random.choice((0, 4096, MIB, MIB - 4096, random.randrange(size)))
            length = random.choice((0, 1, 4096, 64 << 10, (64 << 10) + 1, MIB, 2 * MIB + 4097))
            length = min(length, size - offset)
            if random.random() < 0.2:
                slot.zero_at(offset, length)
                want[offset : offset + length] = bytes(length)
            else:
                data = random.randbytes(length)
                slot.write_at(offset, memoryview(data) if random.random() < 0.5 else data)
                want[offset : offset + length] = data
            at = random.randrange(size)
            assert slot.read_at(at, 100_000) == want[at : at + 100_000]
        slot.flush()
        assert slot.read_at(0, 2 * size) == want
    assert path.read_bytes() == want


def test_threads_may_write_read_and_flush_at_once(tmp_path: Path, way: str) -> None:
    parts = [Random(number).randbytes(256 << 10) for number in range(24)]
    wrong = []
    with closing(SlotFile(str(tmp_path / "slot"), 6 * MIB)) as slot:

        def work(mine: int) -> None:
            for number in range(mine, 24, 4):
                slot.write_at(number * (256 << 10), parts[number])
                slot.flush()
                if slot.read_at(number * (256 << 10), 256 << 10) != parts[number]:
                    wrong.append(number)

        threads = [threading.Thread(target=work, args=(mine,)) for mine in range(4)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    assert wrong == []
    assert (tmp_path / "slot").read_bytes() == b"".join(parts)


@contextmanager
def loop_device(backing: Path) -> Iterator[str]:
    """Make a block device of a file, so that the medium can change behind the device's cache."""
    if shutil.which("losetup") is None or os.geteuid() != 0:
        pytest.skip("tier: a loop device; needs root, install the Debian package mount")
    command = ["losetup", "--find", "--show", str(backing)]
    found = subprocess.run(command, check=False, capture_output=True, text=True)
    if found.returncode:
        pytest.skip(f"tier: a loop device: {found.stderr.strip()}")
    try:
        yield found.stdout.strip()
    finally:
        subprocess.run(["losetup", "--detach", found.stdout.strip()], check=True)


def test_what_is_read_comes_from_the_medium_and_not_from_a_cache(tmp_path: Path, way: str) -> None:
    backing = tmp_path / "medium"
    backing.write_bytes(bytes(4 * MIB))
    with loop_device(backing) as device, closing(SlotFile(device, None)) as slot:
        slot.write_at(0, b"\x01" * 2 * MIB)
        slot.flush()
        with open(device, "rb") as other:  # noqa: PTH123 - a device, held open so that it keeps its cache
            assert other.read(2 * MIB) == b"\x01" * 2 * MIB
            with backing.open("r+b") as medium:
                medium.seek(MIB + 5)
                medium.write(b"\x02")
            other.seek(MIB + 5)
            # The cache does not know: or else this proves nothing.
            assert other.read(1) == b"\x01"
            assert slot.read_at(MIB, 4096)[5] == 2
            assert slot.read_at(MIB + 5, 1) == b"\x02"


def test_what_was_flushed_is_on_the_medium(tmp_path: Path, way: str) -> None:
    backing = tmp_path / "medium"
    backing.write_bytes(bytes(4 * MIB))
    data = Random(1).randbytes(2 * MIB + 4096 + 13)
    with loop_device(backing) as device, closing(SlotFile(device, None)) as slot:
        slot.write_at(4096, data)
        slot.flush()
        assert backing.read_bytes()[4096 : 4096 + len(data)] == data


@pytest.mark.parametrize(
    ("name", "given", "code"),
    [
        ("pwrite", errno.EIO, "install.write"),
        ("pwrite", errno.EROFS, "install.write"),
        ("pwrite", errno.ENOSPC, "install.space"),
        ("pwrite", errno.EDQUOT, "install.space"),
        ("fdatasync", errno.EIO, "install.write"),
        ("preadv", errno.EIO, "install.readback"),
    ],
)
def test_a_failing_medium_has_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, given: int, code: str
) -> None:
    with closing(SlotFile(str(tmp_path / "slot"), MIB)) as slot:

        def use() -> None:
            slot.write_at(0, bytes(MIB))
            slot.flush()
            slot.read_at(0, MIB)

        monkeypatch.setattr(os, name, failing(given))
        with pytest.raises(DeviceError) as caught:
            use()
        assert caught.value.code == code
        assert str(tmp_path / "slot") in caught.value.detail


def test_nothing_is_written_outside_the_slot(tmp_path: Path) -> None:
    with closing(SlotFile(str(tmp_path / "slot"), MIB)) as slot:
        for offset, length in ((-1, 1), (MIB, 1), (MIB - 4096, 8192)):
            with pytest.raises(DeviceError) as caught:
                slot.write_at(offset, bytes(length))
            assert caught.value.code == "install.write"
    assert (tmp_path / "slot").stat().st_size == MIB


def test_what_cannot_be_opened_or_stretched_is_no_slot(tmp_path: Path) -> None:
    for path, size in ((tmp_path / "none", None), (tmp_path, None), (tmp_path / "b", 1 << 62)):
        with pytest.raises(DeviceError) as caught:
            SlotFile(str(path), size)
        assert caught.value.code == "install.slot"


def test_letting_go_may_be_repeated_and_closes_every_handle(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - of this process
    slot = SlotFile(str(tmp_path / "slot"), MIB)
    slot.write_at(0, bytes(MIB))
    slot.close()
    slot.close()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - of this process
