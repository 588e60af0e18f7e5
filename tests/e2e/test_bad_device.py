"""What is wrong with the device itself: its slots, its disk. A real agent says so in one line with a code, the update ends, and what runs is not touched.

The media are real: file systems that are full or mounted read-only, block devices that are mounted, and one that cannot keep what it took.
"""

import hashlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from random import Random

import pytest
from tests.crash import releases
from tests.crash.lab import Order, Plane
from tests.crash.releases import BLOCK, SLOT_SIZE
from tests.unit.agent.test_process import VirtualBoard, board, make_plane, until_told

from tidegate.agent.boot import file_record
from tidegate.agent.install.slot_file import SlotFile
from tidegate.sim.virtual_board import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

#: Room for a part of the image, which is twice as large.
SMALL = "96k"
IMAGE = 48 * BLOCK


@pytest.fixture
def plane(monkeypatch: pytest.MonkeyPatch) -> Plane:
    monkeypatch.setattr(releases, "make_image", lambda counter: Random(counter).randbytes(IMAGE))
    made = make_plane()
    made.order = None
    return made


def run(*words: str | Path) -> str:
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=30)
    return done.stdout.strip()


@pytest.fixture
def media(tmp_path: Path) -> Iterator[ExitStack]:
    """Take away in the end what was mounted and attached."""
    probe = tmp_path / "probe"
    probe.mkdir()
    tried = subprocess.run(
        ["mount", "-t", "tmpfs", "none", probe], check=False, capture_output=True, text=True
    )
    if tried.returncode:
        pytest.skip(f"tier: nobody may mount here; run as root: {tried.stderr.strip()}")
    with ExitStack() as stack:
        stack.callback(run, "umount", probe)
        yield stack


def small(media: ExitStack, where: Path) -> Path:
    """Mount a file system that is soon full."""
    where.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size={SMALL}", "none", where)
    media.callback(run, "umount", "-l", where)
    return where


