"""A raw image of 512 MB into a file-backed slot: our worker beside a plain copy and beside RAUC, all in one run, taking turns.

What each does: the copy hashes, writes, flushes once and reads back with a hash. RAUC checks the signature over its bundle, unpacks, writes, flushes once,
and reads nothing back. We fetch over HTTP, hash what came, unpack, hash that, write, flush every 16 MiB and keep account of it, and read back with a hash;
the start of our program counts, that of RAUC's service does not.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from bench.figure import Figure
from bench.servers import control_plane, stopping

from tidegate.core.hardware import HardwareRange
from tidegate.core.release import Install, PayloadRef, ReleaseTarget
from tidegate.publisher.pack import pack
from tidegate.server.blobs.local import LocalBlobs
from tidegate.sim.load.stock import fill

SIZE = 512_000_000
ROUNDS = 3
HERE = Path(__file__).resolve().parent
_SYSTEM = """[system]
compatible=gw1
bootloader=custom
mountprefix={folder}/mnt
statusfile={folder}/status
bundle-formats=plain
activate-installed=false
[handlers]
bootloader-custom-backend={folder}/backend
[keyring]
path={folder}/cert.pem
[slot.rootfs.0]
device={folder}/slot-a
type=raw
bootname=A
[slot.rootfs.1]
device={folder}/slot-b
type=raw
bootname=B
"""
_BACKEND = "#!/bin/sh\ncase $1 in get-primary|get-current) echo A;; get-state) echo good;; esac\n"
_BUS = """<busconfig><type>system</type><listen>unix:path={folder}/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/>
<allow own="*"/><allow user="*"/></policy></busconfig>
"""


def make_image(path: Path) -> None:
    """Write half a gigabyte: in turn a MiB that nothing compresses and a MiB of text, as in a root file system."""
    text = b"".join(
        f"line {number}: of a log that compresses well\n".encode() for number in range(50_000)
    )
    with path.open("wb") as file:
        left = SIZE
        while left:
            part = min(1 << 20, left)
            number = left >> 20
            start = (number * 7919) % (len(text) - part) if number % 2 else 0
            file.write(os.urandom(part) if number % 2 == 0 else text[start : start + part])
            left -= part


def make_release(folder: Path, image: Path) -> tuple[Path, Path]:
    """Pack the image; return the signed part of its release, and the folder that is served."""
    served = folder / "served"
    served.mkdir()
    packed = pack(image, served / "payload", level=3)
    (served / "payload").rename(served / packed.sha256)
    full = PayloadRef(
        kind="full", sha256=packed.sha256, length=packed.length, index_sha256=packed.index_sha256
    )
    release = ReleaseTarget(
        product="gw1", version="1.0.0", release_counter=1, security_version=1, channels=("stable",),
        hardware=(HardwareRange("gw1", 0, 9),), payloads=(full,),
        install=Install(size=packed.image_size, sha256=packed.image_sha256),
    )  # fmt: skip
    path = folder / "release.json"
    path.write_bytes(msgspec.json.encode(release))
    return path, served


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve the payload from a process of its own: its work is not the device's."""
    command = [sys.executable, "-m", "bench.file_server", str(folder)]
    process = subprocess.Popen(command, cwd=HERE.parent, stdout=subprocess.PIPE)
    with stopping(process):
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"


