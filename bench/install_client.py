"""One installation in a process of its own: by our worker, or a plain copy. Prints its wall and processor time and its peak memory as JSON."""

import hashlib
import json
import os
import resource
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import msgspec
from bench.process import peak_mib

PIECE = 1 << 20


def copy(image: Path, slot: Path) -> None:
    """Copy with SHA-256, flush, and read back with SHA-256: what an installer cannot do less of."""
    buffer = memoryview(bytearray(PIECE))
    digest, again = hashlib.sha256(), hashlib.sha256()
    with image.open("rb", buffering=0) as source, slot.open("r+b", buffering=0) as target:
        while count := source.readinto(buffer):
            digest.update(buffer[:count])
            target.write(buffer[:count])
        os.fdatasync(target.fileno())
        size = target.tell()
        target.seek(0)
        os.posix_fadvise(target.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while size:
            count = target.readinto(buffer[: min(PIECE, size)])
            again.update(buffer[:count])
            size -= count
    if digest.digest() != again.digest():
        raise SystemExit("the copy differs")


def install(folder: Path, url: str, release_file: Path, slot: Path) -> None:
    """Have the agent's worker download into the slot, and read it back."""
    from tidegate.agent.board import SlotFile, SystemClock
    from tidegate.agent.events import Download, Downloaded, Installed, ReadBack
    from tidegate.agent.files import StateDirectory
    from tidegate.agent.jobs import Task
    from tidegate.agent.net.link import HttpTransport
    from tidegate.agent.settings import Settings
    from tidegate.agent.state import State, Update
    from tidegate.agent.worker import Worker
    from tidegate.core.hardware import Hardware
    from tidegate.core.release import ReleaseTarget

    release = msgspec.json.decode(release_file.read_bytes(), type=ReleaseTarget)
    world = SimpleNamespace(
        clock=SystemClock(),
        storage=StateDirectory(str(folder / "state")),
        transport=HttpTransport(url),
        board=SimpleNamespace(open_slot=lambda _name: SlotFile(str(slot), None)),
    )
    settings = Settings(device_id="dev-bench", product="gw1", hardware=Hardware("gw1", 3))
    worker = Worker(world, settings)  # as much of a device as an installation needs
    update = Update(update="u-1", release=release, slot="B")
    *_, last = worker.perform(Task(job=Download(update=update, progress=None), state=State()))
    if not isinstance(last, Downloaded):
        raise SystemExit(f"not downloaded: {last}")
    *_, last = worker.perform(Task(job=ReadBack(update=update), state=State()))
    if not isinstance(last, Installed):
        raise SystemExit(f"not installed: {last}")


def main(what: str, *words: str) -> None:
    """Do it once."""
    begin = time.monotonic()
    if what == "copy":
        copy(Path(words[0]), Path(words[1]))
    else:
        install(Path(words[0]), words[1], Path(words[2]), Path(words[3]))
    used = resource.getrusage(resource.RUSAGE_SELF)
    found = {
        "wall_s": time.monotonic() - begin,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_mib": peak_mib(os.getpid()),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