def attached(media: ExitStack, image: Path) -> str:
    """Make a block device of a file."""
    done = subprocess.run(
        ["losetup", "--find", "--show", image], check=False, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(
            f"tier: no loop devices here; install the Debian package mount: {done.stderr.strip()}"
        )
    device = done.stdout.strip()
    media.callback(run, "losetup", "-d", device)
    return device


def full(media: ExitStack, folder: Path) -> tuple[str, str]:
    """A file that cannot grow to the size of the image."""
    return str(small(media, folder / "small") / "B"), "256KiB"


def read_only(media: ExitStack, folder: Path) -> tuple[str, str]:
    """A file on a medium that went read-only, as one does after errors."""
    where = small(media, folder / "small")
    (where / "B").touch()
    run("mount", "-o", "remount,ro", where)
    return str(where / "B"), "256KiB"


def failing(media: ExitStack, folder: Path) -> tuple[str, str]:
    """A block device that takes writes into its cache, and then fails to keep them: what lies under it is full. The kernel says EIO."""
    image = small(media, folder / "small") / "medium"
    with image.open("wb") as file:
        file.truncate(SLOT_SIZE)
    return attached(media, image), ""


def mounted(media: ExitStack, folder: Path) -> tuple[str, str]:
    """A partition that somebody uses: the wrong one is named, or it was not unmounted."""
    image = folder / "partition"
    with image.open("wb") as file:
        file.truncate(1 << 20)
    run("mke2fs", "-q", "-F", image)
    device = attached(media, image)
    (folder / "used").mkdir()
    run("mount", device, folder / "used")
    media.callback(run, "umount", folder / "used")
    return device, ""


def too_small(media: ExitStack, folder: Path) -> tuple[str, str]:
    """Smaller than the image."""
    return str(folder / "B"), "64KiB"


@contextmanager
def started(plane: Plane, folder: Path, change: Callable[[str], str]) -> Iterator[VirtualBoard]:
    """Run an agent whose configuration was changed, until it has polled."""
    with board(plane, folder) as made:
        made.kill()
        text = made.config.read_text().replace('rate = "4KiB/s"', 'rate = "off"')
        made.config.write_text(change(text))
        with (folder / "agent.log").open("wb") as log:
            made.log = log
            made.start()
            assert wait_for(lambda: "/d/v1/poll" in plane.requests, 30)
            yield made


def decides(folder: Path) -> str:
    """Return which slot the boot loader starts next."""
    slot, _ = file_record.decide(file_record.decode((folder / "boot.json").read_bytes()))
    return slot


@pytest.mark.parametrize(
    ("medium", "code"),
    [
        (full, "install.space"),
        (read_only, "install.slot"),
        (failing, "install.write"),
        (mounted, "install.slot"),
        (too_small, "install.slot"),
    ],
)
def test_a_slot_that_cannot_be_used_ends_the_update_and_touches_nothing(
    plane: Plane,
    tmp_path: Path,
    media: ExitStack,
    medium: Callable[[ExitStack, Path], tuple[str, str]],
    code: str,
) -> None:
    path, size = medium(media, tmp_path)

    def change(text: str) -> str:
        head, _, tail = text.partition(f'path = "{tmp_path}/B"\nsize = "256KiB"\n')
        assert tail
        return f'{head}path = "{path}"\n' + (f'size = "{size}"\n' if size else "") + tail

    before = hashlib.sha256(Path(path).read_bytes()).digest() if medium is mounted else b""
    with started(plane, tmp_path, change) as made:
        running = hashlib.sha256((tmp_path / "A").read_bytes()).digest()
        plane.order = Order("install", plane.releases[1], "u-1")
        made.agent("check")
        until_told(plane, made)
        assert plane.outcomes() == [("failed", code)]
        told = next(one for one in plane.events.values() if one.kind == "failed")
        assert (path if medium is not too_small else "a slot of 65536") in told.detail
        # What runs, and what would run after a reset, is as before; nobody was asked for leave, and the same process lives on.
        assert hashlib.sha256((tmp_path / "A").read_bytes()).digest() == running
        assert (decides(tmp_path), made.boots, plane.permits) == ("A", 1, {})
        assert made.process is not None
        assert made.process.poll() is None
        assert made.agent("status").returncode == 0
    if medium is mounted:
        assert hashlib.sha256(Path(path).read_bytes()).digest() == before


def test_a_slot_that_an_ending_worker_still_holds_is_waited_for(
    media: ExitStack, tmp_path: Path
) -> None:
    image = tmp_path / "medium"
    image.write_bytes(bytes(SLOT_SIZE))
    device = attached(media, image)
    held = os.open(device, os.O_RDWR | os.O_EXCL)
    ended = threading.Timer(0.5, os.close, [held])
    began = time.monotonic()
    ended.start()
    try:
        with closing(SlotFile(device, None)) as slot:
            assert time.monotonic() - began >= 0.5
            slot.write_at(0, b"x")
            slot.flush()
    finally:
        ended.join()


def test_of_two_agents_that_start_at_once_one_runs_and_the_other_says_why(
    plane: Plane, tmp_path: Path
) -> None:
    with board(plane, tmp_path) as made:
        made.kill()
        logs = [tmp_path / f"agent-{number}.log" for number in range(2)]
        processes = []
        for path in logs:
            with path.open("wb") as log:
                made.log = log
                made.start()
                assert made.process is not None
                processes.append(made.process)
        try:
            assert wait_for(lambda: any(one.poll() is not None for one in processes), 30)
            codes = [one.poll() for one in processes]
            assert sorted(codes, key=str) == [1, None]
            loser = logs[codes.index(1)].read_text()
            assert loser.startswith("error[agent.locked]: another agent runs with"), loser
            # The socket is the winner's, whoever came first to the rest.
            assert wait_for(lambda: made.agent("status").returncode == 0, 30)
            assert processes[codes.index(None)].poll() is None
        finally:
            for one in processes:
                one.kill()
                one.wait()


def test_a_state_directory_that_is_full_stops_everything_and_is_waited_for(
    plane: Plane, tmp_path: Path, media: ExitStack
) -> None:
    where = small(media, tmp_path / "small")
    text = f'dir = "{tmp_path}/state"'
    with started(
        plane, tmp_path, lambda told: told.replace(text, f'dir = "{where}/state"')
    ) as made:
        with (where / "filler").open("wb", buffering=0) as filler:
            while (where / "filler").stat().st_size < 1 << 20:
                try:
                    filler.write(bytes(1024))
                except OSError:
                    break
        running = (tmp_path / "A").read_bytes()
        plane.order = Order("install", plane.releases[1], "u-1")
        made.agent("check")
        assert wait_for(
            lambda: b"error[install.space]" in (tmp_path / "agent.log").read_bytes(), 30
        )
        # Before the journal says so, nothing is begun.
        assert ((tmp_path / "A").read_bytes(), (tmp_path / "B").exists()) == (running, False)
        assert (decides(tmp_path), plane.outcomes(), plane.permits) == ("A", [], {})
        assert made.agent("status").returncode == 0
        (where / "filler").unlink()
        made.agent("check")
        # Nobody had to act on the device: it goes on where it was.
        assert wait_for(lambda: "staged" in plane.kinds(), 45)
    log = (tmp_path / "agent.log").read_text()
    assert "Traceback" not in log