def client(*words: str) -> dict[str, float]:
    """Install once in a process of its own."""
    command = [sys.executable, "-m", "bench.install_client", *words]
    done = subprocess.run(
        command, cwd=HERE.parent, capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def publish(data: Path, payload: Path) -> str:
    """Put the payload into the data directory of a control plane that does not run; return a device's token."""
    with payload.open("rb") as file:
        LocalBlobs(data / "blobs").put(payload.name, iter(lambda: file.read(1 << 20), b""))
    return fill(data, 1, int(time.time()), 3600).token(0)


def make_bundle(folder: Path, image: Path) -> Path:
    """Make a signed RAUC bundle of the image, compressed as our payload is."""
    content = folder / "content"
    content.mkdir()
    os.link(image, content / "rootfs.img")
    (content / "manifest.raucm").write_text(
        "[update]\ncompatible=gw1\nversion=1\n[image.rootfs]\nfilename=rootfs.img\n"
    )
    key = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -subj /CN=bench"
    subprocess.run(key.split(), cwd=folder, check=True, capture_output=True)
    command = "rauc bundle --cert=cert.pem --key=key.pem content bundle.raucb"
    options = "--mksquashfs-args=-comp zstd -Xcompression-level 3"
    subprocess.run([*command.split(), options], cwd=folder, check=True, capture_output=True)
    return folder / "bundle.raucb"


@contextmanager
def rauc(folder: Path) -> Iterator[dict[str, str]]:
    """Run RAUC's service on a bus of its own; gives the environment in which its program finds it."""
    (folder / "mnt").mkdir()
    (folder / "backend").write_text(_BACKEND)
    (folder / "backend").chmod(0o755)
    (folder / "system.conf").write_text(_SYSTEM.format(folder=folder))
    (folder / "bus.conf").write_text(_BUS.format(folder=folder))
    where = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={folder}/bus"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    bus = subprocess.Popen(["dbus-daemon", f"--config-file={folder}/bus.conf", "--nofork"], **quiet)  # type: ignore[call-overload]
    with stopping(bus):
        while not (folder / "bus").exists():
            time.sleep(0.02)
        command = ["rauc", "-c", f"{folder}/system.conf", "service", "--override-boot-slot=A"]
        service = subprocess.Popen(command, env=where, **quiet)  # type: ignore[call-overload]
        with stopping(service):
            end = time.monotonic() + 30
            while subprocess.run(["rauc", "status"], env=where, check=False, **quiet).returncode:  # type: ignore[call-overload]
                if time.monotonic() > end:
                    raise RuntimeError("rauc's service does not answer")
                time.sleep(0.1)
            yield where


def rauc_install(bundle: Path, where: dict[str, str]) -> float:
    """Have RAUC install the bundle; return its wall time in seconds."""
    begin = time.monotonic()
    subprocess.run(["rauc", "install", bundle], env=where, check=True, capture_output=True)
    return time.monotonic() - begin


def fresh(slot: Path) -> Path:
    """Make an empty slot, nothing of it in the cache."""
    slot.unlink(missing_ok=True)
    with slot.open("wb") as file:
        file.truncate(SIZE + (1 << 20))
    os.sync()
    return slot


def measure() -> list[Figure]:
    """Install with all of them in turn, some rounds; the least of each counts, since what disturbs only makes slower."""
    if not all(map(shutil.which, ("rauc", "dbus-daemon", "mksquashfs"))):
        raise SystemExit("bench: install the Debian packages rauc, dbus-daemon and squashfs-tools")
    took: dict[str, list[dict[str, float]]] = {
        one: [] for one in ("copy", "ours", "whole", "fetch")
    }
    theirs: list[float] = []
    with tempfile.TemporaryDirectory(prefix="b") as scratch:
        folder = Path(scratch)
        image = folder / "rootfs.img"
        make_image(image)
        release, served = make_release(folder, image)
        (payload,) = served.iterdir()
        bundle = make_bundle(folder, image)
        token = publish(folder / "data", payload)
        slot = fresh(folder / "slot-b")
        fresh(folder / "slot-a")
        with (
            serving(served) as url,
            rauc(folder) as where,
            control_plane(folder / "data") as (_, port),
        ):
            plane = f"http://127.0.0.1:{port}"
            for _ in range(ROUNDS):
                took["copy"].append(client("copy", str(image), str(fresh(slot))))
                ours = ("install", scratch, url, str(release), str(fresh(slot)))
                took["ours"].append(client(*ours))
                fresh(slot)
                theirs.append(rauc_install(bundle, where))
                whole = ("install", scratch, plane, str(release), str(fresh(slot)), token)
                took["whole"].append(client(*whole))
                blob = f"{plane}/d/v1/blobs/{payload.name}"
                took["fetch"].append(client("fetch", blob, token, str(fresh(slot))))
        stored_mb = payload.stat().st_size / 1e6

    def least(what: str, key: str = "wall_s") -> float:
        return min(one[key] for one in took[what])

    copy, wall, rival = least("copy"), least("ours"), min(theirs)
    peak = max(one["peak_mib"] for one in (*took["ours"], *took["whole"]))
    return [
        Figure(
            name="install of 512 MB and read-back", value=wall, unit="s",
            reference=copy, against="copy with SHA-256 and read-back", bar=1.5 * copy, at_most=True,
        ),
        Figure(
            name="install of 512 MB and read-back", value=wall, unit="s",
            reference=rival, against="rauc install, one flush, no read-back", bar=rival, at_most=True,
        ),
        Figure(
            name="install of 512 MB without its read-back", value=least("ours", "downloaded_s"), unit="s",
            reference=rival, against="rauc install, the same",
        ),
        Figure(
            name="install: processor time of the worker", value=least("ours", "cpu_s"), unit="s",
            reference=least("copy", "cpu_s"), against="the copy",
        ),
        Figure(
            name="install from the control plane, as packed", value=stored_mb / least("whole"), unit="MB/s",
            reference=stored_mb / least("fetch"), against="http.client into a file, nothing checked or unpacked",
        ),
        Figure(name="install: peak memory of the worker", value=peak, unit="MiB", bar=64, at_most=True),
    ]  # fmt: skip
