"""The worker process of a device, as its loop runs it, with a slot in a file; and a release for it."""

import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tidegate.agent.board import SystemClock
from tidegate.agent.events import Download, Downloaded, Failed, Progressed
from tidegate.agent.jobs import Quiet, Reply, Task, TokenRefused
from tidegate.agent.settings import Config, ErrorSource, Settings
from tidegate.agent.state import Progress, State, Update
from tidegate.agent.subprocess_worker import SubprocessWorker
from tidegate.core.hardware import Hardware, HardwareRange
from tidegate.core.release import Install, PayloadRef, ReleaseTarget
from tidegate.publisher.pack import Packed, pack

SIZE: Final = 1 << 20
SEGMENT: Final = 64 << 10
ROOT: Final = Path(__file__).resolve().parents[2]


class Goods:
    """A release whose payload hardly compresses.

    Attributes:
        served: folder that a server serves.
        body: the payload.
    """

    def __init__(self, folder: Path, size: int = SIZE) -> None:
        self.image = random.Random(7).randbytes(size)
        (folder / "image").write_bytes(self.image)
        packed: Packed = pack(folder / "image", folder / "payload", level=1, segment_size=SEGMENT)
        self.served = folder / "served"
        self.served.mkdir()
        (folder / "payload").rename(self.served / packed.sha256)
        self.body = (self.served / packed.sha256).read_bytes()
        payload = PayloadRef(
            kind="full",
            sha256=packed.sha256,
            length=packed.length,
            index_sha256=packed.index_sha256,
        )
        self.release = ReleaseTarget(
            product="gw1",
            version="1.0.0",
            release_counter=1,
            security_version=1,
            channels=("stable",),
            hardware=(HardwareRange("gw1", 0, 9),),
            payloads=(payload,),
            install=Install(size=packed.image_size, sha256=packed.image_sha256),
        )


@contextmanager
def serving(folder: Path, *words: str, before: tuple[str, ...] = ()) -> Iterator[int]:
    """Serve a folder from a process of its own; gives the port."""
    command = [*before, sys.executable, "-m", "tests.link.origin", str(folder), *words]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


class Device:
    """One slot, one state directory, one worker process. `url`: where it looks for its server."""

    def __init__(
        self,
        folder: Path,
        goods: Goods,
        url: str,
        *,
        ca: str | None = None,
        slot: tuple[str, int | None] | None = None,
        **changes: Any,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.goods = folder, goods
        given = {"timeout_s": 30.0, "sync_bytes": 4 * SEGMENT, "rate_min": 0, **changes}
        settings = Settings(device_id="dev-1", product="gw1", hardware=Hardware("gw1", 3), **given)
        self.config = Config(
            settings=settings,
            url=url,
            ca=ca,
            timeout_s=settings.timeout_s,
            slots={
                "A": (str(folder / "A"), 2 * SIZE),
                "B": slot or (str(folder / "B"), len(goods.image)),
            },
            beside={},
            bootloader="file",
            boot_settings={"path": str(folder / "boot"), "slots": ["A", "B"], "current": "A"},
            reboot="",
            state_dir=str(folder / "state"),
            errors=ErrorSource(),
            inhibit_dir=str(folder / "inhibit"),
            socket_path=str(folder / "sock"),
            socket_mode=0o600,
            socket_group=None,
        )
        self.worker = SubprocessWorker(self.config, SystemClock())
        self.progress: Progress | None = None
        self.peak_kib = 0

    def fresh(self) -> None:
        """Forget everything that was fetched."""
        self.progress = None
        (self.folder / "B").unlink(missing_ok=True)
        for name in ("payload.head", "payload.part"):
            (self.folder / "state" / name).unlink(missing_ok=True)

    def fetch(self) -> str:
        """Make one attempt, as the loop does; return how it ended: `whole`, `token`, or the reason."""
        update = Update(update="u-1", release=self.goods.release, slot="B")
        job = Download(update=update, progress=self.progress)
        last: Reply | None = None
        for reply in self.worker.perform(Task(job=job, state=State(), token="token")):
            if isinstance(reply, Progressed | Downloaded):
                self.progress = reply.progress
            last = last if isinstance(reply, Quiet) else reply
        self._weigh()
        if isinstance(last, Failed):
            return last.reason
        if isinstance(last, TokenRefused):
            return "token"
        assert isinstance(last, Downloaded), last
        return "whole"

    def fetch_all(self, most: int = 60) -> list[str]:
        """Attempt until it is whole; return how each attempt ended."""
        ends: list[str] = []
        while "whole" not in ends:
            assert len(ends) < most, ends
            ends.append(self.fetch())
        return ends

    def holds_it(self) -> bool:
        """Is the image in its slot."""
        with Path(self.config.slots["B"][0]).open("rb") as file:
            return file.read(len(self.goods.image)) == self.goods.image

    def _weigh(self) -> None:
        process = self.worker._process
        if process is None:  # it was killed
            return
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        self.peak_kib = max(self.peak_kib, int(peak.split()[1]))

    def close(self) -> None:
        """End the worker."""
        self.worker.rest()
        shutil.rmtree(self.folder, ignore_errors=True)
