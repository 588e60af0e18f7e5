"""One installation in a process of its own: our worker, a plain copy, or only the download. Prints wall and processor time and peak memory as JSON."""

import hashlib
import http.client
import json
import os
import resource
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import msgspec

from tidegate.sim.load.process import peak_mib

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


def fetch(url: str, token: str, path: Path) -> None:
    """Download into a file, and flush: no digest, nothing unpacked."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    connection.request("GET", parts.path, headers={"authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    if answer.status != 200:
        raise SystemExit(f"status {answer.status}")
    buffer = memoryview(bytearray(PIECE))
    with path.open("r+b", buffering=0) as target:
        while count := answer.readinto(buffer):
            target.write(buffer[:count])
        os.fdatasync(target.fileno())


def install(
    folder: Path, url: str, release_file: Path, slot: Path, token: str | None = None
) -> float:
    """Have the agent's worker download into the slot, and read it back; return the seconds until it was downloaded and flushed."""
    begin = time.monotonic()
    from tidegate.agent.board import SystemClock
    from tidegate.agent.events import Download, Downloaded, Installed, ReadBack
    from tidegate.agent.files import StateDirectory
    from tidegate.agent.install.slot_file import SlotFile
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
    task = Task(job=Download(update=update, progress=None), state=State(), token=token)
    *_, last = worker.perform(task)
    if not isinstance(last, Downloaded):
        raise SystemExit(f"not downloaded: {last}")
    downloaded = time.monotonic() - begin
    *_, last = worker.perform(Task(job=ReadBack(update=update), state=State()))
    if not isinstance(last, Installed):
        raise SystemExit(f"not installed: {last}")
    return downloaded


def main(what: str, *words: str) -> None:
    """Do it once."""
    begin, downloaded = time.monotonic(), 0.0
    match what:
        case "copy":
            copy(Path(words[0]), Path(words[1]))
        case "fetch":
            fetch(words[0], words[1], Path(words[2]))
        case _:
            folder, url, release, slot, *token = words
            downloaded = install(Path(folder), url, Path(release), Path(slot), *token)
    used = resource.getrusage(resource.RUSAGE_SELF)
    found = {
        "downloaded_s": downloaded,
        "wall_s": time.monotonic() - begin,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_mib": peak_mib(os.getpid()),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
